from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from golden_files import Case, read_case


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
