"""Batches from records: pictures decoded once, kept small, changed a batch at a time.

A `PictureSource` gives resized uint8 pictures by row number, from memory, from a file or by decoding; a loader walks
over it. Decoding releases Python's lock, so the workers are threads.
"""

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from tapetum.core.atomic import make_folder, write_with
from tapetum.core.errors import DataError
from tapetum.core.types import Batch, Record
from tapetum.data.catalog import order_key
from tapetum.data.image_io import Backend, Interpolation, read_picture, resize
from tapetum.data.sampler import Rows, SampledBatch, Sampling, build_sampler, repeat_views
from tapetum.data.transforms import BatchPosition, Operation, augment_batch, to_float, to_tensor

Cache = Literal["memory", "disk", "none"]
Progress = Callable[[int, int], None]  # (done, total)
Pictures = NDArray[np.uint8]  # (B, H, W, 3)
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
_MEMORY_SHARE = 0.7  # of the memory that is free
_CHUNK = 256
_BLOCK = 64  # pictures whose changes are drawn together by `TrainLoader.all_pictures`


@dataclass(frozen=True)
class PictureOptions:
    """How pictures are read."""

    size: tuple[int, int] = (256, 128)
    interpolation: Interpolation = "bicubic"  # the resize filter; part of the model
    backend: Backend = "cv2"
    cache: Cache = "none"  # keep resized pictures in "memory", in a file ("disk") or not at all ("none")
    cache_dir: Path | None = None  # folder of the files of "disk"; None takes the user's cache folder
    num_workers: int = 2


class PictureSource(Protocol):
    """Resized pictures by row number."""

    def read(self, rows: Rows) -> Pictures:
        """(B, H, W, 3) uint8 of these rows."""
        ...


def map_in_threads(
    function: Callable[[_Item], _Result], items: Iterable[_Item], num_workers: int, *, ahead: int = 4
) -> Iterator[_Result]:
    """Like ``map``, in threads, in order and with a bounded number of results waiting.

    Args:
        function: applied to each item; an exception is raised where its result would have come.
        num_workers: threads; 0 works in the caller.
        ahead: items a worker may be ahead.
    """
    if num_workers <= 0:
        yield from map(function, items)
        return
    waiting: deque[Future[_Result]] = deque()
    pool = ThreadPoolExecutor(num_workers, thread_name_prefix="tapetum-data")
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) >= num_workers * ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


class DecodingSource:
    """Decodes each picture each time."""

    def __init__(self, records: Sequence[Record], options: PictureOptions) -> None:
        self.records = records
        self.options = options

    def read(self, rows: Rows) -> Pictures:
        """(B, H, W, 3) uint8 of these rows."""
        pictures = np.empty((len(rows), *self.options.size, 3), np.uint8)
        for place, row in enumerate(rows.tolist()):
            pictures[place] = read_resized(self.records[row].path, self.options)
        return pictures


class ArraySource:
    """All pictures in one array, in memory or mapped from a file."""

    def __init__(self, pictures: Pictures) -> None:
        self.pictures = pictures

    def read(self, rows: Rows) -> Pictures:
        """(B, H, W, 3) uint8 of these rows, new memory."""
        return self.pictures[rows]


def read_resized(path: Path, options: PictureOptions) -> NDArray[np.uint8]:
    """One picture, decoded and resized."""
    return resize(read_picture(path), options.size, interpolation=options.interpolation, backend=options.backend)


def decode_in_chunks(
    records: Sequence[Record], options: PictureOptions, *, progress: Progress | None = None
) -> Iterator[Pictures]:
    """Every picture once, in order, some hundred at a time."""
    source = DecodingSource(records, options)
    rows = [np.arange(start, min(start + _CHUNK, len(records))) for start in range(0, len(records), _CHUNK)]
    done = 0
    for pictures in map_in_threads(source.read, rows, options.num_workers, ahead=2):
        yield pictures
        done += len(pictures)
        if progress:
            progress(done, len(records))


def open_pictures(
    records: Sequence[Record], options: PictureOptions, *, progress: Progress | None = None
) -> PictureSource:
    """The pictures of `records`, cached as `options` asks.

    Raises:
        DataError: a picture cannot be read, or the pictures do not fit into memory.
    """
    if options.cache == "none":
        return DecodingSource(records, options)
    shape = (len(records), *options.size, 3)
    if options.cache == "memory":
        _check_memory(shape)
        pictures = np.empty(shape, np.uint8)
        filled = 0
        for chunk in decode_in_chunks(records, options, progress=progress):
            pictures[filled : filled + len(chunk)] = chunk
            filled += len(chunk)
        return ArraySource(pictures)
    return ArraySource(_open_disk_cache(records, options, shape, progress))


def default_cache_dir() -> Path:
    """The user's folder for caches: TAPETUM_CACHE, else XDG_CACHE_HOME/tapetum, else ~/.cache/tapetum."""
    named = os.environ.get("TAPETUM_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tapetum"


def _open_disk_cache(
    records: Sequence[Record], options: PictureOptions, shape: tuple[int, ...], progress: Progress | None
) -> Pictures:
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
        for chunk in decode_in_chunks(records, options, progress=progress):
            file.write(chunk.data)

    write_with(path, write)
    return np.asarray(np.load(path, mmap_mode="r"))


def _check_memory(shape: tuple[int, ...]) -> None:
    """Refuse a cache that would drive the machine into swapping."""
    needed = int(np.prod(shape))
    try:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        reclaimable = _read_available_memory() or free
    except (ValueError, OSError):
        return
    if needed > _MEMORY_SHARE * max(free, reclaimable):
        raise DataError(
            f"loader: {shape[0]} pictures of {shape[1]} x {shape[2]} need {needed / 2**30:.1f} GiB of memory, "
            f"{max(free, reclaimable) / 2**30:.1f} GiB are free; set data.cache to disk or none"
        )


def _read_available_memory() -> int | None:
    """Memory that can be had without swapping, in bytes, where the system tells."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    found = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    return found[0] if found else None


def drop_corrupt(
    records: Sequence[Record], *, num_workers: int = 2, progress: Progress | None = None
) -> tuple[list[Record], list[str]]:
    """Sort out pictures that cannot be decoded.

    Returns:
        The readable records in their order, and one message for each unreadable one.
    """

    def attempt(record: Record) -> str | None:
        try:
            read_picture(record.path)
        except DataError as error:
            return str(error)
        return None

    good: list[Record] = []
    problems: list[str] = []
    outcomes = map_in_threads(attempt, records, num_workers, ahead=64)
    for done, (record, problem) in enumerate(zip(records, outcomes, strict=True), start=1):
        if problem is None:
            good.append(record)
        else:
            problems.append(problem)
        if progress and (done % _CHUNK == 0 or done == len(records)):
            progress(done, len(records))
    return good, problems


def class_labels(records: Sequence[Record]) -> tuple[Rows, list[int]]:
    """Class index of each record: the position of its pid among the sorted pids.

    Returns:
        (N,) int64 labels, and the pid of each class.
    """
    pids, labels = np.unique(np.array([record.pid for record in records], dtype=np.int64), return_inverse=True)
    return labels.astype(np.int64), pids.tolist()


def modality_values(records: Sequence[Record]) -> Rows:
    """(N,) values of `Modality` of the records."""
    return np.array([int(record.modality) for record in records], dtype=np.int64)


def drop_unpaired(records: Sequence[Record], sampler: Sampling) -> list[Record]:
    """The records that a sampler can use: "cross_modality" needs each person in both modalities.

    Raises:
        DataError: a modality is missing, or people are unpaired and `sampler` does not leave them out.
    """
    find_usable = getattr(sampler.module, "find_usable", None)
    if find_usable is None:
        return list(records)
    usable = find_usable(sampler.options, [record.pid for record in records], modality_values(records))
    return [record for record, keep in zip(records, usable.tolist(), strict=True) if keep]


class _Columns:
    """What a batch says about its pictures, as arrays over all records."""

    def __init__(self, records: Sequence[Record], labels: Rows | None) -> None:
        self.pids = torch.tensor([record.pid for record in records], dtype=torch.int64)
        self.camids = torch.tensor([record.camid for record in records], dtype=torch.int64)
        self.modalities = torch.from_numpy(modality_values(records))
        self.trains = labels is not None
        self.labels = torch.full_like(self.pids, -1) if labels is None else torch.from_numpy(labels)

    def batch(
        self, images: torch.Tensor, rows: Rows, views: Rows | None = None, *, epoch: int = 0, step: int = 0
    ) -> Batch:
        index = torch.from_numpy(rows)
        return Batch(
            images,
            self.labels[index],
            self.pids[index],
            self.camids[index],
            self.modalities[index],
            rows=index if self.trains else torch.full_like(index, -1),
            views=torch.zeros_like(index) if views is None else torch.from_numpy(views),
            epoch=epoch,
            step=step,
        )


class TrainLoader:
    """Training batches of one process; iterate once per epoch after `set_epoch`.

    Attributes:
        records: the pictures, corrupt ones left out.
        labels: (N,) class index of each record.
        pids: pid of each class.
        skipped: one message for each corrupt picture left out.
        sampler: draws the batches; `sampler.start_batch` restores a place within an epoch.
    """

    def __init__(
        self,
        records: Sequence[Record],
        source: PictureSource,
        *,
        augment: Sequence[Operation],
        sampler: Sampling,
        seed: int,
        num_workers: int = 0,
        rank: int = 0,
        world: int = 1,
        parts: int = 1,
        skipped: Sequence[str] = (),
    ) -> None:
        self.records = list(records)
        self.labels, self.pids = class_labels(self.records)
        self.skipped = list(skipped)
        self.sampler = build_sampler(
            sampler, self.labels, modality_values(self.records), seed=seed, rank=rank, world=world, parts=parts
        )
        self._modalities = modality_values(self.records)
        self._source = source
        self._augment = tuple(augment)
        self._seed = seed
        self._num_workers = num_workers
        self._columns = _Columns(self.records, self.labels)

    @property
    def num_ids(self) -> int:
        """Number of classes."""
        return len(self.pids)

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of an epoch."""
        self.sampler.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[Batch]:
        yield from map_in_threads(self._build, self.sampler, self._num_workers, ahead=2)

    def all_pictures(self, epoch: int, batch: int, *, augmented: bool = False) -> Iterator[Batch]:
        """This process's share of all training pictures, each once, in the order of their rows.

        What is done to a picture depends on (seed, epoch, row) alone, neither on `batch` nor on the number of
        processes, and has nothing to do with what the batches of training show.

        Args:
            epoch: which draws `augmented` pictures depend on.
            batch: pictures of all processes together that are seen at once, each with all its views.
            augmented: every view of each picture, changed as in training; else one view, as it is.
        """
        share, count = self.sampler.share, len(self.records)
        chunks = [
            np.arange(start + share.rank, min(start + batch, count), share.world) for start in range(0, count, batch)
        ]

        def build(rows: Rows) -> Batch:
            if not augmented:
                return self._columns.batch(to_tensor(to_float(self._source.read(rows))), rows, epoch=epoch)
            repeated, views, _ = repeat_views(rows, self.sampler.repeats[rows])
            blocks = np.split(rows, np.flatnonzero(np.diff(rows // _BLOCK)) + 1)
            images = torch.cat([self._augment_block(block, epoch) for block in blocks])
            return self._columns.batch(
                images.contiguous(memory_format=torch.channels_last), repeated, views, epoch=epoch
            )

        yield from map_in_threads(build, [rows for rows in chunks if len(rows)], self._num_workers, ahead=2)

    def _augment_block(self, rows: Rows, epoch: int) -> torch.Tensor:
        """Every view of some pictures of one block, which is to `all_pictures` what a global batch is to training."""
        number = int(rows[0]) // _BLOCK
        whole = np.arange(number * _BLOCK, min((number + 1) * _BLOCK, len(self.records)))
        in_block, views, firsts = repeat_views(whole, self.sampler.repeats[whole])
        place = BatchPosition(self._seed, epoch, number, self._modalities[in_block], views, "augment all")
        order, within, _ = repeat_views(np.arange(len(rows)), self.sampler.repeats[rows])
        positions = firsts[rows[order] - whole[0]] + within
        return augment_batch(self._source.read(rows)[order], self._augment, place, positions)

    def _build(self, sampled: SampledBatch) -> Batch:
        rows, views = sampled.rows[sampled.positions], sampled.views[sampled.positions]
        place = BatchPosition(self._seed, sampled.epoch, sampled.number, self._modalities[sampled.rows], sampled.views)
        pictures = self._read_once(rows)
        images = augment_batch(pictures, self._augment, place, sampled.positions)
        return self._columns.batch(images, rows, views, epoch=sampled.epoch, step=sampled.number)

    def _read_once(self, rows: Rows) -> Pictures:
        """Pictures by row; the views of one, which stand side by side, are decoded once."""
        new = np.append(True, rows[1:] != rows[:-1])
        pictures = self._source.read(rows[new])
        return pictures if new.all() else pictures[np.cumsum(new) - 1]


class EvalLoader:
    """Pictures in the order of the records, unchanged but for their size; the last batch may be smaller."""

    def __init__(
        self,
        records: Sequence[Record],
        source: PictureSource,
        *,
        batch_size: int,
        num_workers: int = 0,
        skipped: Sequence[str] = (),
    ) -> None:
        self.records = list(records)
        self.skipped = list(skipped)
        self._source = source
        self._batch_size = batch_size
        self._num_workers = num_workers
        self._columns = _Columns(self.records, None)

    def __len__(self) -> int:
        return -(-len(self.records) // self._batch_size)

    def __iter__(self) -> Iterator[Batch]:
        yield from map_in_threads(
            self._build, range(0, len(self.records), self._batch_size), self._num_workers, ahead=2
        )

    def _build(self, start: int) -> Batch:
        rows = np.arange(start, min(start + self._batch_size, len(self.records)))
        return self._columns.batch(to_tensor(to_float(self._source.read(rows))), rows)


def build_train_loader(
    records: Sequence[Record],
    *,
    size: tuple[int, int],
    augment: Sequence[Operation],
    sampler: Sampling,
    seed: int,
    num_workers: int = 2,
    cache: Cache = "none",
    interpolation: Interpolation = "bicubic",
    backend: Backend = "cv2",
    cache_dir: Path | None = None,
    rank: int = 0,
    world: int = 1,
    parts: int = 1,
    skip_corrupt: bool = False,
    progress: Progress | None = None,
) -> TrainLoader:
    """A loader of training batches.

    Args:
        records: training pictures; class indices are positions of the sorted pids of those that are used.
        parts: pieces of a process's share of a batch, one after the other (gradient accumulation).
        skip_corrupt: leave out pictures that cannot be decoded (see `TrainLoader.skipped`) instead of stopping.
    Raises:
        DataError: no picture, an unreadable picture, or fewer identities, pictures or modalities than a batch needs.
    """
    options = PictureOptions(size, interpolation, backend, cache, cache_dir, num_workers)
    usable, skipped = _usable(records, num_workers, skip_corrupt)
    if not usable:
        raise DataError("loader: no training picture; check the dataset's root and its split")
    usable = drop_unpaired(usable, sampler)
    labels, modalities = class_labels(usable)[0], modality_values(usable)
    build_sampler(sampler, labels, modalities, seed=seed, rank=rank, world=world, parts=parts)  # fails early
    return TrainLoader(
        usable,
        open_pictures(usable, options, progress=progress),
        augment=augment,
        sampler=sampler,
        seed=seed,
        num_workers=num_workers,
        rank=rank,
        world=world,
        parts=parts,
        skipped=skipped,
    )


def build_eval_loader(
    records: Sequence[Record],
    *,
    size: tuple[int, int],
    batch_size: int = 128,
    num_workers: int = 2,
    cache: Cache = "none",
    interpolation: Interpolation = "bicubic",
    backend: Backend = "cv2",
    cache_dir: Path | None = None,
    skip_corrupt: bool = False,
    progress: Progress | None = None,
) -> EvalLoader:
    """A loader of pictures in order.

    Args:
        skip_corrupt: leave out pictures that cannot be decoded (see `EvalLoader.skipped`) instead of stopping.
    Raises:
        DataError: no picture, or an unreadable one.
    """
    options = PictureOptions(size, interpolation, backend, cache, cache_dir, num_workers)
    usable, skipped = _usable(records, num_workers, skip_corrupt)
    if not usable:
        raise DataError("loader: no picture to read; check the dataset's root and its split")
    source = open_pictures(usable, options, progress=progress)
    return EvalLoader(usable, source, batch_size=batch_size, num_workers=num_workers, skipped=skipped)


def _usable(records: Sequence[Record], num_workers: int, skip_corrupt: bool) -> tuple[Sequence[Record], list[str]]:
    return drop_corrupt(records, num_workers=num_workers) if skip_corrupt else (records, [])
