"""Colour constancy: the three channel means of an enhanced picture should be alike."""

from typing import Literal

import torch
from torch import Tensor


def colour_constancy(enhanced: Tensor, *, reading: Literal["code", "paper"] = "code") -> Tensor:
    """How far apart the channel means of enhanced pictures are, averaged over the batch.

    With D the squared difference of two channel means, "code" takes sqrt(D_rg^2 + D_rb^2 + D_gb^2) and "paper" takes
    D_rg + D_rb + D_gb.

    The original's root has no finite gradient where the three means are equal, as they are for a black picture, and
    one such picture turns every weight into NaN. Here the gradient of the root at zero is zero; elsewhere the values
    are the original's. (A constant added under the root would drown pictures in the range 0..1/255.)

    Args:
        enhanced: (B, 3, H, W).
        reading: of the released code (Zero-DCE and IDF alike) or of the IDF paper.
    Source: Zero-DCE release, class "L_color".
    """
    red, green, blue = enhanced.mean((2, 3)).unbind(1)
    differences = torch.stack((red - green, red - blue, blue - green)).square()
    if reading == "paper":
        return differences.sum(0).mean()
    distances: Tensor = torch.linalg.vector_norm(differences, dim=0)  # its gradient at zero is zero
    return distances.mean()
