"""DEEN at its published size against what the released code computes (`literal_deen`), with equal weights.

A training step of 2 people x 4 pictures x 2 modalities at 384 x 144, in seconds and peak memory (`bench_deen_published`
takes the published 6 people); and extraction with the mirror of 16 pictures of each modality, which the release, as in
its test script, computes one modality after the other. The release computes in float32, ours in float32 and bf16;
what bf16 alone would give the release stands beside it. Each side runs in a process of its own, which keeps its peak
memory apart, and the sides take turns. Before anything is timed, both must find the same losses (dropout off) and the
same similarities.

Both sides keep freed memory while they are timed, as `tapetum train` does: with the C library's own setting, which the
release has on a CPU, clearing pages takes a good part of its step, and that is no merit of our code. Peak memory is
that of two steps, the second with momentum, and the release's is taken without the setting, which would raise it. Ours
computes the early stages twice (`method.recompute`), which the release does not: a pair of rows says what that costs
and saves.
"""

import gc
import multiprocessing
import resource
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import nn

from benchmarks.literal_deen import LiteralDEEN
from benchmarks.measure import build_row
from benchmarks.stepping import build_step
from tapetum.core.memory import keep_freed_memory
from tapetum.core.types import Batch, Modality
from tapetum.inference.embeddings import embed_pictures
from tapetum.methods import build_method, convert_to

SIZE = (384, 144)
PEOPLE, PICTURES = 2, 4
NUM_IDS = 395
ROUNDS = 2
EXTRACTED_PEOPLE = 4
PRECISIONS = ("fp32", "bf16")
PRICED = "bf16"  # in which recomputing is measured by itself
MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
DEVIATION = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
SCALE = (4 * 6) ** 0.5  # the root of the largest possible sum of six similarities of sums of two unit vectors


def draw_pictures(people: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(4 a person, 3, H, W) visible pictures and as many infrared ones; person after person."""
    generator = torch.Generator().manual_seed(1)
    looks = torch.rand(2, people, 1, 3, 12, 6, generator=generator).expand(-1, -1, PICTURES, -1, -1, -1)
    coarse = (looks + 0.3 * torch.rand(looks.shape, generator=generator)).flatten(1, 2) / 1.3
    visible, infrared = (nn.functional.interpolate(part, SIZE, mode="bilinear") for part in coarse)
    return visible, infrared


def build_ours(*, recompute: bool = True) -> Any:
    torch.manual_seed(0)
    method: Any = build_method("deen", {} if recompute else {"recompute": 0}, NUM_IDS)
    for module in method.modules():  # the silent norms of the aggregation speak, so that a wrong one is noticed
        if isinstance(module, nn.BatchNorm2d) and not module.weight.any():
            nn.init.constant_(module.weight, 0.2)
    return method


class Ours:
    """Our network as `tapetum train` and `tapetum extract` run it."""

    def __init__(self, people: int, *, recompute: bool = True) -> None:
        self.network = self.method = build_ours(recompute=recompute).to(memory_format=torch.channels_last)
        self.batch, self.extracted = self.draw_batch(people), self.draw_batch(EXTRACTED_PEOPLE)

    @staticmethod
    def draw_batch(people: int) -> Batch:
        images = torch.cat(draw_pictures(people)).contiguous(memory_format=torch.channels_last)
        labels = torch.arange(people).repeat_interleave(PICTURES).repeat(2)
        modalities = torch.tensor([Modality.VISIBLE, Modality.INFRARED]).repeat_interleave(people * PICTURES)
        return Batch(images, labels, labels, modalities, modalities)

    def set_dropout(self, probability: float) -> None:
        self.method.expansion.dropout.p = probability

    def loss(self) -> torch.Tensor:
        output = self.method.train()(self.batch.images, self.batch.modalities, self.batch.camids)
        return torch.stack(list(self.method.losses(output, self.batch).values())).sum()

    def extract(self) -> torch.Tensor:
        images, modalities = self.extracted.images, self.extracted.modalities
        vectors = embed_pictures(self.method.eval(), images, modalities, modalities, mirror=True)
        return vectors[:, :-2] * SCALE  # without the two coordinates that fill up to unit length


class Literal:
    """The transcription as it stands: default memory layout, one modality after the other."""

    def __init__(self, people: int) -> None:
        ours = build_ours()
        self.network = LiteralDEEN(NUM_IDS)
        self.network.load_state_dict(convert_to("deen-official", asdict(ours.options), ours.state_dict()))
        self.people = people
        self.visible, self.infrared = ((part - MEAN) / DEVIATION for part in draw_pictures(people))
        self.extracted = [(part - MEAN) / DEVIATION for part in draw_pictures(EXTRACTED_PEOPLE)]
        self.labels = torch.arange(people).repeat_interleave(PICTURES)

    def set_dropout(self, probability: float) -> None:
        self.network.DEE.dropout.p = probability

    def loss(self) -> torch.Tensor:
        return self.network.train().loss(self.visible, self.infrared, self.labels, self.people)

    @torch.inference_mode()
    def extract(self) -> torch.Tensor:
        self.network.eval()
        visible, infrared = self.extracted
        return torch.cat([self.network.embed(visible, infrared=False), self.network.embed(infrared, infrared=True)])


def serve(connection: Connection, side: str, precision: str, people: int) -> None:
    """One process: does what it is told and answers with seconds and a result."""
    if side != "released":
        keep_freed_memory()  # from the beginning, as `tapetum train` does
    network: Any = Literal(people) if side == "released" else Ours(people, recompute=side == "ours")
    gc.collect()
    low = precision == "bf16"
    step = build_step(network.network, network.loss, bf16=low)
    while (command := connection.recv()) != "stop":
        begun = time.perf_counter()
        result: Any = None
        if command == "step":
            result = step()
        elif command == "keep":
            result = keep_freed_memory()
        else:
            with torch.autocast("cpu", torch.bfloat16, enabled=low):
                if command == "compare":
                    network.set_dropout(0.0)
                    network.loss()  # running statistics for the extraction
                    result = float(network.loss().detach()), network.extract().float().numpy()
                    network.set_dropout(0.01)
                else:
                    network.extract()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        connection.send((time.perf_counter() - begun, peak, result))


@contextmanager
def worker(side: str, precision: str, people: int) -> Iterator[Connection]:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=serve, args=(there, side, precision, people))
    process.start()
    there.close()  # so that a worker that breaks is noticed
    try:
        yield here
        here.send("stop")
    finally:
        process.join(10)
        process.kill()


def ask(connection: Connection, command: str) -> tuple[float, float, Any]:
    connection.send(command)
    answer: tuple[float, float, Any] = connection.recv()
    return answer


def run() -> Iterator[dict[str, Any]]:
    with agreeing(PEOPLE) as (ours, released, difference):
        yield from measure_extraction(ours, released, difference)
    yield from measure_steps(PEOPLE)


@contextmanager
def agreeing(people: int) -> Iterator[tuple[Connection, Connection, float]]:
    """Both sides in fp32, after they found the same losses and similarities; and the largest difference of the latter.

    Raises:
        AssertionError: they did not.
    """
    with worker("ours", "fp32", people) as ours, worker("released", "fp32", people) as released:
        _, _, (our_loss, our_vectors) = ask(ours, "compare")
        _, _, (their_loss, their_vectors) = ask(released, "compare")
        if abs(our_loss - their_loss) > 1e-3 * abs(their_loss):
            raise AssertionError(f"losses differ: ours {our_loss}, released {their_loss}")
        split = EXTRACTED_PEOPLE * PICTURES
        similarities = [vectors[:split] @ vectors[split:].T for vectors in (our_vectors, their_vectors)]
        difference = float(abs(similarities[0] - similarities[1]).max())
        if difference > 1e-3:
            raise AssertionError(f"similarities differ by up to {difference} of 24")
        yield ours, released, difference


def measure_extraction(ours: Connection, released: Connection, difference: float) -> Iterator[dict[str, Any]]:
    """Ours in both precisions against the released code in fp32."""
    ask(released, "keep")
    with worker("ours", "bf16", PEOPLE) as fast:
        seconds = take_turns({"fp32": ours, "bf16": fast, "released": released}, "extract")
    count = 2 * EXTRACTED_PEOPLE * PICTURES
    rates = {side: count / value for side, value in seconds.items()}
    for precision in PRECISIONS:
        yield build_row(
            f"DEEN extraction with mirror: {precision}, against the released code's, fp32",
            rates[precision],
            rates["released"],
            "pictures/s",
            target=3.0 if precision == "bf16" else None,
            note=f"both in fp32 first: similarities of two modalities agree within {difference:.0e} of 24",
        )


def measure_steps(people: int) -> Iterator[dict[str, Any]]:
    """Seconds and peak memory of training steps."""
    steps, peaks = {}, {}
    for precision in PRECISIONS:
        with worker("ours", precision, people) as ours, worker("released", precision, people) as released:
            sides = {"ours": ours, "released": released}
            peaks |= {(side, precision): peak_of_two_steps(connection) for side, connection in sides.items()}
            ask(released, "keep")
            seconds = take_turns(sides, "step")
        steps |= {(side, precision): value for side, value in seconds.items()}
    step = f"DEEN training step, 384 x 144, {people} x {PICTURES} x 2"
    for precision, theirs in (("fp32", "fp32"), ("bf16", "fp32"), ("bf16", "bf16")):
        yield build_row(
            f"{step}: {precision}, against the released code's, {theirs}",
            steps["ours", precision],
            steps["released", theirs],
            "s",
            target=2.0 if precision == theirs else None,
            note="the release has no bf16: its code put into autocast" if theirs == "bf16" else "",
        )
    for precision in PRECISIONS:
        name = f"{step}: peak memory, {precision}, against the released code's, fp32"
        yield build_row(name, peaks["ours", precision], peaks["released", "fp32"], "GiB", target=1 / 0.6)
    yield from measure_recomputing(people, step)


def measure_recomputing(people: int, step: str) -> Iterator[dict[str, Any]]:
    """What `method.recompute` costs in time and saves in memory: ours without it, and with it."""
    with worker("ours", PRICED, people) as usual, worker("ours without recompute", PRICED, people) as whole:
        sides = {"usual": usual, "whole": whole}
        peaks = {side: peak_of_two_steps(connection) for side, connection in sides.items()}
        seconds = take_turns(sides, "step")
    name = f"{step}: {PRICED} without recompute, against with it"
    yield build_row(name, seconds["whole"], seconds["usual"], "s")
    yield build_row(f"{name}: peak memory", peaks["whole"], peaks["usual"], "GiB")


def peak_of_two_steps(connection: Connection) -> float:
    """GiB; momentum exists from the end of the first step on."""
    ask(connection, "step")
    _, peak, _ = ask(connection, "step")
    return peak


def take_turns(sides: dict[str, Connection], command: str) -> dict[str, float]:
    """Median seconds of each side, after one unmeasured turn."""
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    for turn in range(ROUNDS + 1):
        for side, connection in sides.items():
            taken, _, _ = ask(connection, command)
            if turn:
                seconds[side].append(taken)
    return {side: statistics.median(values) for side, values in seconds.items()}
