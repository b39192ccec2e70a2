"""A checkpoint made small: what stays, what goes, and that it is the same model to everybody who opens it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from tapetum.core.errors import CheckpointError, OutputError
from tapetum.inference import pack
from tapetum.inference.artefact import ExportError
from tapetum.inference.identity import identify
from tapetum.inference.pack import pack_checkpoint
from tapetum.inference.probe_scene import draw_pictures
from tapetum.inference.sessions import open_model
from tapetum.methods import build_method, ide
from tapetum.runs.checkpoint import _is_row_an_identity, load_checkpoint, start_from
from tapetum.runs.header import find_checkpoint, read_header

MakeRun = Callable[..., Path]


@pytest.fixture
def packed(make_run: MakeRun, tmp_path: Path) -> Path:
    return pack_checkpoint(make_run("ide"), tmp_path / "small.safetensors").path


def test_a_packed_model_gives_nearly_the_same_vectors_from_less_than_half_the_bytes(
    make_run: MakeRun, packed: Path
) -> None:
    whole, small = (open_model(place, precision="fp32") for place in (make_run("ide"), packed))
    pictures, modalities = draw_pictures(whole.settings)
    cosines = (whole.vectors_of(pictures, modalities) * small.vectors_of(pictures, modalities)).sum(1)
    assert cosines.min() > 0.9999
    assert small.id != whole.id  # rounded weights are other weights
    assert packed.stat().st_size < 0.6 * find_checkpoint(make_run("ide")).stat().st_size
    with safe_open(packed, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    assert {tensor.dtype for tensor in tensors.values() if tensor.ndim > 1} == {torch.float16}
    assert {tensor.dtype for tensor in tensors.values() if tensor.ndim == 1} == {torch.float32}


def test_it_still_says_whom_it_was_trained_on(make_run: MakeRun, packed: Path) -> None:
    whole, small = read_header(find_checkpoint(make_run("ide"))), read_header(packed)
    assert small.origin["trained_on_ids"] == whole.num_ids
    assert (small.num_ids, small.pids) == (1, whole.pids)
    assert small.recipe == whole.recipe


def test_its_id_is_the_same_whether_its_file_is_read_or_its_network_is_built(packed: Path) -> None:
    assert identify(packed).id == open_model(packed, precision="fp32").id


def test_nothing_is_overwritten_and_other_endings_are_refused(make_run: MakeRun, packed: Path, tmp_path: Path) -> None:
    before = packed.read_bytes()
    with pytest.raises(OutputError, match=r"small\.safetensors: is there already"):
        pack_checkpoint(make_run("ide"), packed)
    assert packed.read_bytes() == before
    with pytest.raises(OutputError, match=r"small\.bin: is no name of a file of weights; write one that ends in"):
        pack_checkpoint(make_run("ide"), tmp_path / "small.bin")
    with pytest.raises(CheckpointError, match="no such run folder"):
        pack_checkpoint(tmp_path / "nowhere", tmp_path / "other.safetensors")


def test_vectors_that_hang_on_the_classifier_are_not_packed(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = ide.Method.embed

    def with_classifier(self: ide.Method, *inputs: Tensor, mirror: bool = False) -> Tensor:
        vectors = honest(self, *inputs, mirror=mirror)
        weights = next(tensor for name, tensor in self.state_dict().items() if name.endswith("classifier.weight"))
        return torch.nn.functional.normalize(vectors + 100 * weights.sum() * torch.arange(vectors.shape[1]))

    monkeypatch.setattr(ide.Method, "embed", with_classifier)
    with pytest.raises(ExportError, match="without its classifier its vectors turn away"):
        pack_checkpoint(make_run("ide"), tmp_path / "small.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_a_number_beyond_a_half_stays_as_it_is() -> None:
    large = torch.tensor([[1.0, 1e6]])
    assert pack._shorten(large) is large
    short = pack._shorten(torch.tensor([[1.0, 2.0]]))
    assert short.dtype == torch.float16
    assert np.array_equal(short.numpy(), [[1, 2]])


def test_what_is_packed_is_not_packed_again(packed: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"small\.safetensors: is packed already; copy the file"):
        pack_checkpoint(packed, tmp_path / "smaller.safetensors")


def test_a_training_begins_with_packed_weights_and_a_classifier_of_its_own(packed: Path) -> None:
    start = load_checkpoint(packed)
    options = dict(start.header.options)
    network = build_method("ide", options, 7, size=tuple(start.header.size or ()))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    start_from(network, start, frozenset())
    for name, value in network.state_dict().items():
        own = "classifier" in name
        assert torch.equal(value, before[name] if own else start.network.state_dict()[name]), name


def test_a_row_of_another_width_is_no_identity_s() -> None:
    assert _is_row_an_identity(torch.zeros(7, 8), torch.zeros(1, 8))
    assert not _is_row_an_identity(torch.zeros(7, 8), torch.zeros(1, 4))
    assert not _is_row_an_identity(torch.zeros(7, 8), torch.zeros(1))


def test_packed_weights_of_another_width_are_no_start(packed: Path) -> None:
    start = load_checkpoint(packed)
    network = build_method("ide", {**start.header.options, "width": 2 * start.header.options["width"]}, 7)
    with pytest.raises(CheckpointError, match="where the network needs"):
        start_from(network, start, frozenset())
