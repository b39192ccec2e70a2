"""Named normalisations of pictures in 0..1: a method applies its own, once."""

from typing import Literal

import torch
from torch import Tensor, nn

Normalisation = Literal["none", "imagenet", "half"]

# Per-channel mean and standard deviation of RGB in 0..1.
STATISTICS: dict[str, tuple[tuple[float, float, float], tuple[float, float, float]]] = {
    "none": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}


class Normalise(nn.Module):
    """(picture - mean) / deviation by channel; keeps no tensor in checkpoints."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, name: Normalisation) -> None:
        super().__init__()
        self.name = name
        mean, deviation = STATISTICS[name]
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(deviation).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Normalised pictures, (B, 3, H, W)."""
        return images if self.name == "none" else (images - self.mean) / self.deviation
