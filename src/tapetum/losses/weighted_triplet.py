"""Weighted regularised triplet loss: every pair of the batch counts, hard ones more, and there is no margin."""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from tapetum.core.errors import TrainingError
from tapetum.core.vectors import euclidean

Numerics = Literal["released", "stable"]
SELF_DISTANCE = 1e-6  # root of the smallest squared distance; the computed one would be rounding noise
RELEASED_EPS = 1e-6


def weighted_triplet(features: Tensor, labels: Tensor, *, numerics: Numerics = "released") -> Tensor:
    """Mean over all anchors of log(1 + exp(weighted positive distance - weighted negative distance)); Euclidean.

    Positives (the anchor itself among them) are weighted by a softmax of their distances, negatives by a softmax of
    their negated distances.

    Args:
        features: (B, D), not normalised; rows in any order.
        labels: (B,) int64.
        numerics: "released" adds 1e-6 to the sum of the weights and shifts the negatives' exponents by nothing, so that
            the weighted negative distance falls to zero once all negatives are farther than about 14; "stable" is the
            softmax itself.
    Raises:
        TrainingError: the batch shows one identity only, so that there is no negative.
    Source: AGW (Ye et al., TPAMI 2021), visible-infrared release.
    """
    positive, negative = weighted_distances(features, labels, numerics=numerics)
    return functional.softplus(positive - negative).mean()


def weighted_distances(
    features: Tensor, labels: Tensor, *, numerics: Numerics = "released", sharpness: float = 1.0
) -> tuple[Tensor, Tensor]:
    """The weighted distance of each anchor to its positives, and that to its negatives.

    Args:
        sharpness: factor on the distances inside the softmax of the weights; more makes hard pairs count more.
    Returns:
        (B,) and (B,), at least float32.
    Raises:
        TrainingError: the batch shows one identity only, so that there is no negative.
    """
    same = labels[:, None] == labels[None, :]
    if bool(same.all()):
        raise TrainingError("weighted triplet loss: the batch shows one identity only; use a P x K sampler, P >= 2")
    itself = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    distances = euclidean(features, features).masked_fill(itself, SELF_DISTANCE)
    weigh = _released_weights if numerics == "released" else _softmax_weights
    positive = (weigh(sharpness * distances, same) * distances).sum(1)
    negative = (weigh(-sharpness * distances, ~same) * distances).sum(1)
    return positive, negative


def _softmax_weights(values: Tensor, mask: Tensor) -> Tensor:
    return values.masked_fill(~mask, -torch.inf).softmax(1)


def _released_weights(values: Tensor, mask: Tensor) -> Tensor:
    """exp(x - max) / (sum + 1e-6) where masked entries take part in the maximum as zeros."""
    masked = values.masked_fill(~mask, 0.0)
    exponentials = (masked - masked.amax(1, keepdim=True)).exp() * mask
    return exponentials / (exponentials.sum(1, keepdim=True) + RELEASED_EPS)
