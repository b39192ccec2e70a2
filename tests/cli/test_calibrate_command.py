"""``tapetum calibrate``, and what ``search`` and ``plot`` make of it, run as a user would."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from tapetum.data.datasets.night600 import picture_path
from tapetum.evaluation.calibration import read_calibration, write_calibration
from tapetum.runs.recipe import Recipe
from tapetum.training.train import train

Call = Callable[[str], tuple[int, str, str]]


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Night600's layout with six training and 64 testing people in striped clothes under two cameras."""
    root = tmp_path_factory.mktemp("crowd")
    rng = np.random.default_rng(7)
    colours = rng.integers(20, 220, (70, 8, 1, 3))
    for pid, camid, index in np.ndindex(70, 2, 2):
        stripes = np.clip(colours[pid] + rng.integers(-12, 12, (8, 4, 3)) - 10 * camid, 0, 255).astype(np.uint8)
        picture = cv2.imencode(".png", cv2.resize(stripes, (16, 32), interpolation=cv2.INTER_NEAREST))[1].tobytes()
        for split in ["train"] if pid < 6 else ["gallery", "query"] if index == 0 else ["gallery"]:
            path = root / picture_path(split, pid, camid + 1, index)
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(picture)
    return root


@pytest.fixture(scope="module")
def run(tiny_recipe: Callable[..., Recipe], crowd: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("calibrated") / "run"
    train(tiny_recipe(overrides=["schedule.epochs=1", f"data.root={crowd}"]), root)
    return root


def test_a_run_is_calibrated_searched_and_drawn(call: Call, run: Path, crowd: Path, tmp_path: Path) -> None:
    gallery = run / "gallery.safetensors"
    picture = crowd / picture_path("query", 10, 1, 0)
    nobody = tmp_path / "grey.png"
    cv2.imwrite(str(nobody), np.random.default_rng(0).integers(0, 255, (32, 16, 3)).astype(np.uint8))
    search = f"tapetum search {run} --query {picture} --query {nobody} --gallery {gallery} -k 2 --quiet"
    assert call(f"tapetum extract {run} night600={crowd} --out {gallery} --quiet")[0] == 0
    status, out, _ = call(search)
    assert status == 0
    assert "%" not in out
    status, _, err = call(f"{search} --false-alarms 0.1")
    assert status == 2
    assert "--false-alarms: there is no" in err
    assert f"make it with `tapetum calibrate {run}`" in err

    status, out, err = call(f"tapetum calibrate {run} --rate 0.3 --rate 0.1 --rate 0.01 --prior 0.2 --quiet")
    assert status == 0, err
    assert "visible-visible: fitted on 32 people, checked on 32 others (128 pairs of one person, 7,936 of two)" in out
    assert "comparisons" in out
    assert "searches in 124" in out
    assert "too few people for 0.1, 0.01 of searches in 10 pictures" in out
    assert "probabilities assume 20 % before looking" in out
    names = ["calibration.json", *(f"calibration_{name}.svg" for name in ("open_set", "reliability", "verification"))]
    assert sorted(path.name for path in run.glob("calibration*")) == names
    assert all(str(run / name) in out for name in names)

    status, out, _ = call(search)
    assert status == 0
    lines = out.splitlines()
    assert lines[0].startswith("match from ")
    assert lines[0].endswith("probabilities assume 20 % before looking")
    assert lines[1] == f"query {picture}"
    assert lines[2].split()[:2] == ["1", "1.0000"]
    assert lines[2].split()[3:5] == ["%", "match"]
    status, out, _ = call(f"{search} --false-alarms 0.8 --prior 0.9")
    assert "80 % of searches in 256 pictures for somebody who is not there reach; probabilities assume 90 %" in out
    status, _, err = call(f"{search} --false-alarms 0.001")
    assert status == 2
    assert "32 people are too few for a false-alarm rate of 0.001 of searches in 256 pictures; ask for" in err
    status, _, err = call(f"{search} --modality radar")
    assert (status, "--modality radar: is unknown; known: auto, infrared, visible" in err) == (2, True)

    for figure in ("reliability", "verification", "open-set"):
        status, out, _ = call(f"tapetum plot {figure} {run} --out {tmp_path / figure}.svg")
        assert status == 0
        assert "visible-visible" in out
        assert (tmp_path / f"{figure}.svg").read_bytes().startswith(b"<?xml")


def test_a_report_of_a_calibrated_run_shows_what_its_calibration_is_worth(
    call: Call, run: Path, tmp_path: Path
) -> None:
    assert call(f"tapetum calibrate {run} --quiet")[0] == 0
    assert call(f"tapetum evaluate {run} --quiet")[0] == 0
    status, _, err = call(f"tapetum report build {run} --out {tmp_path / 'report.html'}")
    assert status == 0, err
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert 'id="calibration"' in text
    assert "Probability said and seen" in text
    stale = read_calibration(run / "calibration.json")
    write_calibration(run / "calibration.json", replace(stale, model={**stale.model, "checkpoint": "0" * 16}))
    status, _, err = call(f"tapetum report build {run} --out {tmp_path / 'report.html'}")
    assert (status, "made for checkpoint 0000000000000000, the result cards" in err) == (2, True)
    (run / "calibration.json").write_text("{}")
    status, _, err = call(f"tapetum report build {run} --out {tmp_path / 'report.html'}")
    assert (status, "calibration.json: is no calibration" in err) == (2, True)


def test_nobody_in_the_gallery_is_said_to_be_no_match(call: Call, run: Path, crowd: Path, tmp_path: Path) -> None:
    assert call(f"tapetum calibrate {run} --quiet")[0] == 0
    strict = read_calibration(run / "calibration.json")
    pairs = {
        name: replace(
            pair, searches={}, comparisons=replace(pair.comparisons, thresholds=(1.1,) * len(pair.comparisons.rates))
        )
        for name, pair in strict.pairs.items()
    }
    write_calibration(tmp_path / "strict.json", replace(strict, pairs=pairs))
    picture = crowd / picture_path("query", 10, 1, 0)
    folder = (crowd / picture_path("gallery", 10, 1, 0)).parent
    command = f"tapetum search {run} --query {picture} --gallery {folder} -k 2 --quiet"
    status, out, err = call(f"{command} --calibration {tmp_path / 'strict.json'}")
    assert status == 0, err
    assert "no match above 1.0000, which 1 % of comparisons of two people reach; the nearest are" in out
    assert "  -  " in out
    assert "person unknown" in out
    status, _, err = call(f"{command} --calibration {tmp_path / 'none.json'}")
    assert status == 2
    assert "no calibration; make one with `tapetum calibrate`" in err
    (tmp_path / "torn.json").write_text("{")
    status, _, err = call(f"{command} --calibration {tmp_path / 'torn.json'}")
    assert (status, "torn.json: damaged" in err) == (2, True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--prior 1", "prior 1: must lie inside 0..1"),
        ("--method spline", "method 'spline' is unknown; known: isotonic, logistic"),
        ("--people nobody", "people 'nobody' is unknown; known: test, holdout"),
        ("--people holdout", "holds no holdout people that the run was not trained on"),
        ("--gallery-size 9999", "a gallery of 9999 pictures cannot be looked at"),
        ("--protocol mars", "protocol 'mars' is unknown"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing_behind(
    call: Call, run: Path, options: str, message: str, tmp_path: Path
) -> None:
    out = tmp_path / "calibration.json"
    status, _, err = call(f"tapetum calibrate {run} {options} --out {out} --quiet")
    assert status == 2
    assert message in err
    assert len(err.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
