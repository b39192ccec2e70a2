"""Embedding sets for the tests of the evaluation."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from tapetum.core.types import EmbeddingSet

MakeSet = Callable[..., EmbeddingSet]


@pytest.fixture
def make_set() -> MakeSet:
    """Embeddings near one centre a person: `make_set(pids, camids, noise=..., seed=..., modalities=...)`."""

    def make(
        pids: list[int] | np.ndarray | torch.Tensor,
        camids: list[int] | np.ndarray | torch.Tensor,
        noise: float | torch.Tensor = 1.0,
        seed: int = 0,
        modalities: list[int] | None = None,
        dimension: int = 24,
    ) -> EmbeddingSet:
        people = torch.as_tensor(pids, dtype=torch.int64)
        centres = torch.randn(int(people.max()) + 2, dimension, generator=torch.Generator().manual_seed(99))
        noises = torch.randn(len(people), dimension, generator=torch.Generator().manual_seed(seed))
        vectors = centres[people] + torch.as_tensor(noise, dtype=torch.float32).reshape(-1, 1) * noises
        return EmbeddingSet(
            vectors=functional.normalize(vectors),
            paths=tuple(Path(f"{seed}_{index:04d}.jpg") for index in range(len(people))),
            pids=people,
            camids=torch.as_tensor(camids, dtype=torch.int64),
            modalities=torch.zeros_like(people) if modalities is None else torch.as_tensor(modalities),
        )

    return make


@pytest.fixture
def searched(make_set: MakeSet) -> tuple[EmbeddingSet, EmbeddingSet]:
    """80 queries and 400 gallery pictures of 20 people (and 5 strangers) under 4 cameras."""
    rng = np.random.default_rng(1)
    query = make_set(rng.integers(1, 21, 80), rng.integers(1, 5, 80), noise=1.5, seed=1)
    gallery = make_set(rng.integers(1, 26, 400), rng.integers(1, 5, 400), noise=1.5, seed=2)
    return query, gallery
