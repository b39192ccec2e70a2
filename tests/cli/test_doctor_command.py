"""`tapetum doctor`, as a user types it, on models whose vectors went wrong on the way."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from tapetum.inference.doctor import PEOPLE
from tapetum.inference.model import Model

Call = Callable[[str], tuple[int, str, str]]
Vectors = torch.Tensor


def make_constant(vectors: Vectors) -> Vectors:
    """The same for every picture."""
    return torch.full_like(vectors, vectors.shape[1] ** -0.5)


def swap(vectors: Vectors) -> Vectors:
    """Under the second camera each person has the vector of the one before."""
    return torch.cat([vectors[:PEOPLE], vectors[PEOPLE:].roll(1, 0)])


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (make_constant, "All its vectors are the same: it tells nobody apart"),
        (swap, "No better than drawing lots: its vectors are not of these pictures"),
    ],
)
def test_constant_and_swapped_embeddings_are_problems_and_end_with_status_1(
    spoil: Callable[[Vectors], Vectors], complaint: str, monkeypatch: pytest.MonkeyPatch, call: Call
) -> None:
    describe = Model.describe

    def wrong(self: Model, *given: Any, **named: Any) -> Vectors:
        return spoil(torch.as_tensor(describe(self, *given, **named)))

    monkeypatch.setattr(Model, "describe", wrong)
    status, told, complaints = call("tapetum doctor")
    (line,) = (line for line in told.splitlines() if "self-test:" in line)
    assert line.startswith("PROBLEM")
    assert complaint in line
    assert status == 1
    assert complaints.endswith("problem(s)\n")


def test_the_package_s_model_is_well(call: Call) -> None:
    _, told, _ = call("tapetum doctor")
    (line,) = (line for line in told.splitlines() if "self-test:" in line)
    assert line.startswith("ok")
