"""People who are surely two: whom one camera saw at one moment. What they say of a calibration, in the gallery itself.

A calibration promises how often strangers are as alike as a match must be. Tracklets of one recording that overlap in
time are strangers whom nobody had to label, as far as the detector did not find one person twice. Where clearly more of
them are that much alike than was promised, the promise does not hold here, and no answer is called a match.
"""

import json
import math
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from tapetum.core.atomic import write_bytes
from tapetum.core.errors import OutputError
from tapetum.core.seeding import numpy_generator
from tapetum.core.types import Modality
from tapetum.evaluation.calibration import Calibration
from tapetum.evaluation.thresholds import pair_name
from tapetum.gallery.store import Store
from tapetum.searching.identities import comparison_rates
from tapetum.searching.match_rule import MatchRule
from tapetum.searching.tracklets import TrackletKey, mean_vectors, recording_of

FILE = "strangers.json"
ROWS = "rows"  # in it: how many the gallery had
MOST_PAIRS = 500
SEED = 0
STALE = 0.02  # share of the rows that may have come or gone since a measurement that still counts
TOLERANCE = 2.0  # times the promised rate: strangers under one lamp are more alike than others
SURE = 0.01  # probability of so many by chance from which on they are too many


@dataclass(frozen=True)
class Strangers:
    """Similarities of pairs of tracklets of two people.

    Attributes:
        similarities: name of a pair of modalities -> of each pair of tracklets, that of their mean vectors.
    """

    similarities: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    def contradict(self, rule: MatchRule) -> str:
        """Why a rule's matches are none in this gallery; empty where nothing speaks against them.

        The rule's rate may be of whole searches, which is above that of each of their comparisons.
        """
        for pair, threshold in sorted(set(rule.bars.values())):
            if alike := self._too_many(pair, threshold, rule.rate):
                return (
                    f"no answer can be called a match: {alike} as a match must be ({pair}, from {threshold:.4f}), "
                    f"where the calibration promised {100 * rule.rate:.3g} % at most; it does not hold here: calibrate "
                    "with people of your own, or go by the order"
                )
        return ""

    def refute_joining(self, calibration: Calibration) -> str:
        """Why tracklets cannot be joined to people in this gallery; empty where nothing speaks against it."""
        for pair, rate in sorted(comparison_rates(calibration).items()):
            if alike := self._too_many(pair, calibration.threshold(rate, pair), rate):
                return (
                    f"tracklets are not joined to people: {alike} as those of one person must be to be joined "
                    f"({pair}), where the calibration promised {100 * rate:.3g} % at most"
                )
        return ""

    def _too_many(self, pair: str, threshold: float, rate: float) -> str:
        """How many reach a threshold, where that is clearly more than a rate; else empty."""
        known = self.similarities.get(pair, ())
        alike = sum(similarity >= threshold for similarity in known)
        if not alike or _chance(alike, len(known), min(TOLERANCE * rate, 1.0)) >= SURE:
            return ""
        return (
            f"of {len(known)} pairs of tracklets that one camera saw at one moment, and so of two people, {alike} are "
            "as alike"
        )


def measure_strangers(store: Store) -> Strangers:
    """Compare tracklets of one camera and recording that overlap in time; of many some are drawn, always the same.

    Loose crops have no frame: that two have one time does not say that two people were there.
    """
    columns = store.columns(["tracklet", "modality", "time", "camera", "frame"])
    spans: dict[TrackletKey, tuple[float, float]] = {}
    recordings: dict[tuple[str, str], list[TrackletKey]] = {}  # a tracklet's name begins with its recording's key
    from_frames: set[TrackletKey] = set()
    for tracklet, modality, time, camera, frame in zip(*columns.values(), strict=True):
        if not tracklet:
            continue
        key = tracklet, Modality(modality)
        if key not in spans:
            recordings.setdefault((recording_of(tracklet), camera), []).append(key)
        first, last = spans.get(key, (time, time))
        spans[key] = min(first, time), max(last, time)
        if frame:
            from_frames.add(key)
    pairs: list[tuple[TrackletKey, TrackletKey]] = []
    for all_keys in recordings.values():
        keys = [key for key in all_keys if key in from_frames]
        times = np.array([spans[key] for key in keys]).reshape(-1, 2)
        pairs += [(keys[one], keys[other]) for one, other in _overlaps(times) if keys[one][0] != keys[other][0]]
    if len(pairs) > MOST_PAIRS:
        drawn = numpy_generator(SEED).choice(len(pairs), MOST_PAIRS, replace=False)
        pairs = [pairs[place] for place in sorted(drawn.tolist())]
    means = dict(mean_vectors(store, sorted({key for pair in pairs for key in pair}), None))
    similarities: dict[str, list[float]] = {}
    for one, other in pairs:
        if one in means and other in means:  # was not deleted meanwhile
            name = pair_name(one[1], other[1])
            similarities.setdefault(name, []).append(round(float(means[one] @ means[other]), 4))
    return Strangers({name: tuple(sorted(values)) for name, values in similarities.items()})


def _overlaps(times: NDArray[np.float64]) -> list[tuple[int, int]]:
    """Pairs of intervals that share a moment, at most `MOST_PAIRS` of one recording; (N, 2) starts and ends."""
    order = np.lexsort((times[:, 1], times[:, 0]))
    starts, ends = times[order].T
    counts = np.searchsorted(starts, ends, side="right") - np.arange(len(order)) - 1
    total = int(counts.sum())
    chosen = np.arange(total)
    if total > MOST_PAIRS:
        chosen = np.sort(numpy_generator(SEED).choice(total, MOST_PAIRS, replace=False))
    first = np.searchsorted(counts.cumsum(), chosen, side="right")
    second = first + 1 + chosen - (counts.cumsum() - counts)[first]
    return list(zip(order[first].tolist(), order[second].tolist(), strict=True))


def _chance(least: int, count: int, rate: float) -> float:
    """The probability of so many or more of `count`, each by a rate."""
    return sum(
        math.comb(count, number) * rate**number * (1 - rate) ** (count - number) for number in range(least, count + 1)
    )


def write_strangers(store: Store) -> None:
    """Measure them and keep them beside a gallery that has a folder; numbers only, nobody's name.

    Raises:
        OutputError: the file cannot be written.
    """
    if store.folder is not None:
        rows = store.count()
        content = {name: list(values) for name, values in measure_strangers(store).similarities.items()}
        write_bytes(store.folder / FILE, json.dumps({ROWS: rows, **content}, indent=1).encode())


def has_strangers(store: Store) -> bool:
    """Whether a measurement of as many rows is kept.

    A gallery of an earlier version has none, nor one whose erasure was killed; after an indexing that was killed at its
    end there are more rows.
    """
    if store.folder is None:
        return False
    try:
        content = json.loads((store.folder / FILE).read_text(encoding="utf-8"))
        return bool(content[ROWS] == store.count())
    except (OSError, ValueError, TypeError, KeyError):
        return False


def forget_strangers(folder: Path) -> None:
    """Take away what was measured with people who must go; whoever erases measures anew behind that.

    Raises:
        OutputError: the file cannot be removed.
    """
    try:
        (folder / FILE).unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{folder / FILE}: cannot be removed ({error.strerror}); remove it") from None


def read_strangers(folder: Path) -> Strangers | None:
    """What was measured when the gallery was last added to or erased from; None where no such file can be read."""
    kept = _read_kept(folder)
    return None if kept is None else kept[1]


def _read_kept(folder: Path) -> tuple[int, Strangers] | None:
    """With how many rows, and what was measured."""
    try:
        content = json.loads((folder / FILE).read_text(encoding="utf-8"))
        pairs = {name: values for name, values in content.items() if name != ROWS}
        measured = Strangers({str(name): tuple(map(float, values)) for name, values in pairs.items()})
        return int(content.get(ROWS, 0)), measured
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def known_strangers(store: Store) -> Strangers | None:
    """What was measured, or is measured now where nothing is kept: a missing file must not stand for a good result.

    Nor must one of another gallery: while an indexing goes on, or after one that was killed, it is measured again
    whenever the rows have changed by more than `STALE`. None where the gallery has no folder to keep it in: a server
    would be read whole.
    """
    if store.folder is None:
        return None
    rows = store.count()
    kept = _read_kept(store.folder)
    if kept is not None and _is_of(kept[0], rows):
        return kept[1]
    with _MEASURING:  # searches that come meanwhile wait for it, and do not measure too
        if store not in _MEASURED or not _is_of(_MEASURED[store][0], rows):
            _MEASURED[store] = rows, measure_strangers(store)
        return _MEASURED[store][1]


def _is_of(measured: int, rows: int) -> bool:
    """Whether what was measured with so many rows still tells of a gallery of `rows`."""
    return abs(rows - measured) <= STALE * rows


_MEASURING = threading.Lock()
_MEASURED: WeakKeyDictionary[Store, tuple[int, Strangers]] = WeakKeyDictionary()  # with how many rows
