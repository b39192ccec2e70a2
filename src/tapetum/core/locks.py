"""One writer at a time in a folder; among threads, many who share something or one has it alone, or all share it."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
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


class SharedLock:
    """Many threads may share it, or one has it alone. No thread may ask for it that holds it already."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._sharing = 0
        self._wanted_alone = False

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Hold it with others, once nobody has it alone or waits for that."""
        with self._changed:
            self._changed.wait_for(lambda: not self._wanted_alone)
            self._sharing += 1
        try:
            yield
        finally:
            with self._changed:
                self._sharing -= 1
                self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold it alone, once those who share it are done."""
        with self._changed:
            self._changed.wait_for(lambda: not self._wanted_alone)
            self._wanted_alone = True
        try:
            with self._changed:
                self._changed.wait_for(lambda: not self._sharing)
            yield
        finally:
            with self._changed:
                self._wanted_alone = False
                self._changed.notify_all()


class SharedContext:
    """A setting of the whole process that several threads need at once: the first makes it, the last takes it back.

    Were each to put back what it found, one that leaves would change the setting under those who are still at work.

    Args:
        make: gives the context that makes the setting, and takes it back.
    """

    def __init__(self, make: Callable[[], AbstractContextManager[object]]) -> None:
        self._make = make
        self._changing = threading.Lock()
        self._inside = 0
        self._made = ExitStack()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Have the setting until this block ends."""
        with self._changing:
            if not self._inside:
                self._made.enter_context(self._make())
            self._inside += 1
        try:
            yield
        finally:
            with self._changing:
                self._inside -= 1
                if not self._inside:
                    self._made.close()
