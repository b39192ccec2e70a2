"""Wide 3x3 convolutions by Winograd's filtering (`tapetum.layers.winograd`) against torch's own, float32 on a CPU.

The shapes are those of DEEN at its published size, in a step of eight pictures: its last two stages, and the dilated
convolutions of its expansion, both branches at once. Forward and backward together, in turn, after both gave the same
numbers. Where a ratio falls below one, `convolve` should leave such a shape to PyTorch on this CPU: `MIN_CHANNELS`
there and the rate of products (`tapetum.layers.products`) decide it.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.measure import alternate, build_row
from tapetum.layers.winograd import filter_maps

BATCH = 8
HEIGHT, WIDTH = 24, 9
SHAPES = {  # channels in and out, dilation
    "stage 3": (256, 256, 1),
    "expansion, dilation 1": (1024, 512, 1),
    "expansion, dilation 2": (1024, 512, 2),
    "expansion, dilation 3": (1024, 512, 3),
    "stage 4": (512, 512, 1),
}
ROUNDS = 5
LARGEST_DIFFERENCE = 1e-4  # of the largest number


def run() -> list[dict[str, Any]]:
    """One row a shape."""
    return [_measure(name, *shape) for name, shape in SHAPES.items()]


def _measure(name: str, channels: int, filters: int, dilation: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(BATCH, channels, HEIGHT, WIDTH, generator=generator).to(memory_format=torch.channels_last)
    weight = torch.randn(filters, channels, 3, 3, generator=generator) / (3 * channels**0.5)
    maps.requires_grad_()
    weight.requires_grad_()

    def ours() -> tuple[Tensor, ...]:
        seen = filter_maps(maps, weight, dilation=dilation)
        return seen, *torch.autograd.grad(seen.square().mean(), (maps, weight))

    def peer() -> tuple[Tensor, ...]:
        seen = functional.conv2d(maps, weight, padding=dilation, dilation=dilation)
        return seen, *torch.autograd.grad(seen.square().mean(), (maps, weight))

    for one, other in zip(ours(), peer(), strict=True):
        difference = float((one - other).detach().abs().max() / other.detach().abs().max())
        if difference > LARGEST_DIFFERENCE:
            raise AssertionError(f"{name}: the two differ by {difference:.1e} of the largest number")
    seconds = alternate({"ours": ours, "peer": peer}, ROUNDS)
    shape = f"{name}: {channels} to {filters} channels, {HEIGHT} x {WIDTH}"
    return build_row(shape, seconds["ours"], seconds["peer"], "s")
