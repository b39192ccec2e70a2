"""Somebody's own weights, from a released file to a search; the file is made up in the released layout."""

import pickle
import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional

from tapetum.methods import build_method, convert_to, osnet

Call = Callable[[str], tuple[int, str, str]]
FILE = "osnet_x0_25_market.pth"


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As torchreid's trainings save it, from a network on several devices; weights of random numbers."""
    torch.manual_seed(4)
    method = build_method("osnet", osnet.SMALL, 751)
    state = convert_to("osnet-official", asdict(method.options), method.state_dict())
    saved = {f"module.{name}": tensor for name, tensor in state.items()}
    path = tmp_path_factory.mktemp("released") / FILE
    torch.save({"state_dict": saved, "epoch": 150, "rank1": np.float64(0.9)}, path)
    return path


@pytest.mark.usefixtures("one_thread")
def test_released_weights_are_converted_evaluated_indexed_and_searched_with(
    call: Call, released: Path, people: Path, tmp_path: Path
) -> None:
    ours, gallery = tmp_path / "osnet.safetensors", tmp_path / "gallery"
    status, out, _ = call(f"tapetum convert --from osnet-official {released} {ours}")
    assert (status, out) == (0, f"{ours}: osnet, 751 identities\n")
    status, out, _ = call(f"tapetum evaluate {ours} --data night600={people} --precision fp32")
    assert status == 0
    assert f"converted from {FILE} (osnet-official)" in out
    pictures = sorted(path for path in people.rglob("*") if path.is_file() and path.parent.name.startswith("query"))
    assert len(pictures) == 8
    folder = shlex.quote(str(pictures[0].parent))
    index = (
        f"tapetum index {folder} --model {ours} --gallery {gallery} --kind crops --modality visible --precision fp32"
    )
    status, out, err = call(index)
    assert status == 0, err
    assert "rows: 8 added" in out
    status, out, _ = call(f"tapetum search --gallery {gallery} --query {pictures[3]} -k 2")
    assert status == 0
    first = next(line.split() for line in out.splitlines() if line.startswith("   1  "))
    assert float(first[1]) == pytest.approx(1, abs=1e-3), "the picture itself"


@dataclass(frozen=True)
class Release:
    """A released network at its published size, and how its code saves it."""

    method: str
    vector: int
    options: Mapping[str, object] = field(default_factory=dict)
    camids: tuple[int, ...] = ()
    wrapped: Mapping[str, object] | None = None  # what stands beside `state_dict`; None: the tensors stand alone


RELEASES = {
    "bot-official": Release("bot", 2048),
    "agw-official": Release("agw", 2048),
    # ViT-S, as TransReID-SSL has it, with all of TransReID: a ViT-B has four times the weights.
    "transreid-official": Release("transreid", 1920, {"backbone": "vit_small_patch16_224"}, camids=(1, 2, 3, 4, 5, 6)),
    "abd-net-official": Release("abd_net", 3072, wrapped={"rank1": np.float64(0.9), "epoch": 70}),
    "pcb-official": Release("pcb", 12288),
    "pcb-rpp-official": Release("pcb", 12288, {"reduction": "shared"}, wrapped={"epoch": 60, "best_top1": 0.9}),
}


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("layout", RELEASES)
def test_a_released_network_of_published_size_is_converted_indexed_and_searched_with(
    call: Call, layout: str, people: Path, tmp_path: Path
) -> None:
    release = RELEASES[layout]
    torch.manual_seed(4)
    method = build_method(release.method, release.options, 751, camids=release.camids)
    state = convert_to(layout, asdict(method.options), method.state_dict())
    theirs, ours, gallery = tmp_path / "theirs.pth", tmp_path / "ours.safetensors", tmp_path / "gallery"
    torch.save(state if release.wrapped is None else {"state_dict": state, **release.wrapped}, theirs)
    status, out, err = call(f"tapetum convert --from {layout} {theirs} {ours}")
    assert (status, out) == (0, f"{ours}: {release.method}, 751 identities\n"), err
    pictures = sorted(path for path in people.rglob("*") if path.is_file() and path.parent.name.startswith("query"))
    folder = shlex.quote(str(pictures[0].parent))
    status, out, err = call(
        f"tapetum index {folder} --model {ours} --gallery {gallery} --kind crops --modality visible --precision fp32"
    )
    assert status == 0, err
    assert "rows: 8 added" in out
    assert f"{release.vector} numbers a crop; {release.method}" in call(f"tapetum gallery info {gallery}")[1]
    status, out, _ = call(f"tapetum search --gallery {gallery} --query {pictures[3]} -k 8")
    assert status == 0
    answers = [line.split() for line in out.splitlines() if re.match(r" +\d+  ", line)]
    first, *others = (float(answer[1]) for answer in answers)
    (crop,) = (gallery / word for word in answers[0] if word.startswith("crops/"))
    np.testing.assert_array_equal(cv2.imread(str(crop)), cv2.imread(str(pictures[3])), "the picture itself")
    assert first == pytest.approx(1, abs=1e-3)
    assert len(others) == 7
    assert max(others) < first, "random weights tell pictures apart, which a network without its weights does not"


@pytest.mark.usefixtures("one_thread")
def test_extracted_vectors_are_512_numbers_of_unit_length(
    call: Call, released: Path, people: Path, tmp_path: Path
) -> None:
    ours, vectors = tmp_path / "osnet.safetensors", tmp_path / "vectors.safetensors"
    assert call(f"tapetum convert --from osnet-official {released} {ours}")[0] == 0
    command = f"tapetum extract {ours} night600={people} --out {vectors} --precision fp32"
    assert call(command)[0] == 0
    rows = next(tensor for tensor in load_file(vectors).values() if tensor.ndim == 2)
    assert rows.shape[1] == 512
    torch.testing.assert_close(rows, functional.normalize(rows))
    assert torch.pdist(rows).max() > 1e-3


class Trap:
    """Unpickling this would call a function."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return eval, ("__import__('pathlib').Path('sprung').touch()",)


def write_bad(released: Path, target: Path, kind: str) -> None:
    if kind == "truncated":
        content = released.read_bytes()
        target.write_bytes(content[: len(content) // 2])
    elif kind == "code":
        torch.save({"state_dict": {"conv1.conv.weight": torch.zeros(16, 3, 7, 7)}, "args": Trap()}, target)
    elif kind == "plain pickle":
        target.write_bytes(pickle.dumps({"state_dict": Trap()}))
    else:  # a page that says that the file is elsewhere, as drives give it
        target.write_text("<!DOCTYPE html><title>Quota exceeded</title>")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("truncated", "cannot be read as weights"),
        ("code", "holds more than tensors, and code in it is never executed"),
        ("plain pickle", "code in it is never executed"),
        ("page", "bad.pth: is a web page, no weights"),
    ],
)
def test_a_damaged_file_or_one_with_code_leaves_one_line_and_nothing_else(
    call: Call, released: Path, kind: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_bad(released, tmp_path / "bad.pth", kind)
    status, out, err = call("tapetum convert --from osnet-official bad.pth ours.safetensors")
    assert (status, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert message in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.pth"], "no target, and the trap did not spring"


@pytest.mark.usefixtures("one_thread")
def test_a_file_that_fits_several_layouts_is_converted_and_the_others_are_named(call: Call, tmp_path: Path) -> None:
    torch.manual_seed(4)
    theirs, ours = tmp_path / "best.t", tmp_path / "ours.safetensors"
    torch.save({"net": convert_to("lba-official", {}, build_method("lba", {}, 3).state_dict())}, theirs)
    status, out, err = call(f"tapetum convert --from two-stream-official {theirs} {ours}")
    assert (status, err) == (0, "")
    assert out.splitlines() == [
        f"{ours}: two_stream, 3 identities",
        "this file fits as well: lba-official; these share all tensors, so that only whoever made it can say which it "
        "is",
    ]


def test_a_file_of_another_layout_is_named_by_its_layout(call: Call, released: Path, tmp_path: Path) -> None:
    status, _, err = call(f"tapetum convert --from bot-official {released} {tmp_path / 'ours.safetensors'}")
    assert status == 2
    assert "this file has the layout osnet-official; give --from that" in err
