"""Searching with sums of unit vectors, whose lengths differ, as if they were unit vectors."""

import torch
from torch import Tensor
from torch.nn import functional

from tapetum.core.types import Modality


def join_unit_sums(parts: Tensor, modalities: Tensor) -> Tensor:
    """Unit vectors whose inner products across modalities are the mean of all inner products of their parts.

    The sum of E unit vectors is at most E long. Two more numbers, one used by visible and one by infrared pictures,
    fill each sum up to that length, by which all are divided. Across modalities they meet a zero; two pictures of the
    same modality gain the product of what they lacked.

    Args:
        parts: (E, B, D) vectors of unit length, or of zeros.
        modalities: (B,) values of `Modality`.
    Returns:
        (B, D + 2) of unit length; across modalities <a, b> is the mean of <a_e, b_f> over all e and f.
    """
    count = len(parts)
    # E^2 - |sum|^2 by the differences of the parts: exact also where all are nearly the same.
    apart = (parts[:, None] - parts[None, :]).square().sum((0, 1, 3)) / 2
    absent = (count - parts.square().sum((0, 2))).round()  # a part of zeros lacks its whole length
    lacking = (apart + count * absent).clamp(min=0).sqrt()
    filling = functional.one_hot(modalities, len(Modality)) * lacking[:, None]
    return torch.cat([parts.sum(0), filling], dim=1) / count
