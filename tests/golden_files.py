"""What the published implementations gave (tests/golden): reading it, by file and case."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

FOLDER = Path(__file__).parent / "golden"


def load(file: str) -> np.lib.npyio.NpzFile:
    """The arrays of a file under their full names, CASE/KIND/NAME."""
    return np.load(FOLDER / f"{file}.npz")


def list_cases(file: str, output: str | None = None) -> list[str]:
    """The cases of a file; with `output`, those alone that have such an output."""
    with load(file) as arrays:
        return sorted({n.split("/")[0] for n in arrays.files if output is None or n.endswith(f"/out/{output}")})


@dataclass
class Case:
    """One case: kind -> name -> tensor (see tests/golden/methods.md)."""

    inputs: dict[str, Tensor] = field(default_factory=dict)
    out: dict[str, Tensor] = field(default_factory=dict)
    grad: dict[str, Tensor] = field(default_factory=dict)
    param: dict[str, Tensor] = field(default_factory=dict)
    cfg: dict[str, Tensor] = field(default_factory=dict)

    def leaves(self, *names: str, dtype: torch.dtype = torch.float32) -> list[Tensor]:
        return [self.inputs[name].to(dtype).clone().requires_grad_() for name in names]


def read_case(file: str, case: str) -> Case:
    found = Case()
    with load(file) as arrays:
        for key in arrays.files:
            name, kind, entry = key.split("/", 2)
            if name == case:
                getattr(found, "inputs" if kind == "in" else kind)[entry] = torch.from_numpy(arrays[key].copy())
    assert found.inputs or found.param or found.cfg, f"{file}.npz has no case {case}"
    return found
