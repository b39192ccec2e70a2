"""Steps whose gradients overflowed, or that have none: what a scaler makes of them."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tapetum.core.method import Turn
from tapetum.core.types import Batch
from tapetum.runs.recipe import OptimiserSection
from tapetum.training.optimisation import build_optimisers
from tapetum.training.stepping import Stepper, freeze

JUNK = 7.0  # what memory holds that nobody has written to


class Scales(nn.Module):
    """Two groups of weights; the loss is their sum times what the batch's pictures hold."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = (nn.Parameter(torch.ones(1000)) for _ in range(2))

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        return {"a": [self.a], "b": [self.b]}

    def forward(self, images: Tensor, modalities: Tensor, camids: Tensor) -> Tensor:
        return images.mean() * torch.stack([self.a, self.b])

    def losses(self, output: Tensor, batch: Batch) -> dict[str, Tensor]:
        return {"sum": output.sum()}


def batch_of(value: float) -> Batch:
    rows = torch.zeros(1, dtype=torch.int64)
    return Batch(torch.full((1, 1, 1, 1), value), rows, rows, rows, rows)


def build(section: OptimiserSection, *, scaled: bool, clip: float | None = None) -> tuple[Scales, Stepper]:
    network = Scales()
    groups = network.parameter_groups()
    turns = [Turn("all", tuple(groups), network.losses)]
    optimisers = build_optimisers(network, groups, section, turns, fused=clip is None)
    return network, Stepper(network, turns, optimisers, "fp32", clip, torch.amp.GradScaler("cpu", enabled=scaled))


def take(stepper: Stepper, value: float) -> None:
    stepper.step([batch_of(value)], lambda *_: None, lambda _: None)


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("nesterov", [True, False])
def test_a_first_step_that_overflows_leaves_no_trace(
    name: Any, nesterov: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = torch.empty_like
    monkeypatch.setattr(torch, "empty_like", lambda *args, **named: empty(*args, **named).fill_(JUNK))
    section = OptimiserSection(name=name, lr=0.1, nesterov=nesterov)
    (network, stepper), (expected, plain) = (build(section, scaled=scaled) for scaled in (True, False))
    take(stepper, 1e36)
    assert stepper.scaler.get_scale() == 2.0**15  # it overflowed
    for _ in range(2):
        take(stepper, 1.0)
        take(plain, 1.0)
    assert not torch.equal(network.a, torch.ones(1000))
    assert torch.equal(network.a, expected.a)


def test_a_scaler_leaves_clipped_gradients_as_long_as_they_are_without_it() -> None:
    found = []
    for scaled in (True, False):
        network, stepper = build(OptimiserSection(lr=0.1), scaled=scaled, clip=1.0)
        take(stepper, 1.0)
        found.append(network.a.detach())
    assert not torch.equal(found[1], torch.ones(1000))
    assert torch.equal(*found)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("nesterov", [True, False])
def test_the_first_steps_are_those_of_the_bare_optimiser_bit_for_bit(momentum: float, nesterov: bool) -> None:
    section = OptimiserSection(lr=0.1, momentum=momentum, nesterov=nesterov, weight_decay=5e-4)
    torch.manual_seed(0)
    weights = torch.randn(1000)
    gradients = torch.randn(3, 1000)
    found = []
    for bare in (True, False):
        network = nn.ParameterList([nn.Parameter(weights.clone())])
        if bare:
            optimiser: Any = torch.optim.SGD(
                network.parameters(), lr=0.1, momentum=momentum, nesterov=nesterov and momentum > 0,
                weight_decay=5e-4, fused=True,
            )  # fmt: skip
        else:
            turn = Turn("all", ("all",), lambda *_: {})
            (built,) = build_optimisers(network, {"all": list(network)}, section, [turn])
            optimiser = built.inner
        for gradient in gradients:
            network[0].grad = gradient.clone()
            optimiser.step()
        found.append(network[0].detach())
    assert torch.equal(*found)


@pytest.mark.parametrize("clip", [None, 1.0])
def test_a_scaler_lets_a_group_with_its_own_optimiser_stand_still(clip: float | None) -> None:
    section = OptimiserSection.model_validate({"lr": 0.1, "own": {"b": {"lr": 0.1}}})
    network, stepper = build(section, scaled=True, clip=clip)
    freeze(network, network.parameter_groups(), ["b"])
    take(stepper, 1.0)
    assert not torch.equal(network.a, torch.ones(1000))
    assert torch.equal(network.b, torch.ones(1000))


def test_a_scaler_lets_everything_stand_still() -> None:
    network, stepper = build(OptimiserSection(lr=0.1), scaled=True)
    freeze(network, network.parameter_groups(), ["a", "b"])
    take(stepper, 1.0)
    assert torch.equal(network.a, torch.ones(1000))
    freeze(network, network.parameter_groups(), [])
    take(stepper, 1.0)
    assert not torch.equal(network.a, torch.ones(1000))
