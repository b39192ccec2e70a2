"""Indexing by many processes: a source is a shard that any process may take, and one puts them together.

    GALLERY/shards/JOB/SOURCE.shard   a finished shard: vectors, sightings, counts, SHA-256, and what names the
                                      content of its source; whole or not there
    GALLERY/shards/JOB/SOURCE.lock    held by the process that is making it
    GALLERY/shards/JOB/RANK-of-N.rank of a process that takes part; torchrun's launch follows N where it names one
    GALLERY/shards/.JOB               a job that is over, with the ranks that took part, until the last of N has come

JOB names the command. Nothing but the gallery's folder, which every machine sees, holds the processes together. A
process takes whatever shard is neither finished nor held; the system lets go of a killed one's locks, so another takes
its shard. Who finds all of them finished writes the rows into the gallery and removes the job. A rank that comes when
its job is over took no part, and leaves; one that took part was given the command again, and begins anew. Whoever joins
a job removes finished shards whose source has changed since, so that they are made anew.
"""

import contextlib
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from tapetum.core.arrays import Real
from tapetum.core.atomic import make_folder, write_bytes
from tapetum.core.errors import DataError, InUseError, OutputError
from tapetum.core.locks import locked
from tapetum.core.sighting import Sighting
from tapetum.footage.detect import Detector
from tapetum.footage.extract import source_key
from tapetum.footage.frames import count_units
from tapetum.footage.lists import sighting_of, strike_sightings
from tapetum.footage.report import FootageReport
from tapetum.footage.sources import Source
from tapetum.gallery.schema import SHARDS, ModelInfo, Row, Run
from tapetum.gallery.store import Store
from tapetum.indexing.earlier import compare_with_earlier
from tapetum.indexing.index import Indexing, IndexOptions, Progress, crops_folder, index_sources, refusing
from tapetum.indexing.known import drop_known
from tapetum.indexing.report import ERASED_BEFORE, IndexReport
from tapetum.inference.model import Model
from tapetum.searching.retention import read_erased_pictures

FORMAT = 5
HEADER = "tapetum_shard"
LAUNCH = ("TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT", "MASTER_PORT")  # equal in its ranks


@dataclass(frozen=True)
class Made:
    """A finished shard: n sightings of one source, in their order."""

    sightings: tuple[Sighting, ...]
    vectors: NDArray[np.float32]  # (n, D)
    run: Run
    footage: FootageReport
    known: int = 0  # sightings that the gallery had already
    copies: int = 0  # of these, seen by the same footage under another name
    source: str = ""  # names what the source held then, and how it was read; empty where it was gone


def world() -> int:
    """How many processes work on this command: torchrun's WORLD_SIZE; 1 without it."""
    number = os.environ.get("WORLD_SIZE", "1")
    return int(number) if number.isdigit() else 1


def _of_launch() -> str:
    """How the names of files end that stand for the ranks of this launch of the command.

    Ranks of an interrupted launch do not count for the next. Where a starter names no launch, all are one.
    """
    names = [os.environ.get(name, "") for name in LAUNCH]
    launch = "-" + hashlib.sha256(json.dumps(names).encode()).hexdigest()[:16] if any(names) else ""
    return f"-of-{world()}{launch}.rank"


class ShardJob:
    """One command's work, as its processes see it.

    Args:
        name: the sources as the operator named them, and how they are read: equal names are one job.
    """

    def __init__(
        self,
        store: Store,
        model: Model,
        detector: Detector | None,
        options: IndexOptions,
        name: Sequence[str],
        sources: Sequence[Source],
    ) -> None:
        self.store, self.model, self.detector, self.options = store, model, detector, options
        self.gallery = crops_folder(store)
        store.expect(ModelInfo(model.id, model.dimension))
        deciding = [*name, model.id, detector.key if detector else "", options.extract.deciding()]
        content = json.dumps(deciding, sort_keys=True, default=str)
        self.folder = self.gallery / SHARDS / hashlib.sha256(content.encode()).hexdigest()[:16]
        self.sources = {_shard_name(source): source for source in sources}
        self.units = {shard: count_units(source) for shard, source in self.sources.items()}
        self._made = 0
        self._doubted = set[str]()
        self._begun = time.monotonic()

    def join(self) -> bool:
        """Take part in the work; False where the other processes of this command had done it all before this one came.

        Raises:
            OutputError: the folder cannot be written.
        """
        make_folder(self.gallery / SHARDS)
        with self._merging():
            ranks = {path.name for path in self._over.glob(f"*{_of_launch()}")}
            own = f"{os.environ.get('RANK', '')}{_of_launch()}"
            if ranks and own not in ranks and not self.is_open():
                (self._over / own).touch()
                self._forget()
                return False
            shutil.rmtree(self._over, ignore_errors=True)
            make_folder(self.folder)
            if "RANK" in os.environ:
                (self.folder / own).touch()
        return True

    def work(self, progress: Progress | None = None) -> int:
        """Make every shard that nobody else makes; afterwards all are finished.

        Args:
            progress: called with (done, total) frames and pictures, those of other processes included.
        Returns:
            How many shards this process made, but for sources that were finished before.
        """
        while (rest := self.unfinished()) and self.is_open():  # closed: others have put it together
            if not sum(self.take(shard, progress) for shard in rest):
                self._wait_for(rest[0])
        if progress:
            progress(self.total, self.total)
        return self._made

    def take(self, shard: str, progress: Progress | None = None) -> bool:
        """Make a shard that is neither finished nor held by another process; whether this process made it.

        Args:
            progress: as for `work`.
        """
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(locked(self._lock(shard), f"{self.sources[shard].name}: is being read"))
            except InUseError:
                return False
            except OutputError:
                if self.is_open():
                    raise
                return False
            if self.path(shard).is_file():
                return False
            before = self.total - sum(self.units[each] for each in self.unfinished())
            self.make(shard, None if progress is None else lambda done, _: progress(before + done, self.total))
        return True

    def make(self, shard: str, progress: Progress | None = None) -> None:
        """Read, embed and write one shard.

        Args:
            progress: called with (done, total) of its frames or pictures.
        Raises:
            RecipeError: frames without a detector.
            OutputError: the folder cannot be written.
        """
        report, source = IndexReport(), self.sources[shard]
        key = self._key(shard) or ""  # first: what the source gains while it is read is for the next run
        sightings: list[Sighting] = []
        vectors = [np.empty((0, self.model.dimension), dtype=np.float32)]

        def keep(rows: list[Row], matrix: Real) -> int:
            sightings.extend(row.sighting for row in rows)
            vectors.append(matrix)
            return len(rows)

        indexing = Indexing(self.store, self.model, self.detector, self.options, report, progress, keep=keep)
        with indexing:
            indexing.read([source])
            if key:
                indexing.read_earlier(source)  # whose rows may be in no gallery yet
        run = Run(self.model.id, self.model.runtime, self.model.precision, self.options.run)
        made = Made(tuple(sightings), np.concatenate(vectors), run, report.footage, report.known, report.copies, key)
        make_folder(self.folder)
        write_shard(self.path(shard), made)
        self._made += not report.footage.finished_before

    def merge(self, report: IndexReport | None = None) -> IndexReport | None:
        """Put the finished shards into the gallery and end the job.

        Returns:
            What all processes did; None where another process has put them together.
        Raises:
            OutputError: another run writes to this gallery; what it does not have yet stays in the shards.
        """
        report = report or IndexReport()
        with self._merging():
            if not self.is_open():
                return None
            with self.store.writing():
                for shard in self.sources:
                    self._merge(shard, report)
                index_sources([], self.store, self.model, self.detector, options=self.options, report=report)
            report.seconds = time.monotonic() - self._begun
            shutil.rmtree(self._over, ignore_errors=True)
            self.folder.rename(self._over)  # at once: nobody takes a shard of it any more
            self._forget()
            return report

    def drop_outdated(self) -> None:
        """Remove finished shards that are damaged, or whose source has changed since, as a video that was growing."""
        for shard in self.sources:
            path = self.path(shard)
            if not path.is_file():
                continue
            try:
                made, key = read_shard(path, self.model.id), self._key(shard)
                outdated = key is not None and made.source != key
            except DataError:
                outdated = True
            if outdated:
                path.unlink(missing_ok=True)

    @property
    def total(self) -> int:
        """Frames and pictures of all sources."""
        return sum(self.units.values())

    def unfinished(self) -> list[str]:
        """Shards that nobody has finished yet, the longest first: so the processes end together."""
        rest = [shard for shard in self.sources if not self.path(shard).is_file()]
        return sorted(rest, key=lambda shard: -self.units[shard])

    def path(self, shard: str) -> Path:
        """Where a shard is when it is finished."""
        return self.folder / f"{shard}.shard"

    def is_open(self) -> bool:
        """Whether its shards have not been put together yet."""
        return self.folder.is_dir()

    @property
    def _over(self) -> Path:
        return self.folder.with_name(f".{self.folder.name}")

    def _forget(self) -> None:
        """Remove what is left of a job that is over; its ranks once all have come."""
        ranks = list(self._over.glob(f"*{_of_launch()}"))
        if 0 < len(ranks) < world():
            for path in set(self._over.iterdir()) - set(ranks):
                path.unlink(missing_ok=True)
        else:
            shutil.rmtree(self._over, ignore_errors=True)

    def _merging(self) -> AbstractContextManager[None]:
        return locked(self.gallery / SHARDS / "merge.lock", None)

    def _wait_for(self, shard: str) -> None:
        """Until its maker has finished it or died."""
        try:
            with locked(self._lock(shard), None):
                pass
        except OutputError:
            if self.is_open():
                raise

    def _lock(self, shard: str) -> Path:
        return self.path(shard).with_suffix(".lock")

    def _merge(self, shard: str, report: IndexReport) -> None:
        try:
            made = read_shard(self.path(shard), self.model.id)
        except DataError:  # a damaged disk: make it again
            self.path(shard).unlink(missing_ok=True)
            self.make(shard)
            made = read_shard(self.path(shard), self.model.id)
        report.footage.add(made.footage)
        report.known += made.known
        report.copies += made.copies
        refuse = refusing(self.store, lambda: self.sources[shard].options)
        pictures = bool(read_erased_pictures(self.gallery))  # else no crop has to be read
        refusals = [  # erased since it was made
            refuse(each, self._content_of(each) if pictures else b"") for each in made.sightings
        ]
        self._remove([each for each, why in zip(made.sightings, refusals, strict=True) if why == ERASED_BEFORE])
        report.footage.refused.update(filter(None, refusals))
        kept = [sighting for sighting, refusal in zip(made.sightings, refusals, strict=True) if not refusal]
        fresh, corrected = drop_known(self.store, self.gallery, kept, report, self.sources[shard], self._doubted)
        places = {sighting.id: row for row, sighting in enumerate(made.sightings)}
        vectors = made.vectors[[places[sighting.id] for sighting in fresh]]
        report.added += self.store.upsert([Row(sighting, made.run) for sighting in fresh], vectors) - len(corrected)
        report.corrected += len(corrected)

    def _key(self, shard: str) -> str | None:
        """Names what a source holds now, and how it is read; None where it is gone."""
        try:
            return source_key(self.sources[shard], self.detector, self.options.extract)
        except DataError:
            return None

    def _content_of(self, sighting: Sighting) -> bytes:
        try:
            return (self.gallery / sighting.crop).read_bytes()
        except FileNotFoundError:
            return b""

    def _remove(self, sightings: Sequence[Sighting]) -> None:
        """Crops and lines of what was erased elsewhere while a shard held it."""
        if sightings:
            strike_sightings(self.gallery, frozenset(sighting.id for sighting in sightings))
        for sighting in sightings:
            (self.gallery / sighting.crop).unlink(missing_ok=True)


@contextlib.contextmanager
def one_maker(folder: Path) -> Iterator[None]:
    """Where several processes work on a command, let one after the other open a gallery that may have to be made."""
    if world() == 1:
        yield
        return
    make_folder(folder / SHARDS)
    with locked(folder / SHARDS / "gallery.lock", None):
        yield


def begin_job(
    sources: Sequence[Source],
    store: Store,
    model: Model,
    detector: Detector | None,
    options: IndexOptions,
    name: Sequence[str],
    report: IndexReport,
) -> ShardJob | None:
    """A job that processes may take shards of; the report is told where sources were taken for something else before.

    Returns:
        The job; None where the other processes of this command had ended it before this one came.
    Raises:
        GalleryError: another model's gallery, or one without a folder for crops.
        OutputError: the folder cannot be written.
    """
    job = ShardJob(store, model, detector, options, name, sources)
    if not job.join():
        return None
    job.drop_outdated()
    compare_with_earlier(sources, job.gallery, detector.name if detector else "", report.footage)
    return job


def index_in_shards(
    sources: Sequence[Source],
    store: Store,
    model: Model,
    detector: Detector | None,
    *,
    name: Sequence[str],
    options: IndexOptions | None = None,
    report: IndexReport | None = None,
    progress: Progress | None = None,
) -> tuple[IndexReport | None, int]:
    """This process's share of indexing footage together with others that were given the same command.

    Args:
        detector: finds people in frames; loose crops need none.
        name: the sources as the operator named them, and how they are read: equal names are one job.
        progress: called with (done, total) frames and pictures of all processes.
    Returns:
        What all processes did, None where another one has put the shards together; and how many shards this one made.
    Raises:
        GalleryError: another model's gallery, or one without a folder for crops.
        RecipeError: frames without a detector.
        OutputError: another run writes to this gallery, or the disk is full; finished shards stay.
    """
    report = report or IndexReport()
    job = begin_job(sources, store, model, detector, options or IndexOptions(), name, report)
    if job is None:
        return None, 0
    made = job.work(progress)
    return job.merge(report), made


def write_shard(path: Path, made: Made) -> None:
    """Write a finished shard, whole or not at all.

    Raises:
        OutputError: it cannot be written.
    """
    lines = "".join(json.dumps(asdict(sighting)) + "\n" for sighting in made.sightings).encode()
    vectors = np.ascontiguousarray(made.vectors)
    header = {
        "format": FORMAT,
        "run": asdict(made.run),
        "footage": made.footage.to_dict(),
        "known": made.known,
        "copies": made.copies,
        "source": made.source,
        "sha256": _digest(vectors, lines),
    }
    tensors: dict[str, NDArray[Any]] = {"vectors": vectors, "sightings": np.frombuffer(lines, np.uint8)}
    write_bytes(path, save(tensors, metadata={HEADER: json.dumps(header)}))


def read_shard(path: Path, model: str) -> Made:
    """A finished shard, checked.

    Args:
        model: id that its vectors must be of.
    Raises:
        DataError: it is missing, damaged, or of another model.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            header = json.loads((file.metadata() or {})[HEADER])
            vectors, lines = file.get_tensor("vectors"), file.get_tensor("sightings").tobytes()
        sightings = tuple(sighting_of(json.loads(line)) for line in lines.decode().splitlines())
        footage = FootageReport.from_dict(header["footage"])
        counts = header["known"], header["copies"]
        made = Made(sightings, vectors, Run(**header["run"]), footage, *counts, header["source"])
        whole = header["format"] == FORMAT and header["sha256"] == _digest(vectors, lines)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: cannot be read ({error}); delete it and type the same command again") from None
    if not whole or made.run.model != model or len(sightings) != len(vectors):
        raise DataError(f"{path}: damaged or of another model; delete it and type the same command again")
    return made


def _shard_name(source: Source) -> str:
    """By its name and not by its content, which may grow while one process has looked at it and another has not."""
    deciding = f"{source.kind}\0{source.name}\0{source.camera}\0{source.stream}"
    return hashlib.sha256(deciding.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def _digest(vectors: NDArray[np.float32], lines: bytes) -> str:
    return hashlib.sha256(vectors.tobytes() + lines).hexdigest()
