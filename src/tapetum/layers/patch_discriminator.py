"""PatchGAN without normalisation: scores how real each neighbourhood of a picture looks."""

import itertools
from typing import cast

from torch import Tensor, nn

KERNEL, PADDING, SLOPE = 4, 2, 0.2


class PatchDiscriminator(nn.Module):
    """4x4 convolutions with leaky ReLU between them: `layers` of stride 2, one of stride 1, and the one that scores.

    Args:
        layers: with stride 2; channels double from `width` up to eight times as many.
        width: channels of the first (64 in the release).
    Source: the released code VITA-Group/EnlightenGAN, class NoNormDiscriminator, whose tensors' names these are.
    """

    def __init__(self, layers: int, width: int = 64) -> None:
        super().__init__()
        channels = [3, *(width * min(2**layer, 8) for layer in range(layers)), 8 * width]
        parts: list[nn.Module] = []
        for number, (before, after) in enumerate(itertools.pairwise(channels)):
            stride = 2 if number < layers else 1
            parts += [nn.Conv2d(before, after, KERNEL, stride, PADDING), nn.LeakyReLU(SLOPE)]
        self.model = nn.Sequential(*parts, nn.Conv2d(channels[-1], 1, KERNEL, padding=PADDING))

    def forward(self, images: Tensor) -> Tensor:
        """(B, 1, h, w) scores of (B, 3, H, W) pictures, without bounds."""
        return cast(Tensor, self.model(images))
