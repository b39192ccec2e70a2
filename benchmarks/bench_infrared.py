"""DDAG and LbA, visible and infrared, against their equations written plainly (`literal_infrared`), with equal weights.

What each adds to the two-stream network, alone and with its gradients, at the published 64 pictures: DDAG's part
attention and graph, LbA's alignment of both maps. Then training steps of 8 people x 2 pictures x 2 modalities at
288 x 144 on the published networks: ours in channels-last, in float32 and in what `training.precision: auto` means on
this CPU, against the plain one in float32 and, where that is bf16, under bf16's autocast. What is asked for is asked of
steps in the same precision. Before anything is timed both sides must find equal losses in either.
"""

import gc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks import literal_infrared
from benchmarks.literal_infrared import LiteralDDAG, LiteralLbA
from benchmarks.measure import alternate, build_row
from benchmarks.stepping import build_step
from tapetum.core.memory import keep_freed_memory
from tapetum.core.types import Batch, Modality
from tapetum.inference.precision import resolve_precision
from tapetum.methods import build_method, convert_to, lba
from tapetum.methods.ddag import GraphAttention, PartAttention
from tapetum.training.stepping import in_float32

NUM_IDS = 395
SIZE, PEOPLE, PICTURES = (288, 144), 8, 2
ROUNDS = 2
PRECISION = resolve_precision("auto", "cpu")
PRECISIONS = tuple(dict.fromkeys(["fp32", PRECISION]))
MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
DEVIATION = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
EQUAL = {"fp32": 1e-3, "bf16": 0.05}  # losses of both sides, relative to the plain one's
GRAPH_WEIGHT, DROPOUT = 0.15, 0.2
WIDTHS, PLACES = (1024, 2048), (18, 9)  # of the last two maps
TARGET = 2.0


def draw_batch() -> Batch:
    """Visible pictures first, person after person."""
    generator = torch.Generator().manual_seed(1)
    coarse = torch.rand(2, PEOPLE, 1, 3, 12, 6, generator=generator).expand(-1, -1, PICTURES, -1, -1, -1)
    coarse = (coarse + 0.3 * torch.rand(coarse.shape, generator=generator)).flatten(0, 2) / 1.3
    images = nn.functional.interpolate(coarse, SIZE, mode="bilinear")
    labels = torch.arange(PEOPLE).repeat_interleave(PICTURES).repeat(2)
    modalities = torch.tensor([Modality.VISIBLE, Modality.INFRARED]).repeat_interleave(PEOPLE * PICTURES)
    return Batch(images, labels, labels, modalities, modalities, torch.arange(len(labels)))


def partners_of(batch: Batch) -> tuple[tuple[Tensor, Tensor], ...]:
    """The partners that ours draws in its first step, for both maps."""
    return tuple(lba.partners_in(batch, number) for number in range(len(lba.LAYERS)))


class Sides:
    """A method of ours and its transcription, with equal weights."""

    def __init__(self, name: str) -> None:
        torch.manual_seed(0)
        self.name = name
        self.method: Any = build_method(name, {}, NUM_IDS).train()
        self.plain: Any = {"ddag": LiteralDDAG, "lba": LiteralLbA}[name](NUM_IDS).train()
        released = convert_to(f"{name}-official", asdict(self.method.options), self.method.state_dict())
        self.plain.load_state_dict(released)
        self.method.to(memory_format=torch.channels_last)
        self.batch = draw_batch()
        half = PEOPLE * PICTURES
        self.parts = (self.batch.images - MEAN).div(DEVIATION).split(half)
        self.labels = self.batch.labels[:half]
        self.images = self.batch.images.contiguous(memory_format=torch.channels_last)
        self.partners = partners_of(self.batch)
        self.dropout = 0.0
        if name == "ddag":
            self.method.graph_weight.fill_(GRAPH_WEIGHT)

    def our_loss(self, precision: str) -> Tensor:
        """As `tapetum train` computes it: losses outside autocast."""
        if self.name == "ddag":
            self.method.graph.dropout = self.dropout
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            output = self.method(self.images, self.batch.modalities, self.batch.camids)
        return torch.stack(list(self.method.losses(in_float32(output), self.batch).values())).sum()

    def plain_loss(self, precision: str) -> Tensor:
        """As it is written down; network and losses under autocast, as scripts usually have it."""
        more = (GRAPH_WEIGHT, self.dropout) if self.name == "ddag" else (self.partners,)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            loss: Tensor = self.plain.loss(*self.parts, self.labels, *more)
        return loss

    def check(self) -> None:
        """Equal losses without dropout, in each precision that is timed."""
        for precision in PRECISIONS:
            with torch.no_grad():
                losses = self.our_loss(precision), self.plain_loss(precision)
            check(f"{self.name}: losses in {precision}", *losses, tolerance=EQUAL[precision])

    def steps(self) -> dict[str, Callable[[], float]]:
        """Training steps of ours and of the plain one, in float32 and in the CPU's precision."""
        self.dropout = DROPOUT
        sides = (("ours", self.method, self.our_loss), ("plain", self.plain, self.plain_loss))
        return {
            f"{side} in {precision}": build_step(network, partial(loss, precision), lr=1e-4)
            for side, network, loss in sides
            for precision in PRECISIONS
        }


def run() -> Iterator[dict[str, Any]]:
    """Rows one by one; large networks are freed between them."""
    keep_freed_memory()  # as `tapetum train` does
    yield measure_attentions()
    yield measure_alignment()
    for label, name in (("DDAG", "ddag"), ("LbA", "lba")):
        sides = Sides(name)
        sides.check()
        seconds = alternate(sides.steps(), ROUNDS)
        where = f"{label} training step, 288 x 144, {PEOPLE} x {PICTURES} x 2"
        for ours, plain in dict.fromkeys([*zip(PRECISIONS, PRECISIONS, strict=True), (PRECISION, "fp32")]):
            title = f"{where}: {ours}, against the plain one in {plain}"
            target = TARGET if ours == plain else None
            yield build_row(title, seconds[f"ours in {ours}"], seconds[f"plain in {plain}"], "s", target=target)
        del sides
        gc.collect()


def check(what: str, ours: Tensor, plain: Tensor, *, tolerance: float = EQUAL["fp32"]) -> None:
    if abs(float(ours - plain)) > tolerance * abs(float(plain)):
        raise AssertionError(f"{what} differ: ours {float(ours)}, plain {float(plain)}")


def learning(loss: Callable[[], Tensor], leaves: Sequence[Tensor]) -> Callable[[], None]:
    """Gradients of a loss, which nothing was in before."""

    def learn() -> None:
        for leaf in leaves:
            leaf.grad = None
        loss().backward()

    return learn


def measure_attentions() -> dict[str, Any]:
    """DDAG's part attention and graph, with gradients, at 64 pictures."""
    torch.manual_seed(0)
    parts, graph = PartAttention(2048, 3), GraphAttention(2048, NUM_IDS, heads=4, hidden=512, dropout=DROPOUT)
    labels = torch.arange(8).repeat_interleave(8)
    maps = torch.rand(64, 2048, *PLACES).contiguous(memory_format=torch.channels_last).requires_grad_()
    plain_maps = maps.detach().contiguous().requires_grad_()  # the layout that it is written for
    plain = LiteralDDAG(NUM_IDS)
    names = {"gate": "gate", "query": "fc1.0", "key": "fc2", "value": "fc3", "norm": "bottleneck"}
    renamed = {
        name.replace(ours, theirs, 1): value
        for name, value in parts.state_dict().items()
        for ours, theirs in names.items()
        if name.startswith(ours)
    }
    plain.wpa.load_state_dict(renamed, strict=False)
    heads = [*graph.heads, *graph.out]
    their_heads = [getattr(plain, f"attention_{number}") for number in range(4)] + [plain.out_att]
    with torch.no_grad():
        for mine, other in zip(heads, their_heads, strict=True):
            other.W.copy_(mine.weight)
            other.a.copy_(mine.score)

    features = maps.detach().mean((2, 3)).requires_grad_()  # which the two-stream network has pooled anyway

    def ours(training: bool = True) -> Tensor:
        graph.train(training)
        return parts(maps, features).square().mean() + graph(features, labels).square().mean()

    def plainly(dropout: float = DROPOUT) -> Tensor:
        return plain.wpa(plain_maps, features).square().mean() + plain.graph(features, labels, dropout).square().mean()

    with torch.no_grad():
        check("ddag: attentions", ours(False), plainly(0.0))
    weights = [maps, plain_maps, features, *parts.parameters(), *graph.parameters(), *plain.parameters()]
    seconds = alternate({"ours": learning(ours, weights), "peer": learning(plainly, weights)}, rounds=5)
    name = "DDAG's part attention and graph, 64 pictures, with gradients: against the same written plainly"
    return build_row(name, seconds["ours"], seconds["peer"], "s", target=TARGET)


def measure_alignment() -> dict[str, Any]:
    """LbA's alignment of both maps, with gradients, at 64 pictures."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(8).repeat_interleave(8)
    modalities = torch.arange(64) % 2
    drawn = [lba.draw_partners(labels, modalities, torch.arange(64), (number,)) for number in range(2)]
    maps = [
        torch.rand(64, width, *PLACES, generator=generator).square().contiguous(memory_format=torch.channels_last)
        for width in WIDTHS
    ]
    leaves = [each.requires_grad_() for each in maps]
    plain_leaves = [each.detach().contiguous().requires_grad_() for each in maps]  # the layout that it is written for

    def ours() -> Tensor:
        found = [lba.align(each, *pair, temperature=50.0) for each, pair in zip(leaves, drawn, strict=True)]
        return torch.stack([each.rebuilt.mean() + lba.dense_triplet(each) for each in found]).sum()

    def plainly() -> Tensor:
        found = [literal_infrared.align(each, *pair) for each, pair in zip(plain_leaves, drawn, strict=True)]
        return torch.stack([rebuilt.mean() + dense for rebuilt, dense in found]).sum()

    with torch.no_grad():
        check("lba: alignments", ours(), plainly())
    inputs = [*leaves, *plain_leaves]
    seconds = alternate({"ours": learning(ours, inputs), "peer": learning(plainly, inputs)}, ROUNDS)
    name = "LbA's alignment of both maps, 64 pictures, with gradients: against the same written plainly"
    return build_row(name, seconds["ours"], seconds["peer"], "s", target=TARGET)
