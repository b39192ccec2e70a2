"""The demo across modalities on a tiny scene: both directions, one table, figures of every testing picture."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tapetum.core.errors import DataError, OutputError
from tapetum.core.types import EmbeddingSet, Modality
from tapetum.experiments import calibrated, demo
from tapetum.experiments.demo import QUANTITIES, check_out
from tapetum.experiments.demo_infrared import (
    DIRECTIONS,
    InfraredDemoOptions,
    describe_training,
    list_folders,
    run_infrared_demo,
)
from tapetum.inference.evaluate import evaluate_run
from tapetum.report.collect import collect_across, crosses_modalities
from tapetum.report.runs import collect_content, find_cards, find_test, read_runs
from tapetum.report.sides import describe_sides, join_sides, split_by_modality
from tapetum.runs.recipe import load_recipe

TINY = ("data.size=[64, 32]", "sampler.ids=2", "sampler.pictures=2", "schedule.warmup_epochs=0", "sampler.steps=2")
SMALL = ("method.backbone=test_resnet", "method.last_stride=2")


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> InfraredDemoOptions:
    out = tmp_path_factory.mktemp("demo") / "out"
    changes = (*TINY, *SMALL)
    return InfraredDemoOptions(
        out, seed=3, people=2, epochs=1, methods=("agw", "deen"), overrides=changes, from_scratch=True
    )


@pytest.fixture(scope="module", autouse=True)
def few_others() -> Iterator[None]:
    """Twelve people to calibrate with, where the demo takes seven times as many as it tests with."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calibrated, "OTHERS", 3)
        yield


@pytest.fixture(scope="module")
def metrics(options: InfraredDemoOptions, few_others: None, one_thread: None, coarse_streets: None) -> dict:
    return run_infrared_demo(options, quiet=True)


def test_every_method_has_its_numbers_in_both_directions_over_ten_trials(
    options: InfraredDemoOptions, metrics: dict
) -> None:
    assert json.loads((options.out / "metrics.json").read_text()) == metrics
    assert list(metrics["methods"]) == ["AGW", "DEEN"]
    for label, ways in metrics["methods"].items():
        assert ways["seconds"] > 0
        for way, protocol in DIRECTIONS.items():
            numbers = ways[way]
            assert all(0 <= numbers[name] <= 1 for name in (*QUANTITIES, "rank20"))
            assert (numbers["protocol"], numbers["trials"], numbers["ap"]) == (protocol, 10, "step")
            assert numbers["recipe"] == options.recipes[label]
    assert all(0 < metrics["chance"][way]["mean_ap"] < 1 for way in DIRECTIONS)


def test_every_method_is_calibrated_for_each_pair_of_modalities_or_the_reason_is_told(
    options: InfraredDemoOptions, metrics: dict
) -> None:
    assert list(metrics["calibration"]) == list(metrics["methods"])
    page = (options.out / "report.html").read_text(encoding="utf-8")
    for label, found in metrics["calibration"].items():
        if "reason" in found:
            assert f"{label} is not calibrated" in page.replace("&#43;", "+")
            continue
        assert {*found["pairs"], *found["left_out"]} == {"visible-visible", "visible-infrared", "infrared-infrared"}
        assert all(f"{label}, {pair}" in page.replace("&#43;", "+") for pair in found["pairs"])


def test_its_report_holds_one_table_of_both_directions_and_the_figures(
    options: InfraredDemoOptions, metrics: dict
) -> None:
    page = (options.out / "report.html").read_text(encoding="utf-8")
    assert "Every method, both directions, percent, mean ± deviation of 10 trials" in page
    for label in metrics["methods"]:
        assert f"{label}: distances of all pairs" in page
        assert f"{label}: map of embeddings" in page
    assert "<small>infrared</small>" in page, "a query says of which modality it is"
    assert "tapetum demo-ir --out" in page


def test_searches_go_from_infrared_to_every_visible_picture(options: InfraredDemoOptions, metrics: dict) -> None:
    searches = json.loads((options.out / "searches.json").read_text())
    for answers in searches.values():
        for answer in answers:
            assert len(answer["matches"]) == 10
            assert answer["query"] not in {match["path"] for match in answer["matches"]}


@pytest.mark.slow
def test_typed_again_with_another_method_it_trains_that_alone_and_the_other_numbers_stay(
    options: InfraredDemoOptions, metrics: dict
) -> None:
    weights = options.out / "deen" / "checkpoints" / "last.safetensors"
    written = weights.stat().st_mtime_ns
    found = run_infrared_demo(replace(options, methods=("deen", "mclnet"), enhanced=True), quiet=True)
    assert weights.stat().st_mtime_ns == written
    assert list(found["methods"]) == ["DEEN", "MCLNet", "IDF + DEEN"]
    assert found["methods"]["DEEN"] == metrics["methods"]["DEEN"]
    assert found["methods"]["MCLNet"]["IR→VIS"]["recipe"] == "mclnet_synth"
    page = (options.out / "report.html").read_text(encoding="utf-8")
    assert "Night and its enhancement" in page, "the last one brightens"
    assert "--methods deen,mclnet --enhanced" in page


def test_without_a_word_the_baselines_and_deen_are_trained() -> None:
    assert list(InfraredDemoOptions(Path("runs/x")).recipes) == ["two-stream", "AGW", "DEEN"]
    assert list(InfraredDemoOptions(Path("runs/x"), enhanced=True).recipes)[3:] == ["IDF + DEEN"]


def test_sides_are_described_in_full_whatever_the_trials_drew(options: InfraredDemoOptions, metrics: dict) -> None:
    place = options.out / "deen"
    label, sides = describe_sides(place, protocol=DIRECTIONS["IR→VIS"])
    assert label == "deen_synth"
    assert (len(sides.query), len(sides.gallery)) == (4 * 3 * 2, 4 * 4 * 2)  # people, cameras, pictures
    assert set(sides.query.modalities.tolist()) == {int(Modality.INFRARED)}
    assert (sides.protocol.trials, sides.protocol.drawn) == (1, None)
    _, kept = find_test(place)
    rows = torch.tensor([sides.gallery.paths.index(path) for path in kept.gallery.paths])
    assert torch.equal(sides.gallery.vectors[rows], kept.gallery.vectors), "kept embeddings are used again"


def test_figures_are_of_the_usual_protocol_where_a_run_was_tested_by_several(
    options: InfraredDemoOptions, metrics: dict, tmp_path: Path
) -> None:
    place = shutil.copytree(options.out / "agw", tmp_path / "agw")
    (mixed,) = evaluate_run(place, ["llcm_mixed"], draws=10)
    assert find_cards(place)[0] == mixed.path, "by name, it is the first"
    assert find_test(place)[0].card.rules.name == DIRECTIONS["IR→VIS"]
    for path in find_cards(place):
        content = json.loads(path.read_text())
        content["recipe"]["evaluation"]["protocol"] = DIRECTIONS["VIS→IR"]
        path.write_text(json.dumps(content))
    assert find_test(place)[0].card.rules.name == DIRECTIONS["VIS→IR"]
    for path in find_cards(place):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"recipe": {}}))
    assert find_test(place)[0].card.rules.name == "llcm_mixed", "nobody knows which is the usual one"


def test_pictures_that_were_not_kept_are_described_alike(
    options: InfraredDemoOptions, metrics: dict, tmp_path: Path, one_thread: None
) -> None:
    _, kept = describe_sides(options.out / "agw")
    (weights,) = (options.out / "agw" / "checkpoints").glob("last.safetensors")
    copy = tmp_path / "agw.safetensors"
    copy.write_bytes(weights.read_bytes())
    _, anew = describe_sides(copy)
    assert anew.query.paths == kept.query.paths
    assert torch.allclose(anew.query.vectors, kept.query.vectors, atol=1e-5)


def test_other_pictures_than_those_of_the_card_are_refused(options: InfraredDemoOptions, metrics: dict) -> None:
    card = read_runs([options.out / "agw"])[0].results[0].card
    describe_sides(options.out / "agw", card=card)
    pictures = {**card.data["pictures"], "query": "0123456789abcdef"}
    card = replace(card, data={**card.data, "pictures": pictures})
    with pytest.raises(DataError, match=r"not those of its result card; .*--data synth=ROOT"):
        describe_sides(options.out / "agw", card=card)


def test_a_report_of_the_runs_shows_the_same_table_and_figures(options: InfraredDemoOptions, metrics: dict) -> None:
    places = [options.out / "agw", options.out / "deen"]
    content = collect_content(places, title="Two", command="tapetum report build", searches=1)
    assert [result.method for result in content.results] == ["agw_synth", "agw_synth", "deen_synth", "deen_synth"]
    assert list(content.distances) == list(content.maps) == list(content.curves) == ["agw_synth", "deen_synth"]
    for found in content.distances.values():
        assert int(found.intra.sum() + found.inter.sum()) == (4 * 3 * 2) * (4 * 4 * 2), "a pair is missing"


def test_with_one_modality_there_is_nothing_across(options: InfraredDemoOptions, metrics: dict) -> None:
    _, sides = describe_sides(options.out / "agw")
    visible: EmbeddingSet = sides.gallery
    test = replace(sides, query=visible)
    assert not crosses_modalities(test.query, test.gallery)
    assert collect_across({"AGW": test}) == ({}, {})
    assert len(join_sides(visible, visible)) == len(visible)
    first, second = split_by_modality(visible, visible, sides.protocol)
    assert first.paths == second.paths == visible.paths


def test_a_folder_of_the_other_demo_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ide").mkdir()
    check_out(tmp_path, demo.list_folders())
    with pytest.raises(OutputError, match="holds ide"):
        check_out(tmp_path, list_folders())


def test_the_command_repeats_what_differs_from_the_defaults() -> None:
    options = InfraredDemoOptions(Path("runs/x"), people=9, enhanced=True, overrides=("training.precision=fp32",))
    repeated = "tapetum demo-ir --out runs/x --people 9 --enhanced --from-scratch --set training.precision=fp32"
    assert replace(options, from_scratch=True).command == repeated


def test_a_report_says_whose_training_pictures_are_changed_in_a_way_of_their_own() -> None:
    recipes = {label: load_recipe(name) for label, name in {"AGW": "agw_synth", "CAJ": "caj_synth"}.items()}
    assert "but CAJ with changes to the pictures that are part of the method" in describe_training(recipes)
    assert "so that network and losses alone tell them apart" in describe_training({"AGW": recipes["AGW"]})


def test_a_quarter_as_many_people_are_searched_for_as_are_trained_on() -> None:
    for people, tested in ((160, 40), (4, 4)):
        scene = InfraredDemoOptions(Path("runs/x"), people=people).scene()
        assert (scene["num_train_people"], scene["num_test_people"]) == (people, tested)
