"""What the loop asks of loaders on either device."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tapetum.runs.recipe import Recipe
from tapetum.training import loop


def test_batches_for_a_gpu_are_pinned_and_for_a_cpu_they_are_not(
    tiny_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    for name in ("TrainLoader", "EvalLoader"):
        monkeypatch.setattr(loop, name, lambda *_, pinned, **__: asked.append(pinned))
    side = SimpleNamespace(query=(), gallery=())
    for kind in ("cpu", "cuda"):
        plan = SimpleNamespace(recipe=tiny_recipe(), train=(), validation=side)
        trainer = SimpleNamespace(world_size=1)
        there: Any = SimpleNamespace(device=torch.device(kind), plan=plan, place=None, global_rank=0, trainer=trainer)
        loop.TrainingLoop.train_dataloader(there)
        loop.TrainingLoop._validation_loaders.func(there)
    assert asked == [False] * 3 + [True] * 3
