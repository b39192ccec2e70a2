"""How close training steps and extraction come to what this CPU multiplies at most, in float32 and bf16.

The limit is the rate of one large matrix product in the same type, measured in turn with each side, as a product and as
a 1x1 convolution: PyTorch leaves these to two libraries, of which the faster counts (on an AMD CPU that is not the one
for products). Ours is the arithmetic of the method divided by its seconds: twice the multiply-adds that PyTorch's
counter finds in one forward pass with every convolution done directly, three times that for a training step. What is
computed again to save memory is no such arithmetic, and neither are norms, losses and the optimiser, so the share says
how much of a step is the work that cannot be left out; products that Winograd's filtering saves raise it. Networks are
the published ones, with few pictures a step; `bench_limit_published` takes the published batches.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.bench_idf import build_training
from benchmarks.measure import alternate, build_row
from tapetum.core.memory import keep_freed_memory
from tapetum.core.types import Batch, Modality
from tapetum.inference.embeddings import embed_pictures
from tapetum.layers.products import counting_flops
from tapetum.methods import build_method

PEOPLE, PICTURES = 4, 2  # of each modality where there are two
NUM_IDS = 300
CAMIDS = (1, 2)
SIDE = 2048  # of the square matrices
ROUNDS = 3
TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Subject:
    """A method and the pictures that it is published with.

    Attributes:
        published: people and pictures of each modality, of a step.
        target: share of a product's rate that is asked for.
    """

    title: str
    name: str
    size: tuple[int, int]
    published: tuple[int, int]
    modalities: tuple[Modality, ...] = (Modality.VISIBLE,)
    target: float = 0.8


SUBJECTS = (
    Subject("IDE+", "ide", (256, 128), (32, 1)),
    Subject("IDF", "idf", (256, 128), (32, 1)),
    Subject("AGW", "agw", (256, 128), (16, 4)),
    Subject("TransReID", "transreid", (256, 128), (16, 4), target=0.9),
    Subject("DEEN", "deen", (384, 144), (6, 4), (Modality.VISIBLE, Modality.INFRARED)),
)


def run() -> Iterator[dict[str, Any]]:
    keep_freed_memory()  # as `tapetum train` does
    for subject in SUBJECTS:
        yield from measure(subject)


def measure(subject: Subject, people: int = PEOPLE, pictures: int = PICTURES) -> Iterator[dict[str, Any]]:
    torch.manual_seed(0)
    method: Any = build_method(subject.name, {}, NUM_IDS, camids=CAMIDS, size=subject.size)
    method = method.to(memory_format=torch.channels_last)
    batch = draw_batch(subject, people, pictures)
    forward = count_operations(method, batch)

    def loss() -> Tensor:
        output = method(batch.images, batch.modalities, batch.camids)
        return torch.stack(list(method.losses(output, batch).values())).sum()

    for precision, kind in TYPES.items():
        extract = build_extraction(method, batch, bf16=precision == "bf16")
        step = build_training(method, loss, bf16=precision == "bf16")
        for what, side, operations in (("training step", step, 3 * forward), ("extraction", extract, forward)):
            seconds = alternate({"ours": side, **build_products(kind)}, ROUNDS)
            limit = 2 * SIDE**3 / min(seconds["product"], seconds["convolution"])
            yield build_row(
                f"{subject.title} {what}, {subject.size[0]} x {subject.size[1]}, batch {len(batch.images)}: "
                f"{precision}, against a product",
                operations / seconds["ours"] / 1e9,
                limit / 1e9,
                "GFLOP/s",
                target=subject.target,
                note=f"{operations / len(batch.images) / 2e9:.1f} billion multiply-adds a picture, "
                f"{len(batch.images) / seconds['ours']:.3g} pictures/s; the product's rate: {limit / 1e9:.0f} GFLOP/s",
            )


def draw_batch(subject: Subject, people: int, pictures: int) -> Batch:
    """Person after person, modality after modality."""
    count = len(subject.modalities)
    labels = torch.arange(people).repeat_interleave(pictures).repeat(count)
    images = torch.rand(len(labels), 3, *subject.size, generator=torch.Generator().manual_seed(0))
    cameras = torch.tensor(CAMIDS)[torch.arange(len(labels)) % len(CAMIDS)]
    modalities = torch.tensor(subject.modalities).repeat_interleave(people * pictures)
    return Batch(images.contiguous(memory_format=torch.channels_last), labels, labels, cameras, modalities)


def count_operations(method: Any, batch: Batch) -> int:
    """Multiplications and additions of one forward pass over the batch; in bf16 no convolution is filtered."""
    counter = counting_flops()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16), sdpa_kernel(SDPBackend.MATH), counter:
        method.eval()(batch.images, batch.modalities, batch.camids)
    return counter.get_total_flops()


def build_extraction(method: Any, batch: Batch, *, bf16: bool) -> Callable[[], None]:
    def extract() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            embed_pictures(method.eval(), batch.images, batch.modalities, batch.camids, mirror=False)

    return extract


def build_products(kind: torch.dtype) -> dict[str, Callable[[], Tensor]]:
    """One and the same product of square matrices, as either library computes it."""
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.rand(SIDE, SIDE, generator=generator).to(kind) for _ in range(2))
    # Rows of the matrix as places of many maps, channels last: PyTorch leaves few maps to the other library.
    maps = a.view(32, 8, SIDE // 256, SIDE).permute(0, 3, 1, 2)
    filters = b.t().contiguous().view(SIDE, SIDE, 1, 1)
    out = torch.empty(SIDE, SIDE, dtype=kind)

    def convolve() -> Tensor:
        with torch.no_grad():
            return functional.conv2d(maps, filters)

    return {"product": lambda: torch.mm(a, b, out=out), "convolution": convolve}
