"""Orthogonality: embeddings made from one picture should say different things (DEEN, CVPR 2023)."""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional


def orthogonality(
    features: Tensor, *, normalise: bool = False, pairs: Literal["branches", "all"] = "branches"
) -> Tensor:
    """Inner products of a picture's embeddings, summed over pairs and pictures, divided by all G B rows.

    The features are averages behind a ReLU, so that no product is negative and zero is the smallest value.

    Args:
        features: (G, B, D): originals, then the expansions.
        normalise: cosines instead of inner products.
        pairs: "branches" compares the expansions with each other; "all" the original with them, too.
    Source: DEEN release.
    """
    rows = features.shape[0] * features.shape[1]
    if normalise:
        features = functional.normalize(features, dim=2)
    compared = features[1:] if pairs == "branches" else features
    first, second = torch.triu_indices(len(compared), len(compared), 1, device=features.device)
    return (compared[first] * compared[second]).sum() / rows
