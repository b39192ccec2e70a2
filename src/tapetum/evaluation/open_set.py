"""Is this person in the gallery at all? False alarms and misses of whole searches.

A search compares one picture with a gallery and answers with whoever reaches a threshold. Here each person in turn is
not enrolled: all pictures of him or her are taken out of the gallery, and whatever reaches the threshold is a false
alarm (FPIR, the false positive identification rate). With them left in, a search in which no picture of the person
reaches it is a miss (FNIR, the false negative identification rate). What the protocol calls junk takes part in neither.

The chance of a false alarm grows with the gallery. For a gallery of n pictures it is the mean over all ways to draw n
of the other people's pictures, exactly: where K of M pictures reach the threshold, a draw holds none of them with
probability C(M - K, n) / C(M, n), so nothing is drawn at all.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tapetum.core.types import EmbeddingSet
from tapetum.evaluation.bootstrap import Interval
from tapetum.evaluation.thresholds import BINS, Array, Counts
from tapetum.evaluation.verification import (
    ALARMS,
    PAIRS_AT_ONCE,
    PEOPLE,
    Comparison,
    find_bins,
    interval,
    similarity_tiles,
)

NEGLIGIBLE = 1e-7  # of a search's weight


@dataclass(frozen=True)
class SearchBlock:
    """Some searches; row i of every field is one of them."""

    pids: Tensor  # (n,) int64 who is searched for
    others: Tensor  # (n, Ng) similarity to pictures of other people, -inf where there is none
    available: Tensor  # (n,) int64 pictures of other people
    own: Tensor  # (n,) similarity to the person's nearest picture, -inf where there is none


def search_blocks(comparison: Comparison) -> Iterator[SearchBlock]:
    """Every picture searches in the pictures of the other side, across modalities in both directions."""
    yield from _directed(comparison, comparison.first, comparison.second)
    if not comparison.within:
        yield from _directed(comparison, comparison.second, comparison.first)


def _directed(comparison: Comparison, query: EmbeddingSet, gallery: EmbeddingSet) -> Iterator[SearchBlock]:
    numbers = torch.arange(len(gallery))
    for rows, similarities, same in similarity_tiles(query, gallery):
        valid = ~comparison.camera_junk(query.camids[rows], gallery.camids)
        mine, other = same & valid, ~same & valid
        if comparison.junk:
            mine &= query.camids[rows].unsqueeze(1) != gallery.camids
        if comparison.within:
            mine &= numbers[rows].unsqueeze(1) != numbers
        yield SearchBlock(
            query.pids[rows],
            similarities.masked_fill(~other, -torch.inf),
            other.sum(1),
            similarities.masked_fill(~mine, -torch.inf).amax(1),
        )


def available_pictures(comparison: Comparison) -> int:
    """The largest gallery that every search can have: pictures of other people."""
    sides = comparison.first, comparison.second
    fewest = []
    for query, gallery in (sides, sides[::-1]):
        for rows in torch.split(torch.arange(len(query)), max(1, PAIRS_AT_ONCE // len(gallery))):
            other = query.pids[rows].unsqueeze(1) != gallery.pids
            other &= ~comparison.camera_junk(query.camids[rows], gallery.camids)
            fewest.append(int(other.sum(1).min()))
    return min(fewest)


@dataclass(frozen=True)
class SearchCounts:
    """Searches by the best similarity that they found."""

    strangers: dict[int, Array]  # gallery size -> (BINS,) share of searches whose best answer there is that similar
    enrolled: Counts  # (BINS,) searches for people in the gallery, by their own nearest picture
    searches: int  # of strangers
    people: int  # who were searched for

    @property
    def lowest_rate(self) -> float:
        """The lowest rate of false alarms that these searches can support."""
        return max(ALARMS / max(1, self.searches), PEOPLE / max(1, self.people))


def count_searches(comparison: Comparison, sizes: Sequence[int]) -> SearchCounts:
    """Count searches by the similarity of their best answer.

    Args:
        sizes: galleries of how many pictures, each at most `available_pictures`.
    """
    strangers = {size: torch.zeros(BINS, dtype=torch.float64) for size in sizes}
    enrolled = torch.zeros(BINS, dtype=torch.int64)
    searches = 0
    for block in search_blocks(comparison):
        searches += len(block.pids)
        enrolled += torch.bincount(find_bins(block.own[block.own.isfinite()]), minlength=BINS)
        most = max((_depth(int(block.available.max()), size) for size in sizes), default=0)
        nearest = block.others.topk(most, dim=1).values if most else block.others
        for size in sizes:
            weights = _best_of_draw(block.available, size, _depth(int(block.available.max()), size))
            bins = find_bins(nearest[:, : weights.shape[1]])
            there = weights > 0
            strangers[size] += torch.bincount(bins[there], weights=weights[there], minlength=BINS)
    return SearchCounts(
        {size: (counted / max(1, searches)).numpy() for size, counted in strangers.items()},
        enrolled.numpy(),
        searches,
        len(comparison.pids),
    )


def _depth(available: int, size: int) -> int:
    """How many nearest pictures can matter: whether any of them is in a draw is as good as certain."""
    if size >= available:
        return available
    return min(available, int(np.ceil(np.log(NEGLIGIBLE) / np.log1p(-size / available))) + 1)


def _best_of_draw(available: Tensor, size: int, depth: int) -> Tensor:
    """How likely each of the nearest pictures is to be the nearest in a draw of `size`: (n, depth), nearest first.

    It is size / M for the first, and (M - k - size + 1) / (M - k) of the one before for each after.
    """
    pictures = available.double().unsqueeze(1)
    place = torch.arange(1, depth, dtype=torch.float64)
    ratios = ((pictures - place - size + 1) / (pictures - place).clamp(min=1)).clamp(min=0)
    return torch.cat([size / pictures, ratios], dim=1).cumprod(1)


@dataclass(frozen=True)
class SearchRates:
    """What thresholds do on the searches of a check; intervals: had other people searched in the same gallery."""

    false_alarms: tuple[float, ...]  # FPIR
    found: tuple[float, ...]  # 1 - FNIR
    false_alarm_intervals: tuple[Interval, ...]
    found_intervals: tuple[Interval, ...]


def check_searches(
    comparison: Comparison,
    thresholds: Sequence[tuple[int, float]],
    *,
    rng: np.random.Generator,
    draws: int = 1000,
    level: float = 0.95,
) -> SearchRates:
    """False alarms and misses at given thresholds.

    Args:
        thresholds: (pictures in the gallery, similarity).
        draws: resamplings of the people.
        level: share of the resampled values inside.
    """
    pids = comparison.pids
    sums = torch.zeros(4, len(thresholds), len(pids), dtype=torch.float64)  # alarms, searches, found, enrolled
    for block in search_blocks(comparison):
        owner = torch.searchsorted(pids, block.pids)
        there = block.own.isfinite().double()
        for number, (size, threshold) in enumerate(thresholds):
            above = (block.others >= threshold).sum(1)
            columns = (
                1 - _draw_holds_none(block.available, above, size),
                torch.ones_like(there),
                (block.own >= threshold).double(),
                there,
            )
            for place, values in enumerate(columns):
                sums[place, number].index_add_(0, owner, values)
    weights = torch.from_numpy(rng.multinomial(len(pids), np.full(len(pids), 1 / len(pids)), size=draws)).double()
    samples = torch.einsum("stp,dp->std", sums, weights)
    totals = sums.sum(2)
    rates, resampled = (
        (values[0] / values[1].clamp(min=1), values[2] / values[3].clamp(min=1)) for values in (totals, samples)
    )
    return SearchRates(
        tuple(rates[0].tolist()),
        tuple(rates[1].tolist()),
        tuple(interval(row.numpy(), level) for row in resampled[0]),
        tuple(interval(row.numpy(), level) for row in resampled[1]),
    )


def _draw_holds_none(available: Tensor, num_above: Tensor, size: int) -> Tensor:
    """C(M - K, n) / C(M, n) of each search, float64; 0 where fewer than n pictures are left."""
    pictures, above = available.double(), num_above.double()
    left = (pictures - above - size + 1).clamp(min=1)
    logarithm = (
        torch.lgamma(pictures - above + 1) - torch.lgamma(left) - torch.lgamma(pictures + 1)
        + torch.lgamma(pictures - size + 1)
    )  # fmt: skip
    return torch.where(pictures - above >= size, logarithm.exp(), 0.0)
