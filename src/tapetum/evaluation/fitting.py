"""A calibration fitted on pairs of people: how much likelier a similarity is for one person than for two."""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from tapetum.core.errors import ProtocolError
from tapetum.evaluation.calibration import PairCalibration
from tapetum.evaluation.open_set import SearchCounts
from tapetum.evaluation.thresholds import Array, bin_centres, build_tail
from tapetum.evaluation.verification import FEWEST, PairCounts

METHODS = ("isotonic", "logistic")
BLIND = 0.55  # of comparisons that a pair of one person must win against one of two
KNOTS = 256  # of a stored logistic curve
Method = Literal["isotonic", "logistic"]


def check_people(pairs: PairCounts, pair: str) -> None:
    """Refuse too few people.

    Raises:
        ProtocolError: fewer than `FEWEST` have two pictures that make a pair.
    """
    if pairs.matched_people < FEWEST or not pairs.different.any():
        raise ProtocolError(
            f"{pair}: {pairs.matched_people} people of one half of the held-out people have two pictures that count as "
            f"a pair, at least {FEWEST} are wanted; calibrate with more people, or with people seen by two cameras"
        )


def fit_pair(
    pairs: PairCounts,
    searches: SearchCounts,
    pair: str,
    *,
    method: Method = "isotonic",
    rates: Sequence[float] = (),
) -> PairCalibration:
    """Fit one pair of modalities.

    Args:
        pair: its name, for messages.
        method: "isotonic" follows the data and only keeps the order; "logistic" is one smooth curve, for few people.
        rates: false-alarm rates that shall be stored exactly.
    Raises:
        ProtocolError: too few people, an unknown method, or a model whose similarities say nothing.
    """
    check_people(pairs, pair)
    if method not in METHODS:
        raise ProtocolError(f"method {method!r} is unknown; known: {', '.join(METHODS)}")
    _refuse_blind(pairs, pair)
    similarities, probabilities = (_fit_isotonic if method == "isotonic" else _fit_logistic)(pairs)
    return PairCalibration(
        tuple(similarities.tolist()),
        tuple(probabilities.tolist()),
        build_tail(pairs.different, pairs.lowest_rate, rates),
        {size: build_tail(best, searches.lowest_rate, rates) for size, best in searches.strangers.items()},
        {
            "people": pairs.people,
            "matched_people": pairs.matched_people,
            "same": int(pairs.same.sum()),
            "different": int(pairs.different.sum()),
            "searches": searches.searches,
        },
    )


def _samples(pairs: PairCounts, *, mirrored: bool) -> tuple[Array, Array, Array]:
    """Similarity, whether of one person, and weight; both kinds weigh the same together.

    One more pair of each kind weighs as much as half a person of those seen: nothing is impossible because it was not
    seen. It stands at either end, of one person at the least similarity and of two at the greatest; `mirrored`, it
    lies wherever pairs of the other kind do: an end would tilt a smooth curve.

    Source: for the latter, the smoothed targets of Platt, with people in place of samples.
    """
    centres = bin_centres()
    parts = []
    for counts, label, people in ((pairs.different, 0.0, pairs.people_pairs), (pairs.same, 1.0, pairs.matched_people)):
        (bins,) = counts.nonzero()
        weights, doubt = counts[bins] / counts.sum(), 0.5 / people
        labels = np.full(len(bins), label)
        if mirrored:
            parts += [(centres[bins], labels, weights * (1 - doubt)), (centres[bins], 1 - labels, weights * doubt)]
        else:
            parts.append((np.append(centres[bins], 1 - 2 * label), np.append(labels, label), np.append(weights, doubt)))
    similarity, label_of, weight = (np.concatenate(column) for column in zip(*parts, strict=True))
    return similarity, label_of, weight


def _fit_isotonic(pairs: PairCounts) -> tuple[Array, Array]:
    from sklearn.isotonic import IsotonicRegression

    similarity, label, weight = _samples(pairs, mirrored=False)
    regression = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip").fit(similarity, label, weight)
    knots, values = np.asarray(regression.X_thresholds_), np.asarray(regression.y_thresholds_)
    return knots, np.clip(values, 1e-9, 1 - 1e-9)


def _fit_logistic(pairs: PairCounts) -> tuple[Array, Array]:
    from sklearn.linear_model import LogisticRegression

    similarity, label, weight = _samples(pairs, mirrored=True)
    middle, deviation = np.average(similarity, weights=weight), np.sqrt(np.cov(similarity, aweights=weight))
    inputs = ((similarity - middle) / deviation)[:, None]
    regression = LogisticRegression(C=1e6, tol=1e-8, max_iter=1000).fit(inputs, label, sample_weight=weight * 1000)
    knots = np.unique(1 - np.linspace(2, 0, KNOTS) ** 2 / 2)
    values = regression.predict_proba(((knots - middle) / deviation)[:, None])[:, 1]
    return knots, np.clip(values, 1e-9, 1 - 1e-9)


def _refuse_blind(pairs: PairCounts, pair: str) -> None:
    """Where two pairs drawn by lot, one of each kind, are as good as never told apart, a curve would follow noise."""
    same, different = pairs.same / pairs.same.sum(), pairs.different / pairs.different.sum()
    closer = float((same * (1 - different.cumsum() + different / 2)).sum())
    if closer < BLIND:
        raise ProtocolError(
            f"{pair}: a pair of one person is more similar than a pair of two in {100 * closer:.0f} % of comparisons, "
            "so that a similarity says nothing; train the model first"
        )
