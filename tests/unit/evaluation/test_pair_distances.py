"""Distances of pairs against a slow loop over all of them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tapetum.core.errors import ProtocolError
from tapetum.core.types import EmbeddingSet
from tapetum.core.vectors import normalise
from tapetum.evaluation import verification
from tapetum.evaluation.pair_distances import BINS, PairDistances, compute_pair_distances


def pictures(count: int, modality: int, seed: int, *, people: int = 5) -> EmbeddingSet:
    rng = torch.Generator().manual_seed(seed)
    pids = torch.randint(people, (count,), generator=rng)
    vectors = normalise(torch.nn.functional.one_hot(pids, 8) + 0.4 * torch.randn(count, 8, generator=rng))
    paths = tuple(Path(f"{modality}/{row}.png") for row in range(count))
    return EmbeddingSet(vectors, paths, pids, torch.ones_like(pids), torch.full_like(pids, modality))


def slow(first: EmbeddingSet, second: EmbeddingSet) -> dict[bool, list[float]]:
    found: dict[bool, list[float]] = {True: [], False: []}
    for row, a in enumerate(first.vectors.double()):
        for column, b in enumerate(second.vectors.double()):
            if first.paths[row].name != second.paths[column].name or first.modalities[row] != second.modalities[column]:
                found[bool(first.pids[row] == second.pids[column])].append(float(1 - a @ b))
    return found


@pytest.mark.parametrize("at_once", [2**22, 50])
def test_every_pair_is_in_its_bin_whatever_is_counted_at_once(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verification, "PAIRS_AT_ONCE", at_once)
    infrared, visible = pictures(60, 1, 0), pictures(47, 0, 1)
    found, expected = compute_pair_distances(infrared, visible), slow(infrared, visible)
    for counts, mean, same in ((found.intra, found.intra_mean, True), (found.inter, found.inter_mean, False)):
        wanted, _ = np.histogram(expected[same], found.edges)
        assert int(counts.sum()) == len(expected[same])
        assert np.abs(np.cumsum(counts) - np.cumsum(wanted)).max() <= 1  # float32 beside an edge
        assert mean == pytest.approx(np.mean(expected[same]), abs=1e-6)
    assert int((found.intra + found.inter).sum()) == 60 * 47


def test_a_picture_with_itself_is_no_pair() -> None:
    gallery = pictures(30, 0, 2)
    query = gallery.select(torch.tensor([3, 7, 20]))
    query = replace(query, paths=tuple(Path("query") / path.name for path in query.paths))  # Night600 keeps copies
    found, expected = compute_pair_distances(query, gallery), slow(query, gallery)
    assert int((found.intra + found.inter).sum()) == 3 * 29
    assert found.intra_mean == pytest.approx(np.mean(expected[True]), abs=1e-6)
    assert found.intra[0] == 0


def test_densities_have_an_area_of_one_and_only_whole_bins_are_joined() -> None:
    found = compute_pair_distances(pictures(40, 1, 3), pictures(40, 0, 4))
    edges, intra, inter = found.densities(0.01)
    assert len(edges) == 201
    for density in (intra, inter):
        assert float((density * np.diff(edges)).sum()) == pytest.approx(1.0)
    with pytest.raises(ValueError, match="whole numbers"):
        found.densities(0.0017)


def histogram(intra: dict[int, int], inter: dict[int, int]) -> PairDistances:
    counts = np.zeros((2, BINS), np.int64)
    for row, places in enumerate((intra, inter)):
        for place, count in places.items():
            counts[row, place] = count
    return PairDistances(np.linspace(0, 2, BINS + 1), counts[0], counts[1], 0.3, 0.8)


def test_overlap_and_separability_are_those_of_the_areas() -> None:
    apart = histogram({300: 5, 310: 5}, {800: 100})
    assert apart.overlap() == 0
    assert apart.separability() == 1
    alike = histogram({500: 2}, {500: 40})
    assert alike.overlap() == pytest.approx(1.0)
    assert alike.separability() == pytest.approx(0.5)
    half = histogram({300: 1, 800: 1}, {800: 10})
    assert half.overlap() == pytest.approx(0.5)
    assert half.separability() == pytest.approx(0.75)


def test_where_nobody_is_in_both_sets_there_is_no_mean_and_no_warning() -> None:
    first, second = pictures(5, 1, 5, people=2), pictures(5, 0, 6, people=2)
    found = compute_pair_distances(first, replace(second, pids=second.pids + 10))
    assert np.isnan(found.intra_mean)
    assert found.densities(0.01)[1].sum() == 0
    assert found.overlap() == 0


def test_what_cannot_be_compared_is_named() -> None:
    first, second = pictures(5, 1, 5), pictures(5, 0, 6)
    with pytest.raises(ProtocolError, match="pictures on both sides"):
        compute_pair_distances(first, second.select(torch.tensor([], dtype=torch.int64)))
    with pytest.raises(ProtocolError, match="8 numbers, the other's 4"):
        compute_pair_distances(first, replace(second, vectors=second.vectors[:, :4]))
    with pytest.raises(ProtocolError, match="NaN"):
        compute_pair_distances(first, replace(second, vectors=second.vectors * torch.nan))
