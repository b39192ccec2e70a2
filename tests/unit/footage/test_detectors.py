from pathlib import Path

import pytest

from tapetum.core.errors import DataError, RecipeError
from tapetum.footage.detect import BackgroundDetector
from tapetum.footage.detector_catalogue import find_known
from tapetum.footage.detectors import build_detector


def test_the_usual_detector_is_the_fallback_and_says_so() -> None:
    found = build_detector()
    assert isinstance(found, BackgroundDetector)
    assert "fallback for static cameras" in found.name


def test_names_and_options_that_cannot_be_are_named(tmp_path: Path) -> None:
    with pytest.raises(
        RecipeError,
        match=r"no known name; did you mean background\? Else give FILE.onnx, torchvision:NAME or background",
    ):
        build_detector("backgruond")
    for name in ("SSD-mobilenet", "ssd_mobilenet"):
        with pytest.raises(RecipeError, match=r"did you mean ssd-mobilenet\?"):
            build_detector(name)
        with pytest.raises(RecipeError, match=r"did you mean ssd-mobilenet\?"):
            find_known(name)
    with pytest.raises(RecipeError, match="detector 'fasterrcnn' is unknown"):
        build_detector("torchvision:fasterrcnn")
    with pytest.raises(RecipeError, match="layout and person class are for ONNX and TFLite files"):
        build_detector("torchvision:ssd300_vgg16", layout="yolo")
    with pytest.raises(RecipeError, match="weights are for torchvision:NAME"):
        build_detector(weights=tmp_path / "x.pth")
    for name in ("background", "torchvision:ssd300_vgg16"):
        with pytest.raises(RecipeError, match=f"detector {name}: computes in fp32 alone, not in bf16"):
            build_detector(name, precision="bf16")
    (tmp_path / "x.onnx").write_bytes(b"no network")
    with pytest.raises(DataError, match="no ONNX network"):
        build_detector(str(tmp_path / "x.onnx"), layout="yolo", person_class=0)
    with pytest.raises(RecipeError, match="layout 'yollo' is unknown"):
        build_detector(str(tmp_path / "x.onnx"), layout="yollo")
    with pytest.raises(RecipeError, match=r"detector \S+x\.onnx: computes in fp32 alone, not in bf16"):
        build_detector(str(tmp_path / "x.onnx"), layout="yolo", precision="bf16")
