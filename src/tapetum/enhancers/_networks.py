"""Networks that brighten, applied to one picture."""

import numpy as np
import torch

from tapetum.core.method import Enhancer
from tapetum.data.image_io import Picture
from tapetum.data.transforms import to_float, to_tensor


def enhance_by(network: Enhancer, picture: Picture, device: str = "cpu") -> Picture:
    """The picture as a network brightens it, rounded to whole numbers."""
    images = to_tensor(to_float(picture[None])).to(device)
    with torch.inference_mode():
        enhanced = network.enhance(images)
    if enhanced is images:  # an ablation without its enhancer
        return picture
    values = enhanced[0].float().cpu().clamp(0, 1).permute(1, 2, 0).numpy()
    bright: Picture = np.rint(values * 255).astype(np.uint8)
    return bright
