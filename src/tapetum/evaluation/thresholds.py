"""From similarities of strangers, counted in bins, to thresholds by the rate of false alarms; the pairs of modalities.

The bins are equally wide in the distance of two unit vectors, sqrt(2 - 2s), and therefore finest in similarity where
similarities crowd, near 1.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tapetum.core.types import Modality

Array = NDArray[np.float64]
Counts = NDArray[np.int64]

BINS = 2**14
WIDTH = 2 / BINS  # of a bin, in distance; 0.0001 in similarity at 0, ten times less at 0.99
PER_DECADE = 32  # points of a stored curve


def pair_name(first: Modality | int, second: Modality | int) -> str:
    """The name of a pair of modalities in any order, e.g. "visible-infrared"."""
    low, high = sorted((Modality(first), Modality(second)))
    return f"{low.name}-{high.name}".lower()


MODALITY_PAIRS = ((0, 0), (0, 1), (1, 1))
PAIR_NAMES = tuple(pair_name(*each) for each in MODALITY_PAIRS)


def similarity_edges() -> Array:
    """(BINS + 1,) ends of the bins, from similarity 1 down to -1."""
    return 1 - (np.arange(BINS + 1) * WIDTH) ** 2 / 2


def bin_centres() -> Array:
    """(BINS,) the similarity in the middle of each bin."""
    return 1 - ((np.arange(BINS) + 0.5) * WIDTH) ** 2 / 2


@dataclass(frozen=True)
class Tail:
    """Thresholds by the rate of false alarms, as far down as the data support them."""

    rates: tuple[float, ...]  # ascending, the last is 1
    thresholds: tuple[float, ...]  # one a rate, descending; a similarity of at least this counts as a match

    def threshold(self, rate: float) -> float:
        """The similarity that a stranger reaches at a rate in lowest..1; between stored rates by their logarithms."""
        return float(np.interp(np.log(rate), np.log(self.rates), self.thresholds))

    @property
    def lowest(self) -> float:
        """The lowest rate that there is a threshold for; above 1 where there is none."""
        return self.rates[0] if self.rates else np.inf


def build_tail(weights: Array | Counts, lowest: float, stated: Sequence[float] = ()) -> Tail:
    """Thresholds from the similarities of strangers, (BINS,).

    Args:
        lowest: rate below which the data are too few.
        stated: rates that shall be among the stored ones.
    """
    if not weights.sum() or lowest > 1:
        return Tail((), ())
    decades = np.log10(1 / lowest)
    rates = np.union1d(np.geomspace(lowest, 1, max(2, int(np.ceil(decades * PER_DECADE)) + 1)), stated)
    rates = rates[(rates >= lowest * (1 - 1e-12)) & (rates <= 1)]
    rates[-1] = 1.0
    share = weights.cumsum() / weights.sum()
    num_bins = np.searchsorted(share, rates * (1 + 1e-12), side="right")  # bins that stay within the rate
    thresholds = similarity_edges()[num_bins]
    thresholds[num_bins == 0] = 1 + 1e-6  # nobody, not even a copy
    return Tail(tuple(rates.tolist()), tuple(thresholds.tolist()))
