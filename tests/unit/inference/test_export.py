import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tapetum.core.errors import OutputError, RecipeError
from tapetum.core.types import UNKNOWN_CAMERA
from tapetum.inference import export
from tapetum.inference.artefact import ArtefactError, ExportError, read_artefact
from tapetum.inference.export import Describing, export_run, write_torchscript
from tapetum.inference.filling import filling_of, without_filling
from tapetum.inference.probe import compare, read_probe
from tapetum.inference.runtimes import NETWORK_FILES
from tapetum.inference.sessions import open_model
from tapetum.runs.checkpoint import load_checkpoint

Make = Callable[..., Path]
# Each kind of graph once: IDF's holds IDE's twice, the visible-infrared AGW's holds AGW's blocks and two stems.
METHODS = (
    "transreid",
    *(
        pytest.param(name, marks=pytest.mark.slow)
        for name in ("agw_vi", "idf", "deen", "pcb", "mmn", "align_gan", "hi_cmd")
    ),
)


def draw_batch(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 8, 4, generator=generator)
    images = nn.functional.interpolate(coarse, size=(64, 32), mode="bilinear").clamp(0, 1)
    return images, torch.randint(0, 2, (count,), generator=generator)


def assert_same_vectors(place: Path, run: Path, **settings: bool) -> None:
    """Batches of sizes and mixtures that the export itself did not look at."""
    model = open_model(place, precision="fp32", device="cpu", **settings)  # type: ignore[arg-type]
    network = load_checkpoint(run).network
    for count, kinds in ((3, "mixed"), (5, "infrared"), (33, "mixed"), (1, "visible")):
        images, modalities = draw_batch(count, seed=count)
        if kinds != "mixed":
            modalities = torch.full_like(modalities, int(kinds == "infrared"))
        with torch.no_grad():
            filled = network.embed(images, modalities, torch.zeros_like(modalities), mirror=model.settings.mirror)
            expected = without_filling(filled, filling_of(network))
        difference, cosine = compare(model.describe(images, modalities), expected)
        assert difference < 2e-5
        assert cosine > 0.999999


@pytest.mark.parametrize("method", METHODS)
def test_a_method_exported_to_onnx_gives_its_own_vectors_for_any_batch(
    method: str, make_run: Make, make_artefact: Make
) -> None:
    assert_same_vectors(make_artefact(method, "onnx"), make_run(method))


@pytest.mark.slow
def test_two_streams_exported_to_openvino_give_their_own_vectors(make_run: Make, make_artefact: Make) -> None:
    assert_same_vectors(make_artefact("agw_vi", "openvino"), make_run("agw_vi"))


@pytest.mark.parametrize("method", ["ide", "deen"])
def test_a_method_exported_to_torchscript_gives_its_own_vectors(
    method: str, make_run: Make, make_artefact: Make
) -> None:
    assert_same_vectors(make_artefact(method, "torchscript"), make_run(method), trust_code=True)


def test_of_a_student_only_its_own_network_is_exported(make_run: Make, make_artefact: Make) -> None:
    assert_same_vectors(make_artefact("student", "torchscript"), make_run("student"), trust_code=True)
    ours, baseline = (
        make_artefact(method, "torchscript") / NETWORK_FILES["torchscript"][0] for method in ("student", "ide")
    )
    assert ours.stat().st_size == pytest.approx(baseline.stat().st_size, rel=0.02)


def test_a_run_of_a_student_is_put_to_use_without_its_teacher(make_run: Make) -> None:
    model = open_model(make_run("student"), precision="fp32", device="cpu")
    network = model.session.network  # type: ignore[attr-defined]
    assert sum(weights.numel() for weights in network.parameters()) == sum(
        weights.numel() for weights in load_checkpoint(make_run("ide")).network.parameters()
    )
    assert_same_vectors(make_run("student"), make_run("student"))


@pytest.mark.slow
def test_the_card_says_all_that_a_user_must_know(make_artefact: Make) -> None:
    folder = make_artefact("agw_vi", "onnx")
    card = read_artefact(folder)
    settings = card.settings
    assert (card.runtime, card.precision, card.opset, card.format) == ("onnx", "fp32", 20, 1)
    assert (settings.size, settings.interpolation, settings.backend) == ((64, 32), "lanczos", "pil")
    assert (settings.colours, settings.value_range, settings.normalisation) == ("RGB", (0.0, 1.0), "imagenet")
    assert (settings.mirror, settings.metric, settings.method) == (True, "cosine", "agw_vi")
    assert card.calibration == {"pairs": {}}
    assert card.check["batches"] == [1, 2, 7, 32]
    assert card.check["max_difference"] < 2e-5
    assert sorted(path.name for path in folder.iterdir()) == ["artefact.json", "network.onnx", "probe.safetensors"]


class ChannelsSwapped(Describing):
    def forward(self, images: Tensor, modalities: Tensor) -> Tensor:
        return super().forward(images.flip(1), modalities)


class NormalisedTwice(Describing):
    def forward(self, images: Tensor, modalities: Tensor) -> Tensor:
        return super().forward(self.method.normalise(images), modalities)


class StemsSwapped(Describing):
    def forward(self, images: Tensor, modalities: Tensor) -> Tensor:
        return super().forward(images, 1 - modalities)


class MirrorForgotten(Describing):
    def __init__(self, method: nn.Module, mirror: bool) -> None:
        super().__init__(method, mirror=False)


class NotANumber(Describing):
    def forward(self, images: Tensor, modalities: Tensor) -> Tensor:
        return super().forward(images, modalities) * torch.nan


@pytest.mark.parametrize("fault", [ChannelsSwapped, NormalisedTwice, StemsSwapped, MirrorForgotten, NotANumber])
def test_a_graph_that_differs_is_not_written(
    fault: type[Describing], make_run: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "Describing", fault)
    with pytest.raises(ExportError, match=r"differs from PyTorch on a batch of \d+ .* nothing was written"):
        export_run(make_run("two_stream"), "torchscript", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_graph_for_one_size_of_batch_is_not_written(
    make_run: Make, make_artefact: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnx

    network = onnx.load(make_artefact("agw_vi", "onnx") / "network.onnx")

    def write_for_two(function: nn.Module, example: tuple[Tensor, ...], folder: Path, opset: int) -> None:
        for each in network.graph.input:
            each.type.tensor_type.shape.dim[0].dim_value = len(example[0])
        onnx.save(network, folder / NETWORK_FILES["onnx"][0])

    monkeypatch.setitem(export.WRITERS, "onnx", write_for_two)
    with pytest.raises(ExportError, match=r"fails on a batch of 1 \(.*\); nothing was written"):
        export_run(make_run("agw_vi"), "onnx", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


class Repeating(Describing):
    """Answers for as many pictures as it was recorded with, whatever it is given."""

    def forward(self, images: Tensor, modalities: Tensor) -> Tensor:
        return super().forward(images[:1], modalities[:1]).expand(2, -1)


def test_a_graph_that_answers_for_another_number_of_pictures_is_not_written(
    make_run: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "Describing", Repeating)
    with pytest.raises(ExportError, match=r"gives \(2, 16\) for a batch of 1, PyTorch \(1, 16\)"):
        export_run(make_run("ide"), "torchscript", tmp_path / "out")


def norms_behind_convolutions(nodes: list[Any]) -> list[str]:
    convolved = {name for node in nodes if node.op_type == "Conv" for name in node.output}
    return [node.name for node in nodes if node.op_type == "BatchNormalization" and node.input[0] in convolved]


def test_onnx_runtime_folds_every_norm_behind_a_convolution(make_artefact: Make, tmp_path: Path) -> None:
    import onnx
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(tmp_path / "folded.onnx")
    file = make_artefact("ide", "onnx") / NETWORK_FILES["onnx"][0]
    onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    before, after = (list(onnx.load(each).graph.node) for each in (file, options.optimized_model_filepath))
    assert len(norms_behind_convolutions(before)) > 10
    assert not norms_behind_convolutions(after)


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["onnx", "openvino", "torchscript"])
def test_a_method_that_looks_at_cameras_is_exported_with_them(
    runtime: str, make_run: Make, make_artefact: Make
) -> None:
    model = open_model(make_artefact("transreid", runtime), precision="fp32", device="cpu", trust_code=True)
    network = load_checkpoint(make_run("transreid")).network
    images, modalities = draw_batch(6)
    camids = torch.tensor([4, 1, UNKNOWN_CAMERA, 2, 99, 1])
    with torch.no_grad():
        expected = network.embed(images, modalities, camids, mirror=model.settings.mirror)
    difference, cosine = compare(model.describe(images, modalities, camids), expected)
    assert difference < 2e-5
    assert cosine > 0.999999
    one = images[:1].expand(3, -1, -1, -1).contiguous()
    known, other, unknown = model.describe(one, 0, [1, 4, UNKNOWN_CAMERA])
    assert min((known - other).abs().max(), (known - unknown).abs().max(), (other - unknown).abs().max()) > 1e-4
    torch.testing.assert_close(model.describe(one[:1], 0)[0], unknown)


def test_a_method_that_looks_at_cameras_without_the_facts_is_exported_with_them_too(
    make_run: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tapetum.methods.ide import Method

    plain = Method.embed

    def by_camera(self: Method, images: Tensor, modalities: Tensor, camids: Tensor, *, mirror: bool = False) -> Tensor:
        vectors = plain(self, images, modalities, camids, mirror=mirror) + 0.1 * camids[:, None]
        return nn.functional.normalize(vectors)

    monkeypatch.setattr(Method, "embed", by_camera)
    export_run(make_run("ide"), "torchscript", tmp_path / "out")
    monkeypatch.undo()
    model = open_model(tmp_path / "out", device="cpu", trust_code=True)
    images, modalities = draw_batch(2)
    assert not torch.allclose(model.describe(images, modalities, 1), model.describe(images, modalities, 2), atol=1e-3)


class CameraForgotten(Describing):
    def forward(self, images: Tensor, modalities: Tensor, camids: Tensor | None = None) -> Tensor:
        return super().forward(images, modalities, None if camids is None else 0 * camids)


def test_a_graph_that_takes_every_camera_for_the_same_is_not_written(
    make_run: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "Describing", CameraForgotten)
    with pytest.raises(ExportError, match="differs from PyTorch"):
        export_run(make_run("transreid"), "torchscript", tmp_path / "out")


@pytest.mark.slow
def test_a_method_that_looks_at_no_camera_is_exported_as_before(make_artefact: Make) -> None:
    import onnx

    names = {
        method: [each.name for each in onnx.load(make_artefact(method, "onnx") / "network.onnx").graph.input]
        for method in ("agw_vi", "transreid")
    }
    assert names == {"agw_vi": ["images", "modalities"], "transreid": ["images", "modalities", "camids"]}


def test_an_artefact_of_before_whose_probe_names_no_cameras_opens(make_artefact: Make, tmp_path: Path) -> None:
    folder = tmp_path / "older"
    shutil.copytree(make_artefact("ide", "torchscript"), folder)
    tensors = load_file(folder / "probe.safetensors")
    del tensors["camids"]
    save_file(tensors, folder / "probe.safetensors")
    assert read_probe(folder).camids.tolist() == [UNKNOWN_CAMERA] * 8


def test_a_graph_that_cannot_be_recorded_is_named(
    make_run: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(function: nn.Module, example: tuple[Tensor, ...], folder: Path, opset: int) -> None:
        write_torchscript(function, example, folder, opset)
        raise ValueError("no such operator\nand much more")

    monkeypatch.setitem(export.WRITERS, "torchscript", fail)
    with pytest.raises(ExportError, match=r"cannot be exported to torchscript \(no such operator\); try another --to"):
        export_run(make_run("ide"), "torchscript", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_what_lies_at_the_place_is_kept_and_an_empty_folder_is_taken(make_run: Make, tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "mine").write_text("x")
    with pytest.raises(OutputError, match="is there already; remove it or choose another folder"):
        export_run(make_run("ide"), "torchscript", taken)
    assert [path.name for path in taken.iterdir()] == ["mine"]
    (tmp_path / "empty").mkdir()
    export_run(make_run("ide"), "torchscript", tmp_path / "empty")
    assert read_artefact(tmp_path / "empty").runtime == "torchscript"


def test_the_mirror_can_be_chosen_and_makes_another_model(make_run: Make, tmp_path: Path) -> None:
    with_mirror = export_run(make_run("ide"), "torchscript", tmp_path / "a")
    without = export_run(make_run("ide"), "torchscript", tmp_path / "b", mirror=False)
    assert (with_mirror.settings.mirror, without.settings.mirror) == (True, False)
    assert with_mirror.model != without.model
    with pytest.raises(RecipeError, match=r"mirror is False in this artefact; export the run with --mirror"):
        open_model(tmp_path / "b", mirror=True, trust_code=True)


def test_an_unknown_runtime_and_a_missing_library_are_named(
    make_run: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RecipeError, match="--to 'tensorrt' is unknown; known: onnx, openvino, torchscript"):
        export_run(make_run("ide"), "tensorrt", tmp_path / "out")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ArtefactError, match=r"onnxruntime cannot be imported .*pip install 'tapetum\[export\]'"):
        export_run(make_run("ide"), "onnx", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
