from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest

from detector_files import centres_of_one, write_centres, write_tflite
from tapetum.core.errors import DataError, MissingLibraryError, RecipeError
from tapetum.data.threads import map_in_threads
from tapetum.footage.detect import BrighteningDetector, detect_at_once
from tapetum.footage.network import NetworkDetector, NetworkOptions
from tapetum.inference.precision import has_fast_bf16

OPTIONS = NetworkOptions("centernet", 0, threads=1)
PICTURE = np.zeros((64, 128, 3), np.uint8)  # shrunk to 16 x 32 with 8 rows of grey above


@pytest.fixture
def network(tmp_path: Path) -> Path:
    return write_centres(tmp_path / "centres.onnx", *centres_of_one((8, 8, 16, 24)))


def test_the_person_is_found_in_the_picture_s_own_pixels(network: Path) -> None:
    detector = NetworkDetector(network, OPTIONS)
    detector.start()
    found = detector.detect(PICTURE)
    assert found.boxes.tolist() == [[32, 0, 64, 64]]
    assert found.scores.tolist() == pytest.approx([0.9])
    assert detector.name.startswith("network centres.onnx (")
    assert not detector.moving_only


def test_as_many_threads_as_it_says_may_ask_at_once(network: Path) -> None:
    detector = NetworkDetector(network, NetworkOptions("centernet", 0, threads=3))
    assert detect_at_once(detector) == 3
    assert detect_at_once(BrighteningDetector(detector)) == 3
    assert detect_at_once(BrighteningDetector(detector, lambda picture: picture)) == 1
    found = list(map_in_threads(detector.detect, [PICTURE] * 30, 3))
    assert {str(each.boxes.tolist()) for each in found} == {"[[32.0, 0.0, 64.0, 64.0]]"}


def test_the_key_names_what_decides_and_not_how_it_was_written(network: Path) -> None:
    keys = [
        NetworkDetector(network, options, content=content).key
        for options, content in (
            (OPTIONS, "a"),
            (OPTIONS, "b"),
            (NetworkOptions("centernet", 1), "a"),
            (NetworkOptions("centernet", 0, min_score=0.2), "a"),
        )
    ]
    assert len(set(keys)) == 4
    assert NetworkDetector(network, NetworkOptions("centernet", 0, threads=0), content="a").key == keys[0]


BF16 = NetworkOptions("centernet", 0, threads=1, precision="bf16")


@pytest.mark.skipif(not has_fast_bf16("cpu"), reason="this CPU has no bf16 arithmetic of its own")
def test_bf16_is_said_and_part_of_the_key(network: Path) -> None:
    full, half = NetworkDetector(network, OPTIONS), NetworkDetector(network, BF16)
    assert half.detect(PICTURE).boxes.tolist() == full.detect(PICTURE).boxes.tolist()  # the file computes nothing
    assert (half.name, half.key) == (f"{full.name} in bf16", f"{full.key} bf16")


def test_arithmetic_that_is_not_the_one_asked_for_is_refused(network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = Mock()
    compiled.get_property.return_value.get_type_name.return_value = "f32"  # as on a CPU without bf16
    monkeypatch.setattr("tapetum.footage.network.openvino_core", lambda: Mock(compile_model=lambda *_: compiled))
    with pytest.raises(RecipeError, match="detector centres: this CPU has no bf16 of its own; leave its precision out"):
        NetworkDetector(network, BF16)


def test_what_is_no_network_is_named(tmp_path: Path) -> None:
    (tmp_path / "text.tflite").write_text("no network at all")
    (tmp_path / "text.onnx").write_text("no network at all")
    with pytest.raises(DataError, match=r"text\.tflite: is no TFLite network"):
        NetworkDetector(tmp_path / "text.tflite", OPTIONS)
    with pytest.raises(DataError, match=r"text\.onnx: OpenVINO cannot read it"):
        NetworkDetector(tmp_path / "text.onnx", OPTIONS)
    with pytest.raises(DataError, match=r"gone\.onnx: cannot be read"):
        NetworkDetector(tmp_path / "gone.onnx", OPTIONS)
    with pytest.raises(RecipeError, match="layout 'centrenet' is unknown; did you mean centernet"):
        NetworkOptions("centrenet", 0)
    with pytest.raises(RecipeError, match="precision 'fp16' is unknown; use fp32 or bf16"):
        NetworkOptions("centernet", 0, precision="fp16")


def test_an_operation_that_openvino_does_not_know_is_named(tmp_path: Path) -> None:
    pytest.importorskip("flatbuffers", reason="writes a TFLite file; it comes with onnxruntime")
    path = write_tflite(tmp_path / "branching.tflite", 118)
    with pytest.raises(
        DataError, match=r"branching\.tflite: .*\(operation IF is not known to it\); give another export"
    ):
        NetworkDetector(path, OPTIONS)
    whole = write_tflite(tmp_path / "whole.tflite", 118).read_bytes()
    (tmp_path / "cut.tflite").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"cut\.tflite: OpenVINO cannot read it \(.*corrupted or malformed"):
        NetworkDetector(tmp_path / "cut.tflite", OPTIONS)


def test_inputs_and_outputs_of_another_layout_are_named(tmp_path: Path) -> None:
    scores, sides = centres_of_one()
    swapped = write_centres(tmp_path / "swapped.onnx", sides, scores)
    with pytest.raises(DataError, match=r"swapped\.onnx: gives outputs of shapes"):
        NetworkDetector(swapped, OPTIONS).detect(PICTURE)
    small = write_centres(tmp_path / "small.onnx", scores, sides, size=8)
    with pytest.raises(DataError, match=r"takes \(1, 8, 8, 3\); layout centernet is \(1, H, W, 3\)"):
        NetworkDetector(small, OPTIONS)


def test_without_openvino_what_to_install_is_said(network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "openvino", None)
    with pytest.raises(MissingLibraryError, match=r"needs OpenVINO; install it with: pip install 'tapetum\[export\]'"):
        NetworkDetector(network, OPTIONS)
