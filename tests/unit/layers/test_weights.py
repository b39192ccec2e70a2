import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from tapetum.core.errors import CheckpointError
from tapetum.layers.weights import check_tensors, read_state


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return (Path.touch, (self.target,))


def test_a_plain_dictionary_is_read_from_either_kind_of_file(tmp_path):
    state = {"a.weight": torch.arange(3.0), "a.steps": torch.tensor(4)}
    torch.save(state, tmp_path / "plain.pth")
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "nested.pth")
    safetensors.torch.save_file(state, tmp_path / "state.safetensors")
    for name in ("plain.pth", "nested.pth", "state.safetensors"):
        found = read_state(tmp_path / name)
        assert found.keys() == state.keys()
        assert all(torch.equal(found[key], state[key]) for key in state)


def test_released_scores_beside_the_tensors_are_passed_over(tmp_path):
    state = {"a.weight": torch.arange(3.0)}
    scores = {"cmc": np.linspace(0, 1, 20), "mAP": np.float64(0.5), "mINP": np.float32(0.25), "epoch": 7}
    torch.save({"net": state} | scores, tmp_path / "best.t")
    found = read_state(tmp_path / "best.t")
    assert found.keys() == state.keys()
    assert torch.equal(found["a.weight"], state["a.weight"])


def test_scores_written_by_the_first_numpy_are_passed_over_too(tmp_path):
    packed = io.BytesIO()
    torch.save({"net": {"a": torch.ones(2)}, "cmc": np.zeros(20, np.float32), "mAP": np.float64(0.5)}, packed)
    with zipfile.ZipFile(packed) as there, zipfile.ZipFile(tmp_path / "old.t", "w") as old:
        for name in there.namelist():
            old.writestr(name, there.read(name).replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    assert torch.equal(read_state(tmp_path / "old.t")["a"], torch.ones(2))


def test_code_beside_the_tensors_is_not_executed(tmp_path):
    trace = tmp_path / "executed"
    scores = np.array([Trap(trace)], dtype=object)
    for name, extra in (("plain.t", Trap(trace)), ("array.t", scores)):
        torch.save({"net": {"a": torch.ones(2)}, "cmc": extra}, tmp_path / name)
        with pytest.raises(CheckpointError, match="never executed"):
            read_state(tmp_path / name)
    assert not trace.exists()


def test_code_in_a_weights_file_is_not_executed(tmp_path):
    trace = tmp_path / "executed"
    for name, save in (("new.pth", torch.save), ("old.pth", lambda value, path: path.write_bytes(pickle.dumps(value)))):
        save({"a": Trap(trace)}, tmp_path / name)
        with pytest.raises(CheckpointError, match="never executed"):
            read_state(tmp_path / name)
    assert not trace.exists()


@pytest.mark.parametrize("name", ["broken.pth", "broken.safetensors"])
@pytest.mark.parametrize("content", [b"", b"not weights at all", b"\x80\x02"])
def test_a_damaged_file_is_named(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=name):
        read_state(tmp_path / name)


@pytest.mark.parametrize("name", ["page.pth", "page.safetensors"])
@pytest.mark.parametrize(
    "content", ["<!DOCTYPE html><title>Quota exceeded</title>", "\n <html lang=en>", "\ufeff<!doctype html>"]
)
def test_a_web_page_in_place_of_a_file_is_called_one(tmp_path, name, content):
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"page\.\w+: is a web page, no weights.*; download the file itself"):
        read_state(tmp_path / name)


def test_a_truncated_file_is_named(tmp_path):
    for name in ("cut.pth", "cut.safetensors"):
        path = tmp_path / name
        if name.endswith(".pth"):
            torch.save({"a": torch.rand(1000)}, path)
        else:
            safetensors.torch.save_file({"a": torch.rand(1000)}, path)
        path.write_bytes(path.read_bytes()[:2000])
        with pytest.raises(CheckpointError, match=name):
            read_state(path)


def test_a_missing_file_or_one_without_tensors_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="there is no such weights file"):
        read_state(tmp_path / "nowhere.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(CheckpointError, match="no dictionary of tensors"):
        read_state(tmp_path / "list.pth")


def test_unknown_and_missing_names_are_told_with_the_nearest_one():
    with pytest.raises(
        CheckpointError,
        match=r"here: 1 unknown tensor\(s\), first 'conv1.wieght' \(did you mean conv1.weight\?\); "
        r"1 missing tensor\(s\), first 'conv1.weight'",
    ):
        check_tensors({"conv1.wieght": torch.zeros(1)}, {"conv1.weight": torch.zeros(1)}, "here")
    check_tensors({"a": torch.zeros(1), "b": torch.zeros(2)}, {"a": torch.zeros(1)}, "here", beside=["b"])


def test_another_shape_is_told_with_both_shapes():
    with pytest.raises(CheckpointError, match=r"'a' is \(2,\) where the network needs \(3,\)"):
        check_tensors({"a": torch.zeros(2)}, {"a": torch.zeros(3)}, "here")
