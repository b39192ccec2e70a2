"""What the loop asks of loaders, and what it restores, draws and forgets."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tapetum.runs.recipe import Recipe
from tapetum.training import loop
from tapetum.training.state import State, TrainingPosition


class Draws(nn.Module):
    """Two groups of weights; draws a number at the beginning of each epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = (nn.Parameter(torch.ones(2)) for _ in range(2))
        self.drawn: list[float] = []

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        return {"backbone": [self.a], "head": [self.b]}

    def losses(self, output: Tensor, batch: object) -> dict[str, Tensor]:
        raise NotImplementedError

    def begin_epoch(self, start: object) -> None:
        self.drawn.append(float(torch.rand(())))


def stand_in(recipe: Recipe, **more: object) -> Any:
    """What the methods of a loop that are tested by themselves find in it."""
    network = Draws()
    return SimpleNamespace(
        **{
            "network": network,
            "_module": network,
            "_groups": network.parameter_groups(),
            "plan": SimpleNamespace(recipe=recipe, precision="fp16"),
            "device": torch.device("cpu"),
            "global_rank": 0,
            "place": TrainingPosition(),
            "_epochs": SimpleNamespace(loader=None),
            "_state": None,
            **more,
        }
    )


def test_what_a_method_draws_at_the_beginning_of_an_epoch_follows_from_seed_epoch_and_process_alone(
    tiny_recipe: Callable[..., Recipe],
) -> None:
    there = stand_in(tiny_recipe(), _move=lambda batch, device: batch)
    places = [(0, 0), (0, 0), (1, 0), (0, 1)]  # epoch and process
    for seed, (there.place.epoch, there.global_rank) in enumerate(places):
        torch.manual_seed(seed)
        loop.TrainingLoop._begin_epoch(there)
    first, again, *others = there.network.drawn
    assert again == first
    assert len({first, *others}) == 3


def test_a_training_that_goes_on_scales_its_losses_as_it_did(tiny_recipe: Callable[..., Recipe]) -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0).state_dict()
    recipe = tiny_recipe()
    begun = tuple(each.state_dict() for each in loop.TrainingLoop.configure_optimizers(stand_in(recipe)))
    there = stand_in(recipe, _state=State(TrainingPosition(), {}, begun, scaler))
    loop.TrainingLoop.configure_optimizers(there)
    assert there._stepper.scaler.get_scale() == 8


@pytest.mark.parametrize(("epoch", "step", "kept"), [(0, 0, True), (1, 0, False), (1, 3, True), (2, 0, True)])
def test_when_a_group_thaws_the_optimisers_forget_their_momentum(
    tiny_recipe: Callable[..., Recipe], epoch: int, step: int, kept: bool
) -> None:
    optimiser = SimpleNamespace(inner=SimpleNamespace(state={"momentum": 1}))
    there = stand_in(
        tiny_recipe(overrides=["optimiser.frozen={backbone: 1}"]),
        place=TrainingPosition(epoch=epoch, step=step),
        _begin_epoch=lambda: None,
        _stepper=SimpleNamespace(optimisers=[optimiser]),
    )
    loop.TrainingLoop.on_train_epoch_start(there)
    assert bool(optimiser.inner.state) == kept
    assert there.network.a.requires_grad == (epoch > 0)


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
