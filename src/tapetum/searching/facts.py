"""What is in a gallery, in numbers."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tapetum.core.types import Modality
from tapetum.footage.clock import format_time
from tapetum.footage.lists import Listed, read_listed
from tapetum.footage.origin import GUESSED_TIME, ORIGINS, Origin
from tapetum.gallery.schema import ModelInfo
from tapetum.gallery.store import Store
from tapetum.searching.retention import read_erased, read_keep_days

_MOST_DOUBTS = 5  # told of one camera
_MOST_DARK = 10  # sources that are named


@dataclass(frozen=True)
class Span:
    """What one camera, or all of them, saw: crops, and when first and last, seconds since 1970-01-01 UTC or 0."""

    rows: int
    first: float
    last: float

    def __str__(self) -> str:
        return f"{self.rows} rows, {format_time(self.first)} to {format_time(self.last)}" if self.rows else "no rows"


@dataclass
class Provenance:
    """What said that it was a camera, and when; of all its sources together.

    Of a source with several cameras, what said when and why that may be wrong counts for all of them.
    """

    written: set[str] = field(default_factory=set)  # the camera's names
    camera_from: Counter[Origin] = field(default_factory=Counter)
    times_from: Counter[Origin] = field(default_factory=Counter)
    doubts: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        camera = [ORIGINS[origin] for origin, _ in self.camera_from.most_common()]
        times = [ORIGINS[origin] for origin, _ in self.times_from.most_common() if origin != "mtime"]
        facts = [f"camera from the {', the '.join(camera)}"] if camera else []
        facts += [f"time from the {', the '.join(times)}"] if times else []
        return "; ".join(facts + ([GUESSED_TIME] if self.times_from["mtime"] else []))


@dataclass(frozen=True)
class GalleryFacts:
    """A gallery in numbers."""

    where: str  # as the operator names it
    model: ModelInfo
    whole: Span
    cameras: dict[str, Span]
    provenance: dict[str, Provenance]  # of each camera; none of those that were indexed by earlier versions
    tracklets: int
    modalities: dict[str, int]
    remarks: dict[str, int]  # why crops are poor -> rows
    runs: dict[str, int]
    size_bytes: int | None  # of the folder; None where there is none
    recall: float | None  # of the approximate index; None where every search is exact
    keep_days: float | None  # None: for ever
    erased: int  # sightings so far
    dark: tuple[Listed, ...] = ()  # sources so dark that who was there is not known

    def lines(self) -> list[str]:
        """For people, one fact a line."""
        size = "" if self.size_bytes is None else f", {self.size_bytes / 1e6:.1f} MB on disk"
        place = f", opened from {self.model.place}" if self.model.place else ""
        lines = [
            f"gallery: {self.where}{size}",
            f"model: {self.model.id}, {self.model.dimension} numbers a crop; {self.model.description or '?'}{place}",
            f"all: {self.whole}; {self.tracklets} tracklets",
            *(line for name, span in self.cameras.items() for line in self._camera_lines(name, span)),
            *(f"{name}: {count} rows" for name, count in (self.modalities | self.remarks).items()),
            *(f"run {name or '(without a name)'}: {count} rows" for name, count in self.runs.items()),
            "search: every row is compared"
            if self.recall is None
            else f"search: approximate, finds {100 * self.recall:.1f} % of the ten nearest rows without a filter",
            "kept: for ever" if self.keep_days is None else f"kept: {self.keep_days:g} days",
        ]
        lines += [
            f"too dark to detect: {each.source} by camera {each.camera}, {each.undetectable} of {each.frames} frames; "
            "who was there is not known"
            for each in self.dark[:_MOST_DARK]
        ]
        if len(self.dark) > _MOST_DARK:
            lines.append(f"too dark to detect: and {len(self.dark) - _MOST_DARK} more sources")
        return lines + ([f"erased so far: {self.erased} sightings"] if self.erased else [])

    def _camera_lines(self, name: str, span: Span) -> Iterator[str]:
        origin = self.provenance.get(name, Provenance())
        spellings = sorted(origin.written - {name})
        also = f" (written {', '.join(spellings)})" if spellings else ""
        yield "; ".join(filter(None, (f"camera {name}{also}: {span}", str(origin))))
        for doubt, count in origin.doubts.most_common(_MOST_DOUBTS):
            yield f"  in doubt, {doubt}: {count} sources"
        if len(origin.doubts) > _MOST_DOUBTS:
            yield f"  and {len(origin.doubts) - _MOST_DOUBTS} more doubts"


def read_facts(store: Store) -> GalleryFacts:
    """Count what is in a gallery."""
    columns = store.columns(["camera", "time", "modality", "remark", "tracklet", "run"])
    listed = [] if store.folder is None else list(read_listed(store.folder))
    times: dict[str, list[float]] = {}
    for camera, time in zip(columns["camera"], columns["time"], strict=True):
        times.setdefault(camera, []).append(time)
    return GalleryFacts(
        where=store.where,
        model=store.info,
        whole=_span(columns["time"]),
        cameras={name: _span(times[name]) for name in sorted(times)},
        provenance=_read_provenance(listed),
        tracklets=len(set(columns["tracklet"])),
        modalities={Modality(kind).name.lower(): count for kind, count in sorted(Counter(columns["modality"]).items())},
        remarks=dict(Counter(part for text in columns["remark"] for part in text.split("; ") if part).most_common()),
        runs=dict(sorted(Counter(columns["run"]).items())),
        size_bytes=None if store.folder is None else _size(store.folder),
        recall=store.recall(),
        keep_days=read_keep_days(store),
        erased=0 if store.folder is None else len(read_erased(store.folder)),
        dark=tuple(source for source in listed if source.is_dark),
    )


def _read_provenance(listed: Sequence[Listed]) -> dict[str, Provenance]:
    cameras: dict[str, Provenance] = {}
    for source in listed:
        for fact in {(fact.camera, fact.written, fact.origin): fact for fact in source.cameras}.values():
            camera = cameras.setdefault(fact.camera, Provenance())
            camera.written.add(fact.written)
            camera.camera_from[fact.origin] += 1
        for name in {fact.camera for fact in source.cameras}:
            cameras[name].times_from.update(source.time_origins)
            cameras[name].doubts.update(doubt for doubt in source.doubts if doubt != GUESSED_TIME)
    return cameras


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
