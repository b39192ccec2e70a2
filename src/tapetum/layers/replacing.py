"""Convolutions of a network that are computed in another way; parameters keep their names."""

from collections.abc import Callable

from torch import nn


def replace_convolutions(
    network: nn.Module, fits: Callable[[nn.Conv2d], bool], build: Callable[[nn.Conv2d], nn.Conv2d]
) -> None:
    """Build modules in the place of those of a network's plain convolutions that fit; they take over the weight."""
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Conv2d and fits(child):
                parent.register_module(name, build(child))
