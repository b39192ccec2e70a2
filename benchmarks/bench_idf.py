"""Training steps of IDE+ and IDF, in pictures a second: forward, losses, backward and the optimiser's step.

At the paper's size the peer is what the released code computes (`literal_idf`), in float32 as released, with equal
weights, in the same process and thus the same handling of memory; training steps, and extraction with the mirror.
Before anything is timed both must find equal losses and vectors. At the demo's size it is our own step in float32 and
PyTorch's default memory layout, or the same computation written plainly and left to autograd.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.literal_idf import LiteralIDF, smoothness
from benchmarks.measure import alternate, build_row
from benchmarks.stepping import build_step as build_step_of
from tapetum.core.memory import keep_freed_memory
from tapetum.core.types import Batch
from tapetum.inference.embeddings import embed_pictures
from tapetum.layers.curve_net import apply_curves
from tapetum.losses.curve_smoothness import curve_smoothness
from tapetum.methods import build_method, convert_to

PEOPLE = 60
SMALL = {"extractor_options": {"backbone": "resnet18"}, "curve_width": 16, "input_scale": 1.0}
SMALL_SIZE, SMALL_BATCH = (128, 64), 32
LARGE_SIZE, LARGE_BATCH, EXTRACTED = (256, 128), 8, 32
PRECISIONS = ("fp32", "bf16")


def build_step(
    name: str, options: Mapping[str, Any], size: tuple[int, int], batch_size: int, *, fast: bool
) -> Callable[[], float]:
    """One training step; `fast` means channels-last bfloat16, else float32 in the default layout."""
    torch.manual_seed(0)
    layout = torch.channels_last if fast else torch.contiguous_format
    method: Any = build_method(name, options, PEOPLE).to(memory_format=layout)
    images = (0.2 * torch.rand(batch_size, 3, *size)).contiguous(memory_format=layout)
    labels = torch.arange(batch_size) % PEOPLE
    batch = Batch(images, labels, labels, labels, torch.zeros_like(labels))

    def loss() -> Tensor:
        output = method(batch.images, batch.modalities, batch.camids)
        return torch.stack(list(method.losses(output, batch).values())).sum()

    return build_training(method, loss, bf16=fast)


def build_training(network: nn.Module, loss: Callable[[], Tensor], *, bf16: bool = False) -> Callable[[], float]:
    """One training step of a network on a batch that the loss knows."""
    take = build_step_of(network, loss, bf16=bf16)

    def step() -> float:
        network.train()
        return take()

    return step


def apply_curves_plainly(images: Tensor, curves: Tensor) -> Tensor:
    for curve in torch.split(curves, 3, dim=1):
        images = images + curve * (torch.pow(images, 2) - images)
    return images


def run() -> Iterator[dict[str, Any]]:
    keep_freed_memory()  # as `tapetum train` does; the peers gain from it too
    yield from measure_small_steps()
    yield measure_curves()
    yield from measure_against_release()


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
        "peer": lambda: (apply_curves_plainly(images, curves).sum() + smoothness(curves)).backward(),
    }
    seconds = alternate(sides, rounds=10)
    name = "curves applied and their smoothness, with gradients, against autograd"
    return build_row(name, seconds["ours"], seconds["peer"], "s")


def measure_against_release() -> Iterator[dict[str, Any]]:
    torch.manual_seed(0)
    ours: Any = build_method("idf", {}, PEOPLE).to(memory_format=torch.channels_last)
    theirs = LiteralIDF(PEOPLE)
    theirs.load_state_dict(convert_to("idf-official", asdict(ours.options), ours.state_dict()))
    generator = torch.Generator().manual_seed(1)
    coarse = 0.2 * torch.rand(EXTRACTED, 3, 16, 8, generator=generator)
    images = nn.functional.interpolate(coarse, LARGE_SIZE, mode="bilinear")
    labels = torch.arange(LARGE_BATCH) % PEOPLE
    few = images[:LARGE_BATCH].contiguous(memory_format=torch.channels_last)
    batch = Batch(few, labels, labels, labels, torch.zeros_like(labels))
    cameras = torch.zeros(EXTRACTED, dtype=torch.int64)

    def our_loss() -> Tensor:
        output = ours(batch.images, batch.modalities, batch.camids)
        return torch.stack(list(ours.losses(output, batch).values())).sum()

    def their_loss() -> Tensor:
        return theirs.loss(images[:LARGE_BATCH] / 255, labels)

    def our_vectors(precision: str) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            return embed_pictures(ours.eval(), images, cameras, cameras, mirror=True)

    note = require_equal(ours, theirs, our_loss, their_loss)
    difference = float((our_vectors("fp32") - theirs.eval().embed(images / 255)).abs().max())
    if difference > 1e-4:
        raise AssertionError(f"vectors differ by up to {difference}")
    extraction: dict[str, Callable[[], object]] = {
        "fp32": lambda: our_vectors("fp32"),
        "bf16": lambda: our_vectors("bf16"),
        "released": lambda: theirs.eval().embed(images / 255),
    }
    steps: dict[str, Callable[[], object]] = {
        "fp32": build_training(ours, our_loss),
        "bf16": build_training(ours, our_loss, bf16=True),
        "released": build_training(theirs, their_loss),
    }
    of = f"ResNet-50, {LARGE_SIZE[0]} x {LARGE_SIZE[1]}"
    for name, sides, count in (
        (f"IDF training step, {of}, batch {LARGE_BATCH}", steps, LARGE_BATCH),
        (f"IDF extraction with mirror, {of}", extraction, EXTRACTED),
    ):
        rate = {side: count / seconds for side, seconds in alternate(sides, rounds=3).items()}
        for precision in PRECISIONS:
            row = f"{name}: {precision}, against the released code's, fp32"
            yield build_row(row, rate[precision], rate["released"], "pictures/s", note=note)


def require_equal(
    ours: nn.Module, theirs: nn.Module, our_loss: Callable[[], Tensor], their_loss: Callable[[], Tensor]
) -> str:
    """Both losses without dropout; the norms take up what they see alike."""
    dropouts = [module for side in (ours, theirs) for module in side.modules() if isinstance(module, nn.Dropout)]
    kept = [dropout.p for dropout in dropouts]
    for dropout in dropouts:
        dropout.p = 0.0
    ours.train()
    theirs.train()
    found, expected = float(our_loss().detach()), float(their_loss().detach())
    for dropout, probability in zip(dropouts, kept, strict=True):
        dropout.p = probability
    if abs(found - expected) > 1e-4 * abs(expected):
        raise AssertionError(f"losses differ: ours {found}, released {expected}")
    return f"both in fp32 first, without dropout: loss {found:.6g}, released {expected:.6g}"
