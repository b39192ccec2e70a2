"""Joining boxes of successive pictures into tracklets: where each was expected, and who fits best to whom."""

from collections import deque
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tapetum.footage.detect import Detections, FloatArray, compute_iou, find_parts

_VELOCITY_MEMORY = 0.6  # share of the old velocity in the new one
_LARGEST_SIZE_CHANGE = 1.8  # height of a box against the tracklet's last one
_ROUNDING = 1e-6  # seconds
FEW = 0.4  # seconds between two pictures above which there are few of them
_GAP_IN_PICTURES = 2.5  # intervals that somebody may be unseen for where pictures are few: one in between may miss them
_LONGEST_GAP = 6.0  # seconds; after them somebody at the same place is somebody else, however few pictures there are
_INTERVALS, _ENOUGH = 20, 5  # the last ones whose median counts, and from how many on it counts alone
_STAYED_WEIGHT = 0.9  # worth of fitting to where somebody was, against where somebody was expected
_NEAR_WEIGHT = 0.5  # worth of being near against overlapping


@dataclass(frozen=True)
class TrackerOptions:
    """When boxes belong together."""

    min_iou: float = 0.2  # overlap with the expected box from which a box fits
    # or distance of the middles in heights of the box up to which it fits, for few pictures a second
    max_distance: float = 0.8
    max_gap_seconds: float = 1.0  # somebody unseen for longer is a new tracklet; longer where pictures are few
    max_seconds: float = 600.0  # longer tracklets are divided
    start_score: float = 0.0  # weaker detections continue tracklets but begin none


@dataclass
class Tracklet:
    """One walk through a camera's view."""

    number: int  # from 0, in the order of first sight
    frames: list[int] = field(default_factory=list)  # of each detection, as what follows
    times: list[float] = field(default_factory=list)
    boxes: list[FloatArray] = field(default_factory=list)  # (4,) left, top, right, bottom
    scores: list[float] = field(default_factory=list)
    interval: float = 0.0  # seconds between pictures when it ended; 0 where nobody knows

    @property
    def seconds(self) -> float:
        """From first to last sight."""
        return self.times[-1] - self.times[0]

    @property
    def travel(self) -> float:
        """Largest way of the middle from side to side and up and down, in its own median height."""
        boxes = np.stack(self.boxes)
        middles = (boxes[:, :2] + boxes[:, 2:]) / 2
        return float(np.hypot(*np.ptp(middles, axis=0)) / np.median(boxes[:, 3] - boxes[:, 1]))


class Tracker:
    """Follows everybody through one source: constant velocity, overlap, and the best assignment of all together.

    Args:
        options: when boxes belong together; None takes the defaults.
    """

    def __init__(self, options: TrackerOptions | None = None) -> None:
        self._options = options or TrackerOptions()
        self._active: list[Tracklet] = []
        self._velocities = np.zeros((0, 2))  # of the middles, pixels a second
        self._begun = 0
        self._before: float | None = None  # time of the picture before
        self._intervals = deque[float](maxlen=_INTERVALS)
        self._interval = 0.0  # seconds between pictures, as far as known

    def update(
        self, frame: int, time: float, detections: Detections, *, broken: bool = False, stated_interval: float = 0.0
    ) -> tuple[NDArray[np.int64], list[Tracklet]]:
        """Take in one picture.

        Args:
            time: seconds, not before the one of the picture before.
            broken: whether what came before does not connect to this picture (the camera's clock jumped).
            stated_interval: seconds between pictures as the source states them; believed while few are measured, and
                only where those are no shorter. 0 states nothing.
        Returns:
            (N,) number of each detection's tracklet, -1 for one that belongs to none and begins none, because it is
            weak or part of a larger one (`find_parts`); and the tracklets that ended before this picture.
        """
        self._measure_interval(time, broken, stated_interval)
        tracklets = self._end_old(time, broken)
        owners = np.full(len(detections), -1, np.int64)
        for place, row in self._assign(time, detections):
            owners[row] = self._active[place].number
            self._continue(place, frame, time, detections, row)
        begins = (owners < 0) & (detections.scores >= self._options.start_score) & ~find_parts(detections.boxes)
        for row in np.flatnonzero(begins).tolist():
            self._active.append(
                Tracklet(self._begun, [frame], [time], [detections.boxes[row]], [float(detections.scores[row])])
            )
            self._velocities = np.concatenate([self._velocities, np.zeros((1, 2))])
            owners[row] = self._begun
            self._begun += 1
        return owners, tracklets

    def finish(self) -> list[Tracklet]:
        """The source is at its end: everybody still followed."""
        tracklets, self._active, self._velocities = self._active, [], np.zeros((0, 2))
        return self._ended(tracklets)

    def _measure_interval(self, time: float, broken: bool, stated: float) -> None:
        if self._before is not None and not broken:
            self._intervals.append(time - self._before)
        self._before = time
        few = len(self._intervals) < _ENOUGH
        self._interval = min([stated, *self._intervals]) if few else median(self._intervals)

    def _ended(self, tracklets: list[Tracklet]) -> list[Tracklet]:
        for tracklet in tracklets:
            tracklet.interval = self._interval
        return tracklets

    def _end_old(self, time: float, broken: bool) -> list[Tracklet]:
        options = self._options
        gap = max(options.max_gap_seconds, min(_GAP_IN_PICTURES * self._interval, _LONGEST_GAP))
        over = np.array(
            [
                broken or time - tracklet.times[-1] > gap + _ROUNDING or tracklet.seconds > options.max_seconds
                for tracklet in self._active
            ],
            bool,
        )
        tracklets = [tracklet for tracklet, ends in zip(self._active, over, strict=True) if ends]
        self._active = [tracklet for tracklet, ends in zip(self._active, over, strict=True) if not ends]
        self._velocities = self._velocities[~over]
        return self._ended(tracklets)

    def _assign(self, time: float, detections: Detections) -> list[tuple[int, int]]:
        """(place among the active, row among the detections) of the best assignment of all together."""
        if not self._active or not len(detections):
            return []
        last = np.stack([tracklet.boxes[-1] for tracklet in self._active]).astype(np.float64)
        gaps = np.array([time - tracklet.times[-1] for tracklet in self._active])
        shifts = self._velocities * gaps[:, None]
        expected, expected_fits = self._compare(last + np.concatenate([shifts, shifts], 1), detections)
        stayed, stayed_fits = self._compare(last, detections)  # a box that fell apart gives a wild velocity
        worth = np.maximum(expected, _STAYED_WEIGHT * stayed)
        return assign_best(worth, expected_fits | stayed_fits)

    def _compare(
        self, boxes: NDArray[np.float64], detections: Detections
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """(T, N) how well each detection fits to each box, and whether it may at all."""
        heights = np.maximum(boxes[:, 3] - boxes[:, 1], 1)[:, None]
        change = (detections.boxes[:, 3] - detections.boxes[:, 1])[None] / heights
        middles, new_middles = ((each[:, :2] + each[:, 2:]) / 2 for each in (boxes, detections.boxes))
        distance = np.linalg.norm(middles[:, None] - new_middles[None], axis=2) / heights
        iou = compute_iou(boxes.astype(np.float32), detections.boxes)
        similar = (change < _LARGEST_SIZE_CHANGE) & (change > 1 / _LARGEST_SIZE_CHANGE)
        fits = (iou >= self._options.min_iou) | ((distance <= self._options.max_distance) & similar)
        return iou + _NEAR_WEIGHT * np.maximum(0, 1 - distance), fits

    def _continue(self, place: int, frame: int, time: float, detections: Detections, row: int) -> None:
        tracklet, box = self._active[place], detections.boxes[row]
        gap = time - tracklet.times[-1]
        if gap > 0:
            before = tracklet.boxes[-1]
            velocity = (box[:2] + box[2:] - before[:2] - before[2:]) / 2 / gap
            old = _VELOCITY_MEMORY if len(tracklet.times) > 1 else 0.0
            self._velocities[place] = old * self._velocities[place] + (1 - old) * velocity
        tracklet.frames.append(frame)
        tracklet.times.append(time)
        tracklet.boxes.append(box)
        tracklet.scores.append(float(detections.scores[row]))


def assign_best(worth: NDArray[np.floating[Any]], fits: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """The pairs of rows and columns that are worth most together; each is in one pair at most.

    Args:
        worth: (N, M) of each pair, 0 or more.
        fits: (N, M) whether the pair is allowed. One more pair counts for more than a better one.
    """
    from scipy.optimize import linear_sum_assignment  # here: half a second that loose pictures need not wait

    rows, columns = linear_sum_assignment(np.where(fits, worth + 1, 0), maximize=True)
    allowed = fits[rows, columns]
    return list(zip(rows[allowed].tolist(), columns[allowed].tolist(), strict=True))
