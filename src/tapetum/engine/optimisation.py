"""Optimiser and learning rates from a recipe."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from tapetum.core.errors import RecipeError, nearest_name
from tapetum.engine.recipe import OptimiserSection, ScheduleSection


def build_optimiser(
    network: nn.Module, groups: Mapping[str, list[nn.Parameter]], section: OptimiserSection, *, fused: bool = True
) -> torch.optim.Optimizer:
    """An optimiser with one parameter group for each of a method's named groups.

    Args:
        network: the method.
        groups: name -> parameters; every trainable parameter exactly once.
        section: of the recipe.
        fused: one pass over each parameter a step, four times as fast; must be off where Lightning clips gradients.
    Raises:
        RecipeError: `group_lr` names no group, or the groups do not cover the network.
    """
    for name in section.group_lr:
        if name not in groups:
            raise RecipeError(f"optimiser.group_lr.{name} names no group of the method; {nearest_name(name, groups)}")
    listed = [id(parameter) for parameters in groups.values() for parameter in parameters]
    trainable = {id(parameter) for parameter in network.parameters() if parameter.requires_grad}
    if len(listed) != len(set(listed)) or not trainable <= set(listed):
        raise RecipeError(
            "method.parameter_groups() must hold every trainable parameter exactly once: "
            f"{len(trainable)} are trainable, {len(listed)} listed, {len(trainable & set(listed))} of them trainable"
        )
    options: list[dict[str, Any]] = []
    for name, parameters in groups.items():
        rate = section.group_lr.get(name, section.lr)
        if parameters:
            options.append({"params": parameters, "name": name, "lr": rate, "full_lr": rate})
    if section.name == "sgd":
        return torch.optim.SGD(
            options, lr=section.lr, momentum=section.momentum,
            nesterov=section.nesterov and section.momentum > 0, weight_decay=section.weight_decay, fused=fused,
        )  # fmt: skip
    adam = torch.optim.Adam if section.name == "adam" else torch.optim.AdamW
    return adam(options, lr=section.lr, betas=section.betas, weight_decay=section.weight_decay, fused=fused)


def set_learning_rates(optimiser: torch.optim.Optimizer, schedule: ScheduleSection, position: float) -> None:
    """Give every parameter group its rate for a place in the training.

    Args:
        optimiser: from `build_optimiser`.
        schedule: of the recipe.
        position: complete epochs, with a fraction within an epoch.
    """
    factor = compute_lr_factor(schedule, position)
    for group in optimiser.param_groups:
        group["lr"] = group["full_lr"] * factor


def compute_lr_factor(schedule: ScheduleSection, position: float) -> float:
    """The factor on every learning rate at a place in the training.

    Args:
        schedule: of the recipe.
        position: complete epochs, with a fraction within an epoch, which counts where the schedule says so.
    """
    position = position if schedule.by == "step" else math.floor(position)
    factor = 1.0
    if schedule.name == "step":
        factor = schedule.gamma ** math.floor(position / (schedule.step or schedule.epochs))
    elif schedule.name == "multistep":
        factor = schedule.gamma ** sum(position >= milestone for milestone in schedule.milestones)
    elif schedule.name == "cosine":
        factor = schedule.final + (1 - schedule.final) * (1 + math.cos(math.pi * position / schedule.epochs)) / 2
    if position < schedule.warmup_epochs:
        factor *= schedule.warmup_factor + (1 - schedule.warmup_factor) * position / schedule.warmup_epochs
    return factor
