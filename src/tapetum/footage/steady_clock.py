"""Times that never run backwards, out of stamps that may: jumps, outliers, swaps, gaps, and frames without a stamp.

A few frames are held back, so that a stamp is judged by those before it and those after it:

- In line: not before the one before it, and not far after it. It is taken as it is.
- Swapped: a few neighbours whose stamps, sorted, run on evenly. They are sorted.
- Outlier: the frames after it run on from those before it, and it does not. It is stamped anew from its neighbours.
- Jump: later frames follow it to an earlier time, so the camera's clock was set back. The frame gets the time of the
  one before plus the usual interval, and every later stamp is moved by the same amount: the order of events stays, and
  the differences before and after the jump stay true. What was followed ends there.
- Gap: later frames follow it to a time far ahead. Whether recording paused or the clock was set forward cannot be told,
  so it is taken as it is, and named where it is large.
- Missing: stamped from its neighbours; where none has a stamp, by the interval.

Whatever is not in line is counted and named.
"""

import math
import statistics
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from itertools import islice, pairwise
from typing import Generic, TypeVar

from tapetum.footage.clock import format_time

LOOK_AHEAD = 12  # frames; a longer run of outlying stamps is two jumps
LARGE_GAP = 3.0  # seconds, or as many intervals as a step in line may have: larger gaps are named
_USUAL_INTERVAL = 0.04  # seconds between frames until the source has stated or shown its own
_LONGEST_STEP = 1.0  # seconds between frames in line, or
_LONGEST_STEPS = 8.0  # this many intervals
_REMEMBERED = 9  # steps whose median is the usual interval
_RUN = 3  # frames that follow each other and are no outliers
_LONE_GAP = 600.0  # seconds that a video's first or last frame or two must be away from all others to be outliers
_EVEN = 0.45, 1.8  # steps of sorted stamps, in intervals
_FURTHEST_SWAP = 4  # places from where a stamp belongs; coders swap neighbours
_STUCK = 25  # frames that share a stamp where none did before
_ROUNDING = 1e-9
_CALENDAR = 6e10  # seconds; more than a thousand years

Item = TypeVar("Item")
Known = Sequence[tuple[int, float]]  # place among the frames held back, stamp


class Kind(Enum):
    """What became of a frame's stamp."""

    IN_LINE = auto()
    SWAPPED = auto()
    OUTLIER = auto()
    JUMP = auto()
    GAP = auto()
    MISSING = auto()
    STUCK = auto()


@dataclass
class Anomaly:
    """One kind of trouble with stamps."""

    count: int = 0  # how often
    first: int = -1  # number of the first frame that has it
    first_time: float = 0.0  # of that frame, as it was given out
    largest: float = 0.0  # how far off or how long, seconds; of frames that share a stamp, how many


class SteadyClock(Generic[Item]):
    """Gives each frame of a source its time.

    Args:
        look_ahead: frames held back.
        photographs: whether stamps were written one by one, by a camera: one or two at the beginning or end may be
            ten minutes and more away from all others, and several may share a second. An encoder's are then outliers.
    """

    def __init__(self, look_ahead: int = LOOK_AHEAD, *, photographs: bool = False) -> None:
        self.frames = 0  # given out
        self.first_time = 0.0  # of the first frame
        self.anomalies: dict[Kind, Anomaly] = {kind: Anomaly() for kind in Kind if kind is not Kind.IN_LINE}
        self._look_ahead, self._photographs = max(2, look_ahead), photographs
        self._steps: deque[float] = deque(maxlen=_REMEMBERED)
        self._stated = False
        self._interval = _USUAL_INTERVAL
        self._last = 0.0  # newest stamp as it was believed
        self._anchored = False  # whether any frame so far had a stamp
        self._shift = 0.0  # from stamps to times
        self._time = 0.0  # of the newest frame given out
        self._same = self._most_same = 0  # frames that share the newest stamp; most that did so in good order
        self._unsure = 0  # frames that share it or have none of their own

    @property
    def has_stamps(self) -> bool:
        """Whether any frame so far had a stamp."""
        return self._anchored

    def expect(self, interval: float) -> None:
        """Take an interval of so many seconds as the usual one until the stamps have shown theirs."""
        self._interval, self._stated = interval, True

    def follow(self, frames: Iterable[tuple[float | None, Item]]) -> Iterator[tuple[float, bool, Item]]:
        """Times of frames, none before the one before it.

        Args:
            frames: the stamp of each as written, seconds (None: it has none), and the frame.
        Returns:
            For each its time on the scale of the stamps, whether the clock jumped back before it, and the frame.
        """
        coming = iter(frames)
        queue: deque[tuple[float | None, Item]] = deque()
        while True:
            queue.extend(islice(coming, self._look_ahead - len(queue)))
            if not queue:
                self._end_same(math.inf)
                return
            stamps = [None if stamp is None or not math.isfinite(stamp) else stamp for stamp, _ in queue]
            for believed, kind in self._judge(stamps, at_end=len(queue) < self._look_ahead):
                written, item = queue.popleft()
                yield self._keep_time(believed, kind, written), kind is Kind.JUMP, item

    def lines(self, name: str, start: float = 0.0) -> list[str]:
        """What was not in line, a line a kind.

        Args:
            start: what the times are counted from, seconds since 1970-01-01 UTC.
        """
        lines = []
        for kind, trouble in self.anomalies.items():
            if not trouble.count or (kind is Kind.MISSING and not self._anchored):
                continue
            place, size = f"frame {trouble.first}{_in_words(start + trouble.first_time)}", f"{trouble.largest:.3f} s"
            first = f"{trouble.count}, the first at {place}"
            back = (
                f"by {size} at {place}"
                if trouble.count == 1
                else (f"{trouble.count} times, the first at {place}, by up to {size}")
            )
            words = {
                Kind.JUMP: f"the clock jumps back {back}; from there on times go on from the frame before",
                Kind.GAP: f"gaps: {first}, of up to {size}; either recording paused or the clock was set forward",
                Kind.OUTLIER: f"stamps that fit to none of their neighbours: {first}, off by up to {size}; "
                "these times are taken from the neighbours",
                Kind.SWAPPED: f"stamps out of order: {first}, off by up to {size}; they are put in order",
                Kind.STUCK: f"frames that share a stamp for long, or have none of their own before a gap: {first}, "
                f"up to {trouble.largest:.0f} of them; their times are uncertain",
                Kind.MISSING: f"frames without a stamp: {first}; their times are taken from the neighbours",
            }
            lines.append(f"{name}: {words[kind]}")
        return lines

    def _judge(self, stamps: Sequence[float | None], *, at_end: bool) -> list[tuple[float, Kind]]:
        """The believed stamps of the first of the frames held back, one or more, and what became of them."""
        known = [(place, stamp) for place, stamp in enumerate(stamps) if stamp is not None]
        if not known:
            return self._run_on(stamps if at_end or self.frames else stamps[:1])
        if not self._anchored:
            return self._begin(stamps, known, at_end)
        place, head = known[0]
        in_line = place == 0 and self._runs_on(self._last, head)
        if in_line and all(stamp >= head for _, stamp in known):
            return [(head, Kind.IN_LINE)]
        swapped = self._sort_swapped(stamps, at_end)
        if swapped:
            return swapped
        lengths = self._chain_lengths(known)
        back = self._find_return(known, lengths, at_end)
        if back is not None:
            place, stamp = known[back]
            step = (stamp - self._last) / (place + 1)
            between = [(self._last + (n + 1) * step, _without(stamps[n])) for n in range(place)]
            return [*between, (stamp, Kind.IN_LINE)]
        if in_line:  # what speaks against it are the frames after it
            return [(head, Kind.IN_LINE)]
        base = self._find_base(known, lengths, at_end)
        if base is None:
            return self._run_on(stamps)
        place, stamp = known[base]
        before = self._run_on(stamps[:place])
        newest = before[-1][0] if before else self._last
        return [*before, (stamp, Kind.JUMP if stamp < newest else Kind.GAP)]

    def _begin(self, stamps: Sequence[float | None], known: Known, at_end: bool) -> list[tuple[float, Kind]]:
        """The first frames that have stamps; those before the first run of them are stamped from it."""
        steps = sorted(
            (later - sooner) / (after - before)
            for n, (before, sooner) in enumerate(known)
            for after, later in known[n + 1 : n + 1 + _RUN]
            if later - sooner > _ROUNDING
        )

        def support(interval: float) -> int:
            return sum(_EVEN[0] <= step / interval <= _EVEN[1] for step in steps)

        if steps and (not self._stated or (len(steps) >= 2 * _RUN and support(self._interval) < _RUN)):
            self._interval = max(steps, key=support)  # steps across outliers and jumps agree with few others
        if not self.frames:
            self._last = min(stamp for _, stamp in known[:_RUN]) - self._interval
            swapped = self._sort_swapped(stamps, at_end)
            if swapped:
                self._anchored = True
                return swapped
        place, stamp = known[self._first_run(known)]
        if self.frames:  # so far none had any: their times stay
            self._shift = self._time + (place + 1) * self._interval - stamp
        self._anchored = True
        before = [(stamp - (place - n) * self._interval, _without(stamps[n])) for n in range(place)]
        return [*before, (stamp, Kind.IN_LINE)]

    def _first_run(self, known: Known) -> int:
        lengths = self._chain_lengths(known)
        if all(later >= sooner for (_, sooner), (_, later) in pairwise(known)):
            if self._photographs:
                return 0
            after = next((n for n in range(1, len(known)) if known[n][1] - known[n - 1][1] > _LONE_GAP), len(known))
            return after if after < _RUN and after < len(known) and lengths[after] >= _RUN else 0
        return _first_long(lengths)

    def _find_return(self, known: Known, lengths: Sequence[int], at_end: bool) -> int | None:
        """Where the stamps run on from the newest believed one, after frames that do not."""
        best: int | None = None
        enough = 1 if at_end else min(_RUN, max(lengths))
        for n, (place, stamp) in enumerate(known):
            if not self._runs_on(self._last, stamp, place + 1) or lengths[n] < enough:
                continue
            if n and -_ROUNDING <= stamp - known[n - 1][1] <= 2 * self._interval * (place - known[n - 1][0]):
                continue  # it runs on from the frame before, so that one is as good as it is
            if best is None or lengths[n] > lengths[best]:
                best = n
        return best

    def _find_base(self, known: Known, lengths: Sequence[int], at_end: bool) -> int | None:
        """Where later frames follow a stamp to another time; None where too few are left to follow it."""
        head = known[0][1]
        if at_end and len(known) < _RUN and not self._photographs:
            usual = max(_LONE_GAP, 10 * self.anomalies[Kind.GAP].largest)
            if all(abs(stamp - self._last) > usual for _, stamp in known):
                return None
        if head >= self._last and all(stamp >= head for _, stamp in known):
            return 0  # nothing later speaks against it
        return _first_long(lengths)

    def _sort_swapped(self, stamps: Sequence[float | None], at_end: bool) -> list[tuple[float, Kind]] | None:
        """The first few in order, where that makes them run on evenly."""
        least, most = _EVEN[0] * self._interval, _EVEN[1] * self._interval
        block: list[float] = []
        for stamp in stamps:
            if stamp is None or not self._last + least <= stamp <= self._last + (len(stamps) + 1) * most:
                return None
            block.append(stamp)
            rest = [later for later in stamps[len(block) :] if later is not None]
            if len(block) < 2 or not (rest or at_end) or min(rest, default=math.inf) < max(block):
                continue
            order = sorted(range(len(block)), key=block.__getitem__)
            ordered = [block[place] for place in order]
            if max(abs(place - number) for number, place in enumerate(order)) > _FURTHEST_SWAP:
                return None  # two runs that overlap: the clock was set back by a few frames
            if all(least <= later - sooner <= most for sooner, later in pairwise([self._last, *ordered])):
                return [
                    (stamp, Kind.IN_LINE if stamp == written else Kind.SWAPPED)
                    for stamp, written in zip(ordered, block, strict=True)
                ]
            return None
        return None

    def _run_on(self, stamps: Sequence[float | None]) -> list[tuple[float, Kind]]:
        """Times by the interval alone."""
        last = self._last if self.frames else -self._interval
        return [(last + (n + 1) * self._interval, _without(stamp)) for n, stamp in enumerate(stamps)]

    def _chain_lengths(self, known: Known) -> list[int]:
        """For each stamp, how many of those held back follow each other from it on."""
        lengths = [1] * len(known)
        for n in range(len(known) - 2, -1, -1):
            place, stamp = known[n]
            following = (
                lengths[m] for m in range(n + 1, len(known)) if self._runs_on(stamp, known[m][1], known[m][0] - place)
            )
            lengths[n] = 1 + max(following, default=0)
        return lengths

    def _runs_on(self, sooner: float, later: float, steps: int = 1) -> bool:
        return -_ROUNDING <= later - sooner <= self._longest_step() + (steps - 1) * self._interval

    def _longest_step(self) -> float:
        return max(_LONGEST_STEP, _LONGEST_STEPS * self._interval)

    def _keep_time(self, believed: float, kind: Kind, written: float | None) -> float:
        """The time of the next frame; counts what became of its stamp."""
        if not self.frames:
            self.first_time = self._time = believed + self._shift
        step = believed - self._last if self.frames else 0.0
        size = 0.0 if written is None else abs(written - believed)
        if kind is Kind.JUMP:
            size = -step
            self._shift = self._time + self._interval - believed
        elif kind is Kind.GAP:
            size = step
        time = max(self._time, believed + self._shift)
        if kind is Kind.GAP and step < max(LARGE_GAP, self._longest_step()):
            kind = Kind.IN_LINE
        if kind is not Kind.IN_LINE:
            self._count(kind, time, size)
        if self.frames and written is not None and kind is Kind.IN_LINE and abs(step) <= _ROUNDING:
            self._same, self._unsure = self._same + 1, self._unsure + 1
        elif kind in (Kind.MISSING, Kind.OUTLIER):  # a gap after them may as well be before them
            self._unsure += self._anchored
        else:
            self._end_same(step)
        if kind is Kind.IN_LINE and _ROUNDING < step <= self._longest_step():
            self._steps.append(step)
            self._interval = statistics.median_low(self._steps)
        self._last, self._time = believed, time
        self.frames += 1
        return time

    def _end_same(self, step: float) -> None:
        """Frames that shared a stamp, or had none, are over: does it matter that they may lie anywhere in this step?"""
        same, unsure, self._same, self._unsure = self._same, self._unsure, 0, 0
        gap = math.inf > step > max(_LONGEST_STEP, 2 * self._interval)
        if same >= max(_STUCK, 3 * self._most_same) or (gap and unsure and not self._photographs):
            self._count(Kind.STUCK, self._time, unsure + 1, self.frames - unsure)
        else:
            self._most_same = max(self._most_same, same)

    def _count(self, kind: Kind, time: float, size: float, frame: int | None = None) -> None:
        anomaly = self.anomalies[kind]
        if not anomaly.count:
            anomaly.first, anomaly.first_time = self.frames if frame is None else frame, time
        anomaly.count += 1
        anomaly.largest = max(anomaly.largest, size)


def _in_words(seconds: float) -> str:
    """A time in brackets; nothing where a damaged stamp is beyond any calendar."""
    return f" ({format_time(seconds)})" if abs(seconds) < _CALENDAR else ""


def _without(stamp: float | None) -> Kind:
    """What a frame is whose own stamp is not used."""
    return Kind.MISSING if stamp is None else Kind.OUTLIER


def _first_long(lengths: Sequence[int]) -> int:
    """The first stamp that enough others follow."""
    enough = min(_RUN, max(lengths))
    return next(place for place, length in enumerate(lengths) if length >= enough)
