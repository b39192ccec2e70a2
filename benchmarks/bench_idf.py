"""Training steps of IDE+ and IDF, in pictures a second: forward, losses, backward and the optimiser's step.

Where a row has a peer, it is the same step in float32 and PyTorch's default memory layout, or the same computation
written plainly and left to autograd. The small size is that of the demo, the large one that of the paper.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from benchmarks.measure import alternate, build_row
from tapetum.core.types import Batch
from tapetum.layers.curve_net import apply_curves
from tapetum.losses.curve_smoothness import curve_smoothness
from tapetum.methods import build_method

PEOPLE = 60
SMALL = {"extractor_options": {"backbone": "resnet18"}, "curve_width": 16, "input_scale": 1.0}
SMALL_SIZE, SMALL_BATCH = (128, 64), 32
LARGE_SIZE, LARGE_BATCH = (256, 128), 8


def build_step(
    name: str, options: Mapping[str, Any], size: tuple[int, int], batch_size: int, *, fast: bool
) -> Callable[[], None]:
    """One training step; `fast` means channels-last bfloat16, else float32 in the default layout."""
    torch.manual_seed(0)
    layout = torch.channels_last if fast else torch.contiguous_format
    method: Any = build_method(name, options, PEOPLE).to(memory_format=layout)
    images = (0.2 * torch.rand(batch_size, 3, *size)).contiguous(memory_format=layout)
    labels = torch.arange(batch_size) % PEOPLE
    batch = Batch(images, labels, labels, labels, torch.zeros_like(labels))
    optimiser = torch.optim.SGD(method.parameters(), lr=1e-3, momentum=0.9, nesterov=True, weight_decay=5e-4)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=fast):
            losses = method.losses(method(batch.images, batch.modalities, batch.camids), batch)
        optimiser.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        optimiser.step()

    return step


def apply_curves_plainly(images: Tensor, curves: Tensor) -> Tensor:
    for curve in torch.split(curves, 3, dim=1):
        images = images + curve * (torch.pow(images, 2) - images)
    return images


def smoothness_plainly(curves: Tensor) -> Tensor:
    batch, _, height, width = curves.shape
    vertical = torch.pow(curves[:, :, 1:] - curves[:, :, :-1], 2).sum() / ((height - 1) * width)
    horizontal = torch.pow(curves[:, :, :, 1:] - curves[:, :, :, :-1], 2).sum() / (height * (width - 1))
    return 2 * (vertical + horizontal) / batch


def run() -> list[dict[str, Any]]:
    return [*measure_small_steps(), measure_curves(), measure_large_step()]


def measure_small_steps() -> list[dict[str, Any]]:
    half = SMALL | {"curve_scale": 0.5}
    ide = SMALL["extractor_options"]
    steps = {
        "ide fast": build_step("ide", ide, SMALL_SIZE, SMALL_BATCH, fast=True),
        "ide": build_step("ide", ide, SMALL_SIZE, SMALL_BATCH, fast=False),
        "idf fast": build_step("idf", SMALL, SMALL_SIZE, SMALL_BATCH, fast=True),
        "idf": build_step("idf", SMALL, SMALL_SIZE, SMALL_BATCH, fast=False),
        "idf fast half": build_step("idf", half, SMALL_SIZE, SMALL_BATCH, fast=True),
    }
    rate = {name: SMALL_BATCH / seconds for name, seconds in alternate(steps, rounds=6).items()}
    of = "ResNet-18, 128 x 64, batch 32"
    against = "bf16 channels-last, against float32"
    note = "curve network of width 16"
    return [
        build_row(f"IDE+ training step, {of}: {against}", rate["ide fast"], rate["ide"], "pictures/s"),
        build_row(f"IDF training step, {of}: {against}", rate["idf fast"], rate["idf"], "pictures/s", note=note),
        build_row(
            f"IDF training step, {of}: curves at half resolution, against full",
            rate["idf fast half"],
            rate["idf fast"],
            "pictures/s",
            note=f"{note}, both bf16 channels-last",
        ),
    ]


def measure_curves() -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(SMALL_BATCH, 3, *SMALL_SIZE, generator=generator)
    curves = (2 * torch.rand(SMALL_BATCH, 24, *SMALL_SIZE, generator=generator) - 1).requires_grad_()
    sides = {
        "ours": lambda: (apply_curves(images, curves).sum() + curve_smoothness(curves)).backward(),
        "peer": lambda: (apply_curves_plainly(images, curves).sum() + smoothness_plainly(curves)).backward(),
    }
    seconds = alternate(sides, rounds=10)
    name = "curves applied and their smoothness, with gradients, against autograd"
    return build_row(name, seconds["ours"], seconds["peer"], "s")


def measure_large_step() -> dict[str, Any]:
    sides = {side: build_step("idf", {}, LARGE_SIZE, LARGE_BATCH, fast=side == "ours") for side in ("ours", "peer")}
    rate = {name: LARGE_BATCH / seconds for name, seconds in alternate(sides, rounds=2).items()}
    name = f"IDF training step, ResNet-50, 256 x 128, batch {LARGE_BATCH}: bf16 channels-last, against float32"
    return build_row(name, rate["ours"], rate["peer"], "pictures/s")
