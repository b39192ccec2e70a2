"""Batch-hard triplets between two sets of pictures: an anchor of the one, its positive and negative of the other."""

import torch
from torch import Tensor


def cross_triplet(distances: Tensor, labels: Tensor, others: Tensor, *, margin: float) -> Tensor:
    """Mean over anchors of [farthest positive - nearest negative + margin]_+, both from the other set.

    Anchors without a positive or without a negative are left out; where all are, it is 0.

    Args:
        distances: (N, M) of any kind, of anchors to the pictures of the other set; rows and columns in any order.
        labels: (N,) int64 of the anchors.
        others: (M,) int64.
    """
    same = labels[:, None] == others[None, :]
    complete = same.any(1) & ~same.all(1)
    positive = distances.masked_fill(~same, -torch.inf).amax(1)
    negative = distances.masked_fill(same, torch.inf).amin(1)
    hinges = (positive[complete] - negative[complete] + margin).clamp(min=0)
    return hinges.sum() / complete.sum().clamp(min=1)
