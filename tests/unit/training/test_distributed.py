"""What keeps processes from training together; that two train like one, test_demanding_methods.py shows."""

from collections.abc import Callable
from pathlib import Path

import pytest
from torch.multiprocessing.spawn import ProcessRaisedException

from tapetum.core.errors import RecipeError, TrainingError
from tapetum.runs.recipe import Recipe
from tapetum.training.train import error_of_worker, train


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
