"""Finding people in dark pictures: brightening before detection, and from where on it is too dark to detect anybody."""

import cv2
import numpy as np

from tapetum.core.pixels import LIGHTNESS_WEIGHTS
from tapetum.data.image_io import Picture

# Mean lightness, 0..255. On clips darkened to about that detectors found half of the people and fewer, at half of it
# nobody, brightened or not (docs/detectors.md): there silence says nothing.
TOO_DARK_TO_DETECT = 16.0
_BRIGHT_ENOUGH = 64.0  # mean lightness, 0..255, which darker pictures are brought to; others stay as they are
_TOE = 3.0  # grey values: keeps the curve from tearing the darkest ones apart
_NOISE_BLUR = 1.0  # pixels: noise would be brightened with the rest
GAMMA_KEY = f"gamma {_BRIGHT_ENOUGH} {_TOE} {_NOISE_BLUR}"  # names what `brighten_for_detection` makes


def measure_lightness(picture: Picture) -> float:
    """Mean lightness of a frame, 0..255, from every fourth pixel of every fourth row."""
    return float(np.dot(picture[::4, ::4].reshape(-1, 3).mean(0), LIGHTNESS_WEIGHTS))


def is_dark(picture: Picture) -> bool:
    """Whether a frame is brightened before detection: its mean lightness is below 64."""
    return measure_lightness(picture) < _BRIGHT_ENOUGH


def brightening_curve(light: float, target: float) -> Picture:
    """(256,) uint8: the power curve that takes one grey value to another, and white to white.

    Args:
        light: grey value, 0..255.
        target: where it goes, 0..1 of white.
    """
    power = np.log(target) / np.log((light + _TOE) / (255 + _TOE))
    values = (np.arange(256) + _TOE) / (255 + _TOE)
    return np.asarray(np.rint(255 * values**power), np.uint8)


def brighten_for_detection(picture: Picture) -> Picture:
    """A dark frame, smoothed a little and lifted to a mean lightness of about 64; a light one as it is."""
    if not is_dark(picture):
        return picture
    light = measure_lightness(picture)
    smooth = cv2.GaussianBlur(picture, (0, 0), _NOISE_BLUR)
    return np.asarray(cv2.LUT(smooth, brightening_curve(light, _BRIGHT_ENOUGH / 255)), np.uint8)
