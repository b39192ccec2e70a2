"""Structural dissimilarity: an enhanced picture keeps the local structure of the original."""

import torch
from torch import Tensor
from torch.nn import functional

LUMINANCE_CONSTANT, CONTRAST_CONSTANT = 0.01**2, 0.03**2  # for pictures in 0..1 (Wang et al., 2004)


def structural_dissimilarity(original: Tensor, enhanced: Tensor) -> Tensor:
    """Mean of (1 - SSIM) / 2, clipped to 0..1, over 3x3 windows.

    Args:
        original: (B, 3, H, W) in 0..1.
        enhanced: (B, 3, H, W) in 0..1.
    Source: IDF release (present, not part of its total).
    """
    return structural_dissimilarity_map(original, enhanced).mean()


def structural_dissimilarity_map(original: Tensor, enhanced: Tensor) -> Tensor:
    """The same for each pixel and channel, (B, 3, H, W), before the mean; the border is reflected."""
    x, y = (functional.pad(images, (1, 1, 1, 1), mode="reflect") for images in (original, enhanced))
    moments = functional.avg_pool2d(torch.cat((x, y, x * x, y * y, x * y), 1), 3, stride=1)
    mean_x, mean_y, square_x, square_y, product = moments.chunk(5, dim=1)
    variance_x, variance_y = square_x - mean_x.square(), square_y - mean_y.square()
    covariance = product - mean_x * mean_y
    numerator = (2 * mean_x * mean_y + LUMINANCE_CONSTANT) * (2 * covariance + CONTRAST_CONSTANT)
    denominator = (mean_x.square() + mean_y.square() + LUMINANCE_CONSTANT) * (
        variance_x + variance_y + CONTRAST_CONSTANT
    )
    return ((1 - numerator / denominator) / 2).clamp(0, 1)
