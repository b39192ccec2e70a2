"""Batch-hard triplet loss: each picture against its farthest positive and its nearest negative in the batch."""

import torch
from torch import Tensor
from torch.nn import functional

from tapetum.core.errors import TrainingError
from tapetum.core.vectors import euclidean


def batch_hard_triplet(features: Tensor, labels: Tensor, *, margin: float | None = 0.3) -> Tensor:
    """Mean over all anchors of the margin loss between hardest positive and hardest negative; Euclidean.

    Args:
        features: (B, D), not normalised; rows in any order.
        labels: (B,) int64.
        margin: None takes the soft margin log(1 + exp(d_positive - d_negative)).
    Raises:
        TrainingError: the batch shows one identity only, so that there is no negative.
    Source: Hermans et al., 2017; distances as in the strong baseline (root of at least 1e-12).
    """
    distances = euclidean(features, features)
    same = labels[:, None] == labels[None, :]
    if bool(same.all()):
        raise TrainingError("triplet loss: the batch shows one identity only; use a P x K sampler with P >= 2")
    positive = distances.masked_fill(~same, 0.0).amax(1)
    negative = distances.masked_fill(same, torch.inf).amin(1)
    if margin is None:
        return functional.softplus(positive - negative).mean()
    return (positive - negative + margin).clamp(min=0).mean()
