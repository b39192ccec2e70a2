"""Whole networks of published size (tests/golden/networks): ours with a case's weights, beside what a release computes.

See tests/golden/methods.md.
"""

import contextlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from golden.networks.fill import Case
from golden_files import FOLDER
from tapetum.core.types import Batch
from tapetum.methods import build_method, convert_from, official_formats
from tapetum.methods._official import OfficialFormat, to_theirs
from tapetum.runs.recipe import Recipe
from tapetum.training.optimisation import build_optimisers, set_learning_rates
from tapetum.training.stepping import turns_of


@dataclass(frozen=True)
class Step:
    """What one step of a recipe made of the weights that learn, by our names."""

    gradients: dict[str, Tensor]
    moved: dict[str, Tensor]  # how far
    rates: dict[str, Tensor]  # () each


@dataclass(frozen=True)
class Whole:
    """A method with the weights of its golden case."""

    case: Case
    layout: OfficialFormat
    released: dict[str, Tensor]  # what the release's file holds, or of that what ours uses
    method: nn.Module

    def renamed(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors of ours under the release's names; without those that its files do not hold."""
        held = {name: value for name, value in values.items() if not name.startswith(self.layout.left_out)}
        return to_theirs(held, self.layout.renaming(self.method.options))

    def pictures(self, kind: str, name: str) -> Tensor:
        """Of "eval" or "train", (B, 3, H, W) float32 in 0..1."""
        return read_pictures(self.case, kind, name)

    def batch(self) -> Batch:
        """The training step's pictures of both modalities in the release's order, the visible ones first."""
        labels = torch.from_numpy(self.case.arrays["train/in/labels"])
        modalities = torch.arange(2).repeat_interleave(len(labels))
        images = torch.cat([self.pictures("train", name) for name in ("visible", "infrared")])
        both = labels.repeat(2)
        return Batch(images, both, both, modalities, modalities, torch.arange(len(both)))

    def near(
        self,
        entry: str,
        found: Tensor,
        rows: Tensor | slice = slice(None),
        *,
        other: str = "",
        floor: float | None = None,
    ) -> None:
        """See `assert_near`."""
        assert_near(self.case, entry, found, rows, other=other, floor=floor)

    def near_maps(self, maps: Mapping[str, Tensor], side: str = "") -> None:
        """What the case keeps of the maps, (B, C, h, w), of all places that it knows.

        Args:
            side: what their entries begin with, such as "visible.".
        """
        start, arrays = f"eval/out/{side}", self.case.arrays
        assert maps.keys() == {key[len(start) : -6] for key in arrays if key.startswith(start) and key[-6:] == ".patch"}
        for name, found in maps.items():
            self.near(f"eval/{side}{name}.patch", thin_out(found))
            if f"{start}{name}.mean" in arrays:
                self.near(f"eval/{side}{name}.mean", found.mean((2, 3)))

    def check_weights(
        self,
        kind: str,
        values: Mapping[str, Tensor],
        *,
        other: str = "",
        blind: Collection[str] = (),
        floors: Mapping[str, float] = MappingProxyType({}),
    ) -> None:
        """All that learns there learns here, and of each weight, and of each part of the network, the length fits.

        Args:
            kind: "grad" or "step".
            values: gradients or moves, by our names.
            other: as for `assert_near`.
            blind: parts that are not compared as a whole.
            floors: part -> the least tolerance of it as a whole.
        """
        case, found = self.case, self.renamed(values)
        names = [str(name) for name in case.arrays["train/cfg/parameters"]]
        learnt = torch.from_numpy(case.arrays["train/out/parameter_grad_norm"]) >= 0
        names = [name for name, moves in zip(names, learnt.tolist(), strict=True) if moves]
        assert set(names) == set(found)
        norms = torch.stack([found[name].double().norm() for name in names])
        self.near(f"train/parameter_{kind}_norm", norms, learnt, other=other)
        start = f"train/out/{kind}_norm."
        for part in {key.removeprefix(start) for key in case.arrays if key.startswith(start)} - set(blind):
            inside = norms[torch.tensor([name.split(".")[0] == part for name in names])].norm()
            there = other if f"{other}/out/{kind}_norm.{part}" in case.arrays else ""
            self.near(f"train/{kind}_norm.{part}", inside, other=there, floor=floors.get(part))
        if kind == "grad":
            first = [functional.pad(found[name].flatten()[:8], (0, 8))[:8] for name in names]
            self.near("train/parameter_grad_first", torch.stack(first), learnt, other=other)

    def check_rates(self, rates: Mapping[str, Tensor]) -> None:
        """Learning rates of the weights that learn."""
        names = [str(name) for name in self.case.arrays["train/cfg/parameters"]]
        expected = dict(zip(names, self.case.arrays["train/cfg/lr"].tolist(), strict=True))
        found = {name: float(rate) for name, rate in self.renamed(rates).items()}
        assert found == pytest.approx({name: expected[name] for name in found})

    def check_step(
        self, step: Step, *, blind: Collection[str] = (), floors: Mapping[str, float] = MappingProxyType({})
    ) -> None:
        """Gradients, rates and moves; `blind` and `floors` as for `check_weights`."""
        for kind, values in (("grad", step.gradients), ("step", step.moved)):
            self.check_weights(kind, values, blind=blind, floors=floors)
        self.check_rates(step.rates)

    def check_statistics(self, method: nn.Module, *, unused: int = 0) -> None:
        """Running statistics after a training step.

        Args:
            unused: norms that the release carries and never uses; ours has all others.
        """
        state = self.renamed(method.state_dict())
        layers = [str(name) for name in self.case.arrays["train/cfg/norm_layers"]]
        used = torch.tensor([f"{name}.running_mean" in state for name in layers])
        running = [
            [state[f"{name}.running_{each}"].double().norm() for each in ("mean", "var")]
            for name in layers
            if f"{name}.running_mean" in state
        ]
        assert len(running) == sum(name.endswith("running_mean") for name in state)
        assert len(layers) - len(running) == unused
        self.near("train/running_norm", torch.tensor(running, dtype=torch.float64), used)


def read_whole(
    name: str,
    layout: str,
    *,
    told: Mapping[str, str] = MappingProxyType({}),
    changed: Mapping[str, object] = MappingProxyType({}),
    used_only: bool = False,
    beside: str | tuple[str, ...] = (),
) -> Whole:
    """From a file below tests/golden/networks.

    Args:
        told: options that the layout's files may not tell.
        changed: options that are otherwise than such files tell.
        used_only: fill what ours uses alone, which the method's own options tell; the rest is most of a release.
        beside: prefixes of tensors of ours that such files do not hold; they keep the numbers that they began with.
    """
    case, form = Case(FOLDER / "networks" / f"{name}.npz"), official_formats()[layout]
    keys = case.keys
    if used_only:
        with torch.device("meta"):
            ours = build_method(form.method, {}, case.info["classes"])
        keys = list(to_theirs(ours.state_dict(), form.renaming(ours.options)))
    state = {key: torch.from_numpy(value) for key, value in case.state_dict(keys).items()}
    expected = dict(zip(case.keys, case.arrays["weights/cfg/sum"].tolist(), strict=True))
    sums = {key: value.sum(dtype=torch.float64).item() for key, value in state.items()}
    assert sums == pytest.approx({key: expected[key] for key in keys}, rel=1e-6, abs=1e-6)
    prefix = case.info["checkpoint"]["prefix"]
    released = {prefix + key: value for key, value in state.items()}
    found = convert_from(layout, released, told)
    size = {"size": found.size} if found.size else {}
    method = build_method(found.method, found.options | dict(changed), found.num_ids, camids=found.camids, **size)
    kept = {name: tensor for name, tensor in method.state_dict().items() if name.startswith(beside)}
    method.load_state_dict(kept | found.state)
    return Whole(case, form, released, method)


def read_pictures(case: Case, kind: str, name: str) -> Tensor:
    """Of "eval" or "train", (B, 3, H, W) float32 in 0..1."""
    return torch.from_numpy(case.pictures(kind, name)).float() / 255


def assert_near(
    case: Case,
    entry: str,
    found: Tensor,
    rows: Tensor | slice = slice(None),
    *,
    other: str = "",
    floor: float | None = None,
) -> None:
    """Within the tolerance of an entry such as "eval/visible_pool", relative to its largest value.

    Args:
        rows: of the entry, in the order of what was found.
        other: "NAME" takes the values from NAME/out/... in the place of train/out/...
        floor: least tolerance.
    """
    kind, name = entry.split("/")
    expected = torch.as_tensor(case.arrays[f"{other or kind}/out/{name}"]).double()
    allowed = case.tolerance(entry, floor) * float(expected.abs().max())
    expected = expected[rows] if expected.ndim else expected
    assert found.shape == expected.shape, entry
    deviation = float((found.detach().double() - expected).abs().max())
    assert deviation <= allowed, f"{entry}: {deviation:.3g} where {allowed:.3g} is allowed"


@contextlib.contextmanager
def watch(places: Mapping[str, nn.Module]) -> Iterator[dict[str, Tensor]]:
    """What came last out of some places of a network, by their names, as copies: what follows may work in place."""
    maps: dict[str, Tensor] = {}
    hooks = [
        place.register_forward_hook(lambda module, inputs, output, name=name: maps.update({name: output.clone()}))
        for name, place in places.items()
    ]
    yield maps
    for hook in hooks:
        hook.remove()


def thin_out(maps: Tensor) -> Tensor:
    """The places of (B, C, h, w) maps that the cases keep."""
    steps = [max(1, size // parts) for size, parts in zip(maps.shape[1:], (16, 6, 3), strict=True)]
    return maps[:, :: steps[0], :: steps[1], :: steps[2]]


def take_step(method: nn.Module, total: Tensor, recipe: Recipe, epoch: float = 0.0) -> Step:
    """Learn from a loss as a recipe does in an epoch, by one step of each optimiser."""
    optimisers = build_optimisers(method, method.parameter_groups(), recipe.optimiser, turns_of(method))
    total.backward()
    trained = {name: weights for name, weights in method.named_parameters() if weights.grad is not None}
    gradients = {name: weights.grad.clone() for name, weights in trained.items()}
    before = {name: weights.detach().clone() for name, weights in trained.items()}
    for each in optimisers:
        if each.scheduled:
            set_learning_rates(each.inner, recipe.schedule, epoch)
        each.inner.step()
    groups = [group for each in optimisers for group in each.inner.param_groups]
    of_weights = {id(weights): torch.tensor(group["lr"]) for group in groups for weights in group["params"]}
    rates = {name: of_weights[id(weights)] for name, weights in trained.items()}
    return Step(gradients, {name: weights.detach() - before[name] for name, weights in trained.items()}, rates)
