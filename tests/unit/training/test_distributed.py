"""Two processes on the CPU (gloo); they are spawned, so everything that crosses over must survive pickling."""

import importlib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.multiprocessing.spawn import ProcessRaisedException

from tapetum.core.errors import RecipeError, TrainingError
from tapetum.runs.checkpoint import read_header
from tapetum.runs.recipe import Recipe
from tapetum.runs.run_folder import RunFolder
from tapetum.training.train import error_of_worker, train


def test_two_processes_draw_the_same_batches_and_train_like_one(
    tiny_recipe: Callable[..., Recipe], stranger: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def run(devices: int) -> RunFolder:
        settings = [
            f"method={{name: {stranger}}}",
            "sampler={name: pk, ids: 4, pictures: 2}",
            f"training.devices={devices}",
        ]
        result = train(tiny_recipe(overrides=settings), tmp_path / str(devices))
        assert result.epochs == 2
        return result.folder

    one, two = run(1), run(2)
    expected, found = load_file(one.last), load_file(two.last)
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-4, atol=1e-5)
    assert two.read_facts()["finished"]
    assert not two.state.exists()
    assert capfd.readouterr().err == ""


UNEVEN = '''
"""A method with a part that no loss reaches, and a loss that can break."""
from dataclasses import dataclass
from torch import nn
from their_package import plain

@dataclass(frozen=True)
class Options(plain.Options):
    breaks_at: int = 0

class Method(plain.Method):
    def __init__(self, options, facts):
        super().__init__(options, facts)
        self.unreached = nn.Linear(2, 2)
        self.breaks_at = options.breaks_at
        self.calls = 0

    def losses(self, output, batch):
        self.calls += 1
        factor = float("nan") if self.calls == self.breaks_at else 1.0
        return {name: factor * loss for name, loss in super().losses(output, batch).items()}

    def parameter_groups(self):
        groups = super().parameter_groups()
        return {**groups, "head": [*groups["head"], *self.unreached.parameters()]}
'''


def test_a_part_that_no_loss_reaches_stays_as_it_is_and_a_worker_s_error_is_ours(
    tiny_recipe: Callable[..., Recipe], stranger: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    module = importlib.import_module(stranger)
    Path(str(module.__file__)).with_name("uneven.py").write_text(UNEVEN)
    importlib.invalidate_caches()
    method = f"method={{name: {stranger.replace('plain', 'uneven')}, breaks_at: 3}}"
    recipe = tiny_recipe(overrides=[method, "training.devices=2", "sampler.steps=2"])
    with pytest.raises(TrainingError, match="loss id became nan in epoch 2, step 1; the last good weights are kept in"):
        train(recipe, tmp_path / "run")
    assert read_header(RunFolder(tmp_path / "run").last).epoch == 1
    assert "unreached.weight" in load_file(RunFolder(tmp_path / "run").last)
    assert capfd.readouterr().err == ""


def test_more_gpus_than_there_are_is_refused(
    tiny_recipe: Callable[..., Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    recipe = tiny_recipe(overrides=["training.devices=2", "training.accelerator=gpu"])
    with pytest.raises(RecipeError, match=r"training.devices is 2, but this machine offers 1 GPU\(s\); lower it"):
        train(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_error_in_a_process_is_the_same_error_outside() -> None:
    raised = ProcessRaisedException(
        "\n\n-- Process 1 terminated with the following error:\nTraceback (most recent call last):\n"
        "  ...\ntapetum.core.errors.TrainingError: runs/x: loss id became nan in epoch 2, step 3; stop\n",
        1,
        4711,
    )
    error = error_of_worker(raised)
    assert isinstance(error, TrainingError)
    assert str(error) == "runs/x: loss id became nan in epoch 2, step 3; stop"
    other = ProcessRaisedException("Traceback\nZeroDivisionError: division by zero\n", 0, 4711)
    assert error_of_worker(other) is other


def test_a_batch_that_cannot_be_shared_by_the_processes_is_refused_at_once(
    tiny_recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    with pytest.raises(Exception, match="cannot be shared by 3 processes"):
        train(tiny_recipe(overrides=["training.devices=3"]), tmp_path / "run")
