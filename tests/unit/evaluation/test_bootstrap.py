from dataclasses import replace

import numpy as np
import pytest
import torch

from tapetum.core.errors import ProtocolError
from tapetum.core.protocol import Protocol
from tapetum.core.seeding import numpy_generator
from tapetum.core.types import EmbeddingSet
from tapetum.evaluation.bootstrap import QUANTITIES, bootstrap, combine, paired_bootstrap
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


def draw_methods(
    gaps: list[float], *, trainings: int = 3, between: float = 0.0, people: int = 60, seed: int = 0
) -> tuple[list[np.ndarray], np.ndarray]:
    """Average precision of 5 queries a person that methods share, a gap each, and a deviation between trainings."""
    rng = np.random.default_rng(seed)
    hard = rng.random((people, 1)).repeat(5, axis=1).ravel()
    noise = [rng.normal(0, 0.02, (trainings, len(hard))) + rng.normal(0, between, (trainings, 1)) for _ in gaps]
    return [hard + gap + each for gap, each in zip(gaps, noise, strict=True)], np.arange(people).repeat(5)


def test_what_is_hard_for_all_methods_alike_does_not_hide_a_difference() -> None:
    values, people = draw_methods([0.0, 0.03, 0.03])
    paired = paired_bootstrap(values, people, rng=numpy_generator(0, "b"))
    assert paired.difference[1, 0] == pytest.approx(values[1].mean() - values[0].mean())
    assert paired.low[1, 0] < paired.difference[1, 0] < paired.high[1, 0]
    assert (paired.low[0, 1], paired.high[0, 1]) == pytest.approx((-paired.high[1, 0], -paired.low[1, 0]), abs=1e-3)
    assert paired.is_real(0, 1)
    assert not paired.is_real(1, 2)
    assert np.array_equal(np.diag(paired.high), np.zeros(3))
    alone = values[0].reshape(3, -1, 5).mean(2)[0].std() / 60**0.5  # of one method, which the pairing takes out
    assert paired.high[1, 0] - paired.low[1, 0] < alone


def test_trainings_that_differ_widen_the_interval_as_much_as_their_deviation_says() -> None:
    values, people = draw_methods([0.0, 0.03], between=0.03)
    alike, _ = draw_methods([0.0, 0.03])
    wide, narrow = (paired_bootstrap(each, people, rng=numpy_generator(0, "b")) for each in (values, alike))
    assert narrow.is_real(0, 1)
    assert not wide.is_real(0, 1)
    many, people = draw_methods([0.0, 0.03], trainings=20, between=0.03)
    paired = paired_bootstrap(many, people, rng=numpy_generator(0, "b"))
    error = np.sqrt(sum(each.mean(1).var(ddof=1) / 20 for each in many))
    assert paired.high[1, 0] - paired.low[1, 0] == pytest.approx(2 * 1.96 * error, rel=0.15)


def test_of_three_trainings_the_interval_is_as_wide_as_their_sample_deviation_says() -> None:
    widths, errors = [], []
    for seed in range(40):
        values, people = draw_methods([0.0, 0.0], between=0.03, people=20, seed=seed)
        paired = paired_bootstrap(values, people, rng=numpy_generator(seed, "b"), draws=500)
        widths.append(paired.high[1, 0] - paired.low[1, 0])
        errors.append(np.sqrt(sum(each.mean(1).var(ddof=1) / 3 for each in values)))
    assert np.mean(widths) == pytest.approx(2 * 1.96 * np.mean(errors), rel=0.1)


def test_methods_that_are_alike_are_called_different_as_rarely_as_the_level_says() -> None:
    rng, people, wrong, times = np.random.default_rng(5), np.arange(60), 0, 200
    for _ in range(times):
        hard = rng.normal(0.5, 0.2, 60)
        values = [
            hard + rng.normal(0, 0.05, 60) + rng.normal(0, 0.01, (3, 1)) + rng.normal(0, 0.02, (3, 60))
            for _ in range(2)
        ]
        wrong += paired_bootstrap(values, people, rng=rng, draws=500).is_real(0, 1)
    assert 0.01 * times < wrong < 0.1 * times


def test_people_are_drawn_whole() -> None:
    values, people = draw_methods([0.0, 0.0], people=12)
    values[1] = values[1] + np.random.default_rng(1).normal(0, 0.1, 12).repeat(5)  # whom the other finds easier
    whole = paired_bootstrap(values, people, rng=numpy_generator(0, "b"))
    single = paired_bootstrap(values, np.arange(len(people)), rng=numpy_generator(0, "b"))
    assert whole.high[1, 0] - whole.low[1, 0] > 1.5 * (single.high[1, 0] - single.low[1, 0])


def test_methods_with_other_queries_cannot_be_paired() -> None:
    values, people = draw_methods([0.0, 0.0])
    with pytest.raises(ProtocolError, match=r"values of \(3, 300\), \(3, 299\) for 300 queries cannot be paired"):
        paired_bootstrap([values[0], values[1][:, 1:]], people, rng=numpy_generator(0, "b"))
    with pytest.raises(ProtocolError, match="level inside"):
        paired_bootstrap(values, people, rng=numpy_generator(0, "b"), level=1.0)
