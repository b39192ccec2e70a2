from collections.abc import Callable

import numpy as np
import pytest
import torch

from tapetum.core.errors import ProtocolError
from tapetum.core.protocol import Protocol
from tapetum.core.types import EmbeddingSet
from tapetum.evaluation.metrics import evaluate
from tapetum.evaluation.slices import by_camera_pair, by_label, subset, thirds, worst_queries

Sides = tuple[EmbeddingSet, EmbeddingSet]
NIGHT = Protocol("night600", ap="trapezoid", unmatched="count", ties="larger_index_first")


def test_a_planted_dark_subset_comes_out_worst(make_set: Callable[..., EmbeddingSet]) -> None:
    rng = np.random.default_rng(5)
    lightness = rng.uniform(5, 80, 150)
    light = np.select([lightness < 25.5, lightness <= 51], ["low", "medium"], "high").tolist()
    noise = torch.tensor([{"low": 4.0, "medium": 1.6, "high": 0.8}[level] for level in light])
    query = make_set(rng.integers(1, 31, 150), rng.integers(1, 4, 150), noise=noise, seed=1)
    gallery = make_set(rng.integers(1, 31, 600), rng.integers(1, 4, 600), noise=1.0, seed=2)
    found = evaluate(query, gallery, NIGHT)
    levels = by_label(found, light)
    assert min(levels, key=lambda level: levels[level].mean_ap) == "low"
    assert levels["low"].mean_ap < 0.5 * levels["high"].mean_ap
    worst = worst_queries(found, 15)
    assert sum(light[row] == "low" for row in worst.tolist()) >= 12
    assert sum(metrics.num_queries for metrics in levels.values()) == 150


def test_a_subset_equals_an_evaluation_of_those_queries(searched: Sides) -> None:
    query, gallery = searched
    mask = torch.arange(80) % 3 == 0
    found = subset(evaluate(query, gallery, NIGHT), mask)
    alone = evaluate(query.select(mask), gallery, NIGHT).metrics
    assert found.num_queries == alone.num_queries == 27
    assert found.mean_ap == pytest.approx(alone.mean_ap)
    torch.testing.assert_close(found.cmc, alone.cmc)


def test_a_mask_that_does_not_fit_is_named(searched: Sides) -> None:
    found = evaluate(*searched, NIGHT)
    with pytest.raises(ProtocolError, match=r"query mask is \(3,\)"):
        subset(found, torch.ones(3, dtype=torch.bool))
    with pytest.raises(ProtocolError, match="2 labels for 80 queries"):
        by_label(found, ["low", "high"])
    with pytest.raises(ProtocolError, match="none of 0 queries"):
        subset(found, torch.zeros(80, dtype=torch.bool))


def test_a_level_without_any_match_is_left_out(make_set: Callable[..., EmbeddingSet]) -> None:
    query, gallery = make_set([1, 2, 9], [1, 1, 1], noise=0.1), make_set([1, 2], [2, 2], noise=0.1)
    assert list(by_label(evaluate(query, gallery, Protocol("p")), ["a", "a", "b"])) == ["a"]


def test_thirds_cut_at_a_third_and_two_thirds() -> None:
    labels = thirds(torch.arange(30).flip(0))
    assert [labels.count(name) for name in ("low", "medium", "high")] == [10, 10, 10]
    assert labels[0] == "high"
    assert labels[-1] == "low"


def test_camera_slices_name_query_and_gallery_camera(searched: Sides) -> None:
    query, gallery = searched
    pairs = by_camera_pair(query, gallery, NIGHT)
    assert len(pairs) == 12  # a camera against itself is junk throughout
    assert "camera 2 to camera 2" not in pairs
    one = evaluate(query.select(query.camids == 2), gallery.select(gallery.camids == 4), NIGHT).metrics
    assert pairs["camera 2 to camera 4"].mean_ap == one.mean_ap
    everything = by_camera_pair(query, gallery, Protocol("none", junk="none"))
    assert len(everything) == 16
    without = by_camera_pair(query, gallery, Protocol("two places", junk_camera_pairs=((2, 4),)))
    assert set(pairs) - set(without) == {"camera 2 to camera 4"}
