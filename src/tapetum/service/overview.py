"""What a gallery holds, at a glance: pages of rows in the order of time, and a time line of its cameras."""

import time

import numpy as np

from tapetum.gallery.filters import Compare, Filter
from tapetum.gallery.schema import Row
from tapetum.gallery.store import Store
from tapetum.service.errors import NotFoundError
from tapetum.service.schemas import CameraOut, TimelineOut

KEPT_SECONDS = 60.0  # a time line of the whole gallery


def browse(store: Store, chosen: Filter | None, offset: int, limit: int) -> tuple[int, list[Row]]:
    """A page of rows in the order of time.

    Args:
        chosen: which rows; None for all.
        offset: rows before the page.
        limit: rows of the page.
    Returns:
        How many rows there are in all, and those of the page.
    """
    columns = store.columns(["time", "id"], chosen)
    times, ids = np.array(columns["time"], dtype=np.float64), columns["id"]
    order = np.argsort(times, kind="stable")[offset : offset + limit]
    wanted = [ids[place] for place in order.tolist()]
    rows = {row.sighting.id: row for row in store.fetch_rows(wanted)}
    return len(times), [rows[name] for name in wanted if name in rows]


def find_tracklet(store: Store, row_id: str) -> list[Row]:
    """All rows of the tracklet of a row, by time.

    Args:
        row_id: of one of them.
    Raises:
        NotFoundError: there is no such row.
    """
    rows = store.fetch_rows([row_id])
    if not rows:
        raise NotFoundError(f"row {row_id[:200]!r}: there is none")
    tracklet = rows[0].sighting.tracklet
    together = store.find(Compare("tracklet", "==", tracklet)) if tracklet else rows
    if all(row.sighting.id != row_id for row in together):
        raise NotFoundError(f"row {row_id[:200]!r}: was deleted just now")
    return together


def draw_timeline(store: Store, chosen: Filter | None, bins: int) -> TimelineOut:
    """How many rows each camera has in each part of the time.

    Args:
        chosen: which rows; None for all.
        bins: parts of the time from the first row to the last.
    """
    columns = store.columns(["camera", "time"], chosen)
    times = np.array(columns["time"], dtype=np.float64)
    if len(times) == 0:
        return TimelineOut(start=0.0, end=0.0, bins=bins, cameras=[])
    start, end = float(times.min()), float(times.max())
    width = max(end - start, 1.0) / bins
    places = np.minimum(((times - start) / width).astype(np.int64), bins - 1)
    told = []
    names, codes = np.unique(np.array(columns["camera"]), return_inverse=True)
    for code, name in enumerate(names.tolist()):
        own = codes == code
        counts = np.bincount(places[own], minlength=bins)
        first, last = float(times[own].min()), float(times[own].max())
        told.append(CameraOut(camera=name, rows=int(own.sum()), first=first, last=last, counts=counts.tolist()))
    return TimelineOut(start=start, end=start + width * bins, bins=bins, cameras=told)


class WholeTimeline:
    """The time line of the whole gallery, which every page shows: drawn anew when rows came or went, or after a minute.

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
        if kept is not None and kept[0] == rows and now - kept[1] < KEPT_SECONDS:
            return kept[2]
        drawn = draw_timeline(self._store, None, self._bins)
        self._kept = (rows, now, drawn)
        return drawn
