"""One optimiser step: forward, the losses of each turn, gradients that stay within the turn, averages, clipping, steps.

Nothing here knows of epochs, files or logs; `tapetum.training.loop` does.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from tapetum.core.errors import MethodError
from tapetum.core.method import Method, ReadsBatches, TakesTurns, Turn
from tapetum.core.processes import average_gradients
from tapetum.core.types import Batch
from tapetum.inference.devices import computing_in
from tapetum.inference.precision import Precision
from tapetum.training.optimisation import TurnOptimiser


def turns_of(network: nn.Module) -> Sequence[Turn]:
    """The turns of a method; a simple one trains everything in a single turn.

    Raises:
        MethodError: what it gives are no turns.
    """
    if isinstance(network, TakesTurns):
        turns = tuple(network.turns())
        if not turns or not all(isinstance(turn, Turn) for turn in turns):
            kinds = ", ".join(type(turn).__name__ for turn in turns) or "none"
            raise MethodError(
                f"{type(network).__module__}: turns() gives {kinds}; give objects of tapetum.core.method.Turn"
            )
        return turns
    method = cast(Method, network)
    return (Turn("all", tuple(method.parameter_groups()), method.losses),)


def phases_of(turns: Sequence[Turn]) -> list[list[Turn]]:
    """Turns that share a forward pass, together."""
    phases: list[list[Turn]] = []
    for turn in turns:
        if turn.fresh or not phases:
            phases.append([])
        phases[-1].append(turn)
    return phases


class Stepper:
    """Takes the optimiser steps of one method.

    Args:
        network: the method, on its device and in training mode.
        precision: of the forward pass; losses and gradients of the weights are float32.
        gradient_clip: largest norm of an optimiser's gradients; None for none.
        scaler: of losses, for float16; it does nothing otherwise.
    """

    def __init__(
        self,
        network: nn.Module,
        turns: Sequence[Turn],
        optimisers: Sequence[TurnOptimiser],
        precision: Precision,
        gradient_clip: float | None,
        scaler: "torch.amp.GradScaler",
    ) -> None:
        self.optimisers, self.scaler = optimisers, scaler
        self._network = network
        self._precision = precision
        self._clip = gradient_clip
        groups = cast(Method, network).parameter_groups()
        self._phases = [
            [(turn, [weight for name in turn.groups for weight in groups[name]]) for turn in phase]
            for phase in phases_of(turns)
        ]
        self._alone = len(turns) == 1
        self._place = type(network).__module__

    def step(
        self, parts: Sequence[Batch], seed: Callable[[int, int], None], check: Callable[[Mapping[str, float]], None]
    ) -> dict[str, float]:
        """Take one step.

        Args:
            parts: this process's share of the global batch, in pieces whose gradients are averaged.
            seed: called with the number of the phase and of the part before its random numbers are drawn.
            check: called with the losses of each phase before a weight of that phase moves; what it raises stops the
                step.
        Returns:
            Name -> mean loss over the parts.
        Raises:
            MethodError: what the method gives are no named scalars, or no weight learns from them.
        """
        means: dict[str, float] = {}
        moved = False
        for number, phase in enumerate(self._phases):
            results: list[tuple[list[str], Tensor]] = []
            for place, batch in enumerate(parts):
                seed(number, place)
                results += self._differentiate(phase, batch, len(parts))
            losses: dict[str, float] = {}
            for names, values in results:
                for name, value in zip(names, values.tolist(), strict=True):
                    losses[name] = losses.get(name, 0.0) + value / len(parts)
            check(losses)
            means |= losses
            moving = {turn.name for turn, _ in phase}
            for optimiser in self.optimisers:
                if optimiser.turn in moving:
                    moved |= self._move(optimiser.inner)
        if moved and self.scaler.is_enabled():
            self.scaler.update()
        return means

    def _differentiate(
        self, phase: Sequence[tuple[Turn, list[nn.Parameter]]], batch: Batch, parts: int
    ) -> Iterator[tuple[list[str], Tensor]]:
        with computing_in(self._precision, batch.images.device):
            output = run_network(self._network, batch)
        output = in_float32(output)
        for place, (turn, weights) in enumerate(phase):
            losses = turn.losses(output, batch)
            check_losses(losses, f"{self._place}: losses of turn {turn.name!r}")
            values = torch.stack([loss.float() for loss in losses.values()])
            total = self.scaler.scale(values.sum() / parts)
            moving = [weight for weight in weights if weight.requires_grad]
            if moving and not total.requires_grad:
                raise MethodError(
                    f"{self._place}: losses of turn {turn.name!r} have no gradient ({', '.join(losses)}); compute them "
                    "from what forward gave, without detach() or no_grad()"
                )
            if self._alone and moving:
                torch.autograd.backward(total)
            elif moving:  # else all of the turn stands still
                torch.autograd.backward(total, inputs=moving, retain_graph=place < len(phase) - 1)
            yield list(losses), values.detach()

    def _move(self, optimiser: torch.optim.Optimizer) -> bool:
        """Whether anything of the optimiser has a gradient; a scaler takes none without."""
        weights = [weight for group in optimiser.param_groups for weight in group["params"]]
        average_gradients(weights)
        if all(weight.grad is None for weight in weights):
            return False
        if self.scaler.is_enabled():
            self.scaler.unscale_(optimiser)
        if self._clip is not None:
            nn.utils.clip_grad_norm_(weights, self._clip)
        self.scaler.step(optimiser)  # a plain step where it is off
        optimiser.zero_grad()
        return True


def run_network(network: nn.Module, batch: Batch) -> Any:
    """A method's output in a training: of the whole batch where it reads that, else of what `forward` takes."""
    if isinstance(network, ReadsBatches):
        return network.forward_batch(batch)
    return network(batch.images, batch.modalities, batch.camids)


def check_losses(losses: Any, place: str) -> None:
    """Complain about losses that cannot be summed; `place` says whose they are.

    Raises:
        MethodError: they are no scalars by name.
    """
    if not isinstance(losses, dict) or not losses:
        raise MethodError(
            f"{place} are {'an empty dict' if losses == {} else f'a {type(losses).__name__}'}; "
            "give a dict of named scalar tensors, e.g. {'id': cross_entropy}"
        )
    for name, loss in losses.items():
        if not isinstance(loss, Tensor) or loss.ndim:
            what = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else f"a {type(loss).__name__}"
            raise MethodError(f"{place}: {name} is {what}; give a scalar tensor, e.g. a mean")


def in_float32(output: Any) -> Any:
    """A method's output with every floating-point tensor in float32, so that losses do not round in bf16.

    Args:
        output: a tensor, or dataclasses, named and other tuples, lists and mappings of them; of these come dicts.
    """
    if isinstance(output, Tensor):
        return output.float() if output.is_floating_point() else output
    if dataclasses.is_dataclass(output) and not isinstance(output, type):
        fields = [field.name for field in dataclasses.fields(output) if field.init]
        return dataclasses.replace(output, **{name: in_float32(getattr(output, name)) for name in fields})
    if isinstance(output, tuple) and hasattr(output, "_fields"):  # a NamedTuple takes its values one by one
        return type(output)(*map(in_float32, output))
    if isinstance(output, tuple | list):
        return type(output)(map(in_float32, output))
    if isinstance(output, Mapping):
        return {name: in_float32(value) for name, value in output.items()}
    return output


def freeze(network: nn.Module, groups: Mapping[str, list[nn.Parameter]], names: Sequence[str]) -> None:
    """Hold groups of weights still, let the others learn; modules whose weights all stand still go to evaluation mode.

    Args:
        network: the method; all else goes to training mode.
        names: names of the groups that stand still.
    """
    network.train()
    still = {id(weight) for name in names for weight in groups[name]}
    moving = {id(weight) for weights in groups.values() for weight in weights} - still
    for weights in groups.values():
        for weight in weights:
            weight.requires_grad_(id(weight) in moving)
    for module in network.modules() if still else ():
        own = {id(weight) for weight in module.parameters()}
        if own & still and not own & moving:
            module.eval()
