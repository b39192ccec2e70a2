from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from tapetum.core.errors import ProtocolError
from tapetum.core.protocol import Protocol
from tapetum.core.types import EmbeddingSet, Modality
from tapetum.evaluation.calibration import Calibration, PairCalibration
from tapetum.evaluation.metrics import evaluate, evaluate_distances
from tapetum.evaluation.ranking import (
    LONG_ROW,
    count_nearer,
    distinct_keys,
    farthest,
    find_candidates,
    multi_query,
    top_k,
)
from tapetum.evaluation.slices import by_modality
from tapetum.evaluation.thresholds import Tail, pair_name
from tapetum.evaluation.trials import evaluate_trials

Sides = tuple[EmbeddingSet, EmbeddingSet]


def test_rank_lists_hold_no_junk_and_agree_with_the_evaluation(searched: Sides) -> None:
    query, gallery = searched
    protocol = Protocol("p", ignored_pids=(-1, 7))
    found = top_k(query, gallery, protocol, 10)
    assert found.gallery_rows.shape == (80, 10)
    pids, camids = gallery.pids[found.gallery_rows], gallery.camids[found.gallery_rows]
    assert not ((pids == query.pids[:, None]) & (camids == query.camids[:, None])).any()
    assert not (pids == 7).any()
    assert torch.equal(found.right, pids == query.pids[:, None])
    assert (found.similarities.diff(dim=1) <= 0).all()
    cosines = (query.vectors[:, None] * gallery.vectors[found.gallery_rows]).sum(2)
    torch.testing.assert_close(found.similarities, cosines)
    metrics = evaluate(query, gallery, protocol).metrics
    assert metrics.rank(10) == pytest.approx(found.right.any(1).sum().item() / metrics.num_queries)


@pytest.mark.parametrize(("ties", "expected"), [("smaller_index_first", [0, 1, 3]), ("larger_index_first", [4, 3, 1])])
def test_equal_entries_come_in_the_protocols_order(
    make_set: Callable[..., EmbeddingSet], ties: str, expected: list[int]
) -> None:
    axes = torch.eye(24)  # products of these are exact, wherever they stand in the matrix
    query = replace(make_set([1], [1]), vectors=axes[:1])
    gallery = replace(make_set([1, 1, 2, 1, 1], [2, 2, 2, 2, 2]), vectors=axes[[0, 0, 1, 0, 0]])
    found = top_k(query, gallery, Protocol("p", ties=ties), 3)
    assert found.gallery_rows.tolist() == [expected]


def test_a_ranking_shorter_than_asked_is_padded(make_set: Callable[..., EmbeddingSet]) -> None:
    query = make_set([1, 2], [1, 1], noise=0.0)
    gallery = make_set([1, 2, 1], [1, 2, 2], noise=0.0)
    found = top_k(query, gallery, Protocol("p"), 5)
    assert found.gallery_rows.tolist() == [[2, 1, -1, -1, -1], [1, 0, 2, -1, -1]]
    assert found.right.tolist() == [[True, False, False, False, False]] * 2
    assert found.similarities[0, 2:].tolist() == [-torch.inf] * 3


def test_rank_lists_name_rows_of_the_sets_as_given(make_set: Callable[..., EmbeddingSet]) -> None:
    both = make_set([1, 2, 1, 2], [1, 1, 2, 2], noise=0.0, modalities=[0, 1, 1, 0])
    protocol = Protocol("p", query_modality=Modality.INFRARED, gallery_modality=Modality.VISIBLE)
    found = top_k(both, both, protocol, 1)
    assert found.query_rows.tolist() == [1, 2]
    assert found.gallery_rows.tolist() == [[3], [0]]


def test_rank_lists_refuse_damaged_vectors(searched: Sides) -> None:
    query, gallery = searched
    vectors = query.vectors.clone()
    vectors[0, 0] = torch.nan
    with pytest.raises(ProtocolError, match="NaN or infinity"):
        top_k(replace(query, vectors=vectors), gallery, Protocol("p"), 3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("ties", ["smaller_index_first", "larger_index_first"])
def test_distinct_keys_order_floats_and_break_ties(dtype: torch.dtype, ties: str) -> None:
    rng = np.random.default_rng(0)
    values = torch.from_numpy(rng.choice([-torch.inf, -2.5, -0.0, 0.0, 1e-30, 3.0, torch.inf], (6, 40))).to(dtype)
    keys = distinct_keys(values, Protocol("p", ties=ties)).numpy()
    index = np.arange(40) if ties == "smaller_index_first" else -np.arange(40)
    for row, key in zip(values.numpy(), keys, strict=True):
        assert np.argsort(key).tolist() == np.lexsort((index, row)).tolist()
        assert len(set(key.tolist())) == 40


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64])
@pytest.mark.parametrize("length", [50, LONG_ROW + 500])
@pytest.mark.parametrize("most", [3, 40])  # compared one by one, or sorted
@pytest.mark.parametrize("share", [0.1, 0.9])  # of the row as near as the farthest match, or nearer
def test_nearer_entries_are_counted_as_comparing_all_with_all_counts_them(
    dtype: torch.dtype, length: int, most: int, share: float
) -> None:
    rng = np.random.default_rng(0)
    distances = torch.from_numpy(rng.integers(-500, 500, (6, length))).to(dtype)
    counts = torch.tensor([0, 1, most, most, most - 1, 2])
    matches = torch.from_numpy(rng.integers(-500, int(1000 * share) - 500, (6, most))).to(dtype)
    valid = torch.arange(most) < counts.unsqueeze(1)
    matches = matches.masked_fill(~valid, farthest(dtype)).sort(dim=1).values
    found = count_nearer(distances.clone(), matches, counts)
    pairs = distances.unsqueeze(2), matches.unsqueeze(1)
    for ours, expected in zip(found, (torch.lt(*pairs).sum(1), torch.le(*pairs).sum(1)), strict=True):
        assert torch.equal(ours[valid], expected[valid])


def test_multi_query_is_the_mean_of_the_persons_pictures_under_the_camera(
    make_set: Callable[..., EmbeddingSet],
) -> None:
    query = make_set([1, 2, 3], [1, 1, 2], seed=1)
    extra = make_set([1, 1, 1, 2, 1], [1, 1, 2, 1, 1], seed=2)
    found = multi_query(query, extra)
    mean = extra.vectors[[0, 1, 4]].mean(0)
    torch.testing.assert_close(found.vectors[0], mean / mean.norm())
    torch.testing.assert_close(found.vectors[1], extra.vectors[3])
    assert torch.equal(found.vectors[2], query.vectors[2])  # nobody to average with
    assert found.paths == query.paths


def test_multi_query_helps_when_pictures_are_noisy(make_set: Callable[..., EmbeddingSet]) -> None:
    pids = np.repeat(np.arange(1, 31), 8)
    extra = make_set(pids, np.tile([1, 2], 120), noise=2.5, seed=1)
    query = extra.select(torch.arange(0, 240, 8))
    gallery = make_set(pids, np.tile([3, 4], 120), noise=2.5, seed=2)
    single = evaluate(query, gallery, Protocol("p")).metrics.mean_ap
    assert evaluate(multi_query(query, extra), gallery, Protocol("p")).metrics.mean_ap > single + 0.05


@pytest.mark.parametrize("pairs", [((3, 2),), ((3, 2), (1, 1), (3, 1), (3, 2))])
@pytest.mark.parametrize("junk", ["none", "same_pid_same_camid"])
def test_entries_left_to_rank_are_counted_once_whatever_rules_take_them_out(
    searched: tuple[EmbeddingSet, EmbeddingSet], pairs: tuple[tuple[int, int], ...], junk: str
) -> None:
    query, gallery = searched
    rules = Protocol("p", junk=junk, junk_camera_pairs=pairs)
    candidates = find_candidates(query.pids, gallery.pids, query.camids, gallery.camids, rules)
    distances = torch.zeros(len(query), len(gallery))
    left = candidates.remove_junk(distances, torch.arange(len(query)))
    for row, (pid, camid) in enumerate(zip(query.pids.tolist(), query.camids.tolist(), strict=True)):
        own = (gallery.pids == pid) & (gallery.camids == camid) & (junk != "none")
        for theirs in [theirs for ours, theirs in pairs if ours == camid]:
            own |= gallery.camids == theirs
        assert torch.equal(distances[row].isinf(), own)
        assert int(left[row]) == int((~own).sum())


def calibrated(*names: str) -> Calibration:
    """Curves by hand, each pair's with its own flat stretch and its own steepness."""
    curves = {
        "visible-visible": ((0.0, 0.3, 0.4, 0.8), (0.05, 0.2, 0.2, 0.95)),
        "visible-infrared": ((-0.3, 0.1, 0.2, 0.5), (0.1, 0.4, 0.4, 0.9)),
        "infrared-infrared": ((0.1, 0.5, 0.9), (0.02, 0.6, 0.99)),
    }
    nothing = Tail((), ())
    pairs = {name: PairCalibration(*curves[name], nothing, {}, {"people": 99}) for name in names or curves}
    return Calibration({}, {}, "p", 0, 0.5, "isotonic", (0.1,), pairs)


def log_odds(similarity: float, curve: PairCalibration) -> float:
    """The definition: straight between the points of the curve, flat outside."""
    points = list(zip(curve.similarities, curve.probabilities, strict=True))
    chance = points[0][1] if similarity <= points[0][0] else points[-1][1]
    for (left, low), (right, high) in pairwise(points):
        if left < similarity <= right:
            chance = low + (similarity - left) / (right - left) * (high - low)
    return float(np.log(chance / (1 - chance)))


@pytest.fixture
def mixed(make_set: Callable[..., EmbeddingSet]) -> EmbeddingSet:
    rng = np.random.default_rng(11)
    everyone = make_set(rng.integers(1, 12, 90), rng.integers(1, 4, 90), noise=0.9, seed=5)
    return replace(everyone, modalities=torch.from_numpy((rng.random(90) < 0.4).astype(np.int64)))


def test_a_ranking_by_calibration_is_what_a_slow_loop_says(mixed: EmbeddingSet) -> None:
    protocol, known = Protocol("p", ap="step"), calibrated()
    distances = np.zeros((90, 90))
    for row in range(90):
        for column in range(90):
            similarity = float(mixed.vectors[row] @ mixed.vectors[column])
            pair = pair_name(int(mixed.modalities[row]), int(mixed.modalities[column]))
            distances[row, column] = -log_odds(similarity, known.pairs[pair]) - 1e-6 * similarity
    sides = mixed.pids, mixed.pids, mixed.camids, mixed.camids
    expected = evaluate_distances(distances, *sides, protocol)
    for chunk_size in (None, 1):
        found = evaluate(mixed, mixed, protocol, calibration=known, chunk_size=chunk_size)
        torch.testing.assert_close(found.per_query_ap, expected.per_query_ap)
        assert torch.equal(found.per_query_first_rank, expected.per_query_first_rank)
    assert not torch.equal(found.per_query_ap, evaluate(mixed, mixed, protocol).per_query_ap)
    _, figures = by_modality(mixed, mixed, protocol, known)
    own = []
    for row in (mixed.modalities == 1).nonzero().squeeze(1).tolist():
        junk = (mixed.pids == mixed.pids[row]) & (mixed.camids == mixed.camids[row])
        nearest = np.where(junk.numpy(), np.inf, distances[row]).argmin()
        own.append(bool(mixed.modalities[nearest] == 1))
    assert figures["infrared"]["own_modality_first"] == pytest.approx(np.mean(own))


def test_a_ranking_by_calibration_changes_nothing_within_one_pair_of_modalities(searched: Sides) -> None:
    query, gallery = searched
    for modality in Modality:
        sides = query, replace(gallery, modalities=torch.full_like(gallery.modalities, modality))
        for ties in ("smaller_index_first", "larger_index_first"):
            protocol = Protocol("p", ties=ties)  # type: ignore[arg-type]
            plain, ranked = (evaluate(*sides, protocol, calibration=each) for each in (None, calibrated()))
            assert torch.equal(plain.per_query_ap, ranked.per_query_ap)
            assert torch.equal(plain.per_query_first_rank, ranked.per_query_first_rank)


def test_drawn_galleries_are_ranked_by_calibration_as_each_alone(mixed: EmbeddingSet) -> None:
    protocol, known = Protocol("p", drawn="gallery", trials=2), calibrated()
    drawn = [torch.arange(0, 60), torch.arange(25, 90)]
    trials = evaluate_trials(mixed, mixed, protocol, drawn=drawn, calibration=known).each
    for rows, trial in zip(drawn, trials, strict=True):
        alone = evaluate(mixed, mixed.select(rows), replace(protocol, drawn=None, trials=1), calibration=known)
        assert torch.equal(trial.per_query_ap, alone.per_query_ap)


def test_a_pair_of_modalities_without_a_calibration_cannot_be_ranked(mixed: EmbeddingSet) -> None:
    message = "visible-infrared is not calibrated.*; run `tapetum calibrate`.*or rank by similarity"
    with pytest.raises(ProtocolError, match=message):
        evaluate(mixed, mixed, Protocol("p"), calibration=calibrated("visible-visible", "infrared-infrared"))
    visible = mixed.select((mixed.modalities == 0).nonzero().squeeze(1))
    evaluate(visible, visible, Protocol("p"), calibration=calibrated("visible-visible"))
