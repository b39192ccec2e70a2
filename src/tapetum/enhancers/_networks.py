"""Networks that brighten, applied to one picture."""

from pathlib import Path

import numpy as np
import torch

from tapetum.core.errors import CheckpointError
from tapetum.core.method import Enhancer
from tapetum.data.image_io import Picture
from tapetum.data.pictures import to_float
from tapetum.data.transforms import to_tensor


def check_weights(enhancer: str, file: str, example: str) -> None:
    """Complain where no weights are named, or where they name no file.

    Args:
        example: of what to write.
    Raises:
        CheckpointError: either.
    """
    if not Path(file).is_file():
        named = f"{file} is no file" if file else "its weights are not named"
        raise CheckpointError(
            f"enhancer {enhancer}: {named}; write --set weights=FILE, e.g. {example}, or train some with "
            f"`tapetum train {enhancer}_synth` and give the run"
        )


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
