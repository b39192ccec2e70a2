"""Darken (or brighten) pictures by a power of a random exponent: 255 (v / 255)^gamma of each channel."""

from dataclasses import dataclass

import numpy as np

from tapetum.core.options import option, require
from tapetum.data.transforms import Bytes, Draws

WORKS_ON = "bytes"


@dataclass(frozen=True)
class Options:
    """The exponent."""

    gamma: tuple[float, float] = option(
        (1.0, 3.0), "smallest and largest exponent, drawn uniformly for each picture; above 1 darkens", above=0
    )

    def __post_init__(self) -> None:
        low, high = self.gamma
        require(low <= high, f"gamma: gamma is [{low:g}, {high:g}]; write the smaller number first")


def change(pictures: Bytes, options: Options, draws: Draws) -> Bytes:
    """Pictures of another lightness; each as `tapetum.synth.sensor.gamma_darken` makes it."""
    low, high = options.gamma
    exponents = low + (high - low) * draws.random(1)
    curves = np.rint(255 * (np.arange(256) / 255) ** exponents).astype(np.uint8)
    return np.take_along_axis(curves, pictures.reshape(len(pictures), -1), axis=1).reshape(pictures.shape)
