"""Indexing by many processes: the work is cut into shards that any process may take, and one puts them together.

    GALLERY/shards/JOB/plan.json      sources and shards, written by whoever comes first; JOB names the command
    GALLERY/shards/JOB/000012.shard   a finished shard: vectors, sightings, counts, SHA-256; whole or not there
    GALLERY/shards/JOB/000012.lock    held by the process that is making it

Nothing but the gallery's folder, which every machine sees, holds the processes together. A process takes whatever shard
is neither finished nor held; the system lets go of a killed one's locks, so another takes its shard. Who finds all of
them finished writes the rows into the gallery, with the sources' lists, and removes the job.
"""

import contextlib
import hashlib
import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from tapetum.core.atomic import make_folder, write_bytes
from tapetum.core.errors import DataError, InUseError, OutputError
from tapetum.core.locks import locked
from tapetum.core.sighting import Sighting
from tapetum.core.types import Modality
from tapetum.footage.detect import Detector
from tapetum.footage.extract import (
    extract_part,
    extract_sightings,
    finish_parts,
    is_finished,
    read_sightings,
    source_key,
)
from tapetum.footage.facts import CameraFact, Origin, SourceOptions
from tapetum.footage.frames import count_units
from tapetum.footage.lists import sighting_of
from tapetum.footage.report import FootageReport
from tapetum.footage.sources import LoosePicture, Source
from tapetum.gallery.schema import ModelInfo, Row, Run
from tapetum.gallery.store import Store
from tapetum.indexing.index import (
    IndexOptions,
    IndexReport,
    Progress,
    crops_folder,
    describe_crops,
    index_sources,
    refusing,
)
from tapetum.inference.sessions import Model
from tapetum.searching.retention import SHARDS

FORMAT = 2
PART = 500  # loose pictures in a shard
HEADER = "tapetum_shard"


@dataclass(frozen=True)
class Shard:
    """A piece of work: a whole video or folder of frames, or some loose pictures.

    Attributes:
        number: in its plan.
        source: position of its source in the plan.
        key: `source_key` of the whole source.
        first, last: its pictures among the source's loose ones, last excluded; 0, 0 for a whole source.
        units: frames or pictures.
    """

    number: int
    source: int
    key: str
    first: int
    last: int
    units: int


@dataclass(frozen=True)
class ShardPlan:
    """What a job consists of.

    Attributes:
        sources: all of them.
        finished: positions of those that were finished before the job began.
        shards: of the others, in the sources' order.
    """

    sources: tuple[Source, ...]
    finished: tuple[int, ...]
    shards: tuple[Shard, ...]


@dataclass(frozen=True)
class Made:
    """A finished shard.

    Attributes:
        sightings: n of them, in their order.
        vectors: (n, D) float32.
        run: what embedded them.
        footage: what reading the footage found.
    """

    sightings: tuple[Sighting, ...]
    vectors: NDArray[np.float32]
    run: Run
    footage: FootageReport


def world() -> int:
    """How many processes work on this command: torchrun's WORLD_SIZE; 1 without it."""
    number = os.environ.get("WORLD_SIZE", "1")
    return int(number) if number.isdigit() else 1


class ShardJob:
    """One command's work, as its processes see it.

    Args:
        store: the gallery, opened for reading.
        model: whose embeddings it holds.
        detector: finds people in frames.
        options: how footage becomes rows.
        name: the sources as the operator named them, and how they are read: equal names are one job.
    """

    def __init__(
        self, store: Store, model: Model, detector: Detector | None, options: IndexOptions, name: Sequence[str]
    ) -> None:
        self.store, self.model, self.detector, self.options = store, model, detector, options
        self.gallery = crops_folder(store)
        store.expect(ModelInfo(model.id, model.dimension))
        deciding = [*name, model.id, detector.key if detector else "", repr(options.extract)]
        self.folder = self.gallery / SHARDS / hashlib.sha256(json.dumps(deciding).encode()).hexdigest()[:16]
        self.plan = ShardPlan((), (), ())
        self._begun = time.monotonic()

    def open_plan(self, find: Callable[[], Sequence[Source]]) -> None:
        """Read the job's plan, or make it where no other process has.

        Args:
            find: gives the sources.
        Raises:
            DataError: no source, or the plan is damaged.
            OutputError: the folder cannot be written.
        """
        path = self.folder / "plan.json"
        make_folder(self.folder)
        with locked(self.gallery / SHARDS / "plan.lock", None):
            if not path.is_file():
                make_folder(self.folder)
                plan = plan_shards(find(), self.gallery, self.detector, self.options, PART)
                write_bytes(path, json.dumps(asdict(plan) | {"format": FORMAT}, default=str).encode())
            self.plan = read_plan(path)

    def work(self, progress: Progress | None = None) -> int:
        """Make every shard that nobody else makes; afterwards all are finished.

        Args:
            progress: called with (done, total) frames and pictures, those of other processes included.
        Returns:
            How many shards this process made.
        """
        made = 0
        rest = sorted(self.plan.shards, key=lambda shard: -shard.units)  # the longest first: they end together
        while (rest := self.unfinished(rest)) and self._is_open():  # closed: others have put it together
            made_now = sum(self.take(shard, progress) for shard in rest)
            if not made_now:
                self._wait_for(rest[0])
            made += made_now
        if progress:
            total = sum(shard.units for shard in self.plan.shards)
            progress(total, total)
        return made

    def take(self, shard: Shard, progress: Progress | None = None) -> bool:
        """Make a shard that is neither finished nor held by another process.

        Args:
            shard: of the plan.
            progress: as for `work`.
        Returns:
            Whether this process made it.
        """
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(locked(self._lock(shard), f"shard {shard.number}: is being made"))
            except InUseError:
                return False
            except OutputError:
                if self._is_open():
                    raise
                return False
            if self.path(shard).is_file():
                return False
            self.make(shard, self._counting(progress))
        return True

    def make(self, shard: Shard, progress: Progress | None = None) -> None:
        """Read, embed and write one shard.

        Args:
            shard: of the plan.
            progress: called with (done, total) of its frames or pictures.
        Raises:
            RecipeError: frames without a detector.
            OutputError: the folder cannot be written.
        """
        footage = FootageReport()
        sightings: list[Sighting] = []
        vectors = [torch.empty(0, self.model.dimension)]
        found = self._read(shard, footage, progress)
        while some := list(islice(found, self.options.batch)):
            usable, described = describe_crops(self.model, self.gallery, some, footage, self.options.extract.workers)
            sightings += usable
            vectors.append(described)
        run = Run(self.model.id, self.model.runtime, self.model.precision, self.options.run)
        write_shard(self.path(shard), Made(tuple(sightings), torch.cat(vectors).numpy(), run, footage))

    def merge(self) -> IndexReport | None:
        """Put the finished shards into the gallery and end the job.

        Returns:
            What all processes did; None where another process has put them together.
        Raises:
            OutputError: another run writes to this gallery; what it does not have yet stays in the shards.
        """
        with locked(self.gallery / SHARDS / "merge.lock", None):
            if not self._is_open():
                return None
            report = IndexReport()
            with self.store.writing():
                for number, source in enumerate(self.plan.sources):
                    self._merge_source(number, source, report)
                rest = [self.plan.sources[number] for number in self.plan.finished]
                index_sources(rest, self.store, self.model, self.detector, options=self.options, report=report)
            report.seconds = time.monotonic() - self._begun
            (self.folder / "plan.json").unlink()
            shutil.rmtree(self.folder, ignore_errors=True)
            return report

    def unfinished(self, shards: Sequence[Shard] | None = None) -> list[Shard]:
        """Shards that nobody has finished yet.

        Args:
            shards: among these; None takes the whole plan.
        """
        return [shard for shard in (self.plan.shards if shards is None else shards) if not self.path(shard).is_file()]

    def path(self, shard: Shard) -> Path:
        """Where a shard is when it is finished.

        Args:
            shard: of the plan.
        """
        return self.folder / f"{shard.number:06d}.shard"

    def _is_open(self) -> bool:
        return (self.folder / "plan.json").is_file()

    def _counting(self, progress: Progress | None) -> Progress | None:
        """Progress of one shard as that of the whole job, other processes included."""
        if progress is None:
            return None
        total = sum(shard.units for shard in self.plan.shards)
        before = total - sum(shard.units for shard in self.unfinished())
        return lambda done, _: progress(before + done, total)

    def _wait_for(self, shard: Shard) -> None:
        """Until its maker has finished it or died."""
        try:
            with locked(self._lock(shard), None):
                pass
        except OutputError:
            if self._is_open():
                raise

    def _lock(self, shard: Shard) -> Path:
        return self.path(shard).with_suffix(".lock")

    def _read(self, shard: Shard, footage: FootageReport, progress: Progress | None) -> Iterator[Sighting]:
        source, options = self.plan.sources[shard.source], self.options.extract
        refuse = refusing(self.store)
        if shard.last:
            footage.sources += shard.first == 0
            part = _part(source, shard)
            yield from extract_part(
                part, shard.key, self.gallery, options=options, report=footage, progress=progress, refuse=refuse
            )
        elif is_finished(source, self.gallery, self.detector, options):  # by a process that was killed just after
            footage.sources += 1
            footage.files["read"] += source.num_files
            yield from read_sightings(source, self.gallery, self.detector, options)
        else:
            yield from extract_sightings(
                source, self.gallery, self.detector, options=options, report=footage, progress=progress, refuse=refuse
            )

    def _merge_source(self, number: int, source: Source, report: IndexReport) -> None:
        shards = [shard for shard in self.plan.shards if shard.source == number]
        refuse = refusing(self.store)
        kept: list[Sighting] = []
        refused: Counter[str] = Counter()  # by the shards' makers, and meanwhile
        origins: Counter[Origin] = Counter()
        for shard in shards:
            made = self._read_made(shard)
            report.footage.add(made.footage)
            refusals = [refuse(sighting) for sighting in made.sightings]
            rows = [row for row, refusal in enumerate(refusals) if not refusal]
            report.footage.refused.update(filter(None, refusals))
            refused += made.footage.refused + Counter(filter(None, refusals))
            origins += made.footage.time_origins
            self._store(made, rows, report)
            kept += [made.sightings[row] for row in rows]
        if shards and shards[0].last:
            finish_parts(source, shards[0].key, self.gallery, kept, refused, origins)

    def _store(self, made: Made, rows: Sequence[int], report: IndexReport) -> None:
        """Add what the gallery does not have."""
        ids = [made.sightings[row].id for row in rows]
        known = {row.sighting.id: row.sighting.crop for row in self.store.fetch_rows(ids)}
        fresh: list[int] = []
        for row in rows:
            sighting = made.sightings[row]
            if sighting.id not in known:
                known[sighting.id] = sighting.crop
                fresh.append(row)
                continue
            report.known += 1
            if known[sighting.id] != sighting.crop:  # the same picture, found with other settings
                (self.gallery / sighting.crop).unlink(missing_ok=True)
        added = [Row(made.sightings[row], made.run) for row in fresh]
        report.added += self.store.upsert(added, torch.from_numpy(made.vectors[fresh]))

    def _read_made(self, shard: Shard) -> Made:
        try:
            return read_shard(self.path(shard), self.model.id)
        except DataError:  # a damaged disk: make it again
            self.path(shard).unlink(missing_ok=True)
            self.make(shard)
            return read_shard(self.path(shard), self.model.id)


@contextlib.contextmanager
def one_maker(folder: Path) -> Iterator[None]:
    """Where several processes work on a command, let one after the other open a gallery that may have to be made.

    Args:
        folder: of the gallery.
    """
    if world() == 1:
        yield
        return
    make_folder(folder / SHARDS)
    with locked(folder / SHARDS / "gallery.lock", None):
        yield


def index_in_shards(
    find: Callable[[], Sequence[Source]],
    store: Store,
    model: Model,
    detector: Detector | None,
    *,
    name: Sequence[str],
    options: IndexOptions | None = None,
    progress: Progress | None = None,
) -> tuple[IndexReport | None, int]:
    """This process's share of indexing footage together with others that were given the same command.

    Args:
        find: gives the sources; only the process that plans the work calls it.
        store: the gallery; every process sees its folder.
        model: whose embeddings the gallery holds.
        detector: finds people in frames; loose crops need none.
        name: the sources as the operator named them, and how they are read: equal names are one job.
        options: settings; None takes the defaults.
        progress: called with (done, total) frames and pictures of all processes.
    Returns:
        What all processes did, None where another one has put the shards together; and how many shards this one made.
    Raises:
        GalleryError: another model's gallery, or one without a folder for crops.
        RecipeError: frames without a detector.
        OutputError: another run writes to this gallery, or the disk is full; finished shards stay.
    """
    job = ShardJob(store, model, detector, options or IndexOptions(), name)
    job.open_plan(find)
    made = job.work(progress)
    return job.merge(), made


def plan_shards(
    sources: Sequence[Source], folder: Path, detector: Detector | None, options: IndexOptions, part: int
) -> ShardPlan:
    """Cut the sources that are not finished into shards.

    Args:
        sources: from `find_sources`.
        folder: of the gallery.
        detector: finds people in frames.
        options: how footage becomes rows.
        part: loose pictures in a shard.
    """
    finished: list[int] = []
    shards: list[Shard] = []
    for number, source in enumerate(sources):
        try:
            key = source_key(source, detector, options.extract)
            done = is_finished(source, folder, detector, options.extract)
        except DataError:  # it is gone; named when its shard is made
            key, done = "", False
        if done:
            finished.append(number)
        elif source.kind == "crops" and key:
            for first in range(0, len(source.pictures), part):
                last = min(first + part, len(source.pictures))
                shards.append(Shard(len(shards), number, key, first, last, last - first))
        else:
            shards.append(Shard(len(shards), number, key, 0, 0, count_units(source)))
    return ShardPlan(tuple(sources), tuple(finished), tuple(shards))


def read_plan(path: Path) -> ShardPlan:
    """A job's plan.

    Args:
        path: of its file.
    Raises:
        DataError: it cannot be read.
    """
    try:
        content = json.loads(path.read_bytes())
        if content["format"] != FORMAT:
            raise ValueError(f"format {content['format']}, this version reads {FORMAT}")  # noqa: TRY301
        shards = tuple(Shard(**shard) for shard in content["shards"])
        return ShardPlan(tuple(map(_source_of, content["sources"])), tuple(content["finished"]), shards)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}: cannot be read ({error}); delete the folder {path.parent} and type the same command again"
        ) from None


def write_shard(path: Path, made: Made) -> None:
    """Write a finished shard, whole or not at all.

    Args:
        made: what it holds.
    Raises:
        OutputError: it cannot be written.
    """
    lines = "".join(json.dumps(asdict(sighting)) + "\n" for sighting in made.sightings).encode()
    vectors = np.ascontiguousarray(made.vectors)
    header = {
        "format": FORMAT,
        "run": asdict(made.run),
        "footage": made.footage.to_dict(),
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
        made = Made(sightings, vectors, Run(**header["run"]), FootageReport.from_dict(header["footage"]))
        whole = header["format"] == FORMAT and header["sha256"] == _digest(vectors, lines)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: cannot be read ({error}); delete it and type the same command again") from None
    if not whole or made.run.model != model or len(sightings) != len(vectors):
        raise DataError(f"{path}: damaged or of another model; delete it and type the same command again")
    return made


def _digest(vectors: NDArray[np.float32], lines: bytes) -> str:
    return hashlib.sha256(vectors.tobytes() + lines).hexdigest()


def _part(source: Source, shard: Shard) -> Source:
    return Source(**{**vars(source), "pictures": source.pictures[shard.first : shard.last]})


def _source_of(fields: dict[str, Any]) -> Source:
    modality = fields["options"]["modality"]
    options = SourceOptions(**{**fields["options"], "modality": None if modality is None else Modality(modality)})
    pictures = (
        LoosePicture(
            Path(picture["path"]),
            picture["name"],
            picture["camera"],
            None if picture["modality"] is None else Modality(picture["modality"]),
        )
        for picture in fields["pictures"]
    )
    told = {
        "path": Path(fields["path"]),
        "options": options,
        "pictures": tuple(pictures),
        "cameras": tuple(CameraFact(**camera) for camera in fields["cameras"]),
        "doubts": tuple(fields["doubts"]),
    }
    return Source(**{**fields, **told})
