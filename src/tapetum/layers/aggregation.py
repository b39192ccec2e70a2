"""Feature aggregation: a stage's maps take up what the maps before that stage show (MFA of DEEN, CVPR 2023).

Two non-local blocks one after the other, among channels and among positions. Neither has a softmax, so that a product
of three matrices may be computed from either side: (Q K') V = Q (K' V). Here it is always the side whose intermediate
is a small matrix of channels by channels; no affinity of positions is ever formed.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from tapetum.core.errors import RecipeError


class ChannelAggregation(nn.Module):
    """Non-local block among channels (CNL).

    With Q = query(high), K = key(low), V = value(low), maps flattened to (l, pixels): high + norm(out(Q K' V / l)).
    Where the lower maps have twice the resolution, key and out step by 2; as a 1x1 convolution commutes with stepping,
    value is needed at those positions only.

    Args:
        high: channels of the stage's maps.
        low: channels l of the maps before it.
        stride: 1, or 2 where the stage halves the resolution; likewise below.
    """

    def __init__(self, high: int, low: int, *, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.value = nn.Conv2d(low, low, 1)
        self.query = nn.Conv2d(high, low, 1)
        self.key = nn.Conv2d(low, low, 1)
        self.out = nn.Conv2d(low, high, 1)
        self.norm = build_silent_norm(high)

    def forward(self, high: Tensor, low: Tensor) -> Tensor:
        """Aggregated maps from those of (B, h, H, W) and (B, l, H, W), or twice as high and wide."""
        query = self.query(high).flatten(2)  # (B, l, N)
        key, value = _project(low, self.key, self.value, stride=self.stride)
        affinity = _scaled_product(query, key.flatten(2).mT, 1 / query.shape[1])  # (B, l, l)
        seen = torch.bmm(affinity, value.flatten(2)).reshape(high.shape[0], -1, *high.shape[2:])
        aggregated: Tensor = self.norm(self.out(seen)) + high
        return aggregated


class PositionAggregation(nn.Module):
    """Non-local block among positions (PNL).

    A position is a pixel of the upper half of the map joined with the pixel half a map further down, which is how the
    released code's view of c = l / 2 channels and N pixels as l rows of N / 2 reads it. With Q, K, V seen like that:
    high + norm(out(V K' Q / (N_low / 2))), where V K' is l x l.
    """

    def __init__(self, high: int, low: int) -> None:
        super().__init__()
        inner = low // 2
        self.value = nn.Conv2d(low, inner, 1)
        self.query = nn.Conv2d(high, inner, 1)
        self.key = nn.Conv2d(low, inner, 1)
        self.out = nn.Conv2d(inner, high, 1)
        self.norm = build_silent_norm(high)

    def forward(self, high: Tensor, low: Tensor) -> Tensor:
        """Aggregated maps from those of (B, h, H, W) and (B, l, H, W) of any size.

        Raises:
            RecipeError: a map has an odd number of pixels.
        """
        for maps in (high, low):
            if maps.shape[2] * maps.shape[3] % 2:
                raise RecipeError(
                    f"aggregation: a map of {maps.shape[2]} x {maps.shape[3]} pixels has no two halves; choose a "
                    "data.size whose height or width is a multiple of 32, which always works (16 with "
                    "method.expand_after: 2), or set method.aggregation: false"
                )
        query = _join_halves(self.query(high))  # (B, l, N / 2)
        key, value = (_join_halves(part) for part in _project(low, self.key, self.value))
        affinity = _scaled_product(value, key.mT, 1 / key.shape[2])  # (B, l, l)
        seen = torch.bmm(affinity, query).reshape(high.shape[0], -1, *high.shape[2:])
        aggregated: Tensor = self.norm(self.out(seen)) + high
        return aggregated


class Aggregation(nn.Module):
    """Both blocks, channels first. At the start it passes the stage's maps unchanged: the last norms' weights are zero.

    Source: DEEN release, class "MFA_block".
    """

    def __init__(self, high: int, low: int, *, stride: int) -> None:
        super().__init__()
        self.channel = ChannelAggregation(high, low, stride=stride)
        self.position = PositionAggregation(high, low)

    def forward(self, high: Tensor, low: Tensor) -> Tensor:
        """Aggregated maps, from what the stage gave and what it was given."""
        aggregated: Tensor = self.position(self.channel(high, low), low)
        return aggregated


def build_silent_norm(width: int) -> nn.BatchNorm2d:
    """A batch norm whose weight and bias start at zero: what it closes adds nothing until training opens it."""
    norm = nn.BatchNorm2d(width)
    nn.init.zeros_(norm.weight)
    return norm


def _project(maps: Tensor, *convolutions: nn.Conv2d, stride: int = 1) -> tuple[Tensor, ...]:
    """Several 1x1 convolutions of the same maps as one with their filters stacked."""
    weight = torch.cat([convolution.weight for convolution in convolutions])
    biases = [convolution.bias for convolution in convolutions if convolution.bias is not None]
    seen = functional.conv2d(maps, weight, torch.cat(biases), stride=stride)
    return torch.split(seen, [convolution.out_channels for convolution in convolutions], dim=1)


def _join_halves(maps: Tensor) -> Tensor:
    """(B, c, H, W) -> (B, 2 c, H W / 2): row 2 k + s is half s (upper, lower) of channel k."""
    return maps.reshape(maps.shape[0], 2 * maps.shape[1], -1)


def _scaled_product(a: Tensor, b: Tensor, scale: float) -> Tensor:
    """scale * a b for (B, n, k) and (B, k, m); the scale is applied to the float32 sums, before they are rounded."""
    return torch.baddbmm(a.new_empty(()), a, b, beta=0, alpha=scale)
