from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

GOLDEN = Path(__file__).parents[2] / "golden"


@dataclass
class Case:
    """One golden case: kind -> name -> tensor (see tests/golden/methods.md)."""

    inputs: dict[str, Tensor] = field(default_factory=dict)
    out: dict[str, Tensor] = field(default_factory=dict)
    grad: dict[str, Tensor] = field(default_factory=dict)
    param: dict[str, Tensor] = field(default_factory=dict)
    cfg: dict[str, Tensor] = field(default_factory=dict)

    def leaves(self, *names: str, dtype: torch.dtype = torch.float32) -> list[Tensor]:
        return [self.inputs[name].to(dtype).clone().requires_grad_() for name in names]


def read_case(file: str, case: str) -> Case:
    found = Case()
    with np.load(GOLDEN / f"{file}.npz") as arrays:
        for key in arrays.files:
            name, kind, entry = key.split("/", 2)
            if name == case:
                getattr(found, "inputs" if kind == "in" else kind)[entry] = torch.from_numpy(arrays[key].copy())
    assert found.inputs or found.param, f"{file}.npz has no case {case}"
    return found


@pytest.fixture
def golden() -> Callable[[str, str], Case]:
    return read_case


@pytest.fixture
def assert_matches() -> Callable[[Tensor, Tensor, float], None]:
    def check(ours: Tensor, expected: Tensor, tolerance: float) -> None:
        """The largest deviation is within `tolerance` of the largest value."""
        assert ours.shape == expected.shape
        deviation = float((ours.detach().double() - expected.double()).abs().max())
        assert deviation <= tolerance * max(float(expected.abs().max()), 1e-30), deviation

    return check


@pytest.fixture
def rng() -> torch.Generator:
    return torch.Generator().manual_seed(20231121)
