"""Enlarge pictures and cut each back to its size at a random place.

Source: ABD-Net's release, with probability 0.5 and scale 1.125.
Differs: the release enlarges the file's picture, this one the picture that was resized to the training's size already,
    because that is what a loader keeps; so it is a little softer.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from tapetum.core.options import option
from tapetum.data.image_io import resize
from tapetum.data.transforms import Bytes, Draws

WORKS_ON = "bytes"
PROBABILITY = 0.5


@dataclass(frozen=True)
class Options:
    """The enlargement."""

    scale: float = option(1.125, "height and width before the cut, as multiples of the picture's; rounded", least=1)
    diagonal: bool = option(
        False, "one number for both offsets, so that the place moves along the diagonal, as BDTR's does"
    )
    interpolation: Literal["bilinear", "bicubic", "lanczos"] = option("bilinear", "filter of the enlargement")


def change(pictures: Bytes, options: Options, draws: Draws) -> Bytes:
    """Pictures of the same size that show a part, enlarged."""
    height, width = pictures.shape[1:3]
    large = (round(height * options.scale), round(width * options.scale))
    room = np.array([large[0] - height + 1, large[1] - width + 1])
    shares = draws.random(2)
    if options.diagonal:
        shares = shares[:, :1]
    for place, (top, left) in enumerate((shares * room).astype(np.int64).tolist()):
        picture = resize(pictures[place], large, interpolation=options.interpolation)
        pictures[place] = picture[top : top + height, left : left + width]
    return pictures
