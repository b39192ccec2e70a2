"""Which crops of a tracklet are kept: the best of each stretch of time, with memory for a few at any length."""

from dataclasses import dataclass, replace

import numpy as np

from tapetum.core.sighting import Box
from tapetum.core.types import Modality
from tapetum.footage.quality import CUT, Quality

_CLEARLY_BETTER = 1.05  # a kept crop is replaced by one that is better by this factor; saves encoding
_PIECE_HEIGHT = 0.6  # of the tracklet's usual height
_PIECE_WORTH = 0.4


@dataclass(frozen=True)
class CropCandidate:
    """A crop that may be kept."""

    frame: int  # of the sighting
    seconds: float  # since the source began
    box: Box
    modality: Modality  # of its frame
    quality: Quality  # as measured
    jpeg: bytes  # the crop, encoded
    doubtful: bool = False  # whether its modality is in doubt


class CropChooser:
    """Candidates of one tracklet.

    Time is divided into stretches of equal length, each keeps its best; where there are more than twice as many
    stretches as crops wanted, neighbours are joined and stretches are twice as long from then on.

    Args:
        count: crops to be kept of the tracklet.
        shortest_seconds: length of the first stretches; crops are not closer than needed.
    """

    def __init__(self, count: int, shortest_seconds: float) -> None:
        self._count = count
        self._length = shortest_seconds
        self._start: float | None = None
        self._kept: dict[int, CropCandidate] = {}

    def wants(self, time: float, value: float) -> bool:
        """Whether a crop of this time and quality would be kept now."""
        best = self._kept.get(self._stretch(time))
        return best is None or value > _CLEARLY_BETTER * best.quality.value

    def add(self, candidate: CropCandidate) -> None:
        """Keep a crop in place of the one its stretch has."""
        self._kept[self._stretch(candidate.seconds)] = candidate
        while len(self._kept) > 2 * self._count:
            wider: dict[int, CropCandidate] = {}
            for stretch, each in self._kept.items():
                before = wider.get(stretch // 2)
                if before is None or each.quality.value > before.quality.value:
                    wider[stretch // 2] = each
            self._kept, self._length = wider, 2 * self._length

    def choose(self, least_share: float) -> list[CropCandidate]:
        """The crops to be kept, in order of time.

        Args:
            least_share: crops below this share of the best one's quality are left out.
        """
        candidates = [_judge_cut(self._kept[stretch], list(self._kept.values())) for stretch in sorted(self._kept)]
        best = max((each.quality.value for each in candidates), default=0.0)
        good = [each for each in candidates if each.quality.value >= least_share * best]
        groups = np.array_split(np.arange(len(good)), min(self._count, len(good))) if good else []
        return [max((good[place] for place in group.tolist()), key=lambda each: each.quality.value) for group in groups]

    def _stretch(self, time: float) -> int:
        if self._start is None:
            self._start = time
        return int((time - self._start) / self._length + 1e-6)


def _judge_cut(candidate: CropCandidate, others: list[CropCandidate]) -> CropCandidate:
    """At the frame's edge, a box far lower than the tracklet's others is a leg or a shoulder, whatever its shape."""
    usual = float(np.median([other.box[3] for other in others]))
    if CUT not in candidate.quality.remark or candidate.box[3] >= _PIECE_HEIGHT * usual:
        return candidate
    worth = round(_PIECE_WORTH * candidate.quality.value, 4)
    return replace(candidate, quality=replace(candidate.quality, value=worth))
