"""A training step of IDE+ under one of PyTorch's or oneDNN's switches, in a process of its own; see `bench_tried`.

Command line: SWITCH BACKBONE HEIGHT WIDTH BATCH, of `SWITCHES`. Asked for "step" it does one, asked for "features" it
tells the pooled features of a batch in training mode.
"""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from benchmarks.bench_idf import build_training
from benchmarks.workers import answer, wait_as_the_program
from tapetum.core.memory import keep_freed_memory
from tapetum.methods import build_method

NUM_IDS = 60


@dataclass(frozen=True)
class Switch:
    """What the process is started with, what it sets before it builds anything, and whether products may be rounded."""

    environment: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)  # of PyTorch, by `SETTERS`
    bf16: bool = False


def set_convolutions(kind: str) -> None:
    backends: Any = torch.backends
    backends.mkldnn.conv.fp32_precision = kind


SETTERS: Mapping[str, Callable[[str], None]] = {
    "products": torch.set_float32_matmul_precision,
    "convolutions": set_convolutions,
}
PLAIN, AUTOCAST = "plain", "autocast to bf16, as tapetum trains"
SWITCHES = {
    PLAIN: Switch(),
    "ONEDNN_DEFAULT_FPMATH_MODE=BF16": Switch({"ONEDNN_DEFAULT_FPMATH_MODE": "BF16"}, bf16=True),
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY=0": Switch({"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "0"}),
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY=8192": Switch({"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "8192"}),
    "set_float32_matmul_precision(medium)": Switch(settings={"products": "medium"}, bf16=True),
    "mkldnn.conv.fp32_precision=bf16": Switch(settings={"convolutions": "bf16"}, bf16=True),
    AUTOCAST: Switch(bf16=True),
}


def main(words: list[str]) -> None:
    wait_as_the_program()
    keep_freed_memory()
    switch, backbone, *sizes = words
    height, width, batch = map(int, sizes)
    for name, value in SWITCHES[switch].settings.items():
        SETTERS[name](value)
    bf16 = switch == AUTOCAST
    torch.manual_seed(0)
    method: Any = build_method("ide", {"backbone": backbone, "dropout": 0.0}, NUM_IDS)
    method = method.to(memory_format=torch.channels_last)
    images = torch.rand(batch, 3, height, width).contiguous(memory_format=torch.channels_last)
    kinds = torch.zeros(batch, dtype=torch.int64)
    labels = torch.arange(batch) % NUM_IDS

    def loss() -> torch.Tensor:
        return torch.nn.functional.cross_entropy(method(images, kinds, kinds).logits, labels)

    step = build_training(method, loss, bf16=bf16)

    def work(question: str) -> Any:
        if question == "step":
            return step()
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            return method.train()(images, kinds, kinds).feature.tolist()

    answer(work)


if __name__ == "__main__":
    main(sys.argv[1:])
