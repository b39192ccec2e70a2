"""One channel of each picture, or its grey, in the place of all three: CAJ's change of infrared pictures.

Source: the release of Ye et al. (ICCV 2021), ChannelAdapGray: one of four choices, each equally likely, is one of the
channels, or grey with probability 0.5 and no change otherwise; on the normalised picture, after erasing.
Differs: as `tapetum.data.augmentations.channel_exchange`, the affine map that does the same behind the normalisation.
"""

from dataclasses import dataclass

import numpy as np

from tapetum.core.options import option
from tapetum.data.augmentations.channel_exchange import copy_channel
from tapetum.data.transforms import Draws, Images
from tapetum.layers.normalisation import STATISTICS, Normalisation

WORKS_ON = "floats"
GREY_WEIGHTS = (0.2989, 0.5870, 0.1140)  # the release's, of the normalised channels


@dataclass(frozen=True)
class Options:
    """The fourth choice, and where the change happens."""

    grey: float = option(0.5, "probability that the fourth choice is grey, not the picture as it is", least=0, most=1)
    normalisation: Normalisation = option(
        "imagenet", "the method's, behind which the change is meant; none: before it, in 0..1"
    )


def change(pictures: Images, options: Options, draws: Draws) -> Images:
    """Pictures of one channel, grey ones, and some as they were."""
    numbers = draws.random(2)
    choice = (numbers[:, 0] * 4).astype(np.int64)
    by_channel = choice < 3
    pictures[by_channel] = copy_channel(pictures[by_channel], choice[by_channel], options.normalisation)
    grey = ~by_channel & (numbers[:, 1] < options.grey)
    means, deviations = (np.array(values, np.float32) for values in STATISTICS[options.normalisation])
    colours = (pictures[grey] - means) / deviations
    pictures[grey] = (colours @ np.array(GREY_WEIGHTS, np.float32))[..., None] * deviations + means
    return pictures
