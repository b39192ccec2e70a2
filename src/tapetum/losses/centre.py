"""Centre loss: each picture is drawn to the centre of its identity, and the centre to its pictures."""

import torch
from torch import Tensor

from tapetum.losses._precision import at_least_float32


def centre_loss(features: Tensor, labels: Tensor, centres: Tensor, *, weight: float = 1.0) -> Tensor:
    """weight * L with L = mean over the batch of the squared Euclidean distance between a feature and its centre.

    The features learn from weight * L, the centres from L itself: the weight says how much the loss counts beside
    others, and the centres move by an optimiser of their own, at its full rate.

    Args:
        features: (B, D), not normalised; rows in any order.
        labels: (B,) int64.
        centres: (num_ids, D).
        weight: of the loss.
    Returns:
        () at least float32.
    Source: Wen et al., ECCV 2016, as in the strong baseline's release, which divides the centres' gradient by the
        weight before their optimiser steps. That release also adds 1e-12 for each picture and each other class.
    """
    with torch.autocast(features.device.type, enabled=False):
        features, own = at_least_float32(features), at_least_float32(centres)[labels]
        moving = (features.detach() - own).square().sum(1).mean()
        drawing = (features - own.detach()).square().sum(1).mean()
        return weight * drawing + (moving - moving.detach())  # the second term is zero and has the centres' gradient
