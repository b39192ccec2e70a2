"""Convolutions of stride 2 on maps one or two pixels wide, which PyTorch 2.15 gets wrong in bf16 on CPUs with AMX.

Outputs and weight gradients are then garbage, often not finite. Three pixels are enough: columns of zeros are what
surrounds a map anyway, so maps are widened by them and the outputs that belong to none of their pixels are cut off.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from tapetum.layers.replacing import replace_convolutions

NARROWEST_PX = 3


class StridedConvolution(nn.Conv2d):
    """A convolution that widens narrow maps first, in the place of one whose weights it takes over."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        with torch.device("meta"):
            super().__init__(
                convolution.in_channels,
                convolution.out_channels,
                convolution.kernel_size,  # type: ignore[arg-type]
                stride=convolution.stride,  # type: ignore[arg-type]
                padding=convolution.padding,  # type: ignore[arg-type]
                groups=convolution.groups,
                bias=False,
            )
        self.weight, self.bias = convolution.weight, convolution.bias

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  # the name that nn.Conv2d gives it
        """(B, K, h, w) of (B, C, H, W)."""
        width = input.shape[3]
        if width >= NARROWEST_PX:
            return super().forward(input)
        seen = (width + 2 * int(self.padding[1]) - self.kernel_size[1]) // self.stride[1] + 1
        return super().forward(functional.pad(input, (0, NARROWEST_PX - width)))[..., :seen]


def widen_narrow_maps(network: nn.Module) -> None:
    """Let a network's plain convolutions of stride 2 be computed so; parameters keep their names."""
    replace_convolutions(network, _fits, StridedConvolution)


def _fits(convolution: nn.Conv2d) -> bool:
    wide = convolution.kernel_size[1] > 1 and not isinstance(convolution.padding, str)
    return (
        wide and convolution.stride == (2, 2) and convolution.dilation == (1, 1) and convolution.padding_mode == "zeros"
    )
