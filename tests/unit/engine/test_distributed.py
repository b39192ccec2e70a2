"""Two processes on the CPU (gloo); they are spawned, so everything that crosses over must survive pickling."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.multiprocessing.spawn import ProcessRaisedException

from tapetum.core.errors import TrainingError
from tapetum.engine.recipe import Recipe
from tapetum.engine.run_folder import RunFolder
from tapetum.engine.train import error_of_worker, train


def test_two_processes_draw_the_same_batches_and_train_like_one(
    tiny_recipe: Callable[..., Recipe], stranger: str, tmp_path: Path
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
