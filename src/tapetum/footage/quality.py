"""How well a person can be told on a crop, and whether a picture was taken in infrared.

Quality is a product of factors in 0..1, one for each thing that spoils a crop: darkness, size, the frame's edge, blur,
somebody in front. A remark says in words what spoils it most; it is there whenever a factor is below its limit.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from tapetum.core.pixels import LIGHTNESS_WEIGHTS
from tapetum.core.types import Modality
from tapetum.data.image_io import Picture
from tapetum.data.lighting import estimate_noise

TOO_DARK = "too dark to match"
TOO_SMALL = "too small"
CUT = "cut by the frame's edge"
BLURRED = "blurred"
HIDDEN = "hidden in part"

_MEASURED_HEIGHT = 128  # pixels; larger crops are measured at this height
_CELLS = (16, 8)  # (rows, columns) whose means show the person without the noise
_COLOUR_CELLS = (24, 32)
_COLOUR_SHARE = 90  # percentile: what is burnt into the picture (time, name of the camera) covers less than a tenth
_EDGE_PX = 2
_CUT_WORTH = 0.7  # of a crop at the frame's edge that has the shape of a whole body; less where it is shorter
_WHOLE_BODY = 2.2, 2.8  # height over width; less is cut above or below, more is cut at a side
_JPEG_CHROMA = 1.5  # grey values of colour that encoders add to a grey picture
_TINT = 5.0  # how far colour exceeds what does not follow the lightness, in a grey picture under one tint
_PURPLE = 0.1  # of the lightness, by which red and blue exceed green
_DARK = 40.0  # mean lightness, 0..255, above which an even frame is fog or a wall


@dataclass(frozen=True)
class QualityOptions:
    """Limits of the remarks, and where a factor reaches 1."""

    dark_contrast: float = 2.0  # deviation of the crop's cells, grey values, below which nobody can be told
    good_contrast: float = 12.0  # from which it is as good as any
    # contrast over what noise leaves of itself in the cells; below, the noise hides the person
    dark_signal: float = 1.5
    small_height: int = 48  # pixels, below which a crop is too small
    good_height: int = 128  # from which size is no hindrance
    blur: float = 0.75  # measure of blur (see `measure_blur`) above which a crop is blurred
    sharp: float = 0.45  # below which it is as sharp as any
    hidden: float = 0.4  # share of the box behind somebody nearer from which a person is hidden in part


@dataclass(frozen=True)
class Quality:
    """What was measured on one crop."""

    value: float  # 0..1
    remark: str  # what spoils it, most first, joined by "; "; empty where nothing does
    light: float  # mean lightness, 0..255


def measure_quality(
    crop: Picture,
    *,
    cut: bool = False,
    hidden_share: float = 0.0,
    options: QualityOptions | None = None,
) -> Quality:
    """How well a person can be told on a crop.

    Args:
        cut: whether the person reaches the edge of the frame.
        hidden_share: of the box that somebody nearer covers.
    """
    limits = options or QualityOptions()
    height, width = crop.shape[:2]
    scale = min(1.0, _MEASURED_HEIGHT / height)
    target = (max(4, round(width * scale)), max(4, round(height * scale)))
    small = np.asarray(cv2.resize(crop, target, interpolation=cv2.INTER_AREA), np.uint8)
    grey = small.astype(np.float32) @ np.array(LIGHTNESS_WEIGHTS, np.float32)
    cells = cv2.resize(grey, _CELLS[::-1], interpolation=cv2.INTER_AREA)
    contrast = float(cells.std())
    left_of_noise = estimate_noise(small) / np.sqrt(max(1.0, grey.size / cells.size))
    signal = contrast / max(left_of_noise, 0.25)
    blur = measure_blur(grey)
    dark = contrast < limits.dark_contrast or signal < limits.dark_signal
    factors = {
        TOO_DARK: (min(_ramp(contrast, 0, limits.good_contrast), _ramp(signal, 0, 4 * limits.dark_signal)), dark),
        TOO_SMALL: (_ramp(height, 0, limits.good_height), height < limits.small_height),
        CUT: (_CUT_WORTH * _body_shape(height, width) if cut else 1.0, cut),
        BLURRED: (1 - 0.7 * _ramp(blur, limits.sharp, limits.blur), blur > limits.blur and not dark),
        HIDDEN: (1 - 0.8 * min(1.0, hidden_share), hidden_share >= limits.hidden),
    }
    value = float(np.prod([factor for factor, _ in factors.values()]))
    reasons = sorted((factor, name) for name, (factor, remarked) in factors.items() if remarked)
    light = float(np.dot(crop.reshape(-1, 3).mean(0), LIGHTNESS_WEIGHTS))
    return Quality(round(value, 4), "; ".join(name for _, name in reasons), round(light, 2))


def measure_blur(grey: NDArray[np.float32]) -> float:
    """How little another blur changes: 0 for the sharpest edges, towards 1 for a picture without any.

    The noise is smoothed away first, so that it does not pass for sharpness.

    Args:
        grey: (H, W) float32.
    """
    smooth = cv2.GaussianBlur(grey, (3, 3), 0.7)
    again = cv2.GaussianBlur(smooth, (7, 7), 2.0)
    energy = left = 0.0
    for axis in (0, 1):
        before, after = (np.diff(picture, axis=axis) ** 2 for picture in (smooth, again))
        energy, left = energy + float(before.sum()), left + float(after.sum())
    return left / energy if energy > 1e-6 else 1.0


def judge_modality(picture: Picture) -> tuple[Modality, bool]:
    """Infrared where a picture has no colour beyond noise and encoding, or a single purple tint; visible otherwise.

    Colour is the difference of red and blue to green in the means of 24 x 32 cells, in which noise is small; nine
    tenths of the cells must lack it, so that a coloured time burnt into the picture does not count. Below a lightness
    of about 10 colour drowns in the encoding: such a picture counts as visible unless its channels agree throughout.

    A camera whose infrared filter is open shows a grey picture under one tint: the channels of every cell follow its
    lightness along one line. Purple, with green the weakest, is no lamp's colour, so that is infrared. Under another
    tint it may as well be a street under sodium lamps: that stays visible. Either is in doubt.

    Errors on generated crops as JPEG, by ``test_modality_under_a_single_tint``: of 32 infrared ones in purple or pink,
    32 counted as visible without this rule, and none with it; in green or amber all count as visible, 31 of 32 in
    doubt. Of 32 visible ones none counts as infrared or is in doubt, with or without it. At 0.3 of the light 27 of the
    purple and pink ones are told, at 0.1 of it 19; the visible ones stay as they are without the rule.

    Args:
        picture: (H, W, 3) uint8 RGB, best the whole frame.
    Returns:
        The modality, and whether it is in doubt because of a single tint.
    """
    height, width = picture.shape[:2]
    rows, columns = min(_COLOUR_CELLS[0], height), min(_COLOUR_CELLS[1], width)
    cells = cv2.resize(picture.astype(np.float32), (columns, rows), interpolation=cv2.INTER_AREA).reshape(-1, 3)
    colour = float(np.percentile(np.abs(cells[:, (0, 2)] - cells[:, 1:2]).max(1), _COLOUR_SHARE))
    # A share of the lightness, so that dim pictures need less; noise leaves its deviation over the root of a cell.
    noise = estimate_noise(picture) / np.sqrt(max(1.0, height * width / (rows * columns)))
    light = float(cells.mean())
    limit = min(_JPEG_CHROMA, 0.15 * light) + 2 * min(noise, 0.05 * light)
    if colour <= limit:
        return Modality.INFRARED, False
    mean = cells.mean(0)
    lightness = cells.mean(1) - light
    slope = lightness @ (cells - mean) / max(float(lightness @ lightness), 1e-6)
    off_line = np.abs(cells - mean - lightness[:, None] * slope).max(1)
    if float(np.percentile(off_line, _COLOUR_SHARE)) * _TINT > colour or float(lightness.std()) < limit:
        return Modality.VISIBLE, False
    purple = min(mean[0], mean[2]) - mean[1] > _PURPLE * light
    return (Modality.INFRARED if purple else Modality.VISIBLE), True


def is_too_dark(picture: Picture, options: QualityOptions | None = None) -> bool:
    """Whether nobody could be seen in a frame: dark, and its cells hardly differ.

    Args:
        options: its `dark_contrast` is the limit; None takes the default.
    """
    cells = cv2.resize(picture, _COLOUR_CELLS[::-1], interpolation=cv2.INTER_AREA).reshape(-1, 3)
    grey = cells.astype(np.float32) @ np.array(LIGHTNESS_WEIGHTS, np.float32)
    return float(grey.mean()) < _DARK and float(grey.std()) < (options or QualityOptions()).dark_contrast


def touches_edge(box: tuple[int, int, int, int], size: tuple[int, ...]) -> bool:
    """Whether a box reaches the edge of its frame.

    Args:
        size: (height, width) of the frame.
    """
    left, top, width, height = box
    return min(left, top) <= _EDGE_PX or left + width >= size[1] - _EDGE_PX or top + height >= size[0] - _EDGE_PX


def _body_shape(height: int, width: int) -> float:
    """1 for the shape of a whole body, towards 0 for what is far lower or far narrower."""
    ratio = height / max(1, width)
    return min(_ramp(ratio, 0.5, _WHOLE_BODY[0]), _ramp(1 / max(ratio, 1e-6), 0.15, 1 / _WHOLE_BODY[1]))


def _ramp(value: float, low: float, high: float) -> float:
    return float(np.clip((value - low) / (high - low), 0, 1))
