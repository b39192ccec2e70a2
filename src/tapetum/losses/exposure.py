"""Exposure control: patches of an enhanced picture should reach a well-exposed level."""

from typing import Literal

from torch import Tensor
from torch.nn import functional

from tapetum.core.errors import TrainingError


def exposure(enhanced: Tensor, *, patch: int = 16, level: float = 0.6, power: Literal[1, 2] = 2) -> Tensor:
    """Mean deviation of the patches' grey level from the wanted one.

    Args:
        enhanced: (B, 3, H, W); rows and columns that fill no patch are left out.
        patch: side of a patch in pixels.
        level: wanted mean of a patch, in the pictures' range.
        power: 2 squares the deviation (released code), 1 takes its absolute value (paper).
    Raises:
        TrainingError: the pictures are smaller than a patch.
    Source: Zero-DCE release, class "L_exp".
    """
    height, width = enhanced.shape[2:]
    if min(height, width) < patch:
        raise TrainingError(f"exposure loss: pictures of {height}x{width} hold no patch of {patch}; enlarge them")
    grey = enhanced.mean(1, keepdim=True)
    deviation = functional.avg_pool2d(grey, patch) - level
    return (deviation.square() if power == 2 else deviation.abs()).mean()
