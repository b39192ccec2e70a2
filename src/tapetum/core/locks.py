"""One writer at a time in a folder."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tapetum.core.errors import InUseError, OutputError


@contextmanager
def locked(path: Path, refusal: str | None) -> Iterator[None]:
    """Hold a lock file; the system lets go of it when the process ends, however it ends.

    Args:
        path: it stays, and names the last process that held it.
        refusal: start of the error where another process holds it; None waits for that process.
    Raises:
        InUseError: another process holds it.
        OutputError: the file cannot be written.
    """
    try:
        import fcntl
    except ImportError:  # no such locks on this system
        yield
        return
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror}); choose another folder") from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (fcntl.LOCK_NB if refusal is not None else 0))
            if os.fstat(descriptor).st_nlink == 0:  # its holder failed and took the folder away in between
                raise InUseError(f"{path}: removed by another run just now; type the same command again")
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"{os.getpid()}\n".encode())
        except BlockingIOError:
            owner = os.read(descriptor, 32).decode(errors="replace").strip() or "unknown"
            raise InUseError(f"{refusal} (process {owner}); wait for it or choose another folder") from None
        except OSError as error:  # e.g. a network disk without locks, or a full one
            raise OutputError(f"{path}: cannot be locked ({error.strerror}); choose another folder") from None
        yield
    finally:
        os.close(descriptor)
