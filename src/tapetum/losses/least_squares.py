"""Least-squares adversarial losses of scores, plain and relative to the other side's mean."""

from collections.abc import Sequence

import torch
from torch import Tensor


def least_squares(scores: Tensor, target: float) -> Tensor:
    """Mean squared distance of scores, of any shape, from what they should be."""
    return (scores - target).square().mean()


def summed_least_squares(scores: Sequence[Tensor], target: float) -> Tensor:
    """The sum of `least_squares` over several scores of any shapes, such as of several sizes of a picture."""
    return torch.stack([least_squares(each, target) for each in scores]).sum()


def relativistic_least_squares(upper: Tensor, lower: Tensor) -> Tensor:
    """½ [mean (upper - mean lower - 1)² + mean (lower - mean upper)²], the means over all elements.

    Args:
        upper: scores of what should look real: real pictures for a discriminator, made ones for a generator.
        lower: of the other side; any shape, not necessarily that of `upper`.
    Source: the released code VITA-Group/EnlightenGAN (relativistic average, after Jolicoeur-Martineau 2018).
    """
    return (least_squares(upper - lower.mean(), 1) + least_squares(lower - upper.mean(), 0)) / 2
