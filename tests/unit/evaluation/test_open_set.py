import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

from tapetum.core.protocol import Protocol
from tapetum.core.types import EmbeddingSet
from tapetum.core.vectors import normalise
from tapetum.evaluation import verification
from tapetum.evaluation.open_set import available_pictures, check_searches, count_searches
from tapetum.evaluation.thresholds import BINS
from tapetum.evaluation.verification import Comparison, build_comparisons, rates_above

RULES = Protocol("test")


def pictures(people: int, cameras: int = 2, shots: int = 1, *, both: bool = False, seed: int = 0) -> EmbeddingSet:
    rng = torch.Generator().manual_seed(seed)
    pids = torch.arange(people).repeat_interleave(cameras * shots)
    camids = torch.arange(cameras).repeat_interleave(shots).repeat(people)
    vectors = normalise(torch.randn(people, 8, generator=rng)[pids] + torch.randn(len(pids), 8, generator=rng))
    paths = tuple(Path(f"{row}.jpg") for row in range(len(pids)))
    return EmbeddingSet(vectors, paths, pids, camids, camids % 2 if both else torch.zeros_like(camids))


def compare(embeddings: EmbeddingSet, pair: str = "visible-visible") -> Comparison:
    return build_comparisons(embeddings, RULES)[pair]


def slow_false_alarms(comparison: Comparison, size: int, threshold: float) -> float:
    """The mean over every gallery that can be drawn, one after the other."""
    shares = []
    for asking, asked in ((comparison.first, comparison.second), (comparison.second, comparison.first)):
        for row in range(len(asking)):
            others = [j for j in range(len(asked)) if asked.pids[j] != asking.pids[row]]
            above = {j for j in others if float(asking.vectors[row] @ asked.vectors[j]) >= threshold}
            draws = list(itertools.combinations(others, size))
            shares.append(sum(bool(above & set(draw)) for draw in draws) / len(draws))
        if comparison.within:
            break
    return sum(shares) / len(shares)


@pytest.mark.parametrize(("pair", "both"), [("visible-visible", False), ("visible-infrared", True)])
@pytest.mark.parametrize("size", [1, 3, 6])
def test_the_false_alarms_of_a_gallery_are_the_mean_over_all_galleries_of_its_size(
    pair: str, both: bool, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    comparison = compare(pictures(8 if both else 5, both=both), pair)
    expected = slow_false_alarms(comparison, size, 0.25)
    counts = count_searches(comparison, [size])
    assert counts.strangers[size].sum() == pytest.approx(1, abs=1e-5)
    assert rates_above(counts.strangers[size], [0.25])[0] == pytest.approx(expected, abs=1e-6)
    found = check_searches(comparison, [(size, 0.25)], rng=np.random.default_rng(0), draws=20)
    assert found.false_alarms[0] == pytest.approx(expected, abs=1e-9)
    monkeypatch.setattr(verification, "PAIRS_AT_ONCE", 1)
    again = count_searches(comparison, [size])
    assert np.allclose(again.strangers[size], counts.strangers[size])


def test_of_a_gallery_far_smaller_than_all_pictures_no_possible_answer_is_left_out() -> None:
    counts = count_searches(compare(pictures(400)), [30])
    assert counts.strangers[30].sum() == pytest.approx(1, abs=1e-5)


def test_the_largest_gallery_is_everybody_else() -> None:
    comparison = compare(pictures(6, cameras=2, shots=2))
    assert available_pictures(comparison) == 20
    counts = count_searches(comparison, [20])
    found = check_searches(comparison, [(20, 0.3)], rng=np.random.default_rng(0), draws=20)
    similarities = comparison.first.vectors @ comparison.first.vectors.T
    similarities[comparison.first.pids.unsqueeze(1) == comparison.first.pids] = -1
    expected = float((similarities.amax(1) >= 0.3).double().mean())
    assert found.false_alarms[0] == pytest.approx(expected)
    assert rates_above(counts.strangers[20], [0.3])[0] == pytest.approx(expected)


def test_a_search_is_a_miss_where_no_picture_under_another_camera_reaches_the_threshold() -> None:
    embeddings = pictures(30, cameras=2, shots=2)
    comparison = compare(embeddings)
    counts = count_searches(comparison, [5])
    similarities = embeddings.vectors @ embeddings.vectors.T
    own = (embeddings.pids.unsqueeze(1) == embeddings.pids) & (embeddings.camids.unsqueeze(1) != embeddings.camids)
    best = similarities.masked_fill(~own, -1).amax(1)
    assert counts.enrolled.sum() == counts.searches == 120
    assert rates_above(counts.enrolled, [0.4])[0] == pytest.approx(float((best >= 0.4).double().mean()))
    found = check_searches(comparison, [(5, 0.4)], rng=np.random.default_rng(0), draws=200)
    assert found.found[0] == pytest.approx(float((best >= 0.4).double().mean()))
    assert found.found_intervals[0].low < found.found[0] < found.found_intervals[0].high


def test_people_with_no_other_picture_search_as_strangers_alone() -> None:
    comparison = compare(pictures(8, cameras=1, shots=2))
    counts = count_searches(comparison, [3])
    assert counts.enrolled.sum() == 0
    assert counts.searches == 16
    assert counts.strangers[3].shape == (BINS,)


def test_pairs_of_cameras_that_are_junk_take_pictures_out_of_the_gallery() -> None:
    embeddings = pictures(6, cameras=2)
    rules = Protocol("test", junk_camera_pairs=((0, 1),))
    comparison = build_comparisons(embeddings, rules)["visible-visible"]
    assert available_pictures(comparison) == 5  # of camera 0 for a query of camera 0


def test_a_larger_gallery_gives_more_false_alarms_at_the_same_threshold() -> None:
    comparison = compare(pictures(40))
    counts = count_searches(comparison, [2, 10, 50])
    rates = [rates_above(counts.strangers[size], [0.4])[0] for size in (2, 10, 50)]
    assert rates[0] < rates[1] < rates[2]
