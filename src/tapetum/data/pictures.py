"""Resized pictures by row number: decoded when asked for, or once into memory or a file."""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

from tapetum.core.atomic import make_folder, write_with
from tapetum.core.errors import DataError
from tapetum.core.types import Record
from tapetum.data.catalog import order_key
from tapetum.data.image_io import Backend, Interpolation, read_picture, resize
from tapetum.data.sampler import Rows
from tapetum.data.threads import Progress, map_in_threads, report

Cache = Literal["memory", "disk", "none"]
Pictures = NDArray[np.uint8]  # (B, H, W, 3)
_MEMORY_SHARE = 0.7  # of the memory that is free
_CHUNK = 256


@dataclass(frozen=True)
class PictureOptions:
    """How pictures are read."""

    size: tuple[int, int] = (256, 128)
    interpolation: Interpolation = "bicubic"  # the resize filter; part of the model
    backend: Backend = "cv2"  # likewise
    cache: Cache = "none"
    cache_dir: Path | None = None  # folder of the files of "disk"; None takes the user's cache folder
    num_workers: int = 2  # threads that decode and build batches; 0 works in the caller


def to_float(pictures: Pictures) -> NDArray[np.float32]:
    """Pictures in 0..1; NumPy, because its arithmetic starts no threads of its own inside a loader's thread."""
    return np.multiply(pictures, np.float32(1 / 255), dtype=np.float32)


def read_resized(path: Path, options: PictureOptions) -> Pictures:
    """One picture, (H, W, 3), decoded and resized."""
    return resize(read_picture(path), options.size, interpolation=options.interpolation, backend=options.backend)


def open_pictures(records: Sequence[Record], options: PictureOptions) -> Callable[[Rows], Pictures]:
    """What reads pictures by their rows among the records; what it gives is new memory.

    Raises:
        DataError: a picture cannot be read, or the pictures do not fit into memory.
    """
    if options.cache == "none":
        return partial(_decode, records, options)
    shape = (len(records), *options.size, 3)
    if options.cache == "disk":
        return _open_disk_cache(records, options, shape).__getitem__
    _check_memory(shape)
    pictures = np.empty(shape, np.uint8)
    position = 0
    for chunk in _decode_in_chunks(records, options):
        pictures[position : position + len(chunk)] = chunk
        position += len(chunk)
    return pictures.__getitem__


def _decode(records: Sequence[Record], options: PictureOptions, rows: Rows) -> Pictures:
    pictures = np.empty((len(rows), *options.size, 3), np.uint8)
    for place, row in enumerate(rows.tolist()):
        pictures[place] = read_resized(records[row].path, options)
    return pictures


def _decode_in_chunks(records: Sequence[Record], options: PictureOptions) -> Iterator[Pictures]:
    """Every picture once, in order, some hundred at a time."""
    chunks = [np.arange(start, min(start + _CHUNK, len(records))) for start in range(0, len(records), _CHUNK)]
    return map_in_threads(partial(_decode, records, options), chunks, options.num_workers, ahead=2)


def default_cache_dir() -> Path:
    """The user's folder for caches: TAPETUM_CACHE, else XDG_CACHE_HOME/tapetum, else ~/.cache/tapetum."""
    own = os.environ.get("TAPETUM_CACHE")
    return Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tapetum"


def _open_disk_cache(records: Sequence[Record], options: PictureOptions, shape: tuple[int, ...]) -> Pictures:
    """Map the cache file of these pictures and this filter; write it first where it is missing or cut short."""
    key = f"{order_key(records)} {options.size} {options.interpolation} {options.backend}"
    folder = options.cache_dir or default_cache_dir()
    path = folder / f"pictures-{hashlib.sha256(key.encode()).hexdigest()[:20]}.npy"
    try:
        pictures = np.load(path, mmap_mode="r")
        if pictures.shape == shape and pictures.dtype == np.uint8:
            return np.asarray(pictures)
    except (OSError, ValueError, EOFError):
        pass  # not there yet, or damaged: written anew
    make_folder(folder)

    def write(file: BinaryIO) -> None:  # not through a memory map, in which a full disk would kill the process
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        for chunk in _decode_in_chunks(records, options):
            file.write(chunk.data)

    write_with(path, write)
    return np.asarray(np.load(path, mmap_mode="r"))


def _check_memory(shape: tuple[int, ...]) -> None:
    """Refuse a cache that would drive the machine into swapping."""
    size = int(np.prod(shape))
    try:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return
    try:  # what can be had without swapping, where the system tells
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = max([free, *(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))])
    except OSError:
        pass
    if size > _MEMORY_SHARE * free:
        raise DataError(
            f"loader: {shape[0]} pictures of {shape[1]} x {shape[2]} need {size / 2**30:.1f} GiB of memory, "
            f"{free / 2**30:.1f} GiB are free; set data.cache to disk or none"
        )


def drop_corrupt(
    records: Sequence[Record], *, num_workers: int = 2, progress: Progress | None = None
) -> tuple[list[Record], list[str]]:
    """The records whose pictures can be decoded, in their order, and one message for each of the others."""

    def attempt(record: Record) -> str | None:
        try:
            read_picture(record.path)
        except DataError as error:
            return str(error)
        return None

    outcomes = list(report(map_in_threads(attempt, records, num_workers, ahead=64), len(records), progress))
    good = [record for record, problem in zip(records, outcomes, strict=True) if problem is None]
    return good, [problem for problem in outcomes if problem is not None]
