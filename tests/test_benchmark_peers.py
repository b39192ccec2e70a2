"""Benchmarks compare what they say they compare: equal losses and vectors, and our step as the program takes it."""

import importlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from multiprocessing import Pipe
from typing import Any

import pytest
import torch
from benchmarks import __main__ as command
from benchmarks import (
    bench_calibration,
    bench_deen,
    bench_evaluation,
    bench_idf,
    bench_infrared,
    bench_loader,
    bench_precision,
    bench_products,
    bench_trials,
    bench_winograd,
    stepping,
)
from benchmarks.literal_idf import LiteralIDF
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from tapetum.core.types import Batch
from tapetum.inference.embeddings import embed_pictures
from tapetum.methods import build_method, convert_to, small_options

NUM_IDS = 3
ROW = {"name", "ours", "peer", "ratio", "unit"}


def dropouts_off(*networks: nn.Module) -> None:
    for network in networks:
        for module in network.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0


@pytest.mark.slow
def test_the_literal_idf_computes_our_losses_and_vectors(one_thread: None) -> None:
    torch.manual_seed(0)
    ours: Any = build_method("idf", {}, NUM_IDS)
    theirs = LiteralIDF(NUM_IDS)
    theirs.load_state_dict(convert_to("idf-official", asdict(ours.options), ours.state_dict()))
    dropouts_off(ours, theirs)
    images, labels = 0.2 * torch.rand(3, 3, 64, 32), torch.arange(3) % NUM_IDS
    batch = Batch(images, labels, labels, labels, torch.zeros_like(labels))
    output = ours.train()(batch.images, batch.modalities, batch.camids)
    found = torch.stack(list(ours.losses(output, batch).values())).sum()
    expected = theirs.train().loss(images / 255, labels)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=0)
    found.backward()
    expected.backward()
    mine = {name: weight.grad for name, weight in ours.named_parameters() if weight.grad is not None}
    told = convert_to("idf-official", asdict(ours.options), ours.state_dict() | mine)
    for name, weight in theirs.named_parameters():
        if weight.grad is not None and name.startswith("E_Net"):
            torch.testing.assert_close(told[name], weight.grad, rtol=2e-2, atol=1e-4 * float(weight.grad.abs().max()))
    vectors = embed_pictures(ours.eval(), images, labels, labels, mirror=True)
    torch.testing.assert_close(vectors, theirs.eval().embed(images / 255), rtol=0, atol=1e-4)


def small(name: str) -> tuple[Any, Batch]:
    torch.manual_seed(0)
    method: Any = build_method(name, small_options(name), NUM_IDS)
    labels = torch.arange(6) % NUM_IDS
    return method, Batch(torch.rand(6, 3, 64, 32), labels, labels, labels, torch.zeros_like(labels))


def test_our_side_steps_in_one_pass_and_keeps_no_gradients_and_a_peer_does_as_it_always_did() -> None:
    method, batch = small("ide")
    peer = nn.Linear(2, 2)
    kept = []

    def our_loss() -> torch.Tensor:
        kept.append([weight.grad is not None for weight in method.parameters()])
        output = method(batch.images, batch.modalities, batch.camids)
        return torch.stack(list(method.losses(output, batch).values())).sum()

    steps = {
        "ours": stepping.build_step(method, our_loss),
        "peer": stepping.build_step(peer, lambda: peer.weight.sum()),
    }
    before = {
        side: [weight.clone() for weight in each.parameters()] for side, each in (("ours", method), ("peer", peer))
    }
    fused = []
    handle = register_optimizer_step_pre_hook(
        lambda optimiser, *_: fused.append(bool(optimiser.param_groups[0]["fused"]))
    )
    try:
        for step in steps.values():
            step()
            step()
    finally:
        handle.remove()
    assert fused == [True, True, False, False]
    assert not any(map(any, kept))
    assert peer.weight.grad is not None
    for side, network in (("ours", method), ("peer", peer)):
        assert any(not torch.equal(*pair) for pair in zip(before[side], network.parameters(), strict=True))


def test_every_benchmark_can_be_imported_and_run() -> None:
    for name in command.list_all():
        assert callable(importlib.import_module(f"benchmarks.bench_{name}").run), name


def check(rows: list[dict[str, Any]], *, compared: bool = True) -> None:
    for row in rows:
        assert set(row) >= ROW
        assert row["ours"] > 0
        assert not compared or row["ratio"] > 0


def test_short_benchmarks_of_layers_and_loaders_run(monkeypatch: pytest.MonkeyPatch, one_thread: None) -> None:
    shrink(monkeypatch, bench_winograd, BATCH=1, SHAPES={"a": (64, 64, 1), "b": (64, 64, 2)}, ROUNDS=1)
    check(bench_winograd.run())
    shrink(monkeypatch, bench_products, BACKBONE="vit_tiny_patch16_224", SIZE=(32, 32), PICTURES=2, ROUNDS=1)
    check(list(bench_products.run()))
    tiny = {"SMALL_SIZE": (64, 32), "SMALL_BATCH": 4, "ROUNDS": 1}
    shrink(monkeypatch, bench_precision, BACKBONES={"small": "test_resnet"}, **tiny)
    check(list(bench_precision.run()))
    shrink(monkeypatch, bench_loader, PICTURES=16, BATCH=8, ROUNDS=1)
    check(list(bench_loader.run()), compared=False)


def shrink(monkeypatch: pytest.MonkeyPatch, module: Any, **values: Any) -> None:
    for name, value in values.items():
        monkeypatch.setattr(module, name, value)


def test_evaluation_and_trials_are_compared_with_what_finds_the_same(
    monkeypatch: pytest.MonkeyPatch, one_thread: None
) -> None:
    def missing(*_: object) -> None:
        raise bench_evaluation.PeerMissingError("not here")

    shrink(monkeypatch, bench_evaluation, load_peer=missing, load_compiled=missing)
    sets = bench_evaluation.build_sets(40, 200, 32, people=12)
    rows = [bench_evaluation.measure_vectors(*sets), *bench_evaluation.measure_distances(*sets, "")]
    assert sum(row["ratio"] is not None for row in rows) == 3
    check(rows, compared=False)
    size = bench_trials.Size(80, 200, 12, 24)
    check(list(bench_trials.measure("small", size, bench_trials.LLCM, rounds=1)))


def test_a_calibration_without_a_demo_is_a_row_that_names_the_command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(bench_calibration, "measure_doubts", lambda: iter(()))
    (row,) = bench_calibration.run()
    assert (row["ours"], row["peer"], row["ratio"]) == (None, None, None)
    command.print_row(row)
    assert "`make demo`" in capsys.readouterr().out


@pytest.mark.slow
def test_steps_against_the_releases_run_on_small_pictures(monkeypatch: pytest.MonkeyPatch, one_thread: None) -> None:
    backbone = {"extractor_options": small_options("ide")}
    shrink(monkeypatch, bench_idf, SMALL=bench_idf.SMALL | backbone, SMALL_SIZE=(64, 32), SMALL_BATCH=4)
    shrink(monkeypatch, bench_idf, LARGE_SIZE=(64, 32), LARGE_BATCH=3, EXTRACTED=3)
    check(list(bench_idf.run()))
    shrink(monkeypatch, bench_infrared, SIZE=(64, 32), PEOPLE=2, ROUNDS=1)
    shrink(monkeypatch, bench_infrared, PRECISION="bf16", PRECISIONS=("fp32", "bf16"))
    for name in ("lba", "ddag"):
        sides = bench_infrared.Sides(name)
        sides.check()
        steps = sides.steps()
        assert set(steps) == {f"{side} in {precision}" for side in ("ours", "plain") for precision in ("fp32", "bf16")}
        assert all(step() > 0 for step in steps.values())


@pytest.mark.slow
def test_a_process_of_deen_answers_each_command(monkeypatch: pytest.MonkeyPatch, one_thread: None) -> None:
    shrink(monkeypatch, bench_deen, SIZE=(96, 48), EXTRACTED_PEOPLE=1)
    losses = {}
    for side in ("ours", "ours without recompute", "released"):
        here, there = Pipe()
        for word in ("compare", "step", "step", "keep", "extract", "stop"):
            here.send(word)
        with ThreadPoolExecutor(1) as process:  # answers are more than a pipe holds: they are read meanwhile
            served = process.submit(bench_deen.serve, there, side, "fp32", 2)
            answers = [here.recv() for _ in range(5)]
            served.result()
        losses[side] = answers[0][2][0]
        assert all(peak > 0 for _, peak, _ in answers)
        assert answers[1][2] > 0
    assert losses["ours"] == pytest.approx(losses["ours without recompute"], rel=1e-5)
    assert losses["ours"] == pytest.approx(losses["released"], rel=1e-3)
