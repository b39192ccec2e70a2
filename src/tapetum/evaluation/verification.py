"""Are these two pictures of one person? Pairs counted by similarity, the curve of found against false alarms.

A pair is two different pictures; pairs of one modality count once. Taken out is what the protocol calls junk, and
within one modality always the pictures of one person under one camera, which show one moment. Similarities are counted
into fine bins (`evaluation.thresholds`) as they are computed, so that no matrix of all pairs is kept.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tapetum.core.errors import ProtocolError
from tapetum.core.protocol import Protocol
from tapetum.core.types import EmbeddingSet, Modality
from tapetum.core.vectors import similarity_blocks
from tapetum.evaluation.bootstrap import Interval
from tapetum.evaluation.thresholds import BINS, MODALITY_PAIRS, WIDTH, Array, Counts, pair_name
from tapetum.evaluation.thresholds import Tail as Tail  # where it was, and where programs look for it

PAIRS_AT_ONCE = 2**21  # bounds the memory beside one tile of the product
MOST_GROUPS = 256  # of people that a bootstrap draws; more people share groups
RELIABILITY_BINS = 15
ALARMS = 30  # false alarms that a threshold must have been seen with, on pairs or searches
PEOPLE = 3  # ... and how many pairs of people, or people, must make up a rate
FEWEST = 5  # people seen by pairs of pictures of their own, below which nothing is fitted


@dataclass(frozen=True)
class Comparison:
    """Pictures that are compared with each other."""

    pair: str  # the name of their modalities
    first: EmbeddingSet
    second: EmbeddingSet  # `first` itself where the pictures are of one modality
    junk: bool  # pairs of one person under one camera do not count
    camera_pairs: tuple[tuple[int, int], ...] = ()  # (query camera, gallery camera) whose pairs do not count either

    @property
    def within(self) -> bool:
        """Both sides are the same pictures."""
        return self.first is self.second

    @property
    def pids(self) -> Tensor:
        """Every person on either side once, ascending."""
        pids: Tensor = torch.unique(torch.cat([self.first.pids, self.second.pids]))
        return pids

    def camera_junk(self, first: Tensor, second: Tensor) -> Tensor:
        """(n, m) pairs of cameras that do not count, for a search from (n,) `first` in (m,) `second`."""
        rules = Protocol(self.pair, junk_camera_pairs=self.camera_pairs)
        return rules.camera_junk(first.unsqueeze(1), second)


def build_comparisons(embeddings: EmbeddingSet, protocol: Protocol) -> dict[str, Comparison]:
    """What can be compared with what, by the modalities that there are.

    Args:
        embeddings: pictures of people, each once.
        protocol: its junk rules hold across modalities; within one, one person under one camera is junk in any case.
    Returns:
        Name of a pair of modalities -> its comparison.
    Raises:
        ProtocolError: a vector holds NaN or infinity.
    """
    check_vectors(embeddings)
    kept = embeddings.select(protocol.ranks(embeddings.pids))
    sides = [kept.select(kept.modalities == int(each)) for each in Modality]
    comparisons = {}
    for first, second in MODALITY_PAIRS:
        if len(sides[first]) and len(sides[second]):
            name = pair_name(first, second)
            junk = first == second or protocol.junk == "same_pid_same_camid"
            comparisons[name] = Comparison(name, sides[first], sides[second], junk, protocol.junk_camera_pairs)
    return comparisons


def check_vectors(embeddings: EmbeddingSet) -> None:
    """Refuse NaN and infinity.

    Raises:
        ProtocolError: there are some.
    """
    if not embeddings.vectors.isfinite().all():
        raise ProtocolError("the embeddings hold NaN or infinity; extract them again")


def find_bins(similarities: Tensor) -> Tensor:
    """The bin of each similarity, int64; bin 0 holds the greatest."""
    return ((2 - 2 * similarities).clamp_(min=0).sqrt_() / WIDTH).long().clamp_(max=BINS - 1)


def similarity_tiles(first: EmbeddingSet, second: EmbeddingSet) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """All pairs of two sets, some rows at a time.

    Yields:
        (rows, similarities, same): (n,) int64 pictures of `first`, (n, Ng) their similarities to all of `second`, and
        (n, Ng) bool, which pairs are of one person.
    """
    step = max(1, PAIRS_AT_ONCE // len(second))
    for rows, block in similarity_blocks(first.vectors, second.vectors):
        for some, similarities in zip(torch.split(rows, step), torch.split(block, step), strict=True):
            yield some, similarities, first.pids[some].unsqueeze(1) == second.pids


@dataclass(frozen=True)
class PairTile:
    """Some pictures of one side with all of the other."""

    rows: Tensor  # (n,) int64 pictures
    similarities: Tensor  # (n, Ng)
    same: Tensor  # (n, Ng) bool, the pairs of one person that count
    different: Tensor  # (n, Ng) bool, those of two people

    def count(self, bins: Tensor, size: int) -> Tensor:
        """(2, size) int64, pairs of two people and of one in each bin, from (n, Ng) int64 bins, changed in place."""
        bins.add_(self.same, alpha=size).masked_fill_(~(self.same | self.different), 2 * size)
        return torch.bincount(bins.flatten(), minlength=2 * size + 1)[:-1].view(2, size)


def pair_tiles(comparison: Comparison) -> Iterator[PairTile]:
    """Every pair that counts, once, some rows at a time."""
    first, second = comparison.first, comparison.second
    numbers = torch.arange(len(second))
    for rows, similarities, same in similarity_tiles(first, second):
        different = ~same
        if comparison.within:
            once = numbers > numbers[rows].unsqueeze(1)
            same &= once
            different &= once
        if comparison.camera_pairs:
            valid = ~comparison.camera_junk(first.camids[rows], second.camids)
            valid &= ~comparison.camera_junk(second.camids, first.camids[rows]).T
            same &= valid
            different &= valid
        if comparison.junk:
            same &= first.camids[rows].unsqueeze(1) != second.camids
        yield PairTile(rows, similarities, same, different)


@dataclass(frozen=True)
class PairCounts:
    """Pairs by similarity."""

    same: Counts  # (BINS,) pairs of one person, from the most similar to the least
    different: Counts  # (BINS,) pairs of two people
    people: int  # on either side
    matched_people: int  # those of whom there is a pair

    @property
    def people_pairs(self) -> int:
        """How many pairs of two people there are."""
        return self.people * (self.people - 1) // 2

    @property
    def lowest_rate(self) -> float:
        """The lowest false-alarm rate that these pairs can support."""
        return max(ALARMS / max(1, int(self.different.sum())), PEOPLE / max(1, self.people_pairs))


def count_pairs(comparison: Comparison) -> PairCounts:
    """Count every pair by its similarity; the memory in use does not grow with the number of pairs."""
    counts = torch.zeros(2, BINS, dtype=torch.int64)
    pids = comparison.pids
    has_match = torch.zeros(len(pids), dtype=torch.bool)
    for tile in pair_tiles(comparison):
        counts += tile.count(find_bins(tile.similarities), BINS)
        has_match[torch.searchsorted(pids, comparison.first.pids[tile.rows[tile.same.any(1)]])] = True
    different, same = counts.numpy()
    return PairCounts(same, different, len(pids), int(has_match.sum()))


def rates_above(weights: Array | Counts, thresholds: Sequence[float] | Array) -> Array:
    """The share of similarities, (BINS,), at or above each threshold, to within a bin."""
    return np.concatenate([[0.0], weights.cumsum() / max(1.0, weights.sum())])[_bins_above(thresholds)]


def _bins_above(thresholds: Sequence[float] | Array) -> Counts:
    """How many bins lie wholly at or above each threshold, to within rounding."""
    distance = np.sqrt(np.clip(2 - 2 * np.asarray(thresholds, dtype=np.float64), 0, 4))
    return np.rint(distance / WIDTH).astype(np.int64)


@dataclass(frozen=True)
class Reliability:
    """Said against seen: pairs by the probability that was said, (RELIABILITY_BINS,) each."""

    predicted: Array  # mean probability said, NaN where no pair is
    observed: Array  # share of pairs of one person
    share: Array  # of all pairs, weighted by the prior
    error: float  # expected calibration error, the mean of |observed - predicted| over all pairs


def compute_reliability(counts: PairCounts, probabilities: Array, prior: float) -> Reliability:
    """How well probabilities, (BINS,), keep their word on pairs that were not fitted, `prior` of them of one person."""
    place = _reliability_bins(probabilities)
    same = prior * counts.same / max(1, counts.same.sum())
    mass = same + (1 - prior) * counts.different / max(1, counts.different.sum())
    observed, expected, share = (
        np.bincount(place, weights=weights, minlength=RELIABILITY_BINS).astype(np.float64)
        for weights in (same, mass * probabilities, mass)
    )
    with np.errstate(invalid="ignore"):
        return Reliability(expected / share, observed / share, share, float(np.abs(observed - expected).sum()))


def _reliability_bins(probabilities: Array) -> Counts:
    return np.minimum((probabilities * RELIABILITY_BINS).astype(np.int64), RELIABILITY_BINS - 1)


@dataclass(frozen=True)
class VerificationIntervals:
    """How far the numbers of a check would move, had other people been seen."""

    error: Interval  # of the expected calibration error
    false_alarms: tuple[Interval, ...]  # of the rate at each threshold
    found: tuple[Interval, ...]  # of the share of pairs of one person at or above it


def bootstrap_pairs(
    comparison: Comparison,
    probabilities: Array,
    thresholds: Sequence[float],
    prior: float,
    *,
    rng: np.random.Generator,
    draws: int = 1000,
    level: float = 0.95,
) -> VerificationIntervals:
    """Intervals from drawing people, not pairs: a person drawn twice brings all of his or her pairs twice.

    Args:
        probabilities: (BINS,) said at each similarity.
        thresholds: similarities.
        prior: weight of all pairs of one person together.
        draws: resamplings of the people; more than `MOST_GROUPS` people are drawn in groups.
        level: share of the resampled values inside.
    """
    pids = comparison.pids
    groups = min(len(pids), MOST_GROUPS)
    group_of = torch.from_numpy(rng.permutation(len(pids)) % groups)
    first, second = (group_of[torch.searchsorted(pids, side.pids)] for side in (comparison.first, comparison.second))
    reliability = torch.from_numpy(_reliability_bins(probabilities))
    chances = torch.from_numpy(probabilities)
    edges = np.sort(_bins_above(thresholds))
    level_of = torch.from_numpy(np.searchsorted(edges, np.arange(BINS), side="right"))
    tables = {"bin": reliability, "level": level_of}
    sizes = {"bin": RELIABILITY_BINS, "level": len(edges) + 1}
    same = {name: torch.zeros(groups * size, dtype=torch.float64) for name, size in sizes.items()}
    same["said"] = torch.zeros_like(same["bin"])
    other = {name: torch.zeros(groups * groups * size, dtype=torch.float64) for name, size in sizes.items()}
    other["said"] = torch.zeros_like(other["bin"])
    for tile in pair_tiles(comparison):
        every = find_bins(tile.similarities)
        mine = first[tile.rows].unsqueeze(1).expand_as(every)[tile.same]
        theirs = (first[tile.rows].unsqueeze(1) * groups + second)[tile.different]
        for sums, owner, bins in ((same, mine, every[tile.same]), (other, theirs, every[tile.different])):
            for name, size in sizes.items():
                key = owner * size + tables[name][bins]
                sums[name] += torch.bincount(key, minlength=len(sums[name]))
                if name == "bin":
                    sums["said"] += torch.bincount(key, weights=chances[bins], minlength=len(sums["said"]))
    weights = torch.from_numpy(rng.multinomial(groups, np.full(groups, 1 / groups), size=draws)).double()
    drawn_same = {name: weights @ values.view(groups, -1) for name, values in same.items()}
    drawn_other = {name: _weigh_pairs(weights, values.view(groups, groups, -1)) for name, values in other.items()}
    same_total = drawn_same["bin"].sum(1, keepdim=True).clamp(min=1)
    other_total = drawn_other["bin"].sum(1, keepdim=True).clamp(min=1)
    seen = prior * drawn_same["bin"] / same_total
    expected = prior * drawn_same["said"] / same_total + (1 - prior) * drawn_other["said"] / other_total
    above = [
        (sums["level"].cumsum(1)[:, :-1] / total).numpy()
        for sums, total in ((drawn_other, other_total), (drawn_same, same_total))
    ]
    order = np.argsort(np.argsort(_bins_above(thresholds), kind="stable"), kind="stable")
    alarms, shares = (values[:, order] for values in above)
    return VerificationIntervals(
        interval((seen - expected).abs().sum(1).numpy(), level),
        tuple(interval(column, level) for column in alarms.T),
        tuple(interval(column, level) for column in shares.T),
    )


def _weigh_pairs(weights: Tensor, values: Tensor) -> Tensor:
    """Sums over pairs of groups, each pair with the product of its groups' weights: (draws, size)."""
    groups, _, size = values.shape
    parts = [
        torch.einsum("dhs,dh->ds", (part @ values.view(groups, -1)).view(len(part), groups, size), part)
        for part in torch.split(weights, 64)
    ]
    return torch.cat(parts)


def interval(values: Array, level: float) -> Interval:
    """The percentile interval of resampled values, with a share `level` of them inside."""
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high), level, len(values))


def thin(rates: Array, values: Array, points: int = 200) -> Mapping[str, list[float]]:
    """A curve over ascending false-alarm rates, by its points at rates spread evenly by their logarithms."""
    lowest = rates[rates > 0].min() if (rates > 0).any() else 1.0
    grid = np.geomspace(lowest, 1, points) if lowest < 1 else np.ones(1)
    places = np.unique(np.searchsorted(rates, grid * (1 + 1e-12), side="right") - 1)
    return {"rates": rates[places].tolist(), "values": values[places].tolist()}
