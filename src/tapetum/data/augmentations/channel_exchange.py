"""Channel exchange (Ye et al., ICCV 2021): one channel of each picture, drawn at random, takes the place of all three.

Source: CAJ's release, which exchanges channels of the normalised picture, after erasing.
Differs: a batch is not normalised yet, so the exchange is the affine map that does the same behind the normalisation:
    with means m and deviations s, channel k becomes m_k + s_k (x_c - m_c) / s_c. It may leave 0..1 a little, and is not
    clipped.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tapetum.core.options import option
from tapetum.data.transforms import Draws, Images
from tapetum.layers.normalisation import STATISTICS, Normalisation

WORKS_ON = "floats"


@dataclass(frozen=True)
class Options:
    """Where the exchange happens."""

    normalisation: Normalisation = option(
        "imagenet", "the method's, behind which channels are exchanged; none: before it, in 0..1"
    )


def change(pictures: Images, options: Options, draws: Draws) -> Images:
    """Pictures of one channel."""
    return copy_channel(pictures, (draws.random() * 3).astype(np.int64), options.normalisation)


def copy_channel(pictures: Images, channels: NDArray[np.int64], normalisation: Normalisation) -> Images:
    """One channel of each picture in the place of all three, in place.

    Args:
        channels: (b,) which one.
        normalisation: behind which the copy is meant.
    """
    means, deviations = (np.array(values, np.float32) for values in STATISTICS[normalisation])
    rows = np.arange(len(pictures))[:, None, None]
    plane = pictures[rows, np.arange(pictures.shape[1])[:, None], np.arange(pictures.shape[2]), channels[:, None, None]]
    plane -= means[channels, None, None]
    plane /= deviations[channels, None, None]
    pictures[:] = plane[..., None] * deviations + means
    return pictures
