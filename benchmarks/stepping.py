"""One training step of either side: ours as `tapetum train` takes it, a peer as its own code does."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tapetum.core.method import Method
from tapetum.runs.recipe import OptimiserSection
from tapetum.training.optimisation import build_optimisers
from tapetum.training.stepping import turns_of

MOMENTUM, WEIGHT_DECAY = 0.9, 5e-4


def build_step(
    network: nn.Module, loss: Callable[[], Tensor], *, lr: float = 1e-3, bf16: bool = False
) -> Callable[[], float]:
    """A step by SGD with Nesterov's momentum, which gives the loss.

    A method of ours steps in one pass and forgets its gradients at once, so that they take no room in the next forward
    pass; any other network by PyTorch's plain optimiser, which drops old gradients before the loss.

    Args:
        loss: of a batch that it knows; called under autocast where `bf16` says so.
    """
    ours = isinstance(network, Method)
    optimisers: list[torch.optim.Optimizer] = []
    if isinstance(network, Method):
        section = OptimiserSection(lr=lr, momentum=MOMENTUM, nesterov=True, weight_decay=WEIGHT_DECAY)
        groups, turns = network.parameter_groups(), turns_of(network)
        optimisers += [each.inner for each in build_optimisers(network, groups, section, turns)]
    else:
        options: dict[str, Any] = {"momentum": MOMENTUM, "nesterov": True, "weight_decay": WEIGHT_DECAY}
        optimisers.append(torch.optim.SGD(network.parameters(), lr=lr, **options))

    def forget() -> None:
        for optimiser in optimisers:
            optimiser.zero_grad()

    def step() -> float:
        if not ours:
            forget()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            value = loss()
        value.backward()
        for optimiser in optimisers:
            optimiser.step()
        if ours:
            forget()
        return float(value.detach())

    return step
