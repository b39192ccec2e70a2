"""Contrast-limited adaptive histogram equalisation of the lightness L of CIE Lab; the colours a, b stay.

Source: Zuiderveld, "Contrast Limited Adaptive Histogram Equalization", Graphics Gems IV, 1994, as OpenCV computes it.
"""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from tapetum.core.options import option
from tapetum.data.image_io import Picture


@dataclass(frozen=True)
class Options:
    """How strongly, and how locally."""

    clip_limit: float = option(2.0, "largest count of a histogram's bin, in multiples of the mean", above=0)
    tiles: int = option(8, "in each direction, each with a histogram of its own", least=1, most=64)


def build(options: Options) -> Callable[[Picture], Picture]:
    """The equalisation of one picture."""

    def equalise(picture: Picture) -> Picture:
        # An object of its own for each picture: OpenCV's keeps state, and pictures come in several threads.
        method = cv2.createCLAHE(options.clip_limit, (options.tiles, options.tiles))
        lab = cv2.cvtColor(picture, cv2.COLOR_RGB2LAB)
        lab[..., 0] = method.apply(lab[..., 0])
        return cv2.cvtColor(lab, cv2.COLOR_LAB2RGB).astype(np.uint8, copy=False)

    return equalise
