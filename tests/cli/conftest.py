"""The program as a user types it, and a run that any command can use."""

import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tapetum.cli import main
from tapetum.runs.recipe import Recipe
from tapetum.training.train import train


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[[str], tuple[int, str, str]]:
    """Runs a command line through the front door: exit status and the two streams."""

    def run(command: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", shlex.split(command))
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main.run()
        streams = capsys.readouterr()
        return left.value.code if isinstance(left.value.code, int) else 0, streams.out, streams.err

    return run


@pytest.fixture(scope="session")
def trained(tiny_recipe: Callable[..., Recipe], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two steps; nobody changes it."""
    run = tmp_path_factory.mktemp("trained") / "ide"
    train(tiny_recipe(overrides=["schedule.epochs=1", "sampler.steps=2"]), run)
    return run
