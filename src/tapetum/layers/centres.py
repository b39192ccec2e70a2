"""Class centres for a centre loss, which are trained apart from all other weights."""

import torch
from torch import nn

from tapetum.layers.bnneck import BNNeck


class Centres(nn.Module):
    """A centre for each class, from a standard normal distribution at the start.

    Args:
        num_ids: number of classes.
        width: of the feature.
    """

    def __init__(self, num_ids: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(num_ids, width))


class CentredNeck(BNNeck):
    """A BNNeck with a centre for each class in the space before it.

    Args:
        width: of the feature.
        num_ids: number of classes.
    """

    def __init__(self, width: int, num_ids: int) -> None:
        super().__init__(width, num_ids)
        self.centres = Centres(num_ids, width)


def centres_of(network: nn.Module) -> list[nn.Parameter]:
    """All class centres of a network: the parameters of its group "centres".

    Args:
        network: wherever in it they are.
    """
    return [module.weight for module in network.modules() if isinstance(module, Centres)]
