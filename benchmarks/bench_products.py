"""A vision transformer's training step and forward pass in float32 with its products by oneDNN against PyTorch's own.

`tapetum.layers.products` takes oneDNN only where PyTorch's products are slow beside its convolutions; elsewhere both
sides are the same, and the note says so. Gradients are compared first.
"""

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.measure import alternate, build_row
from tapetum.layers.backbones import build_any_backbone
from tapetum.layers.products import Linear, products_keep_up

BACKBONE, SIZE = "vit_small_patch16_224", (256, 128)
PICTURES = 16
ROUNDS = 5
LARGEST_DIFFERENCE = 1e-4  # of the largest gradient of a tensor


def run() -> Iterator[dict[str, Any]]:
    """A row for training and one for the forward pass."""
    torch.manual_seed(0)
    ours, _ = build_any_backbone(BACKBONE, size=SIZE)
    plain = copy.deepcopy(ours)
    for layer in plain.modules():
        if isinstance(layer, Linear):
            layer.__class__ = nn.Linear
    images = torch.randn(PICTURES, 3, *SIZE)
    with torch.no_grad():
        probe = torch.randn_like(ours(images))
    for one, other in zip(_train(ours, images, probe), _train(plain, images, probe), strict=True):
        difference = float((one - other).abs().max() / other.abs().max())
        if difference > LARGEST_DIFFERENCE:
            raise AssertionError(f"gradients differ by {difference:.1e} of the largest")
    note = "products keep up here: both sides are PyTorch's own" if products_keep_up() else ""
    work = f"{BACKBONE}, {PICTURES} pictures of {SIZE[0]} x {SIZE[1]}, float32"
    seconds = alternate(
        {"ours": lambda: _train(ours, images, probe), "plain": lambda: _train(plain, images, probe)}, ROUNDS
    )
    yield build_row(f"forward and backward, {work}", seconds["ours"], seconds["plain"], "s", note=note)
    with torch.no_grad():
        seconds = alternate({"ours": lambda: ours(images), "plain": lambda: plain(images)}, ROUNDS)
    yield build_row(f"forward, {work}", seconds["ours"], seconds["plain"], "s", note=note)


def _train(network: nn.Module, images: Tensor, probe: Tensor) -> list[Tensor]:
    wanted = [parameter for parameter in network.parameters() if parameter.requires_grad]
    return list(torch.autograd.grad(network(images), wanted, probe, materialize_grads=True))
