"""How much more often sightings of a gallery find their own modality first than its share would have it."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from tapetum.core.seeding import numpy_generator
from tapetum.core.types import Modality
from tapetum.gallery.filters import And, Compare, Filter, as_filter
from tapetum.gallery.store import Store

MOST_SEARCHES = 500  # of one modality
SEED = 0


@dataclass(frozen=True)
class ModalityBias:
    """What the searches for sightings of one modality found first under other cameras, whoever it shows.

    Attributes:
        share: of the rows among which they were searched for, the part of their own modality.
        first: of the searches, the part whose nearest row is of it.
    """

    modality: Modality
    searches: int
    share: float
    first: float

    @property
    def bias(self) -> float:
        """1 where the modality plays no part."""
        return self.first / self.share

    def __str__(self) -> str:
        name = self.modality.name.lower()
        return (
            f"{name}: {self.share:.1%} of what was searched is {name}, and {self.first:.1%} of the nearest are: "
            f"{self.bias:.2f} times its share ({self.searches} searches)"
        )


def measure_modality_bias(store: Store, filter: str | Filter | None = None) -> list[ModalityBias]:  # noqa: A002
    """Search for one sighting of each tracklet among all rows of other cameras, every row compared.

    Args:
        filter: only rows that pass are searched for and searched.
    Returns:
        One for each modality of which there are sightings whose other cameras hold both; of more than `MOST_SEARCHES`
        tracklets some are drawn, always the same.
    """
    condition = as_filter(filter)
    columns = store.columns(["id", "camera", "modality", "tracklet", "time"], condition)
    ids, cameras, modalities = (np.array(columns[name]) for name in ("id", "camera", "modality"))
    if len(np.unique(modalities)) < 2:
        return []
    chosen = _one_each(columns["tracklet"], columns["id"])
    totals: dict[int, list[tuple[int, float, int]]] = {}  # searches, their share of own rows, own first
    for modality in np.unique(modalities).tolist():
        rows = chosen[modalities[chosen] == modality]
        if len(rows) > MOST_SEARCHES:
            rows = np.sort(numpy_generator(SEED, "modality bias").choice(rows, MOST_SEARCHES, replace=False))
        for camera in np.unique(cameras[rows]).tolist():
            others = modalities[cameras != camera]
            if len(np.unique(others)) < 2:
                continue  # nothing to choose between
            own = rows[cameras[rows] == camera]
            elsewhere = Compare("camera", "!=", camera)
            result = store.search(
                store.fetch(ids[own].tolist()).vectors,
                1,
                elsewhere if condition is None else And((condition, elsewhere)),
                exact=True,
            )
            first = sum(int(hits[0].row.sighting.modality) == modality for hits in result.hits)
            share = float((others == modality).mean())
            totals.setdefault(modality, []).append((len(own), share, first))
    return list(_sum_up(totals))


def _one_each(tracklets: list[str], ids: list[str]) -> np.ndarray:
    """A row of each tracklet, that with the least id; a row without a tracklet is one of its own."""
    order = sorted(range(len(ids)), key=lambda row: ids[row])
    least: dict[str, int] = {}
    for row in order:
        least.setdefault(tracklets[row] or f" {ids[row]}", row)
    return np.array(sorted(least.values()))


def _sum_up(totals: dict[int, list[tuple[int, float, int]]]) -> Iterator[ModalityBias]:
    for modality, parts in totals.items():
        searches = sum(count for count, _, _ in parts)
        share = sum(count * share for count, share, _ in parts) / searches
        yield ModalityBias(Modality(modality), searches, share, sum(first for _, _, first in parts) / searches)
