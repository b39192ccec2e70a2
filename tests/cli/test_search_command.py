"""``tapetum search`` in a gallery, run as a user would."""

import csv
import json
import re
import shlex
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from gallery_rows import RUN, a_row, some_vectors
from street_clip import write_street
from tapetum.cli import main
from tapetum.core.digest import digest_file
from tapetum.core.types import Modality
from tapetum.data.image_io import read_picture
from tapetum.evaluation.calibration import Calibration, PairCalibration, write_calibration
from tapetum.evaluation.thresholds import Tail
from tapetum.gallery.filters import Compare
from tapetum.gallery.opening import open_gallery
from tapetum.gallery.schema import ModelInfo, Row
from tapetum.inference.sessions import open_model
from tapetum.runs.recipe import Recipe
from tapetum.searching.calibrated import calibration_of_gallery
from tapetum.training.train import train


@dataclass(frozen=True)
class Outcome:
    status: int
    out: str
    err: str

    @property
    def answers(self) -> list[list[str]]:
        return [re.split(r"  +", line.strip()) for line in self.out.splitlines() if re.match(r" +\d+  ", line)]


Call = Callable[[str], Outcome]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    def run(command: str) -> Outcome:
        monkeypatch.setattr(sys, "argv", shlex.split(command))
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main.run()
        streams = capsys.readouterr()
        return Outcome(left.value.code if isinstance(left.value.code, int) else 0, streams.out, streams.err)

    return run


@dataclass(frozen=True)
class Site:
    """A trained run, a gallery of its test people, and their pictures."""

    run: Path
    gallery: Path
    pictures: list[Path]
    rows: list[Row]


@pytest.fixture(scope="module")
def site(tiny_recipe: Callable[..., Recipe], people: Path, tmp_path_factory: pytest.TempPathFactory) -> Site:
    place = tmp_path_factory.mktemp("site")
    run, gallery = place / "run", place / "gallery"
    train(tiny_recipe(overrides=["schedule.epochs=1", "sampler.steps=2"]), run)
    model = open_model(run, precision="fp32")
    pictures = sorted((people / "bounding_box_test").iterdir())
    with open_gallery(gallery, create=ModelInfo(model.id, model.dimension, "tiny", str(run))) as store:
        rows = []
        for number, path in enumerate(pictures):
            pid, camera = path.name.split("_")[:2]
            crop = gallery / "crops" / f"r{number}.png"
            crop.parent.mkdir(exist_ok=True)
            crop.write_bytes(path.read_bytes())
            rows.append(row_of(number, pid, camera, model.id))
        shown = [read_picture(path) for path in pictures]
        store.upsert(rows, model.describe(model.resize(shown), int(Modality.VISIBLE)))
    return Site(run, gallery, pictures, rows)


def row_of(number: int, pid: str, camera: str, model: str) -> Row:
    sighting = replace(
        a_row(number).sighting,
        id=f"r{number}",
        camera=camera,
        tracklet=f"{camera}-{pid}",
        modality=Modality.VISIBLE,
        crop=f"crops/r{number}.png",
        remark="",
    )
    return Row(sighting, replace(RUN, model=model))


def calibrate(
    run: Path, path: Path, threshold: float = 0.5, checkpoint: str | None = None, *, generated: bool = False
) -> Path:
    tail = Tail(rates=(0.01, 1.0), thresholds=(threshold, -1.0))
    pair = PairCalibration((-1.0, 1.0), (0.01, 0.99), tail, {100: tail}, {"people": 300})
    model = open_model(run, precision="fp32").settings
    facts = {
        "checkpoint": checkpoint or digest_file(run / "checkpoints" / "last.safetensors")[:16],
        "mirror": model.mirror,
        "size": list(model.size),
        "interpolation": model.interpolation,
        "backend": model.backend,
        "precision": "fp32",
    }
    fitted = Calibration(
        facts, {"generated": generated}, "night600", 0, 0.5, "isotonic", (0.01,), {"visible-visible": pair}
    )
    write_calibration(path, fitted)
    return path


@pytest.fixture
def calibrated(site: Site) -> Site:
    calibrate(site.run, site.run / "calibration.json")
    return site


def test_matches_by_a_calibration_of_generated_people_have_a_question_mark(call: Call, site: Site) -> None:
    calibrate(site.run, site.run / "calibration.json", generated=True)
    for gallery in (site.gallery, site.pictures[0].parent):
        model = "" if gallery == site.gallery else str(site.run)
        outcome = call(f"tapetum search {model} --gallery {gallery} --query {site.pictures[0]} -k 3 --quiet")
        assert outcome.status == 0, outcome.err
        assert "a guess where pictures show real people, as the calibration is of generated ones: " in outcome.out
        assert {"match?"} <= {word for line in outcome.answers for word in line}
        assert "match" not in {word for line in outcome.answers for word in line}


def test_a_picture_is_searched_for_in_the_gallery_which_knows_its_model(call: Call, calibrated: Site) -> None:
    outcome = call(f"tapetum search --gallery {calibrated.gallery} --query {calibrated.pictures[0]} -k 3")
    assert outcome.status == 0, outcome.err
    lines = outcome.out.splitlines()
    assert lines[0].startswith(f"query {calibrated.pictures[0]}  (visible")
    assert re.fullmatch(
        r"\d of 3 answers (is a match|are matches): similarity from 0\.5000, which 1 % of searches in 32 pictures for "
        r"somebody who is not there reach; probabilities assume 50 % before looking"
        r"(; there may be more matches than answers: ask for more answers)?",
        lines[1],
    )
    assert ("there may be more" in lines[1]) == lines[1].startswith("3 of 3")
    rank, probability, match, similarity, camera, time, tracklet, crop = outcome.answers[0]
    assert (rank, match) == ("1", "match")
    assert 0.8 < float(similarity) < 1  # of the walk; its best row alone would have 1
    assert 90 < float(probability.removesuffix(" %")) < 99
    assert (camera, time, crop) == ("c1", "2026-11-21T20:00:00Z", "crops/r0.png")
    assert tracklet == f"{calibrated.rows[0].sighting.tracklet} (4 pictures)"
    words = [line.partition(":")[0] for line in lines[-4:-1]]
    assert words == ["probability", "match", "similarity"]  # a sentence for each
    assert lines[-1] == f"crops lie in {calibrated.gallery}"
    assert len(outcome.answers) == 3


def test_a_search_by_tracklet_builds_no_network_and_loads_nothing_that_only_networks_need(calibrated: Site) -> None:
    tracklet = calibrated.rows[0].sighting.tracklet
    words = ["tapetum", "search", "--gallery", str(calibrated.gallery), "--tracklet", tracklet]
    code = (
        "import sys\n"
        "from tapetum.cli.main import run\n"
        f"sys.argv = {words!r}\n"
        "try:\n    run()\nexcept SystemExit as end:\n    assert not end.code\n"
        "print([name for name in ('timm', 'torchvision', 'lightning', 'sklearn') if name in sys.modules])\n"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "probability" in told
    assert told.splitlines()[-1] == "[]"


def test_a_row_and_a_tracklet_are_searched_for_without_the_model(
    call: Call, calibrated: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the model was opened")

    monkeypatch.setattr("tapetum.searching.gallery_model.open_model", refuse)
    own = calibrated.rows[0].sighting.tracklet
    for asked in ("--row r0", f"--tracklet {own}"):
        outcome = call(f"tapetum search --gallery {calibrated.gallery} {asked}")
        assert outcome.status == 0, outcome.err
        assert "probabilities assume" in outcome.out
        assert own not in {answer[6].split()[0] for answer in outcome.answers}
    outcome = call(
        f"tapetum search --gallery {calibrated.gallery} --row r0 --row r1 --exclude-seconds 3600 --group none"
    )
    assert outcome.out.count("query row") == 2
    assert "c1" not in {answer[4] for answer in outcome.answers}


def test_a_gallery_of_one_modality_is_ranked_by_calibration_as_by_similarity(call: Call, calibrated: Site) -> None:
    search = f"tapetum search --gallery {calibrated.gallery} --row r0 --rank"
    plain, ranked = call(f"{search} similarity"), call(f"{search} calibrated")
    assert (plain.status, ranked.status) == (0, 0), ranked.err
    assert plain.answers == ranked.answers
    assert "each modality's nearest are merged by probability, not by similarity" in ranked.out


def test_the_gallery_s_model_that_moved_or_was_trained_again_is_said(call: Call, site: Site, tmp_path: Path) -> None:
    info = ModelInfo("other-model", 16, "", str(site.run))
    with open_gallery(tmp_path / "other", create=info) as store:
        lone = row_of(1, "1", "c1", "other-model")
        lone = replace(lone, sighting=replace(lone.sighting, crop=""))
        store.upsert([lone], some_vectors(1, dimension=16))
        assert "another model now" in calibration_of_gallery(store)[1]
    outcome = call(f"tapetum search --gallery {tmp_path / 'other'} --row r1")
    assert outcome.status == 0
    assert "holds another model now than the one this gallery was made with" in outcome.err
    outcome = call(f"tapetum search --gallery {tmp_path / 'other'} --query {site.pictures[0]}")
    assert outcome.status == 2
    assert "is another one now" in outcome.err
    assert f"name a copy of its own: tapetum search MODEL --gallery {tmp_path / 'other'};" in outcome.err
    with open_gallery(tmp_path / "moved", create=replace(info, place=str(tmp_path / "gone"))) as store:
        pass
    outcome = call(f"tapetum search --gallery {tmp_path / 'moved'} --query {site.pictures[0]}")
    assert outcome.status == 2
    assert "where nothing is now; say where it is: tapetum search MODEL --gallery" in outcome.err


def test_several_pictures_stand_for_one_person_or_for_one_each(call: Call, site: Site) -> None:
    both = f"--query {site.pictures[0]} --query {site.pictures[1]}"
    apart = call(f"tapetum search --gallery {site.gallery} {both} -k 2")
    assert len(apart.answers) == 4
    together = call(f"tapetum search {site.run} --gallery {site.gallery} {both} --together -k 2")
    assert together.out.count("query ") == 2
    assert len(together.answers) == 2


def test_filters_by_camera_time_and_words_go_together(call: Call, site: Site) -> None:
    search = f"tapetum search --gallery {site.gallery} --query {site.pictures[0]} --group none -k 100"
    outcome = call(f"{search} --camera c2 --from 2026-11-21T20:10Z --to 2026-11-21T20:20Z --filter 'frame != 12'")
    assert outcome.status == 0, outcome.err
    with open_gallery(site.gallery) as store:
        expected = store.count(
            'camera == "c2" and time >= "2026-11-21T20:10Z" and time < "2026-11-21T20:20Z" and frame != 12'
        )
    assert 0 < len(outcome.answers) == expected
    nothing = call(f"{search} --to 2000-01-01T00:00Z")
    assert nothing.status == 0
    assert 'no row passes the filter time < "2000-01-01T00:00:00+00:00"; the gallery has 32 rows' in nothing.out


def test_a_box_in_a_picture_or_a_video_is_a_query(call: Call, site: Site, tmp_path: Path) -> None:
    frame = np.random.default_rng(0).integers(0, 255, (60, 120, 3)).astype(np.uint8)
    person = read_picture(site.pictures[5])
    frame[10:42, 50:66] = person
    cv2.imwrite(str(tmp_path / "frame.png"), frame[..., ::-1])
    outcome = call(f"tapetum search --gallery {site.gallery} --query {tmp_path / 'frame.png'} --box 50,10,16,32 -k 1")
    assert outcome.status == 0, outcome.err
    assert outcome.answers[0][-1] == "crops/r5.png"
    clip = write_street(tmp_path / "street.mp4")
    outcome = call(f"tapetum search --gallery {site.gallery} --video {clip} --at 4 --box 60,20,40,80 -k 1")
    assert outcome.status == 0, outcome.err
    assert f"query {clip} at 4 s" in outcome.out


def test_answers_are_written_as_json_and_as_a_case(call: Call, calibrated: Site, tmp_path: Path) -> None:
    search = f"tapetum search --gallery {calibrated.gallery} --query {calibrated.pictures[0]} --row r9 -k 2 --rerank"
    outcome = call(f"{search} --json {tmp_path / 'a.json'} --case {tmp_path / 'case.zip'}")
    assert outcome.status == 0, outcome.err
    assert f"case written to {tmp_path / 'case.zip'}" in outcome.out
    content = json.loads((tmp_path / "a.json").read_text())
    assert [search["query"][0]["label"] for search in content["searches"]] == [str(calibrated.pictures[0]), "row r9"]
    assert content["searches"][0]["answers"][0]["match"] is True
    exported = call(f"tapetum gallery export --answers {tmp_path / 'a.json'} --to {tmp_path / 'a.csv'}")
    answers = [row for search in content["searches"] for answer in search["answers"] for row in answer["rows"]]
    assert exported.out == f"{len(answers)} rows of answers written to {tmp_path / 'a.csv'}\n", exported.err
    with (tmp_path / "a.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [(line["id"], float(line["similarity"])) for line in lines] == [
        (row["id"], row["similarity"]) for row in answers
    ]
    assert {line["search"] for line in lines} == {"1", "2"}
    assert (lines[0]["match"], lines[0]["rank"], lines[0]["query"]) == ("True", "1", str(calibrated.pictures[0]))
    assert lines[0]["model"] == content["model"]["id"]
    with zipfile.ZipFile(tmp_path / "case.zip") as archive:
        assert {"index.html", "case.json", "crops/01_query_001.jpg", "crops/02_query_001.png"} <= set(
            archive.namelist()
        )
    assert call(f"{search} --case {tmp_path / 'case.html'}").status == 0
    assert (tmp_path / "case.html").read_text().startswith("<!DOCTYPE html>")


def test_identities_need_a_calibration_and_say_that_they_are_an_estimate(
    call: Call, site: Site, tmp_path: Path
) -> None:
    (site.run / "calibration.json").unlink(missing_ok=True)
    search = f"tapetum search --gallery {site.gallery} --query {site.pictures[0]} --group identity -k 3"
    outcome = call(search)
    assert (outcome.status, f"run `tapetum calibrate {site.run}`" in outcome.err) == (2, True)
    file = calibrate(site.run, tmp_path / "own.json")
    outcome = call(f"{search} --calibration {file}")
    assert outcome.status == 0, outcome.err
    assert "identities are an estimate" in outcome.out
    assert re.search(r"pictures, \d+ tracklets, cameras c1 c2\)", outcome.out)
    other = calibrate(site.run, tmp_path / "other.json", checkpoint="0" * 16)
    outcome = call(f"{search} --calibration {other}")
    assert (outcome.status, "made for checkpoint '0000000000000000'" in outcome.err) == (2, True)
    plain = call(f"tapetum search --gallery {site.gallery} --query {site.pictures[0]} -k 1")
    assert "not calibrated, so that no answer can be called a match; run `tapetum calibrate" in plain.out
    assert "%" not in plain.answers[0][1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("", "nobody to search for; give --query, --row, --tracklet, or --video"),
        ("--row r99", "has no row 'r99'"),
        ("--tracklet nobody", "has no tracklet 'nobody'"),
        ("--row r1 --filter 'camra == \"c1\"'", "unknown field 'camra'; did you mean camera?"),
        ("--row r1 --camera c12", "--camera c12: the gallery has no such camera; did you mean c"),
        ("--row r1 --from yesterday", "'yesterday' is no time"),
        ("--row r1 --from 2026-11-21T20:00", "has no zone"),
        ("--row r1 --group person", "group is 'person'"),
        ("--row r1 --case case.pdf", "give a name that ends in .html or .zip"),
        ("--row r1 --prior 0.1", "prior needs a calibration"),
        ("--row r1 --rank calibrated", "rank calibrated needs a calibration: run `tapetum calibrate"),
        (
            "--row r1 --rank calibratd",
            "rank is 'calibratd'; it should be 'similarity' or 'calibrated'; did you mean calib",
        ),
        ("--row r1 --at 3", "--at 3: belongs to a video"),
        ("--row r1 --box 1,2,3,4", "--box 1,2,3,4: belongs to one picture"),
        ("--query {picture} --box 1,2,3", "--box 1,2,3: want four whole numbers"),
        ("--query {picture} --box 0,0,99,99", "box 0,0,99,99 does not lie in its 16 x 32 pixels"),
        ("--query {picture} --exclude-seconds 5", "exclude_seconds needs a query from the gallery"),
        ("--query nowhere.jpg", "nowhere.jpg: no such picture or folder"),
        ("--query {run}/run.json", "run.json: not a picture, or damaged; replace it\n"),
        ("--query {picture} --modality radar", "--modality radar: is unknown; known: auto, infrared, visible"),
        ("--video nowhere.mp4", "nowhere.mp4: does not exist"),
        ("--row r1 --modality infrared", "--modality infrared: is of pictures; rows and tracklets have their own"),
    ],
)
def test_a_mistake_is_one_line_with_its_remedy(call: Call, site: Site, options: str, message: str) -> None:
    (site.run / "calibration.json").unlink(missing_ok=True)
    told = options.format(picture=site.pictures[0], run=site.run)
    outcome = call(f"tapetum search --gallery {site.gallery} {told}")
    assert outcome.status == 2, outcome.out
    assert message in outcome.err
    assert len(outcome.err.strip().splitlines()) == 1


def test_what_needs_a_gallery_is_refused_elsewhere(call: Call, site: Site, people: Path, tmp_path: Path) -> None:
    folder = people / "bounding_box_test"
    outcome = call(f"tapetum search {site.run} --gallery {folder} --query {site.pictures[0]} --camera c1")
    assert (outcome.status, "is no gallery, and --camera needs one" in outcome.err) == (2, True)
    outcome = call(f"tapetum search {site.run} --gallery {folder} --query {site.pictures[0]} --rank calibrated")
    assert (outcome.status, "is no gallery, and --rank needs one" in outcome.err) == (2, True)
    outcome = call(f"tapetum search --gallery {folder} --query {site.pictures[0]}")
    assert (outcome.status, f"give the run: tapetum search RUN --gallery {folder}" in outcome.err) == (2, True)
    outcome = call(f"tapetum search --gallery {tmp_path / 'none'} --query {site.pictures[0]}")
    assert (outcome.status, "no gallery is there; make one with: tapetum index" in outcome.err) == (2, True)
    outcome = call(f"tapetum search {site.run} --gallery {folder}")
    assert (outcome.status, "nobody to search for; give --query" in outcome.err) == (2, True)


def test_the_gallery_keeps_what_it_had(site: Site) -> None:
    with open_gallery(site.gallery) as store:
        assert store.count() == 32
        assert store.count(Compare("camera", "==", "c1")) == 16
