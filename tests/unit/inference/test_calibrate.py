import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from tapetum.core.errors import DataError, ProtocolError
from tapetum.core.protocol import Protocol
from tapetum.core.seeding import numpy_generator
from tapetum.core.types import EmbeddingSet, Match, Modality, Record
from tapetum.core.vectors import normalise
from tapetum.data.catalog import Dataset, open_dataset
from tapetum.data.datasets import regdb
from tapetum.data.datasets.night600 import picture_path
from tapetum.evaluation.calibration import Calibration, read_calibration
from tapetum.experiments.calibrated import other_settings
from tapetum.experiments.demo import scene_settings
from tapetum.gallery.embedding_search import search
from tapetum.inference.calibrate import (
    CalibrationOptions,
    calibrate_embeddings,
    calibrate_run,
    held_out_records,
    split_people,
)
from tapetum.inference.embedder import Embedder
from tapetum.inference.identity import calibration_path, find_calibration
from tapetum.runs.recipe import Recipe, load_recipe
from tapetum.runs.sources import open_scene
from tapetum.searching.match_rule import MatchRule, build_match_rule
from tapetum.searching.pictures import count_modalities
from tapetum.training.train import train

Build = Callable[..., Recipe]
VISIBLE, ACROSS = "visible-visible", "visible-infrared"
RULES = Protocol("test")
QUICK = CalibrationOptions(draws=50)


def crowd(people: int, first: int = 0, *, noise: float = 1.2, both: bool = False) -> EmbeddingSet:
    """Two pictures of each person under each of two cameras; the second may see infrared, where all look paler."""
    rng = torch.Generator().manual_seed(first)
    pids = torch.arange(people).repeat_interleave(4)
    camids = torch.tensor([1, 1, 2, 2]).repeat(people)
    vectors = torch.randn(people, 48, generator=rng)[pids] + noise * torch.randn(len(pids), 48, generator=rng)
    modalities = camids - 1 if both else torch.zeros_like(pids)
    vectors[:, 0] += 6 * modalities
    paths = tuple(Path(f"{first + pid}_{row}.jpg") for row, pid in enumerate(pids.tolist()))
    return EmbeddingSet(normalise(vectors), paths, pids + first, camids, modalities)


def calibrate(people: int, *, both: bool = False, **settings: object) -> Calibration:
    options = replace(QUICK, **settings)  # type: ignore[arg-type]
    halves = crowd(people, both=both), crowd(people, people, both=both)
    found, _ = calibrate_embeddings(*halves, RULES, options=options, model={}, data={}, seed=0)
    return found


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    return calibrate(400)


def test_on_people_it_was_not_fitted_on_a_calibration_keeps_its_word(calibration: Calibration) -> None:
    checked = calibration.checked[VISIBLE]
    assert checked["calibration_error"] <= 0.05
    low, high = checked["calibration_error_interval"]
    assert 0 <= low <= high <= 0.06
    stated = {(row["gallery"], row["rate"]): row for row in checked["thresholds"]}
    assert {(None, 0.1), (None, 0.01), (None, 0.001), (10, 0.1), (100, 0.1), (1000, 0.1)} <= set(stated)
    for (gallery, rate), row in stated.items():
        assert row["observed"] == pytest.approx(rate, rel=0.2), (gallery, rate)
        assert row["observed_interval"][0] <= row["observed"] <= row["observed_interval"][1]
        assert row["threshold"] == calibration.threshold(rate, VISIBLE, gallery=gallery)
    found = [stated[gallery, 0.1]["found"] for gallery in (10, 100, 1000)]
    assert found == sorted(found, reverse=True)
    assert json.loads(json.dumps(checked)) == checked


def test_stated_rates_are_kept_on_average_over_crowds_and_lie_in_their_intervals() -> None:
    ratios: dict[tuple[int | None, float], list[float]] = {}
    inside = []
    for number in range(8):
        halves = crowd(100, 10_000 * (number + 1)), crowd(100, 10_000 * (number + 1) + 5000)
        found, _ = calibrate_embeddings(*halves, RULES, options=QUICK, model={}, data={}, seed=number)
        for row in found.checked[VISIBLE]["thresholds"]:
            ratios.setdefault((row["gallery"], row["rate"]), []).append(row["observed"] / row["rate"])
            inside.append(row["observed_interval"][0] <= row["rate"] <= row["observed_interval"][1])
    assert {(None, 0.1), (None, 0.01), (10, 0.1), (100, 0.1)} <= set(ratios)
    for place, found_ratios in ratios.items():
        assert np.mean(found_ratios) == pytest.approx(1, abs=0.15), place
    assert all(abs(ratio - 1) <= 0.2 for place in ((None, 0.1), (None, 0.01), (10, 0.1)) for ratio in ratios[place])
    assert np.mean(inside) > 0.6  # the interval covers the checked half, not the one that was fitted on


def test_thresholds_err_to_neither_side() -> None:
    """Fitted on either half and checked on the other, what luck adds one way it takes the other: bias is left."""
    ratios: dict[tuple[int | None, float], list[float]] = {}
    for number in range(3):
        halves = crowd(150, 50_000 + 1000 * number), crowd(150, 50_500 + 1000 * number)
        for fit, check in (halves, halves[::-1]):
            found, _ = calibrate_embeddings(fit, check, RULES, options=QUICK, model={}, data={}, seed=number)
            for row in found.checked[VISIBLE]["thresholds"]:
                ratios.setdefault((row["gallery"], row["rate"]), []).append(np.log(row["observed"] / row["rate"]))
    steady = {(None, 0.1), (None, 0.01), (10, 0.1)}
    assert steady < set(ratios)
    for place, logarithms in ratios.items():
        assert abs(np.mean(logarithms)) < (0.01 if place in steady else 0.06), place


@pytest.mark.parametrize("prior", [0.5, 0.01])
def test_the_error_is_small_at_the_stated_prior(prior: float) -> None:
    checked = calibrate(150, prior=prior).checked[VISIBLE]
    assert checked["calibration_error"] <= 0.05


def test_each_pair_of_modalities_has_a_calibration_of_its_own() -> None:
    found = calibrate(120, both=True)
    assert list(found.pairs) == [ACROSS]  # one camera a modality: no pair within one
    assert found.checked[ACROSS]["calibration_error"] <= 0.05
    with pytest.raises(ProtocolError, match="not calibrated"):
        found.probability(0.5, VISIBLE)


def test_rates_that_too_few_people_cannot_support_are_not_stated() -> None:
    checked = calibrate(12).checked[VISIBLE]
    assert {(row["gallery"], row["rate"]) for row in checked["thresholds"]} == {(None, 0.1)}


def test_a_wanted_gallery_is_looked_at_and_one_that_is_too_large_is_refused() -> None:
    found = calibrate(60, galleries=(37,))
    assert list(found.pairs[VISIBLE].searches) == [10, 37, 100, 236]
    with pytest.raises(ProtocolError, match=r"a gallery of 5000 pictures cannot be looked at.* 236 pictures"):
        calibrate(60, galleries=(5000,))


@pytest.mark.parametrize("sizes", [(30, 20), (20, 30)])
def test_the_largest_gallery_is_one_that_either_half_has(sizes: tuple[int, int]) -> None:
    fit, check = crowd(sizes[0]), crowd(sizes[1], 100)
    found, _ = calibrate_embeddings(fit, check, RULES, options=QUICK, model={}, data={}, seed=0)
    assert max(found.pairs[VISIBLE].searches) == 4 * 19


def test_with_too_few_people_the_reason_is_given() -> None:
    with pytest.raises(ProtocolError, match="4 people of one half"):
        calibrate(4)


SEEN = Modality.VISIBLE, Modality.VISIBLE


def probability(rule: MatchRule, similarity: float) -> float:
    found = rule.probability(similarity, *SEEN)
    assert found is not None
    return found


def matches(gallery: EmbeddingSet, row: int) -> list[Match]:
    rest = gallery.select(torch.arange(len(gallery)) != row)
    return search(gallery.vectors[row : row + 1], rest, 5)[0]


def test_a_search_for_somebody_in_the_gallery_finds_a_match_and_for_a_stranger_seldom(calibration: Calibration) -> None:
    gallery = crowd(200, 10_000, noise=0.7)
    rule = build_match_rule(calibration, count_modalities(gallery))
    assert rule.by_search
    assert rule.rate == 0.1
    assert rule.words.endswith("which 10 % of searches in 800 pictures for somebody who is not there reach")
    best = [matches(gallery, row)[0].similarity for row in range(0, 800, 8)]
    assert np.mean([rule.accepts(similarity, *SEEN) for similarity in best]) > 0.9
    assert np.mean([probability(rule, similarity) for similarity in best]) > 0.9
    strangers = crowd(200, 20_000).vectors
    alarms = [rule.accepts(answers[0].similarity, *SEEN) for answers in search(strangers, gallery, 1)]
    assert np.mean(alarms) < 0.2
    assert probability(rule, -0.2) < 0.05
    doubtful = build_match_rule(calibration, count_modalities(gallery), prior=0.001)
    assert probability(doubtful, 0.3) < probability(rule, 0.3)


def test_a_rate_that_the_calibration_cannot_support_falls_back_on_comparisons_or_is_refused() -> None:
    few, gallery = calibrate(20), crowd(30, 10_000)
    rule = build_match_rule(few, count_modalities(gallery))
    assert not rule.by_search
    assert rule.rate == 0.1
    assert "10 % of comparisons of two people" in rule.words
    with pytest.raises(ProtocolError, match=r"20 people are too few for a false-alarm rate of 0.1 of searches in 120"):
        build_match_rule(few, count_modalities(gallery), rate=0.1)
    with pytest.raises(ProtocolError, match="must lie inside"):
        build_match_rule(few, count_modalities(gallery), prior=1.0)


def test_a_part_of_a_gallery_in_another_modality_has_its_own_threshold_and_half_of_the_rate() -> None:
    halves = [EmbeddingSet(*parts) for parts in (_four_cameras(300, 0), _four_cameras(300, 300))]
    found, skipped = calibrate_embeddings(*halves, RULES, options=QUICK, model={}, data={}, seed=0)
    assert skipped == {}
    assert len(found.pairs) == 3
    gallery = EmbeddingSet(*_four_cameras(20, 5000))
    rule = build_match_rule(found, count_modalities(gallery), modalities=[Modality.INFRARED], rate=0.2)
    across, within = (rule.bars[Modality.INFRARED, each] for each in Modality)
    assert (across.pair, within.pair) == (ACROSS, "infrared-infrared")
    assert across.threshold < within.threshold
    assert across.threshold == found.threshold(0.1, ACROSS, gallery=40)


def _four_cameras(people: int, first: int) -> tuple[object, ...]:
    one, two = crowd(people, first, both=True), crowd(people, first, both=True)
    rng = torch.Generator().manual_seed(first + 1)
    vectors = normalise(torch.cat([one.vectors, two.vectors + 0.05 * torch.randn(two.vectors.shape, generator=rng)]))
    return (
        vectors,
        (*one.paths, *(Path(f"again_{path}") for path in two.paths)),
        torch.cat([one.pids, two.pids]),
        torch.cat([one.camids, two.camids + 2]),
        torch.cat([one.modalities, two.modalities]),
    )


@pytest.fixture(scope="module")
def street(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Night600's layout with eight training and 28 testing people in striped clothes under two cameras."""
    root = tmp_path_factory.mktemp("street")
    rng = np.random.default_rng(7)
    colours = rng.integers(20, 220, (36, 8, 1, 3))
    for pid, camid, index in np.ndindex(36, 2, 2):
        stripes = np.clip(colours[pid] + rng.integers(-12, 12, (8, 4, 3)) - 10 * camid, 0, 255).astype(np.uint8)
        picture = cv2.imencode(".png", cv2.resize(stripes, (16, 32), interpolation=cv2.INTER_NEAREST))[1].tobytes()
        for split in ["train"] if pid < 8 else ["gallery", "query"] if index == 0 else ["gallery"]:
            path = root / picture_path(split, pid, camid + 1, index)
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(picture)
    return root


@pytest.fixture(scope="module")
def run(tiny_recipe: Build, street: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("calibrate") / "run"
    train(tiny_recipe(overrides=["schedule.epochs=1", f"data.root={street}"]), root)
    return root


def test_a_run_is_calibrated_on_its_test_people_and_the_file_found_again(run: Path) -> None:
    found = calibrate_run(run, options=QUICK)
    assert found.path == calibration_path(run) == run / "calibration.json"
    embedder = Embedder(run)
    again = find_calibration(run, embedder.facts)
    assert again == found.calibration
    assert again.model["checkpoint"] == embedder.digest
    assert again.data["pictures"] == 28 * 4
    assert again.data["people"] == "test"
    assert again.data["weights_chosen_by"] == "last complete epoch, 1 of 1"
    assert again.seed == embedder.recipe.seed
    assert again.pairs[VISIBLE].counts["people"] == again.checked[VISIBLE]["people"] == 14
    assert again.pairs[VISIBLE].counts["same"] == 14 * 4  # across the two cameras
    other = calibrate_run(run, options=QUICK, seed=5, out=run / "other.json")
    assert other.calibration.pairs != again.pairs
    assert calibrate_run(run, options=QUICK, out=run / "same.json").calibration == again


def test_a_calibration_of_another_model_is_refused(run: Path, tiny_recipe: Build, street: Path, tmp_path: Path) -> None:
    calibrate_run(run, options=QUICK)
    train(tiny_recipe(overrides=["schedule.epochs=1", f"data.root={street}", "seed=1"]), tmp_path / "run")
    assert find_calibration(tmp_path / "run", Embedder(tmp_path / "run").facts) is None
    with pytest.raises(ProtocolError, match=r"calibration\.json: made for checkpoint"):
        find_calibration(tmp_path / "run", Embedder(tmp_path / "run").facts, calibration_path(run))
    with pytest.raises(ProtocolError, match="made for mirror True, the model in use has False"):
        find_calibration(run, Embedder(run, mirror=False).facts)


def test_people_that_a_run_set_aside_can_be_taken(tiny_recipe: Build, street: Path) -> None:
    dataset = open_dataset("night600", street)
    trained = [0, 1, 2]
    records = held_out_records(dataset, dataset.protocol(), trained, people="holdout")
    assert {record.pid for record in records} == {3, 4, 5, 6, 7}
    with pytest.raises(DataError, match="use --people test"):
        held_out_records(dataset, dataset.protocol(), (), people="holdout")
    with pytest.raises(DataError, match=r"no holdout people .* selection\.rule = holdout"):
        held_out_records(dataset, dataset.protocol(), range(8), people="holdout")


def test_nobody_that_a_run_was_trained_on_is_calibrated_with(street: Path) -> None:
    dataset = open_dataset("night600", street)
    rules = dataset.protocol()
    everybody = {record.pid for record in held_out_records(dataset, rules, range(8))}
    assert everybody == set(range(8, 36))
    assert {record.pid for record in held_out_records(dataset, rules, [8, 9])} == everybody - {8, 9}
    assert {record.pid for record in held_out_records(dataset, rules, [8, 9], own=False)} == everybody
    with pytest.raises(DataError, match="holds no test people that the run was not trained on; give --data NAME=ROOT"):
        held_out_records(dataset, rules, range(36))


def test_equal_numbers_of_a_layout_that_numbers_its_test_people_anew_are_nobody_known(tmp_path: Path) -> None:
    regdb.write_miniature(tmp_path, numpy_generator(0))
    dataset = open_dataset("regdb", tmp_path)
    trained = sorted({record.pid for record in dataset.split("train")})
    found = held_out_records(dataset, dataset.protocol(), trained)
    assert {record.pid for record in found} == {record.pid for record in dataset.side("query")} == set(trained)


def test_a_dataset_without_test_people_is_refused(run: Path, street: Path) -> None:
    dataset = open_dataset("night600", street)
    bare = replace(dataset, records=tuple(dataset.split("train")))
    with pytest.raises(DataError, match="no test people"):
        calibrate_run(run, dataset=bare, options=QUICK)


def test_a_picture_that_is_query_and_gallery_counts_once(street: Path) -> None:
    dataset = open_dataset("night600", street)
    rules = dataset.protocol()
    records = held_out_records(dataset, rules, range(8))
    assert len(records) == 28 * 4 < len(dataset.side("query")) + len(dataset.side("gallery"))


def test_people_are_cut_in_two_halves_that_share_nobody_and_follow_the_seed() -> None:
    records = [Record(Path(f"{pid}.jpg"), pid, 1) for pid in range(31)]
    fit, check = split_people(records, 3)
    assert sorted([*fit, *check]) == list(range(31))
    assert len(fit) == 16
    assert split_people(records[::-1], 3) == (fit, check)
    assert split_people(records, 4) != (fit, check)
    with pytest.raises(ProtocolError, match="10 held-out people are too few"):
        split_people(records[:10], 3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prior": 0.0}, "prior 0: must lie inside"),
        ({"rates": (0.1, 2.0)}, "false-alarm rate 2"),
        ({"method": "spline"}, "method 'spline' is unknown"),
        ({"galleries": (0,)}, "must hold at least 1"),
    ],
)
def test_options_that_cannot_work_are_refused_before_anything_is_read(
    settings: dict[str, object], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ProtocolError, match=message):
        calibrate_run(tmp_path / "nowhere", options=replace(QUICK, **settings))  # type: ignore[arg-type]
    with pytest.raises(ProtocolError, match="people 'all' is unknown"):
        calibrate_run(tmp_path / "nowhere", people="all")  # type: ignore[arg-type]


def test_a_calibration_is_written_whole_or_not_at_all(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calibrate_run(run, options=QUICK)
    before = read_calibration(calibration_path(run))
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(Exception, match="cannot be written"):
        calibrate_run(run, options=QUICK, seed=9)
    monkeypatch.undo()
    assert read_calibration(calibration_path(run)) == before


def test_a_dataset_may_be_given_whose_pids_mean_other_people(run: Path, street: Path) -> None:
    dataset = open_dataset("night600", street)
    other = Dataset("folder", dataset.root, dataset.records, dataset.protocols, dataset.default_protocol)
    found = calibrate_run(run, dataset=other, options=QUICK, out=run / "theirs.json")
    assert found.calibration.data["name"] == "folder"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_on_generated_people_a_trained_model_keeps_its_word(tmp_path: Path, one_thread: None) -> None:
    """Nobody of the training, under the same cameras; each cut in both directions, so that luck cancels."""
    scene = scene_settings(40, seed=11) | {"num_test_people": 4, "pictures_per_camera": 2}
    root = tmp_path / "run"
    words = ("data.size=[64, 32]", "schedule.epochs=8", "sampler.batch=16", "method.backbone=resnet10t", "seed=11")
    recipe = load_recipe("ide_synth", [*words, f"data.root={tmp_path / 'scene'}"])
    train(recipe, root, dataset=open_scene(scene, tmp_path / "scene"))
    others = open_scene(other_settings(scene) | {"num_test_people": 200}, tmp_path / "others")
    embedder = Embedder(root)
    records = held_out_records(others, others.protocol(), embedder.checkpoint.header.pids)
    embeddings, _ = embedder.describe(records)
    assert len(records) == 200 * 8
    ratios: dict[tuple[int | None, float], list[float]] = {}
    for seed in range(3):
        cut = [torch.isin(embeddings.pids, torch.tensor(pids)) for pids in split_people(records, seed)]
        halves = [embeddings.select(rows) for rows in cut]
        for fit, check in (halves, halves[::-1]):
            found, _ = calibrate_embeddings(fit, check, RULES, options=QUICK, model={}, data={}, seed=seed)
            assert found.checked[VISIBLE]["calibration_error"] <= 0.05
            for row in found.checked[VISIBLE]["thresholds"]:
                ratios.setdefault((row["gallery"], row["rate"]), []).append(np.log(row["observed"] / row["rate"]))
    assert {(None, 0.1), (None, 0.01), (10, 0.1), (100, 0.1)} <= set(ratios)
    for place, logarithms in ratios.items():
        assert abs(np.mean(logarithms)) < 0.2, place
        assert place[0] is not None or abs(np.mean(logarithms)) < 0.05, place
