"""Names for the content of footage: what decides whether a source was read before, whatever its files are called.

A picture is named by all its bytes, a video by its size and 18 blocks of 64 KiB spread from its first byte to its last:
another recording of the same size differs in them. What is changed between two blocks of a long video is not seen.
A file that was replaced in place is read again even where name, size and time of writing are the same.
"""

import contextlib
import hashlib
import os
import time
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np

from tapetum.core.errors import DataError
from tapetum.data.threads import map_in_threads
from tapetum.footage.sources import LoosePicture, Source

_BLOCK, _BLOCKS = 1 << 16, 18  # sampled of a long file
_REMEMBERED = 1 << 18  # pictures whose digest a process keeps, 100 bytes each or so
_THREADS = 4
_SETTLED = 2.0  # seconds after a change from which a file system's clock tells another one


def fingerprint_source(source: Source) -> str:
    """A name for the content of a source, whatever it is called and wherever it lies; 16 hexadecimal digits.

    Of pictures, their names below the source count too: their order is that of names, and times may be in them.

    Raises:
        DataError: a file is gone.
    """
    digest = hashlib.sha256(source.kind.encode())
    with _naming(source):
        if source.kind == "video":
            _add_video(digest, source.path)
            if source.stream:
                digest.update(f"stream {source.stream}".encode())
        else:
            contents = map_in_threads(_digest_picture, source.pictures, _THREADS)
            for picture, content in zip(source.pictures, contents, strict=True):
                digest.update(f"{os.path.relpath(picture.path, source.path)}\0{content}\n".encode())
    return digest.hexdigest()[:16]


def fingerprint_names(source: Source) -> str:
    """A source of pictures as version 0.1.0 named it before their content counted: by names and sizes.

    Raises:
        DataError: a file is gone.
    """
    digest = hashlib.sha256(source.kind.encode())
    with _naming(source):
        for picture in source.pictures:
            relative = os.path.relpath(picture.path, source.path)
            digest.update(f"{relative}\0{picture.path.stat().st_size}\n".encode())
    return digest.hexdigest()[:16]


@contextlib.contextmanager
def _naming(source: Source) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = f"cannot be read ({error.strerror}); correct the path or its permissions"
        raise DataError(f"{source.name}: {reason}") from None


def _add_video(digest: "hashlib._Hash", path: Path) -> None:
    size = path.stat().st_size
    digest.update(str(size).encode())
    with path.open("rb") as file:
        for place in np.unique(np.linspace(0, max(0, size - _BLOCK), _BLOCKS).astype(np.int64)).tolist():
            file.seek(place)
            digest.update(file.read(_BLOCK))


def _digest_picture(picture: LoosePicture) -> str:
    """A name for a picture's content; one that is there and cannot be read is named when it is read in earnest."""
    path, state = picture.path, picture.path.stat()
    try:
        if time.time() - state.st_ctime < _SETTLED:
            return _digest_file.__wrapped__(path)
        # The time of the last change of any kind cannot be set by hand: while it is the same, so is the content.
        return _digest_file(path, state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns)
    except FileNotFoundError:
        raise
    except OSError as error:
        return f"unreadable {error.errno}"


@lru_cache(_REMEMBERED)
def _digest_file(path: Path, *state: int) -> str:  # noqa: ARG001  # the key under which it is remembered
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
