"""Detectors in the cache folder, and what `auto` makes of them; the real packages are tried where they were fetched."""

import dataclasses
import hashlib
import importlib.util
import json
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from detector_files import centres_of_one, write_centres, write_package
from tapetum.core.errors import DataError, RecipeError
from tapetum.footage import detectors, fetched
from tapetum.footage.detect import BackgroundDetector, BrighteningDetector, TorchvisionDetector
from tapetum.footage.detector_catalogue import KnownDetector, find_known, known_names
from tapetum.footage.detectors import build_detector, choose_detector
from tapetum.footage.extract import extract_sightings
from tapetum.footage.fetched import fetch_detector, fetched_names, find_fetched, read_network, store_detector
from tapetum.footage.packages import Package
from tapetum.footage.report import FootageReport
from tapetum.footage.sources import find_sources
from tapetum.footage.trial import try_detector

NETWORK = "package/centres.onnx"
USERS_CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tapetum" / "detectors"

CLIP = Path(
    os.environ.get("TAPETUM_CLIP", Path(__file__).parents[4] / "shared" / "data" / "one-by-one-person-detection.mp4")
)


@pytest.fixture(autouse=True)
def empty_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAPETUM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    network = write_centres(tmp_path / "centres.onnx", *centres_of_one((8, 8, 16, 24)))
    return write_package(tmp_path / "package.tgz", {NETWORK: network.read_bytes()})


def stand_in(archive: Path, **changes: object) -> KnownDetector:
    def build(files: Mapping[str, bytes]) -> bytes:
        return files[NETWORK]

    known = KnownDetector(
        Package("@some/body", "1.0.0", hashlib.sha256(archive.read_bytes()).hexdigest()),
        {NETWORK: 1 << 20},
        build,
        ".onnx",
        "centernet",
        (32, 32),
        0,
        0.3,
        0.45,
        "MIT",
        "a network that sees one person",
        1,
        0,
        0,
    )
    return dataclasses.replace(known, **changes)


def store(archive: Path, name: str = "centernet") -> fetched.FetchedDetector:
    known = stand_in(archive)
    return store_detector(name, known, read_network(known, archive))


def test_a_stored_detector_is_found_again_and_finds_people(archive: Path) -> None:
    made = store(archive)
    assert find_fetched("centernet") == made
    assert made.path.is_relative_to(archive.parent / "cache" / "detectors")
    facts = json.loads(made.path.with_suffix(".json").read_text())
    assert (facts["layout"], facts["size"], facts["person_class"]) == ("centernet", [32, 32], 0)
    assert (facts["licence"], facts["origin"], facts["summary"]) == (
        "MIT",
        "npm @some/body@1.0.0",
        "a network that sees one person",
    )
    assert facts["sha256"] == hashlib.sha256(made.path.read_bytes()).hexdigest()
    detector = made.open(threads=1)
    assert detector.name == "centernet (npm @some/body@1.0.0)"
    assert detector.detect(np.zeros((64, 128, 3), np.uint8)).boxes.tolist() == [[32, 0, 64, 64]]


def test_a_network_cut_short_or_changed_is_told_and_not_run(archive: Path) -> None:
    made = store(archive)
    content = made.path.read_bytes()
    for damaged in (content[:-100], content[:-1] + b"x", b""):
        made.path.write_bytes(damaged)
        with pytest.raises(
            DataError, match=r"is cut short or was changed.*; fetch it again: tapetum detector get centernet"
        ):
            build_detector("auto")
    made.path.unlink()
    with pytest.raises(DataError, match=r"centernet\.onnx cannot be read .* fetch it again"):
        build_detector("centernet")


def test_damaged_facts_are_told(archive: Path) -> None:
    path = store(archive).path.with_suffix(".json")
    facts = json.loads(path.read_text())
    for content in (b"", b"[]", b"{}", b"\xff", json.dumps(facts | {"size": "wide"}).encode()):
        path.write_bytes(content)
        with pytest.raises(
            DataError, match=r"centernet\.json: is damaged; fetch it again: tapetum detector get centernet"
        ):
            find_fetched("centernet")
    path.write_text(json.dumps(facts | {"format": 2}))
    with pytest.raises(DataError, match="is of format 2, this version reads 1"):
        find_fetched("centernet")


def test_facts_that_point_elsewhere_stay_in_the_folder(archive: Path) -> None:
    path = store(archive).path.with_suffix(".json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"path": "../../../etc/passwd"}))
    found = find_fetched("centernet")
    assert found is not None
    assert found.path == path.parent / "passwd"


def test_only_what_is_known_can_be_fetched(archive: Path) -> None:
    with pytest.raises(RecipeError, match="detector 'ssd-mobilnet' cannot be fetched; did you mean ssd-mobilenet"):
        fetch_detector("ssd-mobilnet", archive)
    with pytest.raises(DataError, match=r"is @some/body@1\.0\.0, SHA-256 .* where @mediapipe/objectron@0\.4"):
        fetch_detector("ssd-mobilenet", archive)
    assert fetched_names() == []


@pytest.mark.parametrize("name", known_names())
def test_a_known_detector_says_all_that_is_asked_for(name: str) -> None:
    known = find_known(name)
    assert len(known.package.sha256) == 64
    assert known.licence
    assert known.found > 0
    with pytest.raises(DataError):
        known.build(dict.fromkeys(known.files, b"something else"))


def test_auto_takes_what_was_fetched_and_the_best_of_several(archive: Path) -> None:
    store(archive, "ssd-mobilenet")
    assert choose_detector() == detectors.ChosenDetector("ssd-mobilenet", "it was fetched")
    store(archive, "centernet")
    best, other = sorted(known_names(), key=lambda name: (-find_known(name).worth, name))[:2]
    choice = choose_detector()
    assert (choice.name, choice.reason.startswith(f"it was fetched, before {other}, by what they found")) == (
        best,
        True,
    )
    assert isinstance(build_detector(), BrighteningDetector)


def test_auto_without_anything_is_the_fallback_and_says_how_to_get_more() -> None:
    choice = choose_detector()
    assert choice.name == "background"
    assert choice.reason.endswith("fetch one with: tapetum detector get ssd-mobilenet")
    assert isinstance(build_detector(), BackgroundDetector)
    assert choose_detector("background").reason == ""


def test_auto_takes_torchvision_s_weights_only_where_they_lie_already(tmp_path: Path) -> None:
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    (folder / "ssdlite320_mobilenet_v3_large_coco-a79551df.pth").write_bytes(b"weights")
    choice = choose_detector()
    assert choice.name == "torchvision:ssdlite320_mobilenet_v3_large"
    assert choice.reason == "its weights lie in PyTorch's cache, none was fetched"


def test_auto_says_where_what_was_fetched_cannot_run(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store(archive)
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "openvino" else real(name))
    choice = choose_detector()
    assert choice.name == "background"
    assert "centernet was fetched, but needs OpenVINO: pip install 'tapetum[export]'" in choice.reason


def test_names_that_are_not_there_say_how_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="was not fetched yet; type: tapetum detector get centernet"):
        build_detector("centernet")
    (tmp_path / "own.tflite").write_bytes(b"")
    with pytest.raises(RecipeError, match="add --detector-layout ssd --person-class N"):
        build_detector(str(tmp_path / "own.tflite"))
    with pytest.raises(RecipeError, match="brightens dark scenes by itself"):
        build_detector("background", brighten=True)


def test_a_file_with_a_layout_is_run_as_a_fetched_one_is(archive: Path, tmp_path: Path) -> None:
    detector = build_detector(str(tmp_path / "centres.onnx"), layout="centernet", person_class=0)
    assert len(detector.detect(np.zeros((64, 128, 3), np.uint8))) == 1
    assert "brightened" not in detector.name  # as galleries know what they have finished
    brightened = build_detector(str(tmp_path / "centres.onnx"), layout="centernet", person_class=0, brighten=True)
    assert brightened.key != detector.key
    assert brightened.name.endswith("dark frames brightened by gamma")


def test_torchvision_is_asked_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(detectors, "TorchvisionDetector", lambda *words: asked.append(words) or TorchvisionDetector)
    build_detector("torchvision:ssd300_vgg16")
    assert asked == [("ssd300_vgg16", None)]


def really_fetched(name: str, clip: Path, monkeypatch: pytest.MonkeyPatch) -> fetched.FetchedDetector:
    """The user's own, or a loud skip."""
    monkeypatch.setenv("TAPETUM_CACHE", str(USERS_CACHE.parent))
    there = find_fetched(name)
    if there is None or not clip.is_file():
        pytest.skip(f"{name} was not fetched (tapetum detector get {name}), or there is no clip at {clip}")
    return there


@pytest.mark.network
@pytest.mark.parametrize("name", known_names())
def test_a_detector_that_was_really_fetched_finds_people(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    there = really_fetched(name, CLIP, monkeypatch)
    trial = try_detector(find_sources([str(CLIP)])[0], there.open(threads=1), 12)
    assert trial.people == (0, 1, 1, 1, 1, 1, 1, 0, 1, 1, 1, 0)


@pytest.mark.network
@pytest.mark.slow
@pytest.mark.parametrize("name", known_names())
@pytest.mark.parametrize(
    ("clip", "people"), [(CLIP.name, 6), ("store-aisle-detection.mp4", 3), ("worker-zone-detection.mp4", 1)]
)
def test_as_many_tracklets_as_people_on_the_real_clips(
    name: str, clip: str, people: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    really_fetched(name, CLIP.with_name(clip), monkeypatch)
    report = FootageReport()
    source = find_sources([str(CLIP.with_name(clip))])[0]
    assert list(extract_sightings(source, tmp_path / "out", build_detector(name), report=report))
    assert report.tracklets == people
