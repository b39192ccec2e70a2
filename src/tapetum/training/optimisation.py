"""Optimisers and learning rates from a recipe: one for each turn of a method, and one for each group that asks."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from tapetum.core.errors import MethodError, RecipeError, nearest_name
from tapetum.core.method import Turn
from tapetum.runs.recipe import OptimiserRule, OptimiserSection, ScheduleSection

Groups = Mapping[str, list[nn.Parameter]]
BIAS = ".bias"


@dataclass(frozen=True)
class TurnOptimiser:
    """An optimiser and the turn in which it steps."""

    turn: str
    scheduled: bool  # its rates follow the recipe's schedule
    inner: torch.optim.Optimizer


def build_optimisers(
    network: nn.Module,
    groups: Groups,
    section: OptimiserSection,
    turns: Sequence[Turn],
    *,
    fused: bool = True,
) -> list[TurnOptimiser]:
    """The optimisers of a training, with one parameter group for each of a method's named groups.

    Args:
        groups: name -> parameters; every trainable parameter exactly once.
        turns: of the method; together they train every group once.
        fused: one pass over each parameter a step, four times as fast; it rounds otherwise than the plain step, which
            trainings with clipped gradients keep.
    Raises:
        RecipeError: the recipe names a group that is not there.
        MethodError: the groups do not cover the network, or the turns do not cover the groups.
    """
    _check_groups(network, groups, turns)
    for key, names in (("group_lr", section.group_lr), ("own", section.own), ("frozen", section.frozen)):
        for name in names:
            if name not in groups:
                nearest = nearest_name(name, groups)
                remedy = nearest if nearest.startswith("did") else f"leave it out of optimiser.{key}"
                raise RecipeError(
                    f"optimiser.{key}.{name} names no group; with these options the method builds "
                    f"{', '.join(groups)}; {remedy}"
                )
    optimisers = []
    for turn in turns:
        own_groups = {name: groups[name] for name in turn.groups if name not in section.own and groups[name]}
        options = [each for name in own_groups for each in _group_options(network, name, own_groups[name], section)]
        if options:
            optimisers.append(TurnOptimiser(turn.name, True, _build(options, section, fused=fused)))
        for name in turn.groups:
            if name in section.own and groups[name]:
                rule = section.own[name]
                alone = [{"params": groups[name], "name": name, "lr": rule.lr, "full_lr": rule.lr, "base_lr": rule.lr}]
                optimisers.append(TurnOptimiser(turn.name, rule.scheduled, _build(alone, rule, fused=fused)))
    return optimisers


def set_learning_rates(optimiser: torch.optim.Optimizer, schedule: ScheduleSection, position: float) -> None:
    """Give every parameter group its rate at a position: complete epochs, with a fraction within an epoch."""
    for group in optimiser.param_groups:
        share = group["base_lr"] / group["full_lr"] if schedule.floor == "base" else 1.0
        group["lr"] = group["full_lr"] * compute_lr_factor(schedule, position, share=share)


def compute_lr_factor(schedule: ScheduleSection, position: float, *, share: float = 1.0) -> float:
    """The factor on a learning rate at a place in the training.

    Args:
        position: complete epochs, with a fraction within an epoch, which counts where the schedule says so.
        share: what `warmup_factor` and `final` are multiplied by: 1, or the base rate over the group's own.
    """
    position = (position if schedule.by == "step" else math.floor(position)) + schedule.counts_from
    lowest = schedule.warmup_factor * share
    rising = lowest + (1 - lowest) * position / max(schedule.warmup_epochs, 1)
    if position < schedule.warmup_epochs and schedule.warmup_alone:
        return rising
    factor = 1.0
    if schedule.name == "step":
        factor = schedule.gamma ** math.floor(position / (schedule.step or schedule.epochs))
    elif schedule.name == "multistep":
        factor = schedule.gamma ** sum(position >= milestone for milestone in schedule.milestones)
    elif schedule.name == "cosine":
        final = schedule.final * share
        factor = final + (1 - final) * (1 + math.cos(math.pi * position / schedule.epochs)) / 2
    elif schedule.name == "linear":
        start = min(schedule.milestones, default=0)
        fallen = max(position - start, 0) / max(schedule.epochs - start, 1)  # a start behind the end: never
        factor = 1 - (1 - schedule.final * share) * fallen
    return factor * rising if position < schedule.warmup_epochs else factor


def _check_groups(network: nn.Module, groups: Groups, turns: Sequence[Turn]) -> None:
    places: dict[int, list[str]] = {}
    for group, parameters in groups.items():
        for parameter in parameters:
            places.setdefault(id(parameter), []).append(group)
    place = type(network).__module__
    rule = f"{place}: parameter_groups() must hold every trainable parameter exactly once"
    for name, parameter in network.named_parameters():
        there = places.get(id(parameter), [])
        if len(there) > 1:
            raise MethodError(f"{rule}: {name} is in {' and in '.join(there)}; leave it in one")
        if parameter.requires_grad and not there:
            raise MethodError(
                f"{rule}: {name} is in none of {', '.join(groups)}; add it to one, or hold it still by "
                "requires_grad_(False)"
            )
    names = [name for turn in turns for name in turn.groups]
    unknown = [name for name in names if name not in groups]
    if unknown:
        raise MethodError(f"{place}: turns(): {unknown[0]} is no group; {nearest_name(unknown[0], groups)}")
    wrong = [name for name in groups if names.count(name) != 1]
    if wrong:
        raise MethodError(
            f"{place}: turns() must train every group in exactly one turn; {wrong[0]} is in {names.count(wrong[0])}"
        )


def _group_options(
    network: nn.Module, name: str, parameters: list[nn.Parameter], section: OptimiserSection
) -> list[dict[str, Any]]:
    """One PyTorch group, or two where biases have a rate or decay of their own."""
    rate = section.group_lr.get(name, section.lr)
    common = {"base_lr": section.lr}
    if section.bias_lr_factor == 1 and section.bias_weight_decay is None:
        return [{"params": parameters, "name": name, "lr": rate, "full_lr": rate, **common}]
    named_biases = {id(parameter) for key, parameter in network.named_parameters() if f".{key}".endswith(BIAS)}
    weights = [parameter for parameter in parameters if id(parameter) not in named_biases]
    biases = [parameter for parameter in parameters if id(parameter) in named_biases]
    options: list[dict[str, Any]] = []
    if weights:
        options.append({"params": weights, "name": name, "lr": rate, "full_lr": rate, **common})
    if biases:
        decay = section.weight_decay if section.bias_weight_decay is None else section.bias_weight_decay
        rate *= section.bias_lr_factor
        more = {"weight_decay": decay, **common}
        options.append({"params": biases, "name": f"{name}_bias", "lr": rate, "full_lr": rate, **more})
    return options


def _build(options: list[dict[str, Any]], rule: OptimiserRule, *, fused: bool) -> torch.optim.Optimizer:
    if rule.name == "sgd":
        sgd = torch.optim.SGD(
            options, lr=rule.lr, momentum=rule.momentum,
            nesterov=rule.nesterov and rule.momentum > 0, weight_decay=rule.weight_decay, fused=fused,
        )  # fmt: skip
        if fused and rule.momentum:
            sgd.register_step_pre_hook(_begin_momentum)
        return sgd
    adam = torch.optim.Adam if rule.name == "adam" else torch.optim.AdamW
    return adam(
        options, lr=rule.lr, betas=rule.betas, weight_decay=rule.weight_decay, amsgrad=rule.amsgrad, fused=fused
    )


def _begin_momentum(optimiser: torch.optim.Optimizer, *_: Any) -> None:
    """Give momentum to parameters that step for the first time; from zero it is the step that it would have been.

    The fused step itself begins with memory as it finds it, which stays where a scaler forbids the step, and cannot
    take parameters whose first gradient comes after that of others of their group.
    """
    for group in optimiser.param_groups:
        for each in group["params"]:
            if each.grad is not None and optimiser.state[each].get("momentum_buffer") is None:
                optimiser.state[each]["momentum_buffer"] = torch.zeros_like(each)
