"""Losses are computed in float32 or better, also under autocast."""

import torch
from torch import Tensor


def at_least_float32(values: Tensor) -> Tensor:
    """The values as float32; float64 stays float64.

    Args:
        values: of any floating type.
    """
    return values if values.dtype == torch.float64 else values.float()
