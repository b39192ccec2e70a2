"""Mirror pictures left to right."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tapetum.data.transforms import Draws, Pictures

WORKS_ON = "either"
PROBABILITY = 0.5
STREAM = "geometry"  # three numbers a picture, two of them pad_crop's


@dataclass(frozen=True)
class Options:
    """None of its own."""


def draw_chance(generator: np.random.Generator, batch: int) -> NDArray[np.float64]:
    """(B,) in [0, 1): a picture below the probability is mirrored."""
    chance: NDArray[np.float64] = generator.random((batch, 3))[:, 0]
    return chance


def change(pictures: Pictures, options: Options, draws: Draws) -> Pictures:  # noqa: ARG001
    """Mirrored pictures."""
    return pictures[:, :, ::-1]
