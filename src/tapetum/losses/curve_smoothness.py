"""Illumination smoothness: the maps of curve parameters should change slowly over the picture."""

from typing import Literal

from torch import Tensor

from tapetum.losses._precision import at_least_float32


def curve_smoothness(curves: Tensor, *, reading: Literal["code", "paper"] = "code") -> Tensor:
    """Total variation of the curve maps.

    "code": 2/B (sum of squared vertical steps / ((H-1) W) + sum of squared horizontal steps / (H (W-1))), summed over
    the channels. "paper": the square of |vertical step| + |horizontal step| at each pixel, summed over the channels
    and averaged over batch and pixels (a step out of the picture is zero).

    Args:
        curves: (B, 24, H, W).
        reading: of the released code or of the IDF paper.
    Returns:
        () at least float32.
    Source: Zero-DCE release, class "L_TV".
    """
    curves = at_least_float32(curves)
    batch, _, height, width = curves.shape
    vertical = curves[:, :, 1:] - curves[:, :, :-1]
    horizontal = curves[:, :, :, 1:] - curves[:, :, :, :-1]
    if reading == "paper":
        steps = curves.new_zeros(curves.shape)
        steps[:, :, :-1] += vertical.abs()
        steps[:, :, :, :-1] += horizontal.abs()
        return steps.square().sum() / (batch * height * width)
    by_rows = vertical.square().sum() / max((height - 1) * width, 1)
    by_columns = horizontal.square().sum() / max(height * (width - 1), 1)
    return 2 * (by_rows + by_columns) / batch
