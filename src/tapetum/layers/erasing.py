"""Random erasing of pictures that a network has drawn itself, on their device.

What training reads from files is erased by `tapetum.data.augmentations.erasing`.
"""

import torch
from torch import Tensor

AREA = (0.02, 0.4)  # of the picture, smallest and largest
ASPECT = (0.3, 1 / 0.3)  # height over width
TRIES = 100  # rectangles drawn until one fits; none fits: the picture stays whole


def erase(pictures: Tensor, probability: float) -> Tensor:
    """Pictures of which each may have lost a rectangle, which is 0.

    Args:
        pictures: (B, C, H, W), normalised.
    Source: Zhong et al. (AAAI 2020), whose tries are all drawn at once.
    """
    count, height, width = len(pictures), *pictures.shape[2:]
    device = pictures.device

    def draw(low: float, high: float, tries: int = TRIES) -> Tensor:
        return low + (high - low) * torch.rand(count, tries, device=device)

    area, aspect = draw(*AREA) * (height * width), draw(*ASPECT)
    heights, widths = (area * aspect).sqrt().round(), (area / aspect).sqrt().round()
    fits = (heights < height) & (widths < width) & (heights > 0) & (widths > 0)
    first = fits.int().argmax(1, keepdim=True)
    tall, wide = heights.gather(1, first), widths.gather(1, first)
    top, left = (draw(0, 1, 1) * (height - tall + 1)).floor(), (draw(0, 1, 1) * (width - wide + 1)).floor()
    chosen = (draw(0, 1, 1) < probability) & fits.any(1, keepdim=True)
    down, across = torch.arange(height, device=device), torch.arange(width, device=device)
    inside = ((down >= top) & (down < top + tall))[:, :, None] & ((across >= left) & (across < left + wide))[:, None]
    return pictures.masked_fill((inside & chosen[:, :, None])[:, None], 0)
