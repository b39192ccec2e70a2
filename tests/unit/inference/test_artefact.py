import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tapetum.core.errors import OutputError
from tapetum.inference import artefact as module
from tapetum.inference.artefact import (
    ArtefactError,
    ModelSettings,
    is_artefact,
    read_artefact,
    replace_calibration,
    writing_folder,
)

Make = Callable[..., Path]
SETTINGS = ModelSettings("ide", {"width": 16}, (64, 32), "bicubic", "cv2", mirror=True, normalisation="imagenet")


@pytest.fixture
def folder(make_artefact: Make, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return shutil.copytree(make_artefact("ide", "torchscript"), tmp_path / "artefact")


def rewrite(folder: Path, **changes: Any) -> None:
    path = folder / "artefact.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_an_artefact_is_told_from_anything_else(folder: Path, tmp_path: Path) -> None:
    assert is_artefact(folder)
    assert not is_artefact(tmp_path)
    assert not is_artefact(folder / "artefact.json")
    with pytest.raises(ArtefactError, match=r"artefact.json: cannot be read \(No such file.*tapetum export"):
        read_artefact(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 2}, "format 2, this version reads 1; update tapetum"),
        ({"format": 0}, "format 0, this version reads 1; export the model again"),
        ({"format": "1"}, "no artefact of this project"),
        ({"settings": {"size": [64]}}, "damaged"),
        ({"settings": None}, "damaged"),
        ({"novelty": 1}, "damaged .*novelty"),
        ({"runtime": "abacus"}, "runtime 'abacus' is unknown; known: onnx, openvino, torchscript"),
        ({"files": {"../../etc/passwd": "0"}}, "damaged"),
        ({"files": {"*": "0", "probe.safetensors": "0"}}, "damaged"),  # would fetch whatever a repository holds
        ({"files": {}}, "damaged"),
        ({"calibration": {}}, "damaged"),
        ({"dimension": 0}, "damaged"),
    ],
)
def test_a_card_that_cannot_be_right_is_refused(folder: Path, changes: dict[str, Any], message: str) -> None:
    rewrite(folder, **changes)
    with pytest.raises(ArtefactError, match=message):
        read_artefact(folder)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe"])
def test_a_card_that_is_no_json_object_is_refused(folder: Path, content: bytes) -> None:
    (folder / "artefact.json").write_bytes(content)
    with pytest.raises(ArtefactError, match=r"damaged|no artefact of this project"):
        read_artefact(folder)


@pytest.mark.parametrize("name", ["network.torchscript", "probe.safetensors"])
def test_a_file_that_was_changed_cut_short_or_lost_is_named(folder: Path, name: str) -> None:
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(ArtefactError, match=f"{name}: is not the file that was exported"):
        read_artefact(folder)
    (folder / name).write_bytes(content[:100])
    with pytest.raises(ArtefactError, match=f"{name}: is not the file that was exported"):
        read_artefact(folder)
    (folder / name).unlink()
    with pytest.raises(ArtefactError, match=f"{name}: cannot be read"):
        read_artefact(folder)


def test_a_calibration_finds_its_place_and_changes_nothing_else(folder: Path) -> None:
    before = read_artefact(folder)
    pairs = {"pairs": {"visible-infrared": {"slope": 11.5}}}
    assert replace_calibration(folder, pairs).calibration == pairs
    assert read_artefact(folder) == dataclasses.replace(before, calibration=pairs)


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        with writing_folder(folder) as there:
            (there / "half").write_text("x")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
    with writing_folder(tmp_path / "deep" / "out") as there:
        (there / "whole").write_text("x")
        assert not (tmp_path / "deep" / "out").exists()
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["out"]


def test_a_disk_that_fails_is_named_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "flush", full)
    with (
        pytest.raises(OutputError, match=r"out: cannot be written \(No space left on device\); free space"),
        writing_folder(tmp_path / "out") as there,
    ):
        (there / "file").write_text("x")
    assert list(tmp_path.iterdir()) == []
