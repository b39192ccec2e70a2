"""How well indexed footage answers, against the ground truth that a generated scene's video brings with it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tapetum.core.errors import DataError
from tapetum.data.loose import NOBODY
from tapetum.footage.detect import Detector, compute_iou
from tapetum.footage.options import ExtractOptions
from tapetum.footage.sources import Source
from tapetum.footage.truth import FollowingScore, Truth, measure_following, read_truth
from tapetum.gallery.schema import Row
from tapetum.gallery.store import Store


@dataclass(frozen=True)
class CropSearches:
    """Each crop of somebody as a query among a part of the others."""

    rank1: float  # share of the queries whose most similar crop shows the same person
    chance: float  # the same share for crops in random order
    queries: int  # crops that have a right answer; others are left out

    def __str__(self) -> str:
        return f"rank-1 {self.rank1:.3f} ({self.queries} queries; by chance {self.chance:.3f})"


@dataclass(frozen=True)
class SearchScore:
    """How well a search finds people again."""

    crops: int  # in the gallery, of the footage with ground truth
    shown: int  # those that show somebody; the others stay in the gallery as wrong answers
    people: int  # who is shown
    other_tracklet: CropSearches  # searches among the crops of all other tracklets
    other_camera: CropSearches  # searches among the crops of all other cameras


@dataclass(frozen=True)
class FootageScore:
    """Detection and following by source, and searching in all of them."""

    following: dict[str, FollowingScore]  # name of a source -> how people were found and followed in it
    search: SearchScore  # in the gallery

    def lines(self) -> list[str]:
        """For people: a table, then the searches."""
        table: list[tuple[str, ...]] = [
            ("source", "people", "recall", "precision", "purity", "people found", "false tracklets")
        ]
        for name, score in self.following.items():
            figures = (score.recall, score.precision, score.purity, score.people_found)
            table.append((name, str(score.people), *(f"{each:.2f}" for each in figures), str(score.false_tracklets)))
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        text = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]
        search = self.search
        text.append(f"search: {search.shown} of {search.crops} crops show one of {search.people} people")
        text.append(f"among all other tracklets: {search.other_tracklet}")
        text.append(f"among all other cameras: {search.other_camera}")
        return text

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def score_footage(
    sources: Sequence[Source], store: Store, detector: Detector, options: ExtractOptions | None = None
) -> FootageScore:
    """Follow people again through every video that has ground truth beside it, and search in their gallery.

    Args:
        sources: indexed; those without ``NAME.csv`` beside them are left out.
    Raises:
        DataError: there is no ground truth at all, or it is damaged.
    """
    known = {each.name: each for each in sources if each.kind == "video" and _truth_path(each).is_file()}
    if not known:
        raise DataError(
            "no video has ground truth (NAME.csv) beside it; `tapetum data generate ROOT --video SECONDS` writes both"
        )
    truths = {name: read_truth(_truth_path(source)) for name, source in known.items()}
    following = {
        name: measure_following(source, truths[name], detector, options=options) for name, source in known.items()
    }
    return FootageScore(following, measure_search(store, truths))


def measure_search(store: Store, truths: Mapping[str, Truth], *, min_iou: float = 0.5) -> SearchScore:
    """Search for everybody with each of their crops.

    Args:
        truths: name of a source -> who is where in it.
        min_iou: overlap of a crop's box with a person's from which it shows that person.
    """
    rows = [row for row in store.find() if row.sighting.source in truths]
    pids = np.array([_person(row, truths[row.sighting.source], min_iou) for row in rows], np.int64)
    vectors = store.fetch([row.sighting.id for row in rows]).matrix
    similarity = vectors @ vectors.T
    tracklets = _numbers([row.sighting.tracklet for row in rows])
    cameras = _numbers([row.sighting.camera for row in rows])
    return SearchScore(
        crops=len(rows),
        shown=int((pids != NOBODY).sum()),
        people=len(set(pids.tolist()) - {NOBODY}),
        other_tracklet=_search(similarity, pids, tracklets),
        other_camera=_search(similarity, pids, cameras),
    )


def _search(similarity: NDArray[np.float32], pids: NDArray[np.int64], own: NDArray[np.int64]) -> CropSearches:
    """Every crop as a query among those whose `own` differs."""
    hits: list[bool] = []
    chances: list[float] = []
    for row in np.flatnonzero(pids != NOBODY):
        candidates = own != own[row]
        right = candidates & (pids == pids[row])
        if right.any():
            best = np.argmax(np.where(candidates, similarity[row], -np.inf))
            hits.append(bool(right[best]))
            chances.append(float(right.sum() / candidates.sum()))
    if not hits:
        return CropSearches(0.0, 0.0, 0)
    return CropSearches(float(np.mean(hits)), float(np.mean(chances)), len(hits))


def _person(row: Row, truth: Truth, min_iou: float) -> int:
    boxes = truth.boxes.get(row.sighting.frame)
    if boxes is None:
        return NOBODY
    left, top, width, height = row.sighting.box
    overlaps = compute_iou(np.array([[left, top, left + width, top + height]], np.float32), boxes)[0]
    best = int(overlaps.argmax())
    return int(truth.pids[row.sighting.frame][best]) if overlaps[best] >= min_iou else NOBODY


def _truth_path(source: Source) -> Path:
    return source.path.with_suffix(".csv")


def _numbers(names: Sequence[str]) -> NDArray[np.int64]:
    return np.unique(np.array(names, dtype=object).astype(str), return_inverse=True)[1].astype(np.int64)
