"""Files that are written whole or not at all: a temporary name, fsync, rename, fsync of the folder."""

import contextlib
import errno
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from tapetum.core.errors import OutputError


def write_bytes(path: Path, content: bytes) -> None:
    """Write a whole file; an existing one is replaced.

    Raises:
        OutputError: the folder cannot be written to, or the disk is full.
    """
    write_with(path, lambda file: file.write(content))


def write_with(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file through a function that gets it open; an existing one is replaced.

    Raises:
        OutputError: the folder cannot be written to, or the disk is full.
    """
    with replacing(path) as temporary, temporary.open("wb") as file:
        write(file)


@contextmanager
def replacing(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """A temporary name beside `path` that takes its place when the block ends well, and vanishes otherwise.

    Args:
        durable: what the block wrote and closed, and its new name, outlive a power cut. False leaves both to whoever
            writes many files, for which waiting for the disk each time would take longest.
    Raises:
        OutputError: the folder cannot be written to, or the disk is full.
        OSError: as it came, of another file that the block names.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{path.suffix}")
    try:
        yield temporary
        if durable:
            flush(temporary)
        temporary.replace(path)
        if durable:
            flush_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if error.filename is not None and str(error.filename) not in (str(temporary), str(path), str(path.parent)):
            raise
        reason = error.strerror or str(error)
        raise OutputError(f"{path}: cannot be written ({reason}); free space or choose another folder") from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def flush(path: Path) -> None:
    """Hold on until a closed file's bytes, or the names in a folder, are on the disk."""
    windows = os.name == "nt"  # flushes no folders, and files only of those who may write
    if windows and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDWR if windows else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def flush_folder(path: Path) -> None:
    """Flush the names in a folder, where its file system can and the folder may be looked into."""
    try:
        flush(path)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EACCES):
            raise


def make_folder(path: Path) -> None:
    """Make a folder and its parents; they may exist.

    Raises:
        OutputError: it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{path}: the folder cannot be made ({error.strerror}); choose another one") from error


@contextmanager
def new_folder(path: Path) -> Iterator[None]:
    """Make a folder before long work that will fill it; where that fails before writing anything, it vanishes again.

    One that exists stays in any case.

    Raises:
        OutputError: it cannot be made.
    """
    new = not path.exists()
    make_folder(path)
    try:
        yield
    except BaseException:
        if new:
            with contextlib.suppress(OSError):  # something lies in it
                path.rmdir()
        raise
