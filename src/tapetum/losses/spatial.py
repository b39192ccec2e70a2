"""Spatial consistency: neighbouring regions keep their contrast when a picture is enhanced."""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional


def spatial_consistency(
    original: Tensor, enhanced: Tensor, *, pool: int = 4, reading: Literal["code", "paper"] = "code"
) -> Tensor:
    """Mean over regions of the squared change of contrast to the four neighbours.

    Args:
        original: (B, 3, H, W).
        enhanced: (B, 3, H, W), in the same range.
        pool: side of a region in pixels.
        reading: "code" compares signed differences (released code), "paper" absolute ones.
    Source: Zero-DCE release, class "L_spa".
    """
    return spatial_consistency_map(original, enhanced, pool=pool, reading=reading).mean()


def spatial_consistency_map(
    original: Tensor, enhanced: Tensor, *, pool: int = 4, reading: Literal["code", "paper"] = "code"
) -> Tensor:
    """The same for each region, before the mean: (B, 1, H // pool, W // pool)."""
    before, after = _contrasts(original, pool), _contrasts(enhanced, pool)
    if reading == "paper":
        before, after = before.abs(), after.abs()
    return (before - after).square().sum(0)


def _contrasts(images: Tensor, pool: int) -> Tensor:
    """Difference of each region to its four neighbours, (4, B, 1, h, w); outside the picture all is zero."""
    regions = functional.avg_pool2d(images.mean(1, keepdim=True), pool)
    height, width = regions.shape[2:]
    padded = functional.pad(regions, (1, 1, 1, 1))
    neighbours = (
        padded[:, :, 1:-1, :width],  # left
        padded[:, :, 1:-1, 2:],  # right
        padded[:, :, :height, 1:-1],  # up
        padded[:, :, 2:, 1:-1],  # down
    )
    return torch.stack([regions - neighbour for neighbour in neighbours])
