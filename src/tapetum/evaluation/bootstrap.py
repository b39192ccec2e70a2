"""How sure a number is: bootstrap intervals over queries, mean and deviation over trials and seeds."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tapetum.core.errors import ProtocolError
from tapetum.evaluation.metrics import Evaluation, Metrics

DRAWS_AT_ONCE = 2**20  # bounds the memory of the resampling
RANKS = (1, 5, 10, 20)
QUANTITIES = (*(f"rank{k}" for k in RANKS), "mean_ap", "mean_inp")


@dataclass(frozen=True)
class Interval:
    """A percentile interval, of fractions."""

    low: float
    high: float
    level: float  # share of the resampled values inside
    draws: int  # resamplings


def bootstrap(
    evaluations: Evaluation | Sequence[Evaluation],
    *,
    rng: np.random.Generator,
    mask: Tensor | Sequence[Tensor] | None = None,
    draws: int = 1000,
    level: float = 0.95,
) -> dict[str, Interval]:
    """Intervals of the reported numbers, had other queries of the same kind been drawn.

    The gallery and the checkpoint stay as they are: neither another gallery nor another training is covered. With
    several trials a query is drawn together with its results in all of them, so that its numbers are averages over
    trials. Where the trials draw the queries, the i-th of each shows one person under one camera: such a pair is then
    what is drawn.

    Args:
        evaluations: one, or one a trial, of the same queries (or people and cameras) in the same order.
        mask: (Nq,) bool, the queries of a slice, or one mask a trial; None takes all.
        draws: resamplings with replacement.
        level: share of the resampled values inside.
    Returns:
        Each of `QUANTITIES` to its interval.
    Raises:
        ProtocolError: a setting is out of range, the trials differ in their queries, or no query is counted.
    """
    trials = [evaluations] if isinstance(evaluations, Evaluation) else list(evaluations)
    if draws < 1 or not 0 < level < 1:
        raise ProtocolError(f"bootstrap: draws={draws}, level={level}; draws must be at least 1, level inside 0..1")
    if len({len(trial.matched) for trial in trials}) != 1:
        raise ProtocolError("bootstrap: the trials have different numbers of queries; bootstrap each trial alone")
    masks = [mask] * len(trials) if mask is None or isinstance(mask, Tensor) else mask
    sums = torch.stack([_contributions(trial, one) for trial, one in zip(trials, masks, strict=True)]).sum(0)
    values = sums[sums[:, -1] > 0].numpy()  # (queries, 7)
    count = len(values)
    if count == 0:
        raise ProtocolError("bootstrap: no query has a match in the gallery; check the slice or the protocol")
    step = max(1, DRAWS_AT_ONCE // count)
    samples = [
        values[rng.integers(0, count, size=(min(step, draws - start), count))].sum(axis=1)
        for start in range(0, draws, step)
    ]
    totals = np.concatenate(samples)
    ends = np.quantile(totals[:, :-1] / totals[:, -1:], [(1 - level) / 2, (1 + level) / 2], axis=0)  # (2, 6)
    return {
        name: Interval(float(low), float(high), level, draws)
        for name, low, high in zip(QUANTITIES, ends[0], ends[1], strict=True)
    }


def _contributions(evaluation: Evaluation, mask: Tensor | None) -> Tensor:
    """What each query adds to the sums of `QUANTITIES`, and to the denominator: (Nq, 7)."""
    first = evaluation.per_query_first_rank
    counted = evaluation.counted if mask is None else evaluation.counted & mask
    hits = [(first > 0) & (first <= k) for k in RANKS]
    columns = [*hits, evaluation.per_query_ap, evaluation.per_query_inp, counted]
    return torch.stack([column.double() for column in columns], dim=1) * counted.unsqueeze(1)


@dataclass(frozen=True)
class Paired:
    """How far each of R rows is above each other one, in fractions: entry (i, j) is of row i minus row j."""

    difference: NDArray[np.float64]  # (R, R)
    low: NDArray[np.float64]  # (R, R) lower end of the interval
    high: NDArray[np.float64]  # (R, R)
    level: float  # share of the resampled differences inside
    draws: int

    def is_real(self, row: int, other: int) -> bool:
        """Whether the interval excludes 0."""
        return bool(self.low[row, other] > 0 or self.high[row, other] < 0)


def paired_bootstrap(
    values: Sequence[NDArray[np.float64]],
    people: NDArray[np.int64],
    *,
    rng: np.random.Generator,
    draws: int = 2000,
    level: float = 0.95,
) -> Paired:
    """Differences between methods that answered the same queries, had other people and other trainings been drawn.

    People are resampled with all their queries, the same ones for every method, which takes out what makes a person
    easy or hard for all. The trainings of each method are resampled apart, since training 1 of one has nothing to do
    with training 1 of another; as a resample of S values varies too little by S - 1 to S, its deviation is widened by
    the root. Where a method was trained once, the interval says nothing about another training of it.

    Args:
        values: one array a method, (trainings, Nq) what each query gave, e.g. its average precision, the queries in the
            same order everywhere.
        people: (Nq,) identity of each query.
        draws: resamplings with replacement.
        level: share of the resampled differences inside.
    Raises:
        ProtocolError: a setting is out of range, there is no query, or the methods differ in their queries.
    """
    if draws < 1 or not 0 < level < 1:
        raise ProtocolError(f"bootstrap: draws={draws}, level={level}; draws must be at least 1, level inside 0..1")
    if not len(people) or any(each.ndim != 2 or not len(each) or each.shape[1] != len(people) for each in values):
        shapes = ", ".join(str(each.shape) for each in values)
        raise ProtocolError(
            f"bootstrap: methods with values of {shapes} for {len(people)} queries cannot be paired; "
            "evaluate all on the same queries"
        )
    _, places = np.unique(people, return_inverse=True)
    owner = np.zeros((len(people), int(places.max()) + 1))
    owner[np.arange(len(people)), places] = 1
    counts = owner.sum(0)  # (people,) queries of each
    drawn = rng.multinomial(len(counts), np.full(len(counts), 1 / len(counts)), size=draws)  # (draws, people)
    queries = drawn @ counts
    means, resampled = np.empty(len(values)), np.empty((len(values), draws))
    for row, each in enumerate(values):  # few methods
        trainings = len(each)
        of_each = drawn @ (each @ owner).T / queries[:, None]  # (draws, trainings)
        again = rng.multinomial(trainings, np.full(trainings, 1 / trainings), size=draws) / trainings
        wider = np.sqrt(trainings / (trainings - 1)) if trainings > 1 else 1.0
        means[row] = each.mean()
        resampled[row] = of_each.mean(1) + wider * ((again - 1 / trainings) * of_each).sum(1)
    tails = [(1 - level) / 2, (1 + level) / 2]
    ends = np.stack([np.quantile(one - resampled, tails, axis=1) for one in resampled])  # (R, 2, R)
    return Paired(means[:, None] - means, ends[:, 0], ends[:, 1], level, draws)


@dataclass(frozen=True)
class Combined:
    """Several evaluations under one protocol: drawn galleries, or seeds of training."""

    metrics: Metrics  # means; `num_queries` and `num_dropped`, too, rounded: one trial's, where all ask the same
    deviations: dict[str, float]  # each of `QUANTITIES` to the sample standard deviation; 0 for one
    count: int


def combine(results: Sequence[Metrics]) -> Combined:
    """Mean and deviation of several results, one a trial or one a seed.

    Raises:
        ProtocolError: there is none, or they follow different protocols.
    """
    if not results:
        raise ProtocolError("nothing to combine: no trial was evaluated; check the number of trials")
    protocols = {result.protocol for result in results}
    if len(protocols) > 1:
        names = ", ".join(sorted(protocol.name for protocol in protocols))
        raise ProtocolError(f"results of different protocols ({names}) cannot be averaged; evaluate all under one")
    length = min(len(result.cmc) for result in results)
    rows = [(*map(result.rank, RANKS), result.mean_ap, result.mean_inp) for result in results]
    columns = zip(*rows, strict=True)
    pairs = {name: mean_and_deviation(values) for name, values in zip(QUANTITIES, columns, strict=True)}
    return Combined(
        metrics=Metrics(
            cmc=torch.stack([result.cmc[:length] for result in results]).mean(0),
            mean_ap=pairs["mean_ap"][0],
            mean_inp=pairs["mean_inp"][0],
            num_queries=round(float(np.mean([result.num_queries for result in results]))),
            num_dropped=round(float(np.mean([result.num_dropped for result in results]))),
            protocol=results[0].protocol,
        ),
        deviations={name: deviation for name, (_, deviation) in pairs.items()},
        count=len(results),
    )


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation; the deviation of a single value is 0."""
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
