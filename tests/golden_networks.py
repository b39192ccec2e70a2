"""Whole networks of published size: weights and pictures by formula, and what the releases compute with them.

See tests/golden/methods.md; of a release's tensors those alone are filled that ours uses too.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from golden.networks.fill import Case, tensor
from golden_files import FOLDER
from tapetum.core.types import Batch
from tapetum.methods import build_method, official_formats, small_options
from tapetum.methods._official import OfficialFormat, to_theirs


@dataclass(frozen=True)
class Whole:
    """A method with the weights of its golden case."""

    case: Case
    layout: OfficialFormat
    released: dict[str, Tensor]  # under the release's names, those alone that ours uses
    method: nn.Module

    def renamed(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors of ours under the release's names."""
        return to_theirs(values, self.layout.renaming(self.method.options))

    def assert_near(self, entry: str, found: Tensor, rows: Tensor | slice = slice(None), *, other: str = "") -> None:
        """Within the tolerance of an entry such as "eval/visible_pool", relative to its largest value.

        Args:
            rows: of the entry, in the order of what was found.
            other: "NAME" takes the values from NAME/out/... in the place of train/out/...
        """
        kind, name = entry.split("/")
        expected = torch.from_numpy(self.case.arrays[f"{other or kind}/out/{name}"]).double()
        allowed = self.case.tolerance(entry) * float(expected.abs().max())
        expected = expected[rows] if expected.ndim else expected
        assert found.shape == expected.shape, entry
        deviation = float((found.detach().double() - expected).abs().max())
        assert deviation <= allowed, f"{entry}: {deviation:.3g} where {allowed:.3g} is allowed"


def read_whole(name: str, layout: str) -> Whole:
    """The case of a file below tests/golden/networks, its weights in a method of ours."""
    case, form = Case(FOLDER / "networks" / f"{name}.npz"), official_formats()[layout]
    with torch.device("meta"):  # drawing weights that are not kept takes seconds
        method = build_method(form.method, {}, case.info["classes"])
    used = to_theirs(method.state_dict(), form.renaming(method.options))
    numbers = {key: number for number, key in enumerate(case.keys)}
    released = {key: torch.from_numpy(_fill(case, key, numbers[key])) for key in used}
    sums = torch.stack([value.sum(dtype=torch.float64) for value in released.values()])
    expected = torch.from_numpy(case.arrays["weights/cfg/sum"])[[numbers[key] for key in released]]
    torch.testing.assert_close(sums, expected, rtol=1e-6, atol=1e-6)
    method.load_state_dict(dict(zip(method.state_dict(), released.values(), strict=True)), assign=True)
    small = build_method(form.method, small_options(form.method), 2)
    for place, buffer in small.named_buffers():
        if place not in small.state_dict():  # one that is no part of a checkpoint
            owner, _, own = place.rpartition(".")
            setattr(method.get_submodule(owner), own, buffer)
    return Whole(case, form, released, method)


def _fill(case: Case, key: str, number: int) -> np.ndarray[Any, Any]:
    stored = case.arrays.get(f"weights/param/{key}")
    if stored is not None:
        return stored.astype(np.float32)
    offset, scale = (float(case.arrays[f"weights/cfg/{name}"][number]) for name in ("offset", "scale"))
    if key.endswith("num_batches_tracked"):
        return np.array(int(offset), np.int64)
    return tensor(key, case.shapes[key], case.info["seed"], offset, scale)


def read_pictures(case: Case, kind: str, name: str) -> Tensor:
    """(B, 3, H, W) in 0..1."""
    return torch.from_numpy(case.pictures(kind, name)).float() / 255


def read_batch(case: Case) -> Batch:
    """The training step's pictures in the release's order, the visible ones first."""
    labels = torch.from_numpy(case.arrays["train/in/labels"])
    modalities = torch.arange(2).repeat_interleave(len(labels))
    images = torch.cat([read_pictures(case, "train", name) for name in ("visible", "infrared")])
    both = labels.repeat(2)
    return Batch(images, both, both, modalities, modalities, torch.arange(len(both)))


def read_maps(whole: Whole, side: str, places: Mapping[str, nn.Module]) -> "Hooks":
    """What comes out of some places of the network while the context lasts, compared with the case's at its end."""
    return Hooks(whole, side, places)


class Hooks:
    """See `read_maps`."""

    def __init__(self, whole: Whole, side: str, places: Mapping[str, nn.Module]) -> None:
        self.whole, self.side, self.places = whole, side, places
        self.maps: dict[str, Tensor] = {}

    def __enter__(self) -> None:
        self.handles = [
            place.register_forward_hook(lambda module, inputs, output, name=name: self.maps.update({name: output}))
            for name, place in self.places.items()
        ]

    def __exit__(self, *raised: object) -> None:
        for handle in self.handles:
            handle.remove()
        for name, maps in self.maps.items():
            steps = [max(1, size // parts) for size, parts in zip(maps.shape[1:], (16, 6, 3), strict=True)]
            patch = maps[:, :: steps[0], :: steps[1], :: steps[2]]
            self.whole.assert_near(f"eval/{self.side}.{name}.patch", patch)


def assert_gradients(whole: Whole, method: nn.Module, *, other: str = "") -> None:
    """Norms and first values of all gradients are the release's; what has none there has none here."""
    arrays = whole.case.arrays
    trained = {name: weights.grad for name, weights in method.named_parameters() if weights.requires_grad}
    gradients = whole.renamed(trained)
    names = [str(name) for name in arrays["train/cfg/parameters"]]
    used = torch.tensor([name in gradients for name in names])
    assert torch.equal(torch.from_numpy(arrays["train/out/parameter_grad_norm"]) >= 0, used)
    names = [name for name in names if name in gradients]
    assert set(names) == set(gradients)
    norms = torch.stack([gradients[name].double().norm() for name in names])
    whole.assert_near("train/parameter_grad_norm", norms, used, other=other)
    for top in {name.split(".")[0] for name in names}:
        inside = norms[torch.tensor([name.split(".")[0] == top for name in names])].norm()
        changed = f"{other}/out/grad_norm.{top}" in arrays
        whole.assert_near(f"train/grad_norm.{top}", inside, other=other if changed else "")
    first = [functional.pad(gradients[name].flatten()[:8], (0, 8))[:8] for name in names]
    whole.assert_near("train/parameter_grad_first", torch.stack(first), used, other=other)


def assert_statistics(whole: Whole, method: nn.Module) -> None:
    """Running statistics after a step are the release's."""
    state = whole.renamed(method.state_dict())
    layers = [str(name) for name in whole.case.arrays["train/cfg/norm_layers"]]
    present = torch.tensor([f"{name}.running_mean" in state for name in layers])
    running = [
        [state[f"{name}.running_{each}"].double().norm() for each in ("mean", "var")]
        for name in layers
        if f"{name}.running_mean" in state
    ]
    assert 2 * len(running) == sum("running_" in name for name in state)
    whole.assert_near("train/running_norm", torch.tensor(running, dtype=torch.float64), present)
