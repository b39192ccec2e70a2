import numpy as np
import pytest
import torch

from tapetum.core.protocol import Protocol
from tapetum.core.types import EmbeddingSet
from tapetum.evaluation.chance import chance_level
from tapetum.evaluation.metrics import evaluate, evaluate_distances

Sides = tuple[EmbeddingSet, EmbeddingSet]


@pytest.mark.parametrize("ap", ["step", "trapezoid"])
@pytest.mark.parametrize("unmatched", ["drop", "count"])
def test_chance_is_the_mean_of_many_random_rankings(searched: Sides, ap: str, unmatched: str) -> None:
    query, gallery = searched
    protocol = Protocol("p", ap=ap, unmatched=unmatched, max_rank=12)
    query_pids = torch.where(torch.arange(80) < 8, 99, query.pids)  # a tenth has no match
    distances = np.random.default_rng(0).random((300 * 80, 60))  # every query 300 times
    found = evaluate_distances(
        distances, query_pids.repeat(300), gallery.pids[:60], query.camids.repeat(300), gallery.camids[:60], protocol
    )
    expected = chance_level(found)
    assert expected.mean_ap == pytest.approx(found.metrics.mean_ap, rel=0.02)
    assert expected.rank1 == pytest.approx(found.metrics.rank(1), rel=0.06)
    torch.testing.assert_close(expected.cmc, found.metrics.cmc, atol=0.01, rtol=0)


def test_chance_of_one_match_is_the_mean_reciprocal_rank() -> None:
    found = evaluate_distances(
        torch.rand(1, 10), torch.tensor([1]), torch.arange(1, 11), torch.tensor([0]), torch.ones(10), Protocol("p")
    )
    assert chance_level(found).mean_ap == pytest.approx(sum(1 / rank for rank in range(1, 11)) / 10)
    assert chance_level(found).rank1 == pytest.approx(0.1)


def test_a_gallery_of_matches_only_leaves_nothing_to_chance() -> None:
    ones = torch.ones(1, dtype=torch.int64)
    found = evaluate_distances(torch.rand(1, 4), ones, ones.repeat(4), 2 * ones, ones.repeat(4), Protocol("p"))
    chance = chance_level(found)
    assert chance.mean_ap == pytest.approx(1)
    assert chance.cmc is not None
    torch.testing.assert_close(chance.cmc, torch.ones(4, dtype=torch.float64))


def test_identities_have_no_closed_curve(searched: Sides) -> None:
    assert chance_level(evaluate(*searched, Protocol("p", cmc="identities"))).cmc is None
