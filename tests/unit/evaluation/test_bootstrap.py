from dataclasses import replace

import numpy as np
import pytest
import torch

from tapetum.core.errors import ProtocolError
from tapetum.core.protocol import Protocol
from tapetum.core.seeding import numpy_generator
from tapetum.core.types import EmbeddingSet
from tapetum.evaluation.bootstrap import QUANTITIES, bootstrap, combine
from tapetum.evaluation.metrics import evaluate

Sides = tuple[EmbeddingSet, EmbeddingSet]


def test_intervals_hold_the_number_and_shrink_with_more_queries(searched: Sides) -> None:
    query, gallery = searched
    found = evaluate(query, gallery, Protocol("p"))
    intervals = bootstrap(found, rng=numpy_generator(0, "bootstrap"))
    assert tuple(intervals) == QUANTITIES
    assert intervals["mean_ap"].low < found.metrics.mean_ap < intervals["mean_ap"].high
    assert intervals["rank1"].low <= found.metrics.rank(1) <= intervals["rank1"].high
    deviation = found.per_query_ap[found.counted].std().item() / found.metrics.num_queries**0.5
    assert intervals["mean_ap"].high - intervals["mean_ap"].low == pytest.approx(2 * 1.96 * deviation, rel=0.15)
    few = bootstrap(found, rng=numpy_generator(0, "bootstrap"), mask=torch.arange(80) < 20)
    assert few["mean_ap"].high - few["mean_ap"].low > intervals["mean_ap"].high - intervals["mean_ap"].low


def test_the_same_seed_gives_the_same_interval(searched: Sides) -> None:
    found = evaluate(*searched, Protocol("p"))
    first, again, other = (bootstrap(found, rng=numpy_generator(seed, "b"), draws=200) for seed in (3, 3, 4))
    assert first == again
    assert first != other


def test_unmatched_queries_stand_in_the_denominator_only_where_the_protocol_counts_them(searched: Sides) -> None:
    query, gallery = searched
    strangers = replace(query, pids=query.pids + 1000 * (torch.arange(80) < 40))
    counted = evaluate(strangers, gallery, Protocol("p", unmatched="count"))
    dropped = evaluate(strangers, gallery, Protocol("p"))
    for found in (counted, dropped):
        interval = bootstrap(found, rng=numpy_generator(0, "b"))["mean_ap"]
        assert interval.low < found.metrics.mean_ap < interval.high
    assert dropped.metrics.mean_ap == pytest.approx(2 * counted.metrics.mean_ap)


def test_trials_are_averaged_with_their_deviation(searched: Sides) -> None:
    query, gallery = searched
    parts = [gallery.select(torch.arange(400) % 2 == trial) for trial in (0, 1)]
    trials = [evaluate(query, part, Protocol("p", trials=2)) for part in parts]
    combined = combine([trial.metrics for trial in trials])
    maps = [trial.metrics.mean_ap for trial in trials]
    assert combined.count == 2
    assert combined.metrics.mean_ap == pytest.approx(np.mean(maps))
    assert combined.deviations["mean_ap"] == pytest.approx(np.std(maps, ddof=1))
    assert combined.metrics.rank(1) == pytest.approx(np.mean([trial.metrics.rank(1) for trial in trials]))
    assert combine([trials[0].metrics]).deviations["rank1"] == 0
    interval = bootstrap(trials, rng=numpy_generator(0, "b"))["mean_ap"]
    assert interval.low < combined.metrics.mean_ap < interval.high


def test_results_that_do_not_belong_together_are_refused(searched: Sides) -> None:
    query, gallery = searched
    one, other = (evaluate(query, gallery, Protocol(name)) for name in ("one", "other"))
    with pytest.raises(ProtocolError, match=r"different protocols \(one, other\)"):
        combine([one.metrics, other.metrics])
    with pytest.raises(ProtocolError, match="nothing to combine"):
        combine([])
    short = evaluate(query.select(torch.arange(10)), gallery, Protocol("one"))
    with pytest.raises(ProtocolError, match="different numbers of queries"):
        bootstrap([one, short], rng=numpy_generator(0))
    with pytest.raises(ProtocolError, match="draws=0"):
        bootstrap(one, rng=numpy_generator(0), draws=0)
    with pytest.raises(ProtocolError, match="no query has a match"):
        bootstrap(one, rng=numpy_generator(0), mask=torch.zeros(80, dtype=torch.bool))
