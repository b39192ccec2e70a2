"""Blocks of networks that make pictures, and of those that judge them."""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

Padding = Literal["zeros", "reflect"]
SLOPE = 0.2  # of the leaky ReLU between a judge's layers
FLAT = 1e-12  # variance of a map that is one number but for rounding


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions, each with a norm, a ReLU between them, and the way around; none behind it.

    Args:
        channels: of the maps, which it keeps.
        norm: builds a norm for them.
        padding: what surrounds the maps.
        bias: the convolutions have some, for want of a norm that takes means away.
        slope: of the ReLU below zero.
    """

    def __init__(
        self,
        channels: int,
        norm: Callable[[int], nn.Module],
        *,
        padding: Padding = "zeros",
        bias: bool = False,
        slope: float = 0.0,
    ) -> None:
        super().__init__()
        self.slope = slope
        self.convolutions = nn.ModuleList(
            nn.Conv2d(channels, channels, 3, padding=1, bias=bias, padding_mode=padding) for _ in range(2)
        )
        self.norms = nn.ModuleList(norm(channels) for _ in range(2))

    def forward(self, maps: Tensor, styles: Sequence[tuple[Tensor, ...]] = ((), ())) -> Tensor:
        """Maps of the same size.

        Args:
            maps: (B, C, H, W).
            styles: what each of the two norms is given beside its maps.
        """
        inner = functional.leaky_relu(self.norms[0](self.convolutions[0](maps), *styles[0]), self.slope)
        result: Tensor = maps + self.norms[1](self.convolutions[1](inner), *styles[1])
        return result


def instance_norm(maps: Tensor) -> Tensor:
    """Maps of mean 0 and deviation 1, (B, C, H, W), each by itself.

    A map that is one number, as of a black picture, sends nothing back: each norm would multiply what comes back by
    some 300, and a few dozens of them leave float32.
    """
    if torch.is_grad_enabled() and maps.requires_grad:
        flat = maps.detach().var((2, 3), correction=0, keepdim=True) < FLAT
        maps = torch.where(flat, maps.detach(), maps)
    return functional.instance_norm(maps)


class InstanceNorm(nn.Module):
    """`instance_norm` as a module, without weights."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, H, W) of (B, C, H, W)."""
        return instance_norm(maps)


class AdaptiveNorm(nn.Module):
    """An instance norm whose mean and deviation behind it are given with the maps."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, maps: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
        """(B, C, H, W) of (B, C, H, W), with (B, C) each."""
        return instance_norm(maps) * deviation[:, :, None, None] + mean[:, :, None, None]


class ScaledJudges(nn.Module):
    """How real each neighbourhood of a picture looks, at several sizes of the picture.

    Args:
        build: makes what judges pictures of one size.
        scales: sizes, each half the last.
    """

    def __init__(self, build: Callable[[], nn.Module], scales: int) -> None:
        super().__init__()
        self.judges = nn.ModuleList(build() for _ in range(scales))

    def forward(self, pictures: Tensor) -> tuple[Tensor, ...]:
        """Scores, (B, 1, y, x), for each size, the largest first, of (B, 3, h, w) pictures."""
        scores = []
        for number, judge in enumerate(self.judges):
            if number:
                pictures = functional.avg_pool2d(pictures, 3, stride=2, padding=1, count_include_pad=False)
            scores.append(judge(pictures))
        return tuple(scores)


def halve(before: int, after: int, *, bias: bool = True, padding: Padding = "zeros") -> nn.Conv2d:
    """A 4x4 convolution that halves the resolution."""
    return nn.Conv2d(before, after, 4, stride=2, padding=1, bias=bias, padding_mode=padding)


def draw_weights(network: nn.Module, deviation: float) -> None:
    """Begin the convolutions of a network, transposed ones too, as N(0, deviation), and their biases as 0."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(layer.weight, std=deviation)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
