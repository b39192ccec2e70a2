"""Zero-DCE with the weights of a release, or of any checkpoint that holds its network.

Source: the method `tapetum.methods.zero_dce`. Weights that were trained here are given as a run instead.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from tapetum.core.method import TrainingFacts
from tapetum.core.options import option
from tapetum.data.image_io import Picture
from tapetum.enhancers._networks import check_weights, enhance_by
from tapetum.methods.zero_dce import Method
from tapetum.methods.zero_dce import Options as Network


@dataclass(frozen=True)
class Options:
    """Which weights."""

    weights: str = option("", "file with the network, e.g. the release's Epoch99.pth")


def build(options: Options) -> Callable[[Picture], Picture]:
    """The network, applied to one picture.

    Raises:
        CheckpointError: no file is named, or it holds no such network.
    """
    check_weights("zero_dce", options.weights, "the release's Epoch99.pth")
    network = Method(Network(), TrainingFacts(1)).eval()
    network.load_pretrained(options.weights)
    return partial(enhance_by, network)
