import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

from tapetum.core.errors import ProtocolError
from tapetum.core.protocol import Protocol
from tapetum.core.types import EmbeddingSet, Modality
from tapetum.core.vectors import normalise
from tapetum.evaluation import verification
from tapetum.evaluation.thresholds import BINS, bin_centres, build_tail, pair_name, similarity_edges
from tapetum.evaluation.verification import (
    Comparison,
    PairCounts,
    bootstrap_pairs,
    build_comparisons,
    compute_reliability,
    count_pairs,
    find_bins,
    rates_above,
    thin,
)

RULES = Protocol("test", junk_camera_pairs=((3, 2),))


def pictures(people: int = 5, cameras: int = 3, shots: int = 2, *, both: bool = True) -> EmbeddingSet:
    rng = torch.Generator().manual_seed(0)
    pids = torch.arange(people).repeat_interleave(cameras * shots)
    camids = torch.arange(1, cameras + 1).repeat_interleave(shots).repeat(people)
    vectors = normalise(torch.randn(people, 16, generator=rng)[pids] + torch.randn(len(pids), 16, generator=rng))
    paths = tuple(Path(f"{row}.jpg") for row in range(len(pids)))
    return EmbeddingSet(vectors, paths, pids, camids, camids % 2 if both else torch.zeros_like(camids))


def slow_pairs(comparison: Comparison) -> list[tuple[bool, float, int, int]]:
    """Every pair that counts: whether of one person, its similarity, and both persons."""
    found = []
    first, second = comparison.first, comparison.second
    for i, j in itertools.product(range(len(first)), range(len(second))):
        cameras = int(first.camids[i]), int(second.camids[j])
        same = int(first.pids[i]) == int(second.pids[j])
        if comparison.within and i >= j:
            continue
        if cameras in RULES.junk_camera_pairs or cameras[::-1] in RULES.junk_camera_pairs:
            continue
        if same and comparison.junk and cameras[0] == cameras[1]:
            continue
        found.append((same, float(first.vectors[i] @ second.vectors[j]), int(first.pids[i]), int(second.pids[j])))
    return found


@pytest.mark.parametrize("pair", ["visible-visible", "visible-infrared", "infrared-infrared"])
@pytest.mark.parametrize("rows", [None, 1, 7])
def test_pairs_are_those_of_a_slow_loop_however_few_are_counted_at_a_time(
    pair: str, rows: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    comparison = build_comparisons(pictures(), RULES)[pair]
    if rows is not None:
        monkeypatch.setattr(verification, "PAIRS_AT_ONCE", rows * len(comparison.second))
    counts, expected = count_pairs(comparison), slow_pairs(comparison)
    for same, histogram in ((True, counts.same), (False, counts.different)):
        similarities = torch.tensor([value for kind, value, *_ in expected if kind == same])
        assert histogram.sum() == len(similarities)
        where = np.sort(np.repeat(np.arange(BINS), histogram))
        assert np.abs(where - np.sort(find_bins(similarities).numpy())).max(initial=0) <= 1  # a product may round
    assert counts.people == 5
    assert counts.matched_people == len({one for same, _, one, _ in expected if same})


def test_pictures_of_one_person_under_one_camera_are_no_pair_within_a_modality_whatever_the_protocol_says() -> None:
    rules = Protocol("across", junk="none")
    found = build_comparisons(pictures(cameras=2), rules)
    assert count_pairs(found["visible-visible"]).same.sum() == 0
    assert count_pairs(found["visible-infrared"]).same.sum() == 5 * 4


def test_modalities_without_pictures_and_ignored_people_are_not_compared() -> None:
    found = build_comparisons(pictures(both=False), Protocol("test", ignored_pids=(-1, 0)))
    assert list(found) == ["visible-visible"]
    assert count_pairs(found["visible-visible"]).people == 4
    assert pair_name(Modality.INFRARED, Modality.VISIBLE) == "visible-infrared"


def test_vectors_that_are_no_numbers_are_refused() -> None:
    embeddings = pictures()
    embeddings.vectors[0, 0] = torch.nan
    with pytest.raises(ProtocolError, match="NaN"):
        build_comparisons(embeddings, RULES)


def test_bins_are_narrow_and_finest_where_similarities_crowd() -> None:
    edges, centres = similarity_edges(), bin_centres()
    widths = -np.diff(edges)
    assert widths.max() < 2.5e-4
    assert widths[edges[:-1] > 0.99].max() < 2e-5
    assert (find_bins(torch.from_numpy(centres)).numpy() == np.arange(BINS)).all()
    assert find_bins(torch.tensor([1.0000002, -1.0000002])).tolist() == [0, BINS - 1]


def test_a_threshold_lets_through_no_more_than_its_rate_and_hardly_less() -> None:
    rng = np.random.default_rng(0)
    similarities = rng.normal(0.1, 0.15, 400_000).clip(-1, 1)
    weights = np.bincount(find_bins(torch.from_numpy(similarities)).numpy(), minlength=BINS)
    tail = build_tail(weights, 1e-4, (0.1, 0.01, 0.001))
    assert tail.lowest == pytest.approx(1e-4)
    assert list(tail.rates) == sorted(tail.rates)
    assert list(tail.thresholds) == sorted(tail.thresholds, reverse=True)
    for rate in (0.1, 0.03, 0.01, 0.001):
        seen = (similarities >= tail.threshold(rate)).mean()
        assert seen <= rate * 1.01
        assert seen >= rate * 0.97
    assert rates_above(weights, [tail.threshold(0.01)])[0] == pytest.approx(0.01, rel=0.02)


def test_no_data_and_rates_out_of_reach_have_no_threshold() -> None:
    assert build_tail(np.zeros(BINS), 0.1).lowest > 1
    assert build_tail(np.ones(BINS), 3.0).rates == ()


def test_where_strangers_are_copies_of_each_other_nothing_passes() -> None:
    weights = np.zeros(BINS, dtype=np.int64)
    weights[0] = 1000
    tail = build_tail(weights, 0.1)
    assert tail.threshold(0.5) > 1
    assert tail.threshold(1.0) < 1


def test_probabilities_that_are_true_have_no_calibration_error_and_shifted_ones_have_theirs() -> None:
    probabilities = np.linspace(0.99, 0.01, BINS)
    mass = np.ones(BINS)
    scale = 10**6
    counts = PairCounts(
        (scale * mass * probabilities / probabilities.sum()).round().astype(np.int64),
        (scale * mass * (1 - probabilities) / (1 - probabilities).sum()).round().astype(np.int64),
        100,
        100,
    )
    honest = compute_reliability(counts, probabilities, 0.5)
    assert honest.error < 0.002
    assert honest.share.sum() == pytest.approx(1)
    shifted = compute_reliability(counts, np.clip(probabilities - 0.2, 0, 1), 0.5)
    assert shifted.error == pytest.approx(0.2, abs=0.03)
    assert np.nanmax(shifted.observed - shifted.predicted) > 0.15


def test_intervals_over_people_hold_the_numbers_and_are_wider_than_those_over_pairs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    comparison = build_comparisons(pictures(people=40, both=False), Protocol("test"))["visible-visible"]
    counts = count_pairs(comparison)
    said = np.clip((bin_centres() + 0.2) / 1.2, 0.01, 0.99)
    thresholds = [0.1, 0.5, 0.3]
    found = bootstrap_pairs(comparison, said, thresholds, 0.5, rng=np.random.default_rng(0), draws=300)
    for rates, intervals, weights in (
        (rates_above(counts.different, thresholds), found.false_alarms, counts.different),
        (rates_above(counts.same, thresholds), found.found, counts.same),
    ):
        for rate, one in zip(rates, intervals, strict=True):
            assert one.low <= rate <= one.high
            assert one.high - one.low > 2 * np.sqrt(rate * (1 - rate) / weights.sum())
    error = compute_reliability(counts, said, 0.5).error
    assert found.error.low <= error + 0.01
    assert found.error.high >= error
    error = compute_reliability(counts, said, 0.05).error
    rare = bootstrap_pairs(comparison, said, thresholds, 0.05, rng=np.random.default_rng(0), draws=300)
    assert rare.error.low <= error <= rare.error.high
    monkeypatch.setattr(verification, "MOST_GROUPS", 10)
    grouped = bootstrap_pairs(comparison, said, thresholds, 0.5, rng=np.random.default_rng(0), draws=300)
    for one, other in zip(found.false_alarms, grouped.false_alarms, strict=True):
        assert 0.4 < (other.high - other.low) / (one.high - one.low) < 2.5


def test_a_thinned_curve_keeps_its_ends_and_its_shape() -> None:
    rates = np.concatenate([[0, 0, 0], np.linspace(1e-5, 1, 5000)])
    curve = thin(rates, np.sqrt(rates), points=50)
    assert len(curve["rates"]) <= 50
    assert curve["rates"][-1] == 1
    assert np.allclose(np.sqrt(curve["rates"]), curve["values"])
