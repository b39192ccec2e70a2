"""A method with the weights of its golden network (tests/golden/networks), and a training step beside the release's."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from golden.networks.fill import Case
from golden_files import FOLDER
from tapetum.core.types import Batch
from tapetum.methods import build_method, convert_from
from tapetum.runs.recipe import Recipe
from tapetum.training.optimisation import build_optimisers, set_learning_rates
from tapetum.training.stepping import turns_of

Renamed = Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]


@dataclass(frozen=True)
class Whole:
    """A method, the released tensors that it was filled from, and the case that has the release's answers."""

    case: Case
    released: dict[str, Tensor]
    method: nn.Module

    def near(self, entry: str, found: Tensor, rows: Tensor | slice = slice(None)) -> None:
        """Within the tolerance of an entry such as "eval/visible_pool", relative to its largest value."""
        kind, name = entry.split("/")
        expected = torch.from_numpy(self.case.arrays[f"{kind}/out/{name}"]).double()
        allowed = self.case.tolerance(entry) * float(expected.abs().max())
        expected = expected[rows] if expected.ndim else expected
        assert found.shape == expected.shape, entry
        deviation = float((found.detach().double() - expected).abs().max())
        assert deviation <= allowed, f"{entry}: {deviation:.3g} where {allowed:.3g} is allowed"

    def pictures(self, kind: str, name: str) -> Tensor:
        """Of "eval" or "train", float32 in 0..1."""
        return torch.from_numpy(self.case.pictures(kind, name)).float() / 255


def read_whole(name: str, layout: str, told: Mapping[str, str] = MappingProxyType({})) -> Whole:
    """From tests/golden/networks.

    Args:
        told: options that such files may not tell.
    """
    case = Case(FOLDER / "networks" / f"{name}.npz")
    inside = case.info["checkpoint"]["inside"]
    released = case.checkpoint(torch.from_numpy)
    released = released[inside] if inside else released
    prefix = case.info["checkpoint"]["prefix"]
    sums = torch.stack([released[prefix + key].sum(dtype=torch.float64) for key in case.keys])
    torch.testing.assert_close(sums, torch.from_numpy(case.arrays["weights/cfg/sum"]), rtol=1e-6, atol=1e-6)
    found = convert_from(layout, released, told)
    with torch.device("meta"):
        method = build_method(found.method, found.options, found.num_ids)
    method.to_empty(device="cpu")
    method.normalise = type(method.normalise)(method.options.normalisation)  # its numbers are in no checkpoint
    method.load_state_dict(found.state)
    return Whole(case, released, method)


def read_patches(maps: Tensor) -> Tensor:
    """The places of (B, C, h, w) maps that the cases keep."""
    channels, height, width = maps.shape[1:]
    steps = max(1, channels // 16), max(1, height // 6), max(1, width // 3)
    return maps[:, :: steps[0], :: steps[1], :: steps[2]]


def check_step(
    whole: Whole,
    method: nn.Module,
    batch: Batch,
    recipe: Recipe,
    renamed: Renamed,
    called: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, Tensor]:
    """Losses, gradients, running statistics and the first epoch's step of a recipe are the release's.

    Args:
        method: in training mode; it is changed.
        renamed: our names to the release's, without a prefix.
        called: our name of a loss -> the case's, where it is another.
    Returns:
        The method's tensors after the step, under the release's names.
    """
    case = whole.case
    (optimiser,) = build_optimisers(method, method.parameter_groups(), recipe.optimiser, turns_of(method))
    before = {name: weights.detach().clone() for name, weights in method.named_parameters()}
    losses = method.losses(method(batch.images, batch.modalities, batch.camids), batch)
    total = torch.stack(list(losses.values())).sum()
    total.backward()
    trained = {name: weights for name, weights in method.named_parameters() if weights.grad is not None}
    gradients = renamed({name: weights.grad.clone() for name, weights in trained.items()})
    set_learning_rates(optimiser.inner, recipe.schedule, 0.0)
    optimiser.inner.step()
    moved = renamed({name: weights.detach() - before[name] for name, weights in trained.items()})
    for name, value in losses.items():
        whole.near(f"train/loss.{called.get(name, name)}", value)
    whole.near("train/loss.total", total)

    names = [str(name) for name in case.arrays["train/cfg/parameters"]]
    learnt = torch.from_numpy(case.arrays["train/out/parameter_grad_norm"]) >= 0
    assert {name for name, moves in zip(names, learnt.tolist(), strict=True) if moves} == set(gradients)
    names = [name for name in names if name in gradients]
    rates = {id(weights): group["lr"] for group in optimiser.inner.param_groups for weights in group["params"]}
    weights_of = dict(zip(gradients, trained.values(), strict=True))
    assert [rates[id(weights_of[name])] for name in names] == pytest.approx(case.arrays["train/cfg/lr"][learnt.numpy()])
    for kind, values in (("grad", gradients), ("step", moved)):
        norms = torch.stack([values[name].double().norm() for name in names])
        whole.near(f"train/parameter_{kind}_norm", norms, learnt)
        for top in {name.split(".")[0] for name in names}:
            inside = norms[torch.tensor([name.split(".")[0] == top for name in names])]
            whole.near(f"train/{kind}_norm.{top}", inside.norm())
    first = [functional.pad(gradients[name].flatten()[:8], (0, 8))[:8] for name in names]
    whole.near("train/parameter_grad_first", torch.stack(first), learnt)

    state = dict(renamed(method.state_dict()))
    layers = [str(name) for name in case.arrays["train/cfg/norm_layers"]]
    used = [f"{name}.running_mean" in state for name in layers]  # a release may carry norms that it never uses
    assert sum(used) == sum(name.endswith("running_mean") for name in state)
    running = [
        [state[f"{name}.running_{each}"].double().norm() for each in ("mean", "var")]
        for name, there in zip(layers, used, strict=True)
        if there
    ]
    whole.near("train/running_norm", torch.tensor(running, dtype=torch.float64), torch.tensor(used))
    return state
