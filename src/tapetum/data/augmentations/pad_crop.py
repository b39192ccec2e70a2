"""Pad pictures on all sides and cut each back to its size at a random place.

The IDF and DEEN releases crop before they mirror, BoT after; with equal padding on both sides the two have the same
distribution.
"""

from dataclasses import dataclass
from typing import cast

import numpy as np

from tapetum.core.options import option
from tapetum.data.transforms import Draws, Pictures

WORKS_ON = "either"
STREAM = "geometry"  # three numbers a picture, one of them flip's


@dataclass(frozen=True)
class Options:
    """The border."""

    pad: int = option(10, "pixels on each side", least=0)
    fill: int = option(0, "grey value of the border, 0..255; MPANet's is 127", least=0, most=255)


def change(pictures: Pictures, options: Options, draws: Draws) -> Pictures:
    """Pictures of the same size, moved by up to `pad` pixels.

    Args:
        draws: row and column of the cut, each of 2 * pad + 1 places equally likely.
    """
    pad = options.pad
    if not pad:
        return pictures
    offsets = draws.random(3)[:, 1:]
    count, height, width, channels = pictures.shape
    padded = np.zeros((count, height + 2 * pad, width + 2 * pad, channels), pictures.dtype)
    if options.fill:
        padded[:] = options.fill if pictures.dtype == np.uint8 else options.fill / 255
    padded[:, pad : pad + height, pad : pad + width] = pictures
    tops, lefts = (offsets * (2 * pad + 1)).astype(np.int64).T
    # rows of pixels are runs of memory, so a window over them copies whole runs
    runs = padded.reshape(count, height + 2 * pad, -1)
    windows = np.lib.stride_tricks.sliding_window_view(runs, (height, width * channels), axis=(1, 2))
    return cast(Pictures, windows[np.arange(count), tops, lefts * channels].reshape(pictures.shape))
