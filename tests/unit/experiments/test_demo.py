"""The demo on a tiny scene: files, numbers, going on after a stop."""

import json
import os
import pickle
from dataclasses import replace
from pathlib import Path

import pytest

from street_clip import write_street
from tapetum.core.errors import DataError, OutputError, RecipeError
from tapetum.data.catalog import open_dataset
from tapetum.experiments import start
from tapetum.experiments.board import Board, Stage
from tapetum.experiments.demo import QUANTITIES, DemoOptions, check_out, introduce, list_folders, run_demo
from tapetum.inference.embedder import Embedder
from tapetum.inference.identity import find_calibration

CLIP = Path(
    os.environ.get("TAPETUM_CLIP", Path(__file__).parents[4] / "shared" / "data" / "one-by-one-person-detection.mp4")
)
LABELS = ("IDE+", "IDF")
TINY = ("data.size=[64, 32]", "sampler.batch=8", "sampler.steps=2", "schedule.warmup_epochs=0")


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> DemoOptions:
    out = tmp_path_factory.mktemp("demo") / "out"
    return DemoOptions(out, seed=3, people=2, epochs=1, overrides=TINY, from_scratch=True)


@pytest.fixture(scope="module")
def metrics(options: DemoOptions, one_thread: None, coarse_streets: None) -> dict:
    return run_demo(options, quiet=True)


def test_the_numbers_name_protocol_seed_and_light_levels(options: DemoOptions, metrics: dict) -> None:
    assert json.loads((options.out / "metrics.json").read_text()) == metrics
    assert list(metrics["methods"]) == [*LABELS]
    for numbers in metrics["methods"].values():
        assert all(0 <= numbers[name] <= 1 for name in QUANTITIES)
        assert numbers["protocol"] == "night600"
        assert numbers["ap"] == "trapezoid"
        assert numbers["seed"] == 3
        assert numbers["seconds"] > 0
        assert "low" in numbers["per_light"]
        assert sum(level["num_queries"] for level in numbers["per_light"].values()) == numbers["num_queries"]
    assert 0 < metrics["chance"]["mean_ap"] < 1


def test_the_models_are_calibrated_on_people_that_nobody_trained_or_tested_with(
    options: DemoOptions, metrics: dict
) -> None:
    for label, place in (("IDE+", "ide"), ("IDF", "idf")):
        found = metrics["calibration"][label]
        calibration = find_calibration(options.out / place, Embedder(options.out / place).facts)
        if calibration is None:  # one epoch on two people: a similarity may say nothing
            assert "a similarity says nothing" in found["reason"]
            continue
        pair = found["pairs"]["visible-visible"]
        assert (pair["fitted_people"], pair["people"]) == (7, 7)
        assert calibration.checked["visible-visible"]["thresholds"] == pair["thresholds"]
    scene, others = (open_dataset("synth", options.out / name) for name in ("scene", "others"))
    assert not {record.pid for record in scene.records} & {record.pid for record in others.records}
    assert {record.camid for record in scene.records} == {record.camid for record in others.records}


def test_the_report_holds_both_methods_the_chance_level_and_the_command(options: DemoOptions, metrics: dict) -> None:
    page = (options.out / "report.html").read_text(encoding="utf-8")
    assert "IDE+" in page
    assert "IDF" in page
    assert "chance" in page.lower()
    assert "tapetum demo" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert metrics["command"].startswith("tapetum demo --out")


def test_the_searches_rank_ten_pictures_of_the_gallery(options: DemoOptions, metrics: dict) -> None:
    searches = json.loads((options.out / "searches.json").read_text())
    for label in LABELS:
        for answer in searches[label]:
            assert [match["rank"] for match in answer["matches"]] == list(range(1, 11))
            similarities = [match["similarity"] for match in answer["matches"]]
            assert similarities == sorted(similarities, reverse=True)
            assert (
                answer["matches"][0]["path"] == answer["query"]
            )  # Night600's rule: queries are in the gallery as well


@pytest.mark.slow
@pytest.mark.skipif(not CLIP.is_file(), reason=f"the real clip is not at {CLIP}; set TAPETUM_CLIP to try it")
def test_trained_methods_are_tried_on_the_real_clip_as_it_is_and_darkened(options: DemoOptions, metrics: dict) -> None:
    found = run_demo(replace(options, clip=CLIP), quiet=True)
    real = found["real"]
    assert real["facts"]["appearances found"] == 6
    for look in ("as_is", "darkened"):
        for label in LABELS:
            assert real[look][label]["num_queries"] > 50
            assert real["chance"]["mean_ap"] > 0
    day, night = (set(real[look]["IDE+"]["per_light"]) for look in ("as_is", "darkened"))
    assert "high" in day
    assert "low" in night
    page = (options.out / "report.html").read_text(encoding="utf-8")
    assert "one-by-one-person-detection.mp4" in page


@pytest.mark.slow
def test_a_clip_of_two_people_becomes_a_section_of_the_report(
    options: DemoOptions, metrics: dict, tmp_path: Path
) -> None:
    street_clip = write_street(tmp_path / "street.mp4")
    found = run_demo(replace(options, clip=street_clip), quiet=True)
    assert found["real"]["facts"]["appearances found"] == 2
    assert found["real"]["as_is"]["IDF"]["protocol"] == "folder"
    assert street_clip.name in (options.out / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["", "gone.mp4"])
def test_a_missing_clip_is_refused_before_anything_is_trained(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="no such clip"):
        run_demo(DemoOptions(tmp_path / "out", clip=tmp_path / name), quiet=True)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_typed_again_with_another_method_it_trains_that_alone_and_the_other_numbers_stay(
    options: DemoOptions, metrics: dict
) -> None:
    weights = [options.out / name / "checkpoints" / "last.safetensors" for name in ("ide", "idf")]
    written = [path.stat().st_mtime_ns for path in weights]
    found = run_demo(replace(options, methods=("idf", "ide", "mb_mb")), quiet=True)
    assert [path.stat().st_mtime_ns for path in weights] == written
    assert list(found["methods"]) == ["IDF", "IDE+", "MB+MB"]
    assert {label: found["methods"][label] for label in LABELS} == metrics["methods"]
    assert found["methods"]["MB+MB"]["recipe"] == "mb_mb_synth"
    page = (options.out / "report.html").read_text(encoding="utf-8").replace("&#43;", "+")
    assert "Three methods were trained" in page
    assert "points mAP to IDF" in page, "the first is the baseline"
    assert "Night and its enhancement" in page, "IDF's, though the last method enhances nothing"
    assert "--methods idf,ide,mb_mb" in page


def test_other_settings_in_the_same_folder_are_refused(options: DemoOptions, metrics: dict) -> None:
    other = DemoOptions(options.out, seed=3, people=2, epochs=2, overrides=TINY)
    with pytest.raises(RecipeError, match="epochs"):
        run_demo(other, quiet=True)


def test_a_folder_of_other_things_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(OutputError, match=r"thesis\.tex"):
        check_out(tmp_path, list_folders())


def test_a_report_begins_with_the_methods_that_were_trained() -> None:
    looks = "looks at each picture twice, as it is and brightened by a network trained along."
    trained = "trained on generated night pictures of some people and tested on others"
    they, it = f"{trained} whom they have never seen", f"{trained} whom it has never seen"
    assert introduce(["IDE+", "IDF"]) == f"Two methods were {they}: the baseline IDE+, and IDF, which {looks}"
    assert introduce(["BoT"]) == f"One method was {it}: BoT."
    assert introduce(["IDF", "BoT"]) == f"Two methods were {they}: the baseline IDF, and BoT. IDF {looks}"
    assert (
        introduce(["BoT", "AGW", "IDF"]) == f"Three methods were {they}: the baseline BoT, AGW and IDF, which {looks}"
    )


def test_the_command_repeats_what_differs_from_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    options = DemoOptions(Path("runs/x"), seed=5, clip=Path("a clip.mp4"), overrides=("training.precision=fp32",))
    repeated = "tapetum demo --out runs/x --seed 5 --clip 'a clip.mp4' --set training.precision=fp32"
    assert replace(options, from_scratch=True).command == repeated.replace(" --set", " --from-scratch --set")
    monkeypatch.setattr(start, "is_installed", lambda backbone: True)
    assert options.command == repeated
    assert "--seed 5 --methods bot,agw --clip" in replace(options, methods=("bot", "agw")).command


def test_the_board_counts_stages_by_their_weight(capsys: pytest.CaptureFixture[str]) -> None:
    board = Board([Stage("first", 300.0), Stage("second", 60.0)])
    with board.showing():
        board.begin("first")
        board.finish_stage(at_once=True)
        board.begin("second")
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["[1/2] first; about 6 min 00 s left", "[2/2] second; about 1 min 00 s left"]


def test_the_board_goes_along_into_a_training_process(capsys: pytest.CaptureFixture[str]) -> None:
    board = Board([Stage("train", 60.0)])
    with board.showing():
        board.begin("train")
        copy = pickle.loads(pickle.dumps(board))
        copy.start(title="ide", epochs=1, steps=2, done=0)
        copy.step(epoch=1, loss=1.0, images_per_second=2.0)
        copy.epoch({"epoch": 1, "loss": 1.0, "images_per_second": 2.0})
    assert "epoch 1/1  loss 1.00  2 images/s" in capsys.readouterr().err
