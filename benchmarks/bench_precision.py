"""Training steps of small networks in bf16 against the same in float32: what `precision: auto` goes by on a CPU.

IDE+ on a network with depthwise convolutions, on a plain convolutional one and on a vision transformer, at the demo's
size, all in channels-last. Only a CPU that has bf16 arithmetic of its own says anything about `auto`.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from benchmarks.bench_idf import PEOPLE, SMALL_BATCH, SMALL_SIZE, build_training
from benchmarks.measure import alternate, build_row
from tapetum.core.memory import keep_freed_memory
from tapetum.core.types import Batch
from tapetum.inference.precision import has_fast_bf16
from tapetum.methods import build_method

BACKBONES = {
    "EfficientNet-Lite0 (depthwise)": "tf_efficientnet_lite0",
    "ResNet-18": "resnet18",
    "ViT-Ti": "vit_tiny_patch16_224",
}
ROUNDS = 5


def run() -> Iterator[dict[str, Any]]:
    keep_freed_memory()  # as `tapetum train` does
    note = "" if has_fast_bf16("cpu") else "this CPU has no bf16 of its own, and auto is fp32"
    height, width = SMALL_SIZE
    for title, backbone in BACKBONES.items():
        sides = {name: build_step(backbone, bf16=name == "ours") for name in ("ours", "peer")}
        rates = {name: SMALL_BATCH / seconds for name, seconds in alternate(sides, ROUNDS).items()}
        yield build_row(
            f"{title} training step, {height} x {width}, batch {SMALL_BATCH}: bf16, against fp32",
            rates["ours"],
            rates["peer"],
            "pictures/s",
            note=note,
        )


def build_step(backbone: str, *, bf16: bool) -> Callable[[], float]:
    """One training step of IDE+."""
    torch.manual_seed(0)
    method: Any = build_method("ide", {"backbone": backbone}, PEOPLE, size=SMALL_SIZE)
    method = method.to(memory_format=torch.channels_last)
    images = torch.rand(SMALL_BATCH, 3, *SMALL_SIZE).contiguous(memory_format=torch.channels_last)
    labels = torch.arange(SMALL_BATCH) % PEOPLE
    batch = Batch(images, labels, labels, labels, torch.zeros_like(labels))

    def loss() -> Tensor:
        output = method(batch.images, batch.modalities, batch.camids)
        return torch.stack(list(method.losses(output, batch).values())).sum()

    return build_training(method, loss, bf16=bf16)
