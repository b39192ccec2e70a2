"""Attention within one map: channels that hear from channels, and places that hear from places.

Both begin as the identity: what is heard is multiplied by a learned number that starts at zero.

Source: "Dual Attention Network for Scene Segmentation" (Fu et al., CVPR 2019).
"""

import torch
from torch import Tensor, nn


class ChannelAttention(nn.Module):
    """gamma * (softmax(-X X^T) X) + X, where X is the map as a matrix of channels and places.

    The weights favour channels that are unlike. The products are sums over all places, not divided by their number, so
    they are taken in float32 (or better) also under autocast.

    Source: as above; it writes the largest product of a row minus each, of which the softmax is the same.
    """

    def __init__(self) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, maps: Tensor) -> Tensor:
        """The map, (B, C, h, w), and what its channels heard from each other."""
        with torch.autocast(maps.device.type, enabled=False):
            rows = maps.flatten(2).to(torch.promote_types(maps.dtype, torch.float32))
            weights = (-(rows @ rows.mT)).softmax(2)  # (B, C, C)
            heard = (weights @ rows).view(maps.shape).to(maps.dtype)
        attended: Tensor = self.gamma.to(maps.dtype) * heard + maps
        return attended


class PositionAttention(nn.Module):
    """gamma * V softmax(Q^T K)^T + X: each place hears from all, by how well its query fits their keys.

    Queries and keys have an eighth of the channels. The softmax is taken in float32 (or better) also under autocast.

    Args:
        width: channels C of the map.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        inner = max(width // 8, 1)
        self.query = nn.Conv2d(width, inner, 1)
        self.key = nn.Conv2d(width, inner, 1)
        self.value = nn.Conv2d(width, width, 1)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, maps: Tensor) -> Tensor:
        """The map, (B, C, h, w), and what its places heard from each other."""
        query, key, value = (part(maps).flatten(2) for part in (self.query, self.key, self.value))
        with torch.autocast(maps.device.type, enabled=False):
            exact = torch.promote_types(query.dtype, torch.float32)
            # Torch's own attention with scale=1 gives these values and gains nothing: its fused CPU kernel takes no
            # values wider than queries, and all of this is a hundredth of the network's seconds (benchmarks visible).
            weights = (query.to(exact).mT @ key.to(exact)).softmax(2)  # (B, place, place it hears from)
            heard = (value.to(exact) @ weights.mT).view(maps.shape).to(maps.dtype)
        attended: Tensor = self.gamma.to(maps.dtype) * heard + maps
        return attended
