"""The map of embeddings: whom it shows, and that neighbours stay neighbours."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tapetum.core.errors import ProtocolError
from tapetum.core.types import EmbeddingSet
from tapetum.core.vectors import normalise
from tapetum.evaluation.projection import choose_people, compute_map


def pictures() -> EmbeddingSet:
    """Thirty people with five visible and three infrared pictures each, one with visible ones alone, and junk."""
    pids = torch.cat([torch.arange(30).repeat_interleave(8), torch.full((9,), 77), torch.full((4,), -1)])
    modalities = torch.cat(
        [torch.tensor([0, 0, 0, 0, 0, 1, 1, 1]).repeat(30), torch.zeros(9), torch.tensor([0, 0, 1, 1])]
    )
    centres = torch.randn(100, 32, generator=torch.Generator().manual_seed(0))
    vectors = centres[pids] + 0.3 * torch.randn(len(pids), 32, generator=torch.Generator().manual_seed(1))
    paths = tuple(Path(f"{row}.png") for row in range(len(pids)))
    return EmbeddingSet(normalise(vectors), paths, pids, torch.zeros_like(pids), modalities.long())


def test_people_seen_in_both_modalities_are_drawn_with_so_many_pictures_of_each() -> None:
    everything = pictures()
    rows = choose_people(everything, people=20, pictures=4)
    shown = everything.select(rows)
    assert len(set(rows.tolist())) == len(rows), "a picture stands there twice"
    assert len(shown.pids.unique()) == 20
    assert not {77, -1} & set(shown.pids.tolist())
    for pid in shown.pids.unique():
        of_one = shown.modalities[shown.pids == pid]
        assert of_one.tolist() == [0, 0, 0, 0, 1, 1, 1]


def test_the_same_seed_draws_the_same_pictures_whatever_the_vectors_are() -> None:
    everything = pictures()
    rows = choose_people(everything, seed=4)
    assert torch.equal(rows, choose_people(replace(everything, vectors=everything.vectors.flip(0)), seed=4))
    assert not torch.equal(rows, choose_people(everything, seed=5))


def test_with_one_modality_everybody_comes_into_question() -> None:
    visible = pictures()
    visible = visible.select(visible.modalities == 0)
    assert 77 in visible.pids[choose_people(visible, people=99)]


def test_nobody_in_both_modalities_is_an_error() -> None:
    everything = pictures()
    apart = replace(everything, pids=everything.pids + 1000 * everything.modalities)
    with pytest.raises(ProtocolError, match="none of the 253 pictures"):
        choose_people(apart)


def test_neighbours_stay_neighbours_and_the_map_is_the_same_twice() -> None:
    everything = pictures()
    shown = everything.select(choose_people(everything, people=8))
    points = compute_map(shown.vectors)
    assert np.array_equal(points, compute_map(shown.vectors))
    assert points.min(0) == pytest.approx([0, 0])
    assert points.max(0) == pytest.approx([1, 1])
    apart = np.linalg.norm(points[:, None] - points[None], axis=2) + 9 * np.eye(len(points))
    assert (shown.pids.numpy()[apart.argmin(1)] == shown.pids.numpy()).mean() > 0.9


def test_too_few_or_broken_vectors_are_refused() -> None:
    with pytest.raises(ProtocolError, match="there are 3"):
        compute_map(torch.eye(3))
    with pytest.raises(ProtocolError, match="NaN"):
        compute_map(torch.full((9, 3), torch.nan))
