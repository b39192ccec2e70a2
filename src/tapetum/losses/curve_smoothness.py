"""Illumination smoothness: the maps of curve parameters should change slowly over the picture."""

from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def curve_smoothness(curves: Tensor, *, reading: Literal["code", "paper"] = "code") -> Tensor:
    """Total variation of the curve maps.

    "code": 2/B (sum of squared vertical steps / ((H-1) W) + sum of squared horizontal steps / (H (W-1))), summed over
    the channels. "paper": the square of |vertical step| + |horizontal step| at each pixel, summed over the channels
    and averaged over batch and pixels (a step out of the picture is zero); over pixels is ours, the paper does
    not say its N.

    Args:
        curves: (B, 24, H, W).
        reading: of the released code or of the IDF paper.
    Source: Zero-DCE release, class "L_TV".
    """
    batch, _, height, width = curves.shape
    if reading == "paper":
        steps = curves.new_zeros(curves.shape)
        steps[:, :, :-1] += curves.diff(dim=2).abs()
        steps[:, :, :, :-1] += curves.diff(dim=3).abs()
        return steps.square().sum() / (batch * height * width)
    by_rows = 2 / (batch * max((height - 1) * width, 1))
    by_columns = 2 / (batch * max(height * (width - 1), 1))
    loss: Tensor = _SquaredSteps.apply(curves, by_rows, by_columns)
    return loss


class _SquaredSteps(torch.autograd.Function):
    """a sum of squared vertical steps + b sum of squared horizontal steps, gradient written out.

    The maps are the largest tensors of a training step, and autograd would make three times the passes over them.
    """

    @staticmethod
    def forward(ctx: Any, curves: Tensor, a: float, b: float) -> Tensor:
        vertical, horizontal = curves.diff(dim=2), curves.diff(dim=3)
        ctx.save_for_backward(vertical, horizontal)
        ctx.factors = a, b
        down: Tensor = torch.linalg.vector_norm(vertical)
        right: Tensor = torch.linalg.vector_norm(horizontal)
        return a * down.square() + b * right.square()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        vertical, horizontal = ctx.saved_tensors
        a, b = ctx.factors
        batch, channels, rows, width = vertical.shape
        by_curves = vertical.new_zeros((batch, channels, rows + 1, width))
        for steps, factor, dimension, size in ((vertical, a, 2, rows), (horizontal, b, 3, width - 1)):
            scaled = steps * (2 * factor * gradient)
            by_curves.narrow(dimension, 1, size).add_(scaled)
            by_curves.narrow(dimension, 0, size).sub_(scaled)
        return by_curves, None, None
