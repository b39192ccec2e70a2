"""Files that are written whole or not at all: a temporary name, fsync, rename."""

import contextlib
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
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name beside `path` that takes its place when the block ends well, and vanishes otherwise.

    Raises:
        OutputError: the folder cannot be written to, or the disk is full.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{path.suffix}")
    try:
        yield temporary
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        reason = error.strerror or str(error)
        raise OutputError(f"{path}: cannot be written ({reason}); free space or choose another folder") from error
    except BaseException:
        temporary.unlink(missing_ok=True)
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
