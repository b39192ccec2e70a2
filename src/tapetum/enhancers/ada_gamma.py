"""Adaptive gamma correction: a power of each picture's lightness, chosen by its mean and spread.

With V the largest channel in 0..1, mu and sigma its mean and standard deviation over the picture:

    gamma = -log2(sigma)                   where 4 sigma <= 1 / tau (low contrast)
          = exp((1 - (mu + sigma)) / 2)    elsewhere
    V'    = V^gamma                                                where mu >= 0.5
          = V^gamma / (V^gamma + (1 - V^gamma) mu^gamma)           where mu < 0.5

Hue and saturation stay: each pixel's three channels are multiplied by V' / V.

Source: Rahman et al., "An adaptive gamma correction for image enhancement", EURASIP JIVP 2016; in the IDF paper's Table
III as "Ada Gamma". No code was released with either; the formulas are those on which two of three public
implementations agree, the third having another exponent for high contrast.
Differs: sigma is at least 1e-4, so that its logarithm is finite; a picture of one lightness throughout stays as it is;
colours are multiplied in floating point, where a conversion to 8-bit HSV and back rounds hue and saturation too.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tapetum.core.options import option
from tapetum.data.image_io import Picture

LEAST_DEVIATION = 1e-4
LEVELS = np.arange(256) / 255


@dataclass(frozen=True)
class Options:
    """The boundary of low contrast."""

    tau: float = option(3.0, "contrast is low where four standard deviations are at most 1 / tau", above=0)


def build(options: Options) -> Callable[[Picture], Picture]:
    """The correction of one picture."""
    return lambda picture: correct(picture, options.tau)


def correct(picture: Picture, tau: float = 3.0) -> Picture:
    """A picture, (H, W, 3) uint8 RGB, corrected by its own lightness."""
    value = picture.max(axis=2)
    shares = np.bincount(value.ravel(), minlength=256) / max(1, value.size)
    mean = float(shares @ LEVELS)
    deviation = float(np.sqrt(max(0.0, shares @ (LEVELS - mean) ** 2)))
    if not value.size or shares.max() == 1:
        return picture.copy()
    curve = correction_curve(mean, deviation, tau)
    factors = np.divide(curve, LEVELS, out=np.zeros(256), where=LEVELS > 0)  # black stays black
    corrected: Picture = np.rint(np.minimum(picture * factors[value][..., None], 255)).astype(np.uint8)
    return corrected


def correction_curve(mean: float, deviation: float, tau: float) -> NDArray[np.float64]:
    """V' of each of the 256 lightness levels, (256,) in 0..1."""
    deviation = max(deviation, LEAST_DEVIATION)
    gamma = -np.log2(deviation) if 4 * deviation <= 1 / tau else np.exp((1 - (mean + deviation)) / 2)
    powers = LEVELS**gamma
    if mean < 0.5:
        powers = powers / (powers + (1 - powers) * mean**gamma)
    curve: NDArray[np.float64] = np.clip(powers, 0, 1)
    return curve
