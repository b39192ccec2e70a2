"""What is in a gallery, in numbers."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch

from tapetum.core.types import Modality
from tapetum.footage.clock import format_time
from tapetum.footage.facts import GUESSED_TIME, ORIGINS, Origin
from tapetum.footage.lists import read_listed
from tapetum.gallery.schema import ModelInfo
from tapetum.gallery.store import Store
from tapetum.searching.retention import read_erased, read_keep_days

_MOST_DOUBTS = 5  # told of one camera


@dataclass(frozen=True)
class Span:
    """What one camera, or all of them, saw.

    Attributes:
        rows: crops.
        first: time of the first, seconds since 1970-01-01 UTC; 0 without rows.
        last: of the last.
    """

    rows: int
    first: float
    last: float

    def __str__(self) -> str:
        return f"{self.rows} rows, {format_time(self.first)} to {format_time(self.last)}" if self.rows else "no rows"


@dataclass
class Told:
    """What said that it was a camera, and when; of all its sources together.

    Attributes:
        written: the camera's names as they are written.
        camera_from: what said so.
        times_from: what said when; of a source with several cameras, for all of them.
        doubts: why camera or times may be others.
    """

    written: set[str] = field(default_factory=set)
    camera_from: Counter[Origin] = field(default_factory=Counter)
    times_from: Counter[Origin] = field(default_factory=Counter)
    doubts: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        origins = [ORIGINS[origin] for origin, _ in self.camera_from.most_common()]
        told = [f"camera from the {', the '.join(origins)}"] if origins else []
        sure = [ORIGINS[origin] for origin, _ in self.times_from.most_common() if origin != "mtime"]
        told += [f"time from the {', the '.join(sure)}"] if sure else []
        told += [GUESSED_TIME] if self.times_from["mtime"] else []
        return "; ".join(told)


@dataclass(frozen=True)
class GalleryFacts:
    """A gallery in numbers.

    Attributes:
        where: as the operator names it.
        model: whose embeddings it holds.
        whole: all rows.
        cameras: name -> what it saw.
        told: name of a camera -> what said so; none of those that were indexed by earlier versions.
        tracklets: walks through a camera's view.
        modalities: name -> rows.
        remarks: why crops are poor -> rows.
        runs: name of an indexing run -> rows.
        size_bytes: of the folder; None where there is none.
        recall: of the approximate index; None where every search is exact.
        keep_days: for how many days anything is kept; None for ever.
        erased: sightings that were erased.
    """

    where: str
    model: ModelInfo
    whole: Span
    cameras: dict[str, Span]
    told: dict[str, Told]
    tracklets: int
    modalities: dict[str, int]
    remarks: dict[str, int]
    runs: dict[str, int]
    size_bytes: int | None
    recall: float | None
    keep_days: float | None
    erased: int

    def lines(self) -> list[str]:
        """For people, one fact a line."""
        place = f", opened from {self.model.place}" if self.model.place else ""
        told = [
            f"gallery: {self.where}" + ("" if self.size_bytes is None else f", {self.size_bytes / 1e6:.1f} MB on disk"),
            f"model: {self.model.id}, {self.model.dimension} numbers a crop; {self.model.description or '?'}{place}",
            f"all: {self.whole}; {self.tracklets} tracklets",
        ]
        for name, span in self.cameras.items():
            told += self._camera_lines(name, span)
        told += [f"{name}: {count} rows" for name, count in (self.modalities | self.remarks).items()]
        told += [f"run {name or '(without a name)'}: {count} rows" for name, count in self.runs.items()]
        told.append(
            "search: every row is compared"
            if self.recall is None
            else f"search: approximate, finds {100 * self.recall:.1f} % of the ten nearest rows; exact on demand"
        )
        told.append("kept: for ever" if self.keep_days is None else f"kept: {self.keep_days:g} days")
        if self.erased:
            told.append(f"erased so far: {self.erased} sightings")
        return told

    def _camera_lines(self, name: str, span: Span) -> Iterator[str]:
        said = self.told.get(name, Told())
        written = sorted(said.written - {name})
        also = f" (written {', '.join(written)})" if written else ""
        yield "; ".join(filter(None, (f"camera {name}{also}: {span}", str(said))))
        for doubt, count in said.doubts.most_common(_MOST_DOUBTS):
            yield f"  in doubt, {doubt}: {count} sources"
        if len(said.doubts) > _MOST_DOUBTS:
            yield f"  and {len(said.doubts) - _MOST_DOUBTS} more doubts"


def read_facts(store: Store) -> GalleryFacts:
    """Count what is in a gallery."""
    columns = store.columns(["camera", "time", "modality", "remark", "tracklet", "run"])
    times: dict[str, list[float]] = {}
    for camera, time in zip(columns["camera"], columns["time"], strict=True):
        times.setdefault(camera, []).append(time)
    remarks = Counter(remark for text in columns["remark"] for remark in text.split("; ") if remark)
    recall = None
    if columns["time"]:
        recall = store.search(torch.ones(1, store.info.dimension), 1, exact=False).recall
    return GalleryFacts(
        where=store.where,
        model=store.info,
        whole=_span(columns["time"]),
        cameras={name: _span(times[name]) for name in sorted(times)},
        told={} if store.folder is None else _read_told(store.folder),
        tracklets=len(set(columns["tracklet"])),
        modalities={Modality(kind).name.lower(): count for kind, count in sorted(Counter(columns["modality"]).items())},
        remarks=dict(remarks.most_common()),
        runs=dict(sorted(Counter(columns["run"]).items())),
        size_bytes=None if store.folder is None else _size(store.folder),
        recall=recall,
        keep_days=read_keep_days(store),
        erased=0 if store.folder is None else len(read_erased(store.folder)),
    )


def _read_told(folder: Path) -> dict[str, Told]:
    told: dict[str, Told] = {}
    for listed in read_listed(folder):
        for fact in {(fact.camera, fact.written, fact.origin): fact for fact in listed.cameras}.values():
            said = told.setdefault(fact.camera, Told())
            said.written.add(fact.written)
            said.camera_from[fact.origin] += 1
        for name in {fact.camera for fact in listed.cameras}:
            told[name].times_from.update(listed.time_origins)
            told[name].doubts.update(doubt for doubt in listed.doubts if doubt != GUESSED_TIME)
    return told


def _span(times: list[float]) -> Span:
    return Span(len(times), min(times, default=0.0), max(times, default=0.0))


def _size(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except OSError:  # a writer took it away meanwhile
            continue
    return total
