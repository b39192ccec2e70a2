"""Pooling of maps: the generalised mean, between their average and their largest value; and horizontal stripes."""

import torch
from torch import Tensor, nn
from torch.nn import functional

EPS = 1e-12  # under the root: the gradient of an all-zero channel is finite
LOWEST = 1e-6  # of a value whose power is learned: its logarithm is part of the gradient


def pool_gem(maps: Tensor, power: float = 3.0) -> Tensor:
    """Generalised mean over all places, accumulated and given in float32 (float64 stays float64).

    Args:
        maps: (B, C, h, w); negative values, of which there are none behind a ReLU, count as zero.
        power: 1 is the average; the larger, the nearer to the maximum. Fixed, not learned.
    Returns:
        (B, C): (mean over places of maps^power + 1e-12)^(1 / power).
    Source: the visible-infrared release of AGW, which fixes the power at 3.
    """
    with torch.autocast(maps.device.type, enabled=False):
        values = maps if maps.dtype == torch.float64 else maps.float()
        return (values.clamp(min=0).pow(power).mean((2, 3)) + EPS).pow(1 / power)


class GeM(nn.Module):
    """Generalised mean whose power is learned: (mean over places of max(maps, 1e-6)^power)^(1 / power).

    Accumulated and given in float32 (float64 stays float64).

    Source: Radenovic et al., TPAMI 2019, as in the visible release of AGW.
    """

    def __init__(self, power: float = 3.0) -> None:
        super().__init__()
        self.power = nn.Parameter(torch.full((1,), power))

    def forward(self, maps: Tensor) -> Tensor:
        """One value a channel, (B, C)."""
        with torch.autocast(maps.device.type, enabled=False):
            values = maps if maps.dtype == torch.float64 else maps.float()
            return values.clamp(min=LOWEST).pow(self.power).mean((2, 3)).pow(1 / self.power)


def pool_stripes(maps: Tensor, stripes: int) -> Tensor:
    """The average of each horizontal stripe, accumulated and given in float32 (or better, as the map comes).

    Stripe s of S covers the rows from floor(s h / S) up to ceil((s + 1) h / S): neighbours share a row where S does
    not divide the height.

    Args:
        maps: (B, C, h, w).
    Returns:
        (B, stripes, C), the uppermost first.
    """
    rows = maps.mean(3, dtype=torch.promote_types(maps.dtype, torch.float32))
    return functional.adaptive_avg_pool1d(rows, stripes).transpose(1, 2)
