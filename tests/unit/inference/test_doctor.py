"""What the doctor says of models that tell people apart, and of those that only look as if they did."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tapetum.inference import doctor
from tapetum.inference.doctor import PEOPLE, Judgement, draw_people, examine, judge

MakeRun = Callable[..., Path]


@pytest.fixture(scope="module")
def people() -> tuple[list[np.ndarray], list[np.ndarray]]:
    return draw_people()


def vectors(seed: int, noise: float) -> tuple[np.ndarray, np.ndarray]:
    """Of the same people under two cameras."""
    rng = np.random.default_rng(seed)
    first = rng.normal(size=(PEOPLE, 64))
    second = first + noise * rng.normal(size=first.shape)
    return tuple((each / np.linalg.norm(each, axis=1, keepdims=True)).astype(np.float32) for each in (first, second))  # type: ignore[return-value]


def test_vectors_that_find_people_are_well(people) -> None:
    judgement = judge(*vectors(0, 0.3), people)
    assert (judgement.rank1, judgement.chance, judgement.constant) == (1.0, 1 / PEOPLE, False)
    assert 1 / PEOPLE < judgement.plain < 1  # clothes have colours, and nights take some of them away
    assert judgement.finding.state == "ok"
    assert f"rank-1 100% of {2 * PEOPLE} searches" in judgement.finding.text


def test_constant_vectors_show_as_such(people) -> None:
    constant = np.full((PEOPLE, 64), 1 / 8, np.float32)
    finding = judge(constant, constant.copy(), people).finding
    assert (finding.state, "rank-1 0%" in finding.text) == ("problem", True)
    assert finding.text.endswith("All its vectors are the same: it tells nobody apart")


def test_swapped_vectors_show_as_such(people) -> None:
    first, second = vectors(0, 0.3)
    finding = judge(first, np.roll(second, 1, axis=0), people).finding
    assert finding.state == "problem"
    assert "No better than drawing lots: its vectors are not of these pictures" in finding.text


def test_random_vectors_show_as_such_by_ten_seeds(people) -> None:
    for seed in range(10):
        first, second = vectors(seed, 0.3)[0], vectors(seed + 100, 0.3)[1]
        assert judge(first, second, people).finding.state == "problem"


def test_a_model_that_finds_no_more_than_colours_adds_nothing() -> None:
    finding = Judgement(rank1=0.3, chance=1 / PEOPLE, plain=0.4, constant=False).finding
    assert (finding.state, "No better than plain colours" in finding.text) == ("note", True)


def test_plain_colours_are_those_of_the_pictures(people) -> None:
    one, other = people
    same = judge(*vectors(0, 0.3), (one, one))
    swapped = judge(*vectors(0, 0.3), (one, other[1:] + other[:1]))
    assert (same.plain, swapped.plain < 0.1) == (1.0, True)


def test_everything_is_looked_at_and_a_model_that_cannot_be_opened_is_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "packages_distributions", lambda: {"av": ["av"]})
    monkeypatch.setenv("TAPETUM_CACHE", str(tmp_path / "cache"))
    found = list(examine(tmp_path / "none", runs=tmp_path / "new"))
    findings = {finding.what: finding for finding in found}
    folders = [finding.text for finding in found if finding.what == "folder"]
    assert (findings["footage"].state, findings["gallery"].state) == ("ok", "note")
    assert findings["gallery"].text == ("without lancedb, pyarrow; where it is needed: pip install 'tapetum[gallery]'")
    assert "torch" in findings["versions"].text
    assert any(text.startswith(f"{tmp_path / 'cache' / 'detectors'}: writable") for text in folders)
    assert findings["detector"].text.startswith("`auto` takes ")
    assert findings["model"].state == "problem"
    assert str(tmp_path / "none") in findings["model"].text
    assert not (tmp_path / "new").exists()  # it looks, and makes nothing


def test_a_folder_that_cannot_be_written_to_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.os, "access", lambda path, mode: Path(path) != tmp_path)
    folders = [finding for finding in examine(None, runs=tmp_path / "new") if finding.what == "folder"]
    assert [finding.state for finding in folders if str(tmp_path / "new") in finding.text] == ["problem"]
    assert folders[0].text == f"{tmp_path / 'new'}: cannot be written to; choose another or change its permissions"


def test_a_file_where_a_folder_is_needed_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "runs").write_text("")
    (tmp_path / "cache").write_text("")
    monkeypatch.setenv("TAPETUM_CACHE", str(tmp_path / "cache" / "below"))
    told = [finding for finding in examine(None, runs=tmp_path / "runs") if finding.what == "folder"]
    for place in ("runs", "cache"):
        (finding,) = (each for each in told if f"{tmp_path / place} is a file where a folder is needed" in each.text)
        assert finding.state == "problem"


def test_a_fetched_detector_that_is_damaged_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAPETUM_CACHE", str(tmp_path))
    folder = tmp_path / "detectors"
    folder.mkdir()
    (folder / "ssd-mobilenet.json").write_text("{")
    (finding,) = (each for each in examine(None, runs=tmp_path) if each.what == "detector")
    assert finding.state == "problem"
    assert finding.text.endswith("ssd-mobilenet.json: is damaged; fetch it again: tapetum detector get ssd-mobilenet")
    facts = {"format": 1, "path": "ssd-mobilenet.tflite", "layout": "ssd", "size": [300, 300], "person_class": 4}
    facts |= {"min_score": 0.3, "max_iou": 0.35, "licence": "", "origin": "", "content": "", "sha256": "0" * 64}
    (folder / "ssd-mobilenet.json").write_text(json.dumps(facts))
    (folder / "ssd-mobilenet.tflite").write_bytes(b"half")
    (finding,) = (each for each in examine(None, runs=tmp_path) if each.what == "detector")
    assert (finding.state, "is cut short or was changed" in finding.text) == ("problem", True)


def test_what_npm_and_the_arithmetic_are_good_for_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "has_fast_bf16", lambda device: True)
    monkeypatch.setattr(doctor, "choose_device", lambda: torch.device("cpu"))
    monkeypatch.setattr(doctor.shutil, "which", lambda name: None)
    told = {finding.what: finding for finding in examine(None, runs=tmp_path)}
    assert told["precision"].text.endswith("networks with depthwise convolutions, which gain nothing by it, in fp32")
    assert (told["npm"].state, "--file" in told["npm"].text) == ("note", True)


def test_a_run_is_opened_and_tried(make_run: MakeRun, tmp_path: Path) -> None:
    findings = {finding.what: finding for finding in examine(make_run("ide"), runs=tmp_path)}
    assert "ide" in findings["model"].text
    assert "not calibrated" in findings["model"].text
    assert f"of {2 * PEOPLE} searches" in findings["self-test"].text
    assert findings["speed"].text.startswith(tuple("123456789"))
