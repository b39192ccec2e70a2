import csv
import importlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import reduce
from operator import getitem
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import load_file
from torch.optim.optimizer import register_optimizer_step_post_hook

from interruption import StopAfter
from tapetum.core.errors import CheckpointError, DataError, OutputError, RecipeError, TrainingError
from tapetum.core.method import TrainingFacts
from tapetum.core.types import Batch, EmbeddingSet, Modality
from tapetum.data.catalog import Dataset
from tapetum.layers import products
from tapetum.layers.branch import HeadOutput
from tapetum.methods import build_method, convert_to, ide, small_options
from tapetum.runs.checkpoint import Header, read_header, save_checkpoint
from tapetum.runs.progress import Silence
from tapetum.runs.recipe import Recipe, write_yaml
from tapetum.runs.run_folder import RunFolder
from tapetum.training import loop
from tapetum.training.state import State, load_state, save_state
from tapetum.training.stepping import in_float32
from tapetum.training.train import TrainingInterrupted, check_same_recipe, train

Build = Callable[..., Recipe]


class Losses(Silence):
    """Notes the loss of every step."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def step(self, *, epoch: int, loss: float, images_per_second: float) -> None:
        self.values.append(loss)


def assert_same_weights(a: Path, b: Path) -> None:
    first, second = load_file(a), load_file(b)
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, tiny_recipe: Build) -> Path:
    """A finished run of `tiny_recipe()` that nobody disturbed."""
    root = tmp_path_factory.mktemp("undisturbed") / "run"
    train(tiny_recipe(), root)
    return root


def test_a_run_leaves_weights_recipe_logs_and_facts_and_no_state(undisturbed: Path, tiny_recipe: Build) -> None:
    folder = RunFolder(undisturbed)
    header = read_header(folder.last)
    assert (header.method, header.num_ids, header.epoch) == ("ide", 8, 2)
    assert list(header.pids) == list(range(8))
    assert header.chosen_by == "last complete epoch, 2 of 2"
    assert header.origin["versions"]["torch"] == torch.__version__.split("+")[0]
    assert folder.recipe.read_text() == write_yaml(tiny_recipe())
    facts = folder.read_facts()
    assert facts["finished"]
    assert facts["dataset"] == "night600"
    assert facts["threads"] == torch.get_num_threads()
    assert not folder.state.exists()
    assert not folder.best.exists()
    with folder.metrics.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert float(rows[0]["loss"]) == pytest.approx(float(rows[0]["loss_id"]))
    assert [float(row["lr_head"]) for row in rows] == pytest.approx([0.05, 0.005])
    assert [float(row["lr_backbone"]) for row in rows] == pytest.approx([0.005, 0.0005])
    assert list(folder.tensorboard.glob("events.*"))


def test_every_loss_has_a_curve_for_tensorboard(undisturbed: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(RunFolder(undisturbed).tensorboard))
    events.Reload()
    assert set(events.Tags()["scalars"]) == {"loss/total", "loss/id", "lr/backbone", "lr/head"}
    assert [event.step for event in events.Scalars("loss/id")] == list(range(16))


def test_the_same_recipe_gives_the_same_weights_and_another_seed_others(
    undisturbed: Path, tiny_recipe: Build, tmp_path: Path
) -> None:
    train(tiny_recipe(), tmp_path / "again")
    assert_same_weights(RunFolder(undisturbed).last, RunFolder(tmp_path / "again").last)
    train(tiny_recipe(overrides=["seed=5"]), tmp_path / "other")
    with pytest.raises(AssertionError):
        assert_same_weights(RunFolder(undisturbed).last, RunFolder(tmp_path / "other").last)


def test_threads_that_read_pictures_and_the_cache_change_nothing(
    undisturbed: Path, tiny_recipe: Build, tmp_path: Path
) -> None:
    train(tiny_recipe(overrides=["data.workers=3", "data.cache=none"]), tmp_path / "run")
    assert_same_weights(RunFolder(undisturbed).last, RunFolder(tmp_path / "run").last)


@pytest.mark.parametrize("steps", [8, 11])  # between two epochs, and within one
def test_an_interrupted_training_goes_on_to_the_same_weights(
    undisturbed: Path, tiny_recipe: Build, tmp_path: Path, steps: int
) -> None:
    root = tmp_path / "run"
    with pytest.raises(TrainingInterrupted, match="the same command goes on from"):
        train(tiny_recipe(), root, reporter=StopAfter(steps))
    assert RunFolder(root).last.is_file()
    assert not RunFolder(root).read_facts()["finished"]
    rest = Losses()
    train(tiny_recipe(), root, reporter=rest)
    assert len(rest.values) == 16 - steps
    assert_same_weights(RunFolder(undisturbed).last, RunFolder(root).last)
    exact = ("epoch", "loss", "loss_id", "lr_head")
    for a, b in zip(read_rows(undisturbed), read_rows(root), strict=True):
        assert [a[name] for name in exact] == [b[name] for name in exact]


def test_epochs_of_unequal_length_change_nothing_after_an_interruption(tiny_recipe: Build, tmp_path: Path) -> None:
    sampler, schedule = "sampler={name: pk, ids: 5, pictures: 2}", "schedule={epochs: 3, name: cosine, by: step}"
    recipe = tiny_recipe(overrides=[sampler, schedule])  # epochs of 5, 6 and 5 steps
    train(recipe, tmp_path / "whole")
    for steps in (8, 2):  # in the second epoch, and before its sixth step
        with pytest.raises(TrainingInterrupted):
            train(recipe, tmp_path / "run", reporter=StopAfter(steps))
    train(recipe, tmp_path / "run")
    assert_same_weights(RunFolder(tmp_path / "whole").last, RunFolder(tmp_path / "run").last)
    assert read_steps(tmp_path / "run") == list(range(16))


def read_steps(root: Path) -> list[int]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    sittings = [EventAccumulator(str(path)).Reload() for path in RunFolder(root).tensorboard.iterdir()]
    return sorted(event.step for sitting in sittings for event in sitting.Scalars("loss/id"))


def read_rows(root: Path) -> list[dict[str, str]]:
    with RunFolder(root).metrics.open() as file:
        return list(csv.DictReader(file))


SLOW_TRAININGS = """
import os, sys, time
from pathlib import Path
import torch
from tapetum.runs.progress import Silence
from tapetum.runs.recipe import load_recipe
from tapetum.training.train import train

class Slow(Silence):
    def step(self, *, epoch, loss, images_per_second):
        print(os.getpid(), flush=True)
        time.sleep(0.02)

if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[3]))
    recipe = load_recipe(sys.argv[1])
    for _ in range(int(sys.argv[4])):  # everything is imported once, and nothing has begun a thread yet
        child = os.fork()
        if child == 0:
            train(recipe, Path(sys.argv[2]), reporter=Slow())
            os._exit(0)
        print("ended", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@pytest.mark.slow
def test_a_training_killed_at_any_moment_ends_with_the_same_weights(
    undisturbed: Path, tiny_recipe: Build, tmp_path: Path
) -> None:
    recipe, root, script = tmp_path / "recipe.yaml", tmp_path / "run", tmp_path / "script.py"
    # A state after nearly every step, so that kills also fall into the writing of it.
    recipe.write_text(write_yaml(tiny_recipe(overrides=["training.save_minutes=0.0001"])))
    script.write_text(SLOW_TRAININGS)
    kills = ((2, 0.0), (5, 0.013))  # after how many steps, and how long after the last
    command = [sys.executable, str(script), str(recipe), str(root), str(torch.get_num_threads()), str(len(kills))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for steps, delay in kills:
            (training,) = {process.stdout.readline() for _ in range(steps)}
            time.sleep(delay)
            os.kill(int(training), signal.SIGKILL)
            said = iter(process.stdout.readline, "")  # it may have taken a step more
            assert next(line for line in said if line != training) == f"ended {-signal.SIGKILL}\n"
            assert RunFolder(root).state.is_file()
    assert process.returncode == 0
    train(tiny_recipe(overrides=["training.save_minutes=0.0001"]), root)
    assert_same_weights(RunFolder(undisturbed).last, RunFolder(root).last)
    assert [path.name for path in root.rglob(".*") if path.name != ".lock"] == []


def test_a_training_goes_on_in_the_precision_it_was_begun_in(
    tiny_recipe: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny_recipe(overrides=["training.precision=auto", "sampler.steps=2"])
    monkeypatch.setattr("tapetum.inference.precision.has_fast_bf16", lambda device: False)
    with pytest.raises(TrainingInterrupted):
        train(recipe, tmp_path / "run", reporter=StopAfter(3))
    monkeypatch.setattr("tapetum.inference.precision.has_fast_bf16", lambda device: True)
    result = train(recipe, tmp_path / "run")
    assert read_header(result.checkpoint).origin["precision"] == "fp32"


def test_a_run_of_several_sittings_tells_the_versions_and_devices_of_each_that_left_something(
    tiny_recipe: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sit(version: str, stop: int | None) -> dict[str, Any]:
        monkeypatch.setattr("tapetum.training.train.read_versions", lambda: {"torch": version})
        if stop is None:
            return dict(read_header(train(recipe, tmp_path / "run").checkpoint).origin)
        with pytest.raises(TrainingInterrupted):
            train(recipe, tmp_path / "run", reporter=StopAfter(stop))
        return RunFolder(tmp_path / "run").read_facts()

    recipe = tiny_recipe()
    assert "sittings" not in sit("1", 2)
    assert "sittings" not in sit("1", 1)
    told = sit("2", 3)
    device = told["device"]
    sittings = [
        {"steps": 0, "device": device, "versions": {"torch": "1"}},
        {"steps": 3, "device": device, "versions": {"torch": "2"}},
    ]
    assert (told["versions"], told["sittings"]) == ({"torch": "1"}, sittings)
    told = sit("3", None)
    assert told["versions"] == {"torch": "1"}
    assert told["sittings"] == [*sittings, {"steps": 6, "device": device, "versions": {"torch": "3"}}]
    assert RunFolder(tmp_path / "run").read_facts()["sittings"] == told["sittings"]


def test_a_finished_run_is_returned_at_once(undisturbed: Path, tiny_recipe: Build) -> None:
    steps = Losses()
    result = train(tiny_recipe(), undisturbed, reporter=steps)
    assert steps.values == []
    assert result.checkpoint == RunFolder(undisturbed).last
    assert result.epochs == 2
    assert [row["epoch"] for row in result.history] == [1, 2]


def test_a_folder_holds_one_recipe_but_may_move_its_data_and_be_tested_otherwise(
    undisturbed: Path, tiny_recipe: Build, people: Path, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=r"holds a run with schedule.epochs = 2, now it is 3; choose another --out"):
        train(tiny_recipe(overrides=["schedule.epochs=3"]), undisturbed)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.symlink_to(people)
    train(
        tiny_recipe(overrides=[f"data.root={elsewhere}", "evaluation.rerank={k1: 9}", "evaluation.camera_norm=centre"]),
        undisturbed,
    )


@pytest.mark.parametrize("rule", ["last", "best_on_test", "holdout"])
def test_the_mirror_may_change_unless_weights_were_chosen_with_it(
    rule: str, tiny_recipe: Build, tmp_path: Path
) -> None:
    plain, mirrored = (
        tiny_recipe(overrides=[f"selection.rule={rule}", f"evaluation.mirror={mirror}"]) for mirror in ("false", "true")
    )
    folder = RunFolder(tmp_path)
    folder.recipe.write_text(write_yaml(plain))
    if rule != "holdout":  # the others' looks are without it
        check_same_recipe(folder, mirrored)
        return
    with pytest.raises(RecipeError, match=r"holds a run with evaluation.mirror = False, now it is True; choose"):
        check_same_recipe(folder, mirrored)


@pytest.mark.parametrize(
    ("recipe", "module", "key", "setting"),
    [
        ("ide_night600", "ide", "method.dropout", "method.dropout=0.5"),
        ("idf_official", "ide", "method.extractor_options.dropout", "method.extractor_options.dropout=0.5"),
        ("idf_official", "idf", "method.fusion_activation", "'method.fusion_activation=\"tanh_relu\"'"),
    ],
)
def test_a_run_names_a_default_that_has_changed_since_it_began_and_goes_on_with_the_old_one(
    recipe: str,
    module: str,
    key: str,
    setting: str,
    tiny_recipe: Build,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    overrides, option = ["sampler.steps=1"], key.rpartition(".")[2]
    if option != "dropout":
        overrides.append("method.extractor_options.dropout=0.5")
    with pytest.raises(TrainingInterrupted):
        train(tiny_recipe(recipe, overrides), tmp_path / "run", reporter=StopAfter(1))
    options = importlib.import_module(f"tapetum.methods.{module}").Options
    old = getattr(options(), option)
    new = {"dropout": 0.25, "fusion_activation": "relu"}[option]
    before = options.__init__.__defaults__
    changed = tuple(new if field == option else value for field, value in zip(vars(options()), before, strict=True))
    monkeypatch.setattr(options.__init__, "__defaults__", changed)
    kept = read_header(RunFolder(tmp_path / "run").last).options  # a search builds the network of before
    assert reduce(getitem, key.split(".")[1:], kept) == old
    said = f"holds a run with {key} = {old!r}, now it is {new!r}; choose another --out, .* go on as before with --set "
    with pytest.raises(RecipeError, match=f"{said}{re.escape(setting)}$"):
        train(tiny_recipe(recipe, overrides), tmp_path / "run")
    result = train(tiny_recipe(recipe, [*overrides, *shlex.split(setting)]), tmp_path / "run")
    assert result.epochs == 2


@pytest.mark.parametrize("there", [None, "mine.txt", "recipe.yaml", "logs/tensorboard/events.out.tfevents.before"])
def test_a_training_that_fails_at_its_first_step_leaves_the_folder_as_it_was(
    there: str | None, tiny_recipe: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: ide.Method, output: Any, batch: Batch) -> dict[str, torch.Tensor]:
        raise TrainingError("the pictures are of a size that the method cannot divide; change data.size")

    monkeypatch.setattr(ide.Method, "losses", fail)
    recipe, run = tiny_recipe(overrides=["data.size=[34, 16]"]), tmp_path / "run"
    if there:
        (run / there).parent.mkdir(parents=True)
        (run / there).write_text(write_yaml(recipe))
    before = set(run.rglob("*"))
    with pytest.raises(TrainingError, match="cannot divide"):
        train(recipe, run)
    assert run.exists() == (there is not None)
    assert set(run.rglob("*")) - {run / ".lock"} == before
    assert there is None or (run / there).read_text() == write_yaml(recipe)


def test_a_folder_in_which_nothing_was_saved_is_free_for_another_recipe_and_other_data(
    undisturbed: Path, tiny_recipe: Build, people: Path, tmp_path: Path
) -> None:
    import shutil

    with pytest.raises(TrainingInterrupted):
        train(tiny_recipe(overrides=["data.size=[34, 16]"]), tmp_path / "run", reporter=StopAfter(1))
    for weights in (RunFolder(tmp_path / "run").last, RunFolder(tmp_path / "run").state):
        weights.unlink()
    result = train(tiny_recipe(), tmp_path / "run")
    assert RunFolder(tmp_path / "run").recipe.read_text() == write_yaml(tiny_recipe())
    assert [row["epoch"] for row in result.history] == [1, 2]
    assert_same_weights(RunFolder(undisturbed).last, result.checkpoint)
    other = tmp_path / "other"
    shutil.copytree(people, other)
    next((other / "bounding_box_train").glob("0003*")).unlink()
    for weights in (RunFolder(tmp_path / "run").last, RunFolder(tmp_path / "run").state):
        weights.unlink(missing_ok=True)
    train(tiny_recipe(overrides=[f"data.root={other}", "schedule.epochs=1"]), tmp_path / "run")


def test_other_pictures_than_those_a_run_began_with_are_refused(
    undisturbed: Path, tiny_recipe: Build, people: Path, tmp_path: Path
) -> None:
    import shutil

    other = tmp_path / "other"
    shutil.copytree(people, other)
    next((other / "bounding_box_train").glob("0003*")).unlink()
    with pytest.raises(RecipeError, match="begun with other pictures"):
        train(tiny_recipe(overrides=[f"data.root={other}"]), undisturbed)


def test_the_best_epoch_is_chosen_on_identities_that_were_set_aside(tiny_recipe: Build, tmp_path: Path) -> None:
    recipe = tiny_recipe(overrides=["selection={rule: holdout, ids: 3, every: 1}", "schedule.epochs=3"])
    result = train(recipe, tmp_path / "run")
    assert result.num_ids == 5
    scores = [row["holdout_mean_ap"] for row in result.history]
    best = scores.index(max(scores)) + 1
    assert result.checkpoint == RunFolder(tmp_path / "run").best
    assert read_header(result.checkpoint).epoch == best
    assert f"on 3 held-out training identities, epoch {best} of 3" in result.chosen_by


def test_a_kill_between_the_best_weights_and_the_state_changes_neither(
    tiny_recipe: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ["selection={rule: holdout, ids: 3, every: 1}", "schedule.epochs=3", "sampler.steps=2"]
    recipe = tiny_recipe(overrides=settings)
    whole, killed = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "killed")
    train(recipe, whole.root)

    def die_in_the_second_epoch(path: Path, state: State) -> None:
        if state.place.epoch == 2:
            raise SystemError("killed")
        save_state(path, state)

    with monkeypatch.context() as patch:
        patch.setattr("tapetum.training.loop.save_state", die_in_the_second_epoch)
        with pytest.raises(SystemError):
            train(recipe, killed.root)
    assert load_state(killed.state).place.epoch == 1
    train(recipe, killed.root)
    for expected, found in ((whole.best, killed.best), (whole.last, killed.last)):
        assert_same_weights(expected, found)
        assert read_header(expected).chosen_by == read_header(found).chosen_by


def test_a_training_goes_on_with_the_number_of_threads_it_was_begun_with(tiny_recipe: Build, tmp_path: Path) -> None:
    recipe = tiny_recipe(overrides=["sampler.steps=2"])
    with pytest.raises(TrainingInterrupted):
        train(recipe, tmp_path / "run", reporter=StopAfter(3))
    begun = torch.get_num_threads()
    torch.set_num_threads(begun + 1)
    try:
        train(recipe, tmp_path / "run")
        assert torch.get_num_threads() == begun + 1
    finally:
        torch.set_num_threads(begun)
    assert RunFolder(tmp_path / "run").read_facts()["threads"] == begun


def test_a_training_goes_on_with_the_library_for_products_it_was_begun_with(
    tiny_recipe: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny_recipe(overrides=["sampler.steps=2"])
    folder = RunFolder(tmp_path / "run")
    with pytest.raises(TrainingInterrupted):
        train(recipe, folder.root, reporter=StopAfter(3))
    begun = folder.read_facts()["products_keep_up"]
    monkeypatch.setattr(products, "_found", [not begun])  # a busy minute, or another machine
    seen = []
    build = ide.Method.__init__

    def remember(self: ide.Method, options: ide.Options, facts: TrainingFacts) -> None:
        seen.append(products.products_keep_up())
        build(self, options, facts)

    monkeypatch.setattr(ide.Method, "__init__", remember)
    train(recipe, folder.root)
    assert set(seen) == {begun}
    assert products.products_keep_up() is not begun
    assert folder.read_facts()["products_keep_up"] is begun


def test_a_look_at_held_out_people_does_not_change_the_training(tiny_recipe: Build, tmp_path: Path) -> None:
    for every in (1, 2):
        settings = [f"selection={{rule: holdout, ids: 2, every: {every}}}", "sampler.steps=2"]
        train(tiny_recipe(overrides=settings), tmp_path / str(every))
    assert_same_weights(RunFolder(tmp_path / "1").last, RunFolder(tmp_path / "2").last)


def test_a_batch_in_parts_trains_like_the_whole_batch(tiny_recipe: Build, stranger: str, tmp_path: Path) -> None:
    weights, losses = [], []
    for parts in (1, 2, 4):
        recipe = tiny_recipe(overrides=[f"method={{name: {stranger}}}", f"training.accumulate={parts}"])
        noted = Losses()
        train(recipe, tmp_path / str(parts), reporter=noted)
        weights.append(load_file(RunFolder(tmp_path / str(parts)).last))
        losses.append(noted.values)
    for other in (1, 2):
        assert losses[other] == pytest.approx(losses[0], rel=1e-4)
        for name, tensor in weights[0].items():
            torch.testing.assert_close(weights[other][name], tensor, rtol=1e-4, atol=1e-5)


def test_a_loss_that_is_no_longer_finite_stops_and_keeps_the_last_good_weights(
    tiny_recipe: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "run"
    calls = 0
    honest = ide.Method.losses

    def broken(self: ide.Method, output: object, batch: object) -> dict[str, torch.Tensor]:
        nonlocal calls
        calls += 1
        losses = honest(self, output, batch)  # type: ignore[arg-type]
        return {name: loss * float("nan") for name, loss in losses.items()} if calls == 11 else losses

    monkeypatch.setattr(ide.Method, "losses", broken)
    with pytest.raises(TrainingError) as caught:
        train(tiny_recipe(), root)
    message = str(caught.value)
    assert "loss id became nan in epoch 2, step 3" in message
    assert f"the last good weights are kept in {RunFolder(root).last}" in message
    assert "\n" not in message
    assert read_header(RunFolder(root).last).epoch == 1
    assert all(tensor.isfinite().all() for tensor in load_file(RunFolder(root).last).values())


def test_weights_that_are_no_longer_finite_are_never_saved(
    tiny_recipe: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Breaking(Silence):
        def step(self, *, epoch: int, loss: float, images_per_second: float) -> None:
            if epoch == 2:
                with torch.no_grad():
                    next(networks[0].head.parameters()).fill_(float("inf"))

    networks: list[ide.Method] = []
    build = ide.Method.__init__

    def remember(self: ide.Method, options: ide.Options, facts: TrainingFacts) -> None:
        build(self, options, facts)
        networks.append(self)

    monkeypatch.setattr(ide.Method, "__init__", remember)
    recipe = tiny_recipe(overrides=["sampler.steps=1"])
    with pytest.raises(TrainingError, match=r"weights head\..* are not finite after epoch 2"):
        train(recipe, tmp_path / "run", reporter=Breaking())
    assert read_header(RunFolder(tmp_path / "run").last).epoch == 1


def test_two_runs_into_one_folder_are_refused(tiny_recipe: Build, tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run").held(), pytest.raises(OutputError, match="in use by another run"):
        train(tiny_recipe(), tmp_path / "run")


def test_a_full_disk_while_saving_leaves_the_state_before_whole(
    undisturbed: Path, tiny_recipe: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "run"
    honest = os.fsync
    writes = 0

    def full(descriptor: int) -> None:
        nonlocal writes
        writes += 1
        if writes > 5:  # recipe, facts, weights, history and state of the first epoch fit
            raise OSError(28, "No space left on device")
        honest(descriptor)

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OutputError, match="No space left on device"):
        train(tiny_recipe(), root)
    monkeypatch.setattr("os.fsync", honest)
    assert read_header(RunFolder(root).last).epoch == 1
    train(tiny_recipe(), root)
    assert_same_weights(RunFolder(undisturbed).last, RunFolder(root).last)


def test_a_write_that_fails_half_way_leaves_no_half_file(tiny_recipe: Build, tmp_path: Path) -> None:
    resource = pytest.importorskip("resource", reason="this system limits no file's size")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, limits[1]))  # weights fit, the state does not
        with pytest.raises(OutputError, match=r"resume\.pt: cannot be written \(File too large\)"):
            train(tiny_recipe(), tmp_path / "run")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert read_header(RunFolder(tmp_path / "run").last).epoch == 1
    assert not list((tmp_path / "run" / "state").iterdir())


@pytest.mark.parametrize(
    ("overrides", "error", "message"),
    [
        (["sampler={name: pk, ids: 9, pictures: 2}"], DataError, "8 training identities are fewer than P = 9"),
        (["sampler.batch=100"], DataError, "64 training pictures do not fill a batch of 100"),
        (["training.accumulate=3"], RecipeError, "a batch of 8 cannot be shared"),
        (["optimiser.group_lr.bakcbone=0.1"], RecipeError, r"did you mean backbone\?"),
        (["data.root=null"], RecipeError, "data.root is not given; add --data night600=ROOT"),
        (["data.root=/nonexistent"], DataError, "/nonexistent does not exist"),
        (["init.weights=/nonexistent.pth"], CheckpointError, "/nonexistent.pth"),
        (["selection={rule: holdout, ids: 7}"], TrainingError, "leave fewer than 2 to train on"),
        (["training.precision=fp16"], RecipeError, "needs a GPU"),
        (["data.scene={cameras: 3}"], RecipeError, "data.scene is for data.name = synth"),
        (
            ["evaluation.protocol=nigth600_step"],
            RecipeError,
            r"protocol 'nigth600_step' is unknown; did you mean night600_s",
        ),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_written(
    tiny_recipe: Build, tmp_path: Path, overrides: list[str], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        train(tiny_recipe(overrides=overrides), tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_damaged_state_is_refused(tiny_recipe: Build, tmp_path: Path) -> None:
    root = tmp_path / "run"
    with pytest.raises(TrainingInterrupted):
        train(tiny_recipe(), root, reporter=StopAfter(2))
    state = RunFolder(root).state
    state.write_bytes(state.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="delete the run folder to start afresh"):
        train(tiny_recipe(), root)


def test_damaged_pictures_stop_a_training_or_are_left_out_and_counted(
    tiny_recipe: Build, people: Path, tmp_path: Path
) -> None:
    import shutil

    root = tmp_path / "data"
    shutil.copytree(people, root)
    victim = sorted((root / "bounding_box_train").iterdir())[5]
    victim.write_bytes(victim.read_bytes()[:40])
    recipe = tiny_recipe(overrides=[f"data.root={root}", "sampler.steps=1", "schedule.epochs=1"])
    with pytest.raises(DataError, match=victim.name):
        train(recipe, tmp_path / "stops")
    recipe = tiny_recipe(
        overrides=[f"data.root={root}", "sampler.steps=1", "schedule.epochs=1", "data.skip_corrupt=true"]
    )
    result = train(recipe, tmp_path / "goes_on")
    assert len(result.skipped) == 1
    assert victim.name in result.skipped[0]


def test_idf_trains_in_bf16_with_every_loss_finite(tiny_recipe: Build, tmp_path: Path) -> None:
    # oneDNN's bf16 gradient of a strided convolution is wrong for maps below 2 x 2, so the pictures are larger here
    overrides = ["data.size=[64, 32]", "training.precision=bf16", "sampler.steps=2", "schedule.epochs=1"]
    recipe = tiny_recipe("idf_official", overrides)
    row = train(recipe, tmp_path / "run").history[0]
    assert {"loss_id_night", "loss_curve_smoothness", "loss_reconstruction", "loss_distillation"} <= row.keys()
    assert row["loss"] == pytest.approx(sum(value for name, value in row.items() if name.startswith("loss_")))


def test_batches_hold_p_people_with_k_pictures_and_gradients_are_clipped(
    tiny_recipe: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts: list[list[int]] = []
    norms: list[float] = []
    honest = ide.Method.losses

    def counting(self: ide.Method, output: Any, batch: Batch) -> dict[str, torch.Tensor]:
        counts.append(batch.pids.unique(return_counts=True)[1].tolist())
        return honest(self, output, batch)

    def measure(optimiser: torch.optim.Optimizer, *_: Any) -> None:
        grads = [weight.grad for group in optimiser.param_groups for weight in group["params"]]
        norms.append(float(torch.stack([grad.norm() for grad in grads if grad is not None]).norm()))

    monkeypatch.setattr(ide.Method, "losses", counting)
    hook = register_optimizer_step_post_hook(measure)
    overrides = ["sampler={name: pk, ids: 4, pictures: 2}", "training.gradient_clip=0.01", "optimiser.name=adam"]
    train(tiny_recipe(overrides=[*overrides, "schedule.epochs=1"]), tmp_path / "run")
    hook.remove()
    assert len(counts) == len(norms) > 1
    assert all(people == [2, 2, 2, 2] for people in counts)
    assert norms == pytest.approx([0.01] * len(norms), rel=1e-3)


class Pair(NamedTuple):
    feature: torch.Tensor
    count: int


def test_outputs_of_any_shape_reach_the_losses_in_float32() -> None:
    half = torch.ones(2, dtype=torch.bfloat16)
    output = HeadOutput(feature=half, embedding=half, logits=half)
    assert in_float32(output).logits.dtype == torch.float32
    nested = in_float32({"a": [half, (half, torch.ones(2, dtype=torch.int64))], "b": None})
    assert nested["a"][0].dtype == nested["a"][1][0].dtype == torch.float32
    assert nested["a"][1][1].dtype == torch.int64
    assert nested["b"] is None
    assert in_float32(Pair(half, 3)).feature.dtype == torch.float32
    assert type(in_float32(Pair(half, 3))) is Pair
    assert in_float32(MappingProxyType({"a": half}))["a"].dtype == torch.float32


def test_in_bfloat16_losses_are_computed_in_float32_and_outside_autocast(
    tiny_recipe: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds, honest = set(), ide.Method.losses

    def noting(self: ide.Method, output: Any, batch: Batch) -> dict[str, torch.Tensor]:
        kinds.add((output.feature.dtype, output.logits.dtype, torch.is_autocast_enabled("cpu")))
        return honest(self, output, batch)

    monkeypatch.setattr(ide.Method, "losses", noting)
    train(tiny_recipe(overrides=["training.precision=bf16", "schedule.epochs=1"]), tmp_path / "run")
    assert kinds == {(torch.float32, torch.float32, False)}


MAPS = "backbone: test_resnet, last_stride: 2"


@pytest.mark.parametrize(
    ("method", "before", "camids", "anew"),
    [
        ("mclnet", {}, (), ["centres.camera.points", "centres.id.points", "confuser.norm.bias"]),
        ("mclnet", {}, (1, 2, 3), ["centres.camera.points"]),  # as many people, other cameras
        ("bot", {"centre_weight": 0.0}, (), ["head.centres.weight"]),
    ],
)
def test_a_training_begins_with_a_checkpoint_that_lacks_what_only_a_training_needs(
    method: str, before: dict[str, Any], camids: tuple[int, ...], anew: list[str],
    tiny_recipe: Build, two_modalities: Dataset, tmp_path: Path,
) -> None:  # fmt: skip
    options = {"backbone": "test_resnet", "last_stride": 2, **before}
    torch.manual_seed(5)
    begun = build_method(method, options, 8, camids=camids, size=(32, 16))
    save_checkpoint(tmp_path / "begun.safetensors", begun, Header(method, options, 8, camids=camids, size=(32, 16)))
    still = [f"{group}: 1" for group in begun.parameter_groups()]  # type: ignore[operator]
    settings = [
        f"method={{name: {method}, {MAPS}}}",
        f"init.weights={tmp_path / 'begun.safetensors'}",
        "sampler={name: cross_modality, ids: 4, pictures: 2, steps: 1}",
        "schedule.epochs=1",
        f"optimiser={{lr: 0.1, frozen: {{{', '.join(still)}}}}}",
    ]
    result = train(tiny_recipe(overrides=settings), tmp_path / "run", dataset=two_modalities)
    first, last = begun.state_dict(), load_file(result.checkpoint)
    assert set(anew) <= set(last)
    for name in set(first) - set(anew):
        if first[name].shape == last[name].shape and "running" not in name and "num_batches" not in name:
            assert torch.equal(first[name], last[name]), name


def test_a_checkpoint_that_lacks_what_a_search_needs_is_no_beginning(tiny_recipe: Build, tmp_path: Path) -> None:
    options = {"backbone": "test_resnet", "last_stride": 2, "triplet_weight": 0.0, "centre_weight": 0.0}
    begun = build_method("agw", {**options, "non_local": [0, 0, 0, 0]}, 8)
    header = Header("agw", {**options, "non_local": [0, 0, 0, 0]}, 8)
    save_checkpoint(tmp_path / "begun.safetensors", begun, header)
    settings = [f"method={{name: agw, {MAPS}}}", f"init.weights={tmp_path / 'begun.safetensors'}"]
    with pytest.raises(CheckpointError, match=r"begun\.safetensors: \d+ missing tensor\(s\), first 'branch.non_local"):
        train(tiny_recipe(overrides=settings), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_released_checkpoint_in_the_place_of_a_backbone_is_called_by_its_layout(
    tiny_recipe: Build, tmp_path: Path
) -> None:
    options = {"width": 0.25}
    released = convert_to("osnet-official", options, build_method("osnet", options, 8).state_dict())
    torch.save(released, tmp_path / "osnet.pth")
    message = (
        r"unknown tensor.*\(this file has the layout osnet-official; begin with what `tapetum convert --from` that"
    )
    with pytest.raises(CheckpointError, match=message):
        train(tiny_recipe(overrides=[f"init.weights={tmp_path / 'osnet.pth'}"]), tmp_path / "run")
    assert not (tmp_path / "run").exists()


CROSS_MODALITY = "sampler={name: cross_modality, ids: 4, pictures: 2, steps: 3}"


@pytest.mark.parametrize("parts", [1, 2])
def test_every_part_of_a_training_step_sees_both_modalities(
    tiny_recipe: Build, two_modalities: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parts: int
) -> None:
    counts: list[list[int]] = []
    honest = ide.Method.losses

    def counting(self: ide.Method, output: Any, batch: Batch) -> dict[str, torch.Tensor]:
        counts.extend(batch.modalities[batch.pids == pid].bincount().tolist() for pid in batch.pids.unique())
        return honest(self, output, batch)

    monkeypatch.setattr(ide.Method, "losses", counting)
    overrides = [CROSS_MODALITY, f"training.accumulate={parts}", "schedule.epochs=1", "augment.grayscale=0.5"]
    train(tiny_recipe(overrides=overrides), tmp_path / "run", dataset=two_modalities)
    assert counts == [[2, 2]] * 12


@pytest.mark.parametrize("parts", [1, 2])
def test_a_training_with_two_views_goes_on_with_equal_weights_and_shows_both_views_in_each_part(
    tiny_recipe: Build, two_modalities: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parts: int
) -> None:
    seen: list[list[int]] = []
    honest = ide.Method.losses

    def noting(self: ide.Method, output: Any, batch: Batch) -> dict[str, torch.Tensor]:
        seen.append([int(((batch.modalities == m) & (batch.views == v)).sum()) for m, v in ((0, 0), (0, 1), (1, 0))])
        assert torch.equal(batch.rows[batch.views == 1], batch.rows[(batch.views == 0) & (batch.modalities == 0)])
        return honest(self, output, batch)

    monkeypatch.setattr(ide.Method, "losses", noting)
    operations = "{name: pad_crop, pad: 3}, {name: erasing}, {name: channel_exchange, view: 1, modality: visible}"
    settings = [
        CROSS_MODALITY.replace("}", ", views: [2, 1]}"),
        f"augment=[{operations}]",
        f"training.accumulate={parts}",
        "schedule.epochs=2",
    ]
    whole = train(tiny_recipe(overrides=settings), tmp_path / "whole", dataset=two_modalities)
    assert seen == [[8 // parts] * 3] * (6 * parts)
    with pytest.raises(TrainingInterrupted):
        train(tiny_recipe(overrides=settings), tmp_path / "run", dataset=two_modalities, reporter=StopAfter(4))
    resumed = train(tiny_recipe(overrides=settings), tmp_path / "run", dataset=two_modalities)
    assert_same_weights(whole.checkpoint, resumed.checkpoint)


def test_an_epoch_is_chosen_by_held_out_people_across_modalities_even_after_the_protocol_changed(
    tiny_recipe: Build, two_modalities: Dataset, tmp_path: Path
) -> None:
    settings = [CROSS_MODALITY, "selection={rule: holdout, ids: 3, every: 1}", "schedule.epochs=3"]
    whole = train(tiny_recipe(overrides=settings), tmp_path / "whole", dataset=two_modalities)
    assert "held-out training identities" in whole.chosen_by
    assert read_header(whole.checkpoint).origin["selection_protocol"] == "infrared_to_visible"
    with pytest.raises(TrainingInterrupted):
        train(tiny_recipe(overrides=settings), tmp_path / "run", dataset=two_modalities, reporter=StopAfter(4))
    changed = tiny_recipe(overrides=[*settings, "evaluation.protocol=visible_to_infrared"])
    resumed = train(changed, tmp_path / "run", dataset=two_modalities)
    assert resumed.chosen_by == whole.chosen_by
    scores = [[row["holdout_mean_ap"] for row in result.history] for result in (whole, resumed)]
    assert scores[0] == scores[1]


def test_the_best_epoch_on_the_test_set_is_kept_where_a_recipe_says_so_and_its_card_says_so_loudly(
    tiny_recipe: Build, two_modalities: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirrored: list[bool] = []
    honest = loop.extract

    def noting(*given: Any, mirror: bool, **settings: Any) -> EmbeddingSet:
        mirrored.append(mirror)
        return honest(*given, mirror=mirror, **settings)

    monkeypatch.setattr(loop, "extract", noting)
    settings = [CROSS_MODALITY, "selection={rule: best_on_test, every: 2}", "schedule.epochs=3"]
    settings.append("evaluation.mirror=true")
    result = train(tiny_recipe(overrides=settings), tmp_path / "run", dataset=two_modalities)
    assert result.num_ids == 8  # nobody is set aside
    looks = {int(row["epoch"]): row["test_rank1"] for row in result.history if row.get("test_rank1") is not None}
    assert list(looks) == [2, 3]
    assert mirrored == [False] * 4
    best = max(looks, key=lambda epoch: (looks[epoch], -epoch))
    assert read_header(result.checkpoint).epoch == best
    assert result.checkpoint == RunFolder(tmp_path / "run").best
    assert result.chosen_by == (
        f"BEST ON THE TEST SET, as the release does: rank-1 {looks[best]:.4f} by infrared_to_visible, trial 0, "
        f"without mirror, epoch {best} of 3"
    )


def test_people_of_one_modality_stop_a_training_or_are_left_out_and_counted(
    tiny_recipe: Build, two_modalities: Dataset, tmp_path: Path
) -> None:
    pids = sorted({record.pid for record in two_modalities.split("train")})
    kept = [r for r in two_modalities.records if r.pid != pids[0] or r.modality == Modality.VISIBLE]
    incomplete = replace(two_modalities, records=tuple(kept))
    settings = [CROSS_MODALITY, "sampler.steps=1", "schedule.epochs=1"]
    with pytest.raises(DataError, match=rf"1 of 8 .* one modality only: {pids[0]} \(visible\); set sampler.unpaired"):
        train(tiny_recipe(overrides=settings), tmp_path / "stops", dataset=incomplete)
    assert not (tmp_path / "stops").exists()
    result = train(
        tiny_recipe(overrides=[*settings, "sampler.unpaired=drop"]), tmp_path / "goes_on", dataset=incomplete
    )
    assert result.num_ids == 7
    assert list(read_header(result.checkpoint).pids) == pids[1:]
    assert read_header(result.checkpoint).origin["unpaired_ids"] == 1
    pk = ["sampler={name: pk, ids: 8, pictures: 4, steps: 1}", "schedule.epochs=1"]  # asks no modality, and draws all
    assert train(tiny_recipe(overrides=pk), tmp_path / "pk", dataset=incomplete).num_ids == 8
    for method in ("lba", "align_gan"):
        small = [f"method={json.dumps({'name': method, **small_options(method)})}", "optimiser={lr: 0.01}"]
        message = rf"{method}: \d of 8 people of the batch are there in one modality only.*\.name to cross_modality"
        with pytest.raises(TrainingError, match=message):
            train(tiny_recipe(overrides=[*pk, *small]), tmp_path / method, dataset=incomplete)
    visible = replace(incomplete, records=tuple(r for r in kept if r.modality == Modality.VISIBLE))
    with pytest.raises(DataError, match="needs visible and infrared training pictures, but all 32 are visible; add"):
        train(tiny_recipe(overrides=settings), tmp_path / "one", dataset=visible)


def test_a_run_whose_state_is_gone_does_not_write_over_its_weights(
    undisturbed: Path, tiny_recipe: Build, tmp_path: Path
) -> None:
    """As where somebody deleted state/ to save disk, of a run that is not over."""
    root = tmp_path / "run"
    shutil.copytree(undisturbed, root)
    facts = json.loads((root / "run.json").read_text())
    (root / "run.json").write_text(json.dumps({**facts, "finished": False}))
    before = RunFolder(root).last.read_bytes()
    with pytest.raises(OutputError, match=r"has weights \(best|last\.safetensors\) but no state to go on from"):
        train(tiny_recipe(), root)
    assert RunFolder(root).last.read_bytes() == before
