"""EnlightenGAN's generator with the weights of a release, or of any file that holds its network.

Source: `tapetum.layers.attention_unet`. The paper's row "En-GAN" of Table III. A picture keeps its size: the network
reflects it at the edges until its stages fit, and cuts that off again.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from tapetum.core.options import option
from tapetum.data.image_io import Picture
from tapetum.enhancers._networks import check_weights, enhance_by
from tapetum.layers.attention_unet import AttentionUNet


@dataclass(frozen=True)
class Options:
    """Which weights, and two of the network's readings."""

    weights: str = option("", "file with the generator, e.g. the release's 200_net_G_A.pth")
    align_corners: bool = option(
        False, "of the upsampling; true as PyTorch 0.3 had it, under which the release was trained"
    )
    largest_width: int = option(2200, "wider pictures are halved before and doubled after, pixels", least=1)


def build(options: Options) -> Callable[[Picture], Picture]:
    """The network, applied to one picture.

    Raises:
        CheckpointError: no file is named, or it holds no such network.
    """
    check_weights("enlighten_gan", options.weights, "the release's 200_net_G_A.pth")
    network = AttentionUNet(align_corners=options.align_corners, largest_width=options.largest_width).eval()
    network.load_weights(options.weights)
    return partial(enhance_by, network)
