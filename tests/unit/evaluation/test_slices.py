import contextlib
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from tapetum.core.errors import ProtocolError
from tapetum.core.protocol import Protocol, mixed_protocol
from tapetum.core.types import EmbeddingSet
from tapetum.evaluation import slices
from tapetum.evaluation.camera_norm import normalise_cameras
from tapetum.evaluation.metrics import Metrics, evaluate
from tapetum.evaluation.slices import (
    LOOKALIKE_LEVELS,
    by_camera_pair,
    by_label,
    by_lookalikes,
    by_modality,
    first_wrong_rows,
    subset,
    thirds,
    worst_queries,
)

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


def pairs_alone(query: EmbeddingSet, gallery: EmbeddingSet, protocol: Protocol) -> dict[str, Metrics]:
    """Each pair of cameras as an evaluation of its own."""
    found = {}
    for ours in query.camids.unique().tolist():
        for theirs in gallery.camids.unique().tolist():
            with contextlib.suppress(ProtocolError):  # no query, no gallery or no match
                sides = query.select(query.camids == ours), gallery.select(gallery.camids == theirs)
                metrics = evaluate(*sides, protocol).metrics
                if float(metrics.cmc[-1]) > 0:  # "count" has queries without a match
                    found[f"camera {ours} to camera {theirs}"] = metrics
    return found


@pytest.mark.parametrize(
    "protocol",
    [
        NIGHT,
        Protocol("dropped", junk="none", ties="smaller_index_first"),
        Protocol("people", cmc="identities", junk_camera_pairs=((2, 4), (3, 1)), ignored_pids=(-1, 7)),
        Protocol("cameras", query_camids=(1, 3), gallery_camids=(4, 2), max_rank=5),
    ],
    ids=lambda protocol: protocol.name,
)
def test_camera_slices_are_those_of_each_pair_alone(searched: Sides, protocol: Protocol) -> None:
    query, gallery = searched
    rare = torch.where(query.pids < 4, 9, query.camids)  # some pairs have no person in common
    query, gallery = replace(query, camids=rare), gallery.select(torch.arange(200).repeat(2))  # with ties throughout
    found, expected = by_camera_pair(query, gallery, protocol), pairs_alone(query, gallery, protocol)
    assert list(found) == list(expected)
    for name, metrics in expected.items():
        assert torch.equal(found[name].cmc, metrics.cmc), name
        assert replace(found[name], cmc=metrics.cmc) == metrics, name


def test_many_cameras_take_one_ranking_each_and_not_one_a_pair(
    searched: Sides, monkeypatch: pytest.MonkeyPatch
) -> None:
    rankings = []
    monkeypatch.setattr(slices, "evaluate", lambda *sides, **more: rankings.append(sides) or evaluate(*sides, **more))
    assert len(by_camera_pair(*searched, NIGHT)) == 12
    assert len(rankings) == 4


@pytest.mark.parametrize("ties", ["larger_index_first", "smaller_index_first"])
def test_the_first_wrong_answer_is_the_nearest_entry_of_another_person(
    make_set: Callable[..., EmbeddingSet], ties: str
) -> None:
    rng = np.random.default_rng(3)
    query = make_set(rng.integers(1, 7, 30), rng.integers(1, 4, 30), noise=1.0, seed=1)
    gallery = make_set(rng.integers(-1, 7, 50), rng.integers(1, 4, 50), noise=1.0, seed=2)
    doubled = gallery.select(torch.arange(50).repeat(2))  # every entry ties with its copy
    protocol = Protocol("p", ties=ties, ignored_pids=(-1,), junk_camera_pairs=((2, 3),))
    found = first_wrong_rows(query, doubled, protocol)
    for row in range(30):
        allowed = [
            (-float(query.vectors[row] @ gallery.vectors[column % 50]), column)
            for column in range(100)
            if doubled.pids[column] not in (-1, query.pids[row])
            and (int(query.camids[row]), int(doubled.camids[column])) != (2, 3)
        ]
        expected = min(allowed)[1] % 50
        assert int(found[row]) == expected + (50 if ties == "larger_index_first" else 0)


def test_where_nobody_else_is_there_no_answer_is_wrong(make_set: Callable[..., EmbeddingSet]) -> None:
    query, gallery = make_set([4, 4], [1, 2], noise=0.1), make_set([4, 4, 4], [1, 2, 3], noise=0.1)
    assert first_wrong_rows(query, gallery, Protocol("p")).tolist() == [-1, -1]
    unknown = torch.tensor([4, 4]), torch.tensor([4, 4, 4])
    assert by_lookalikes(query, gallery, Protocol("p"), unknown) == ([LOOKALIKE_LEVELS[1]] * 2, None)


def test_queries_with_somebody_in_the_same_clothes_in_the_gallery_are_told_apart(
    make_set: Callable[..., EmbeddingSet],
) -> None:
    query = make_set([1, 2, 3, 5], [1] * 4, noise=0.0)
    gallery = make_set([1, 2, 3, 4, 5, 6], [2] * 6, noise=0.0)
    # 1 and 2 look alike, and so do 3 and 9, who is not there; nobody knows what 5 and 6 wear
    theirs = torch.tensor([1, 1, 3, 7, -1, -1])
    vectors = gallery.vectors.clone()
    vectors[1] = query.vectors[0] * 0.9 + vectors[1] * 0.1  # 2 is what is taken for 1
    vectors[3] = query.vectors[1] * 0.9 + vectors[3] * 0.1  # 4, who wears something else, for 2
    gallery = replace(gallery, vectors=vectors)
    levels, share = by_lookalikes(query, gallery, Protocol("p"), (torch.tensor([1, 1, 3, -1]), theirs))
    with_one, without = LOOKALIKE_LEVELS
    assert levels == [with_one, with_one, without, without]
    assert share == 0.5


@pytest.mark.parametrize("ties", ["smaller_index_first", "larger_index_first"])
def test_what_is_found_first_and_what_is_there_of_each_modality_equals_a_count_by_hand(
    make_set: Callable[..., EmbeddingSet], ties: str
) -> None:
    rng = np.random.default_rng(4)
    everyone = make_set(rng.integers(1, 9, 60), rng.integers(1, 4, 60), noise=1.0, seed=3)
    everyone = replace(everyone, modalities=torch.from_numpy((rng.random(60) < 0.3).astype(np.int64)))
    protocol = replace(mixed_protocol("p"), ties=ties)
    names, figures = by_modality(everyone, everyone, protocol)
    assert names == ["infrared" if each else "visible" for each in everyone.modalities.tolist()]
    assert list(figures) == ["visible", "infrared"]
    firsts: dict[int, list[bool]] = {0: [], 1: []}
    shares: dict[int, list[float]] = {0: [], 1: []}
    for row in range(60):
        kind = int(everyone.modalities[row])
        ranked = [
            (-float(everyone.vectors[row] @ everyone.vectors[column]), column, int(everyone.modalities[column]) == kind)
            for column in range(60)
            if (everyone.pids[column], everyone.camids[column]) != (everyone.pids[row], everyone.camids[row])
        ]
        firsts[kind].append(min(ranked)[2])
        shares[kind].append(sum(own for *_, own in ranked) / len(ranked))
    for kind, name in enumerate(figures):
        assert figures[name]["own_modality_first"] == pytest.approx(np.mean(firsts[kind]))
        assert figures[name]["own_modality_share"] == pytest.approx(np.mean(shares[kind]))
        assert figures[name]["modality_bias"] == pytest.approx(np.mean(firsts[kind]) / np.mean(shares[kind]))


def test_vectors_that_say_their_modality_first_have_a_bias_that_its_mean_takes_away(
    make_set: Callable[..., EmbeddingSet],
) -> None:
    pids = np.repeat(np.arange(1, 41), 4)
    plain = make_set(pids, np.tile([1, 2, 3, 4], 40), noise=0.6)
    infrared = torch.arange(160) % 2
    shift = torch.zeros(plain.vectors.shape[1])
    shift[0] = 1.5
    shifted = torch.nn.functional.normalize(plain.vectors + infrared.unsqueeze(1) * shift, dim=1)
    everyone = replace(plain, vectors=shifted, modalities=infrared)
    protocol = mixed_protocol("p")
    _, biased = by_modality(everyone, everyone, protocol)
    _, freed = by_modality(*normalise_cameras(everyone, everyone, "modality"), protocol)
    for name in ("visible", "infrared"):
        assert biased[name]["modality_bias"] > 1.8
        assert freed[name]["modality_bias"] < 1.3


def test_a_gallery_of_one_modality_has_no_bias(make_set: Callable[..., EmbeddingSet]) -> None:
    query, gallery = make_set([1, 2], [1, 1]), make_set([1, 2], [2, 2])
    assert by_modality(query, gallery, Protocol("p")) == (["visible", "visible"], {})
