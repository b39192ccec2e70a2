"""Change brightness, contrast, saturation and hue of each picture, in an order of its own."""

from dataclasses import dataclass
from typing import cast

import cv2
import numpy as np

from tapetum.core.options import option
from tapetum.core.pixels import LIGHTNESS_WEIGHTS
from tapetum.data.transforms import Bytes, Draws, Images

WORKS_ON = "bytes"
STREAM = "jitter"


@dataclass(frozen=True)
class Options:
    """How much."""

    strength: tuple[float, float, float, float] = option(
        (0.1, 0.1, 0.1, 0.0),
        "largest change of brightness, contrast, saturation (as factors around 1) and hue (in turns)",
        least=0,
    )


def change(pictures: Bytes, options: Options, draws: Draws) -> Bytes:
    """Pictures in other colours.

    Args:
        draws: four strengths, then four keys whose order is the order of the changes.
    """
    numbers = draws.random(8)
    images = pictures.astype(np.float32) * np.float32(1 / 255)
    limits = np.array(options.strength)
    amounts = ((numbers[:, :4] * 2 - 1) * limits + np.array([1, 1, 1, 0])).astype(np.float32)
    amounts[:, :3].clip(min=0, out=amounts[:, :3])
    order = np.argsort(numbers[:, 4:], axis=1, kind="stable")
    changes = (_brighten, _contrast, _saturate, _turn_hue)
    for step in range(4):
        for kind, each in enumerate(changes):
            rows = np.flatnonzero(order[:, step] == kind)
            if len(rows) and limits[kind] > 0:
                part = each(images[rows], amounts[rows, kind].reshape(-1, 1, 1, 1))
                images[rows] = part.clip(0, 1, out=part)
    return cast(Bytes, np.rint(images * np.float32(255)).astype(np.uint8))


def _recolour(images: Images, *codes: int) -> Images:
    """OpenCV's conversions of a whole batch, laid out as one tall picture."""
    tall = images.reshape(-1, *images.shape[2:])
    for code in codes:
        tall = cast(Images, cv2.cvtColor(tall, code))
    return tall.reshape(images.shape)


def _brighten(images: Images, amount: Images) -> Images:
    images *= amount
    return images


def _contrast(images: Images, amount: Images) -> Images:
    means = images.mean((1, 2), keepdims=True) @ np.array(LIGHTNESS_WEIGHTS, np.float32)
    images *= amount
    images += means[..., None] * (1 - amount)
    return images


def _saturate(images: Images, amount: Images) -> Images:
    grey = _recolour(images, cv2.COLOR_RGB2GRAY, cv2.COLOR_GRAY2RGB)
    images -= grey
    images *= amount
    images += grey
    return images


def _turn_hue(images: Images, amount: Images) -> Images:
    """Turn the hue of the HSV colour circle by `amount` turns; value and saturation stay."""
    hsv = _recolour(images, cv2.COLOR_RGB2HSV)  # hue in degrees
    hue = hsv[..., 0] + 360 * amount[..., 0]
    hsv[..., 0] = np.where(hue >= 360, hue - 360, np.where(hue < 0, hue + 360, hue))
    return _recolour(hsv, cv2.COLOR_HSV2RGB)
