from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import Optimizer

import golden_files
from tapetum.core.errors import RecipeError
from tapetum.core.method import Turn
from tapetum.core.types import Batch
from tapetum.runs.recipe import OptimiserSection, ScheduleSection
from tapetum.training.optimisation import Groups, build_optimisers, compute_lr_factor, set_learning_rates

GOLDEN = golden_files.load("schedules")


def visible_infrared(*milestones: int, epochs: int) -> ScheduleSection:
    """The releases' (e + 1) / 10 in epochs 0 to 9: a tenth at first, and nine epochs later all."""
    return ScheduleSection(epochs=epochs, name="multistep", milestones=milestones, warmup_epochs=9, warmup_factor=0.1)


@pytest.mark.parametrize(
    ("case", "output", "base", "schedule"),
    [
        ("deen", "backbone_lr", 0.01, visible_infrared(20, 80, epochs=151)),
        ("deen", "head_lr", 0.1, visible_infrared(20, 80, epochs=151)),
        ("agw_vi", "backbone_lr", 0.01, visible_infrared(20, 50, epochs=81)),
        ("agw_vi", "head_lr", 0.1, visible_infrared(20, 50, epochs=81)),
        ("caj", "backbone_lr", 0.01, visible_infrared(20, 50, epochs=101)),
        ("caj", "head_lr", 0.1, visible_infrared(20, 50, epochs=101)),
        ("idf", "head_lr", 0.05, ScheduleSection(epochs=120, name="step", step=80)),
        (
            "strong_baseline",
            "lr",
            0.00035,
            ScheduleSection(epochs=121, name="multistep", milestones=(40, 70), warmup_epochs=10, warmup_factor=0.01),
        ),
    ],
)
def test_schedules_equal_those_of_the_released_code(
    case: str, output: str, base: float, schedule: ScheduleSection
) -> None:
    expected = GOLDEN[f"{case}/out/{output}"]
    found = [base * compute_lr_factor(schedule, epoch) for epoch in range(len(expected))]
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_a_schedule_by_epoch_stands_still_within_an_epoch_and_one_by_step_moves() -> None:
    by_epoch = ScheduleSection(epochs=10, name="cosine")
    by_step = ScheduleSection(epochs=10, name="cosine", by="step")
    assert compute_lr_factor(by_epoch, 3.9) == compute_lr_factor(by_epoch, 3)
    assert compute_lr_factor(by_step, 3.9) < compute_lr_factor(by_step, 3)
    assert compute_lr_factor(by_step, 0) == 1
    assert compute_lr_factor(by_step, 10) == pytest.approx(by_step.final)


def test_a_linear_schedule_is_full_until_its_milestone_and_falls_to_its_final_in_equal_steps() -> None:
    """EnlightenGAN's release: of 200 epochs the first 101 are full, the last has a hundredth."""
    release = ScheduleSection(epochs=200, name="linear", milestones=(100,), final=0.0)
    found = [compute_lr_factor(release, epoch) for epoch in range(200)]
    np.testing.assert_allclose(found, [1.0] * 101 + [each / 100 for each in range(99, 0, -1)], rtol=1e-12)
    at_once = ScheduleSection(epochs=4, name="linear", final=0.2, by="step")
    assert [compute_lr_factor(at_once, place) for place in (0, 2, 3.5, 4)] == pytest.approx([1, 0.6, 0.3, 0.2])
    cut_short = ScheduleSection(epochs=5, name="linear", milestones=(10,), final=0.0)
    assert [compute_lr_factor(cut_short, epoch) for epoch in range(5)] == [1.0] * 5


def build_one(network: nn.Module, groups: Groups, section: OptimiserSection, *, fused: bool = True) -> Optimizer:
    """The optimiser of a method without turns."""
    (built,) = build_optimisers(network, groups, section, [Turn("all", tuple(groups), no_losses)], fused=fused)
    return built.inner


def no_losses(output: Any, batch: Batch) -> dict[str, torch.Tensor]:
    return {}


def build_network() -> nn.Module:
    return nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)})


def test_each_group_gets_its_own_rate_and_keeps_it_through_the_schedule() -> None:
    network = build_network()
    groups = {name: list(module.parameters()) for name, module in network.items()}  # type: ignore[operator]
    optimiser = build_one(network, groups, OptimiserSection(lr=0.1, group_lr={"b": 0.01}))
    set_learning_rates(optimiser, ScheduleSection(epochs=4, step=2), 2)
    assert {group["name"]: group["lr"] for group in optimiser.param_groups} == pytest.approx({"a": 0.01, "b": 0.001})


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_every_optimiser_steps(name: str) -> None:
    network = build_network()
    groups = {"all": list(network.parameters())}
    optimiser = build_one(network, groups, OptimiserSection(name=name, lr=0.1))  # type: ignore[arg-type]
    before = [parameter.clone() for parameter in network.parameters()]
    sum(parameter.square().sum() for parameter in network.parameters()).backward()  # type: ignore[union-attr]
    optimiser.step()
    assert all(not torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_a_step_in_one_pass_is_the_same_step(name: str) -> None:
    found = []
    for fused in (True, False):
        torch.manual_seed(0)
        network = build_network()
        section = OptimiserSection(name=name, lr=0.1)  # type: ignore[arg-type]
        optimiser = build_one(network, {"all": list(network.parameters())}, section, fused=fused)
        for _ in range(3):
            optimiser.zero_grad()
            sum(parameter.square().sum() for parameter in network.parameters()).backward()  # type: ignore[union-attr]
            optimiser.step()
        found.append(torch.cat([parameter.detach().flatten() for parameter in network.parameters()]))
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_what_gets_its_first_gradient_late_or_after_a_resume_steps_like_the_plain_step(name: str) -> None:
    found = []
    for fused in (True, False):
        torch.manual_seed(0)
        network = build_network()
        section, groups = OptimiserSection(name=name, lr=0.1), {"all": list(network.parameters())}  # type: ignore[arg-type]
        optimiser = build_one(network, groups, section, fused=fused)
        for step in range(4):
            if step == 1:  # as a run that was killed goes on
                state = optimiser.state_dict()
                optimiser = build_one(network, groups, section, fused=fused)
                optimiser.load_state_dict(state)
            optimiser.zero_grad()
            seen = network["a"] if step < 2 else network  # type: ignore[index]
            sum(parameter.square().sum() for parameter in seen.parameters()).backward()  # type: ignore[union-attr]
            optimiser.step()
        found.append(torch.cat([parameter.detach().flatten() for parameter in network.parameters()]))
    torch.testing.assert_close(*found)


def test_a_rate_for_a_group_that_is_not_there_names_the_nearest() -> None:
    network = build_network()
    groups = {"backbone": list(network.parameters())}
    with pytest.raises(RecipeError, match=r"optimiser.group_lr.backbon names no group.* did you mean backbone\?"):
        build_one(network, groups, OptimiserSection(group_lr={"backbon": 0.1}))


def test_a_method_that_forgets_or_repeats_a_parameter_is_refused() -> None:
    network = build_network()
    everything = list(network.parameters())
    for wrong in (everything[:-1], [*everything, everything[0]]):
        with pytest.raises(RecipeError, match="every trainable parameter exactly once"):
            build_one(network, {"all": wrong}, OptimiserSection())
