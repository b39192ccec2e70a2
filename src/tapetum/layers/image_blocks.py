"""Blocks of networks that make pictures, and of those that judge them."""

from collections.abc import Callable, Sequence
from typing import Literal

from torch import Tensor, nn

Padding = Literal["zeros", "reflect"]
SLOPE = 0.2  # of the leaky ReLU between a judge's layers


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions without biases, each with a norm, a ReLU between them, and the way around; none behind it.

    Args:
        channels: of the maps, which it keeps.
        norm: builds a norm for them.
        padding: what surrounds the maps.
    """

    def __init__(self, channels: int, norm: Callable[[int], nn.Module], *, padding: Padding = "zeros") -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False, padding_mode=padding) for _ in range(2)
        )
        self.norms = nn.ModuleList(norm(channels) for _ in range(2))

    def forward(self, maps: Tensor, styles: Sequence[tuple[Tensor, ...]] = ((), ())) -> Tensor:
        """Maps of the same size.

        Args:
            maps: (B, C, H, W).
            styles: what each of the two norms is given beside its maps.
        """
        inner = self.norms[0](self.convolutions[0](maps), *styles[0]).relu()
        result: Tensor = maps + self.norms[1](self.convolutions[1](inner), *styles[1])
        return result


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
