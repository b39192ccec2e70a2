"""What a gallery holds, at a glance: pages of rows in the order of time, and a time line of its cameras."""

import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tapetum.gallery.filters import Compare, Filter
from tapetum.gallery.schema import Row
from tapetum.gallery.store import Store
from tapetum.service.errors import NotFoundError
from tapetum.service.schemas import CameraOut, TimelineOut

KEPT_SECONDS = 60.0  # a time line of the whole gallery
GROWING_SECONDS = 5.0  # the same, where only rows came since: a job adds some every moment


def browse(store: Store, rows: Filter | None, offset: int, limit: int) -> tuple[int, list[Row]]:
    """A page of rows by time and id: how many rows there are in all, and those of the page."""
    columns = store.columns(["time", "id"], rows)
    page = _cut_page(np.array(columns["time"], dtype=np.float64), columns["id"], offset, limit)
    by_id = {row.sighting.id: row for row in store.fetch_rows(page)}
    return len(columns["id"]), [by_id[name] for name in page if name in by_id]


def _cut_page(times: NDArray[np.float64], ids: Sequence[str], offset: int, limit: int) -> list[str]:
    """Ids of a page by time and id: the table's own order changes when a row is written again.

    Of the ids only those of the page's times are sorted; all of a large gallery's take seconds.
    """
    order = np.argsort(times)
    ascending = times[order]
    shown = ascending[offset : offset + limit]
    if len(shown) == 0:
        return []
    first, last = int(np.searchsorted(ascending, shown[0])), int(np.searchsorted(ascending, shown[-1], side="right"))
    near = np.array([ids[place] for place in order[first:last].tolist()])
    page: list[str] = near[np.lexsort((near, ascending[first:last]))][offset - first :][:limit].tolist()
    return page


def find_row(store: Store, row_id: str) -> Row:
    """A row by its id.

    Raises:
        NotFoundError: there is none.
    """
    rows = store.fetch_rows([row_id])
    if not rows:
        raise NotFoundError(f"row {row_id[:200]!r}: there is none")
    return rows[0]


def find_tracklet(store: Store, row_id: str) -> list[Row]:
    """All rows of the tracklet of a row, by time.

    Raises:
        NotFoundError: there is no such row.
    """
    row = find_row(store, row_id)
    tracklet = row.sighting.tracklet
    together = store.find(Compare("tracklet", "==", tracklet)) if tracklet else [row]
    if all(each.sighting.id != row_id for each in together):
        raise NotFoundError(f"row {row_id[:200]!r}: was deleted just now")
    return together


def draw_timeline(store: Store, rows: Filter | None, bins: int) -> TimelineOut:
    """How many rows each camera has in each of so many parts of the time, from the first row to the last."""
    columns = store.columns(["camera", "time"], rows)
    times = np.array(columns["time"], dtype=np.float64)
    if len(times) == 0:
        return TimelineOut(start=0.0, end=0.0, bins=bins, cameras=[])
    start, end = float(times.min()), float(times.max())
    width = max(end - start, 1.0) / bins
    places = np.minimum(((times - start) / width).astype(np.int64), bins - 1)
    cameras = []
    names, codes = np.unique(np.array(columns["camera"]), return_inverse=True)
    for code, name in enumerate(names.tolist()):
        own = codes == code
        counts = np.bincount(places[own], minlength=bins)
        first, last = float(times[own].min()), float(times[own].max())
        cameras.append(CameraOut(camera=name, rows=int(own.sum()), first=first, last=last, counts=counts.tolist()))
    return TimelineOut(start=start, end=start + width * bins, bins=bins, cameras=cameras)


class WholeTimeline:
    """The time line of the whole gallery, which every page shows.

    It is drawn anew when rows went, some seconds after rows came, and after a minute.

    Args:
        bins: parts of the time.
    """

    def __init__(self, store: Store, bins: int) -> None:
        self._store, self._bins = store, bins
        self._kept: tuple[int, float, TimelineOut] | None = None  # rows, when, drawn

    def draw(self) -> TimelineOut:
        """The time line as it is now."""
        rows, now = self._store.count(), time.monotonic()
        kept = self._kept
        if kept is None or rows < kept[0] or now - kept[1] >= (GROWING_SECONDS if rows > kept[0] else KEPT_SECONDS):
            self._kept = kept = (rows, now, draw_timeline(self._store, None, self._bins))
        return kept[2]
