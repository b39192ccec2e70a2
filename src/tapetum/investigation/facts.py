"""What is in a gallery, in numbers."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch

from tapetum.core.types import Modality
from tapetum.footage.clock import format_time
from tapetum.gallery.schema import ModelInfo
from tapetum.gallery.store import Store
from tapetum.investigation.retention import read_erased, read_keep_days


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


@dataclass(frozen=True)
class GalleryFacts:
    """A gallery in numbers.

    Attributes:
        where: as the operator names it.
        model: whose embeddings it holds.
        whole: all rows.
        cameras: name -> what it saw.
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
        told += [f"camera {name}: {span}" for name, span in self.cameras.items()]
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


def read_facts(store: Store) -> GalleryFacts:
    """Count what is in a gallery.

    Args:
        store: the gallery.
    """
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
        tracklets=len(set(columns["tracklet"])),
        modalities={Modality(kind).name.lower(): count for kind, count in sorted(Counter(columns["modality"]).items())},
        remarks=dict(remarks.most_common()),
        runs=dict(sorted(Counter(columns["run"]).items())),
        size_bytes=None if store.folder is None else _size(store.folder),
        recall=recall,
        keep_days=read_keep_days(store),
        erased=0 if store.folder is None else len(read_erased(store.folder)),
    )


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
