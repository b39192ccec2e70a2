"""Take the colours of pictures, by Pillow's integer weights, to the last bit."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tapetum.data.transforms import Bytes, Draws

WORKS_ON = "bytes"
GREY_WEIGHTS = (19595, 38470, 7471)  # of 65536: Pillow's conversion to "L"


@dataclass(frozen=True)
class Options:
    """None of its own."""


def draw_chance(generator: np.random.Generator, batch: int) -> NDArray[np.float64]:
    """(B,) in [0, 1): a picture below the probability loses its colours."""
    return generator.random(batch)


def change(pictures: Bytes, options: Options, draws: Draws) -> Bytes:  # noqa: ARG001
    """Grey pictures of three equal channels."""
    grey = np.full(pictures.shape[:3], 0x8000, np.uint32)  # half of 65536, to round
    for channel, weight in enumerate(GREY_WEIGHTS):
        grey += pictures[..., channel] * np.uint32(weight)
    pictures[:] = (grey >> 16)[..., None]
    return pictures
