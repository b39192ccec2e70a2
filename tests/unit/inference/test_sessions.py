import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tapetum.core.errors import CheckpointError, DataError, RecipeError
from tapetum.core.openvino_core import openvino_core
from tapetum.core.types import UNKNOWN_CAMERA, Modality
from tapetum.data.image_io import resize
from tapetum.evaluation.calibration import Calibration, PairCalibration, from_content, write_calibration
from tapetum.evaluation.thresholds import Tail
from tapetum.inference import precision, probe, sessions, torch_sessions
from tapetum.inference.artefact import ArtefactError
from tapetum.inference.embedder import Embedder
from tapetum.inference.export import export_run
from tapetum.inference.identity import calibration_path
from tapetum.inference.probe_scene import draw_pictures
from tapetum.inference.sessions import Model, open_model
from tapetum.runs.checkpoint import load_checkpoint

Make = Callable[..., Path]


@pytest.fixture
def opened(make_run: Make) -> Model:
    return open_model(make_run("two_stream"), precision="fp32", device="cpu")


@pytest.fixture
def pictures(opened: Model) -> np.ndarray:
    return draw_pictures(opened.settings, 5)[0]


def cosines(a: Tensor, b: Tensor) -> Tensor:
    return (a.double() * b.double()).sum(1)


def test_a_run_describes_as_its_method_does(opened: Model, pictures: np.ndarray, make_run: Make) -> None:
    images = torch.from_numpy(pictures).permute(0, 3, 1, 2) / 255
    kinds = torch.tensor([0, 1, 1, 0, 1])
    with torch.no_grad():
        expected = load_checkpoint(make_run("two_stream")).network.embed(images, kinds, kinds, mirror=True)
    found = opened.describe(pictures, kinds)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_uint8_and_float_pictures_arrays_and_tensors_are_one(opened: Model, pictures: np.ndarray) -> None:
    kinds = [0, 1, 1, 0, 1]
    expected = opened.describe(pictures, kinds)
    floats = np.ascontiguousarray(pictures.transpose(0, 3, 1, 2)).astype(np.float32) / np.float32(255)
    mapped, read_only = floats.copy(), pictures.copy()
    mapped.flags.writeable = read_only.flags.writeable = False
    for images in (floats, torch.from_numpy(floats), torch.from_numpy(pictures), mapped, read_only):
        torch.testing.assert_close(opened.describe(images, np.array(kinds)), expected, rtol=1e-4, atol=1e-5)


def test_one_modality_stands_for_all_and_no_picture_gives_no_vector(opened: Model, pictures: np.ndarray) -> None:
    infrared = opened.describe(pictures, Modality.INFRARED)
    assert torch.equal(infrared, opened.describe(pictures, [1] * 5))
    assert (infrared - opened.describe(pictures, Modality.VISIBLE)).abs().max() > 1e-3
    assert opened.describe(pictures[:0], []).shape == (0, opened.dimension)


def test_a_run_that_looks_at_cameras_tells_known_ones_apart_and_takes_the_mean_for_others(make_run: Make) -> None:
    model = open_model(make_run("transreid"), precision="fp32", device="cpu")
    network = load_checkpoint(make_run("transreid")).network
    shown = draw_pictures(model.settings, 1)[0].repeat(6, 0)
    camids = [1, 2, 4, 0, 3, UNKNOWN_CAMERA]  # trained on 1, 2 and 4
    vectors = model.describe(shown, 0, camids)
    assert torch.pdist(vectors[:4]).min() > 1e-3
    torch.testing.assert_close(vectors[3:5], vectors[5:].expand(2, -1))
    torch.testing.assert_close(model.describe(shown[:1], 0), vectors[5:])
    torch.testing.assert_close(model.describe(shown[:2], 0, 4), vectors[2:3].expand(2, -1))
    cameras = network.branch.cameras.vectors
    with torch.no_grad():
        cameras[:] = cameras.mean(0, keepdim=True)
        images = torch.from_numpy(shown[:1]).permute(0, 3, 1, 2) / 255
        mean = network.embed(images, torch.zeros(1, dtype=torch.int64), torch.tensor([1]), mirror=model.settings.mirror)
    torch.testing.assert_close(vectors[5:], mean, rtol=1e-4, atol=1e-5)


def test_long_inputs_are_cut_into_batches_without_a_trace(opened: Model, pictures: np.ndarray) -> None:
    many = np.concatenate([pictures] * 9)
    found = opened.describe(many, 0)
    torch.testing.assert_close(found, opened.describe(pictures, 0).repeat(9, 1), rtol=1e-4, atol=1e-5)


def test_pictures_of_any_size_are_brought_to_the_models_own_with_its_filter(opened: Model) -> None:
    rng = np.random.default_rng(0)
    raw = [rng.integers(0, 255, (height, 40, 3), dtype=np.uint8) for height in (50, 64, 120)]
    shown = opened.resize(raw)
    assert shown.shape == (3, 64, 32, 3)
    assert np.array_equal(shown[2], resize(raw[2], (64, 32), interpolation="lanczos", backend="pil"))


@pytest.mark.parametrize(
    ("images", "modalities", "message"),
    [
        (np.zeros((2, 128, 64, 3), np.uint8), 0, r"pictures are \(2, 128, 64, 3\), model .* bring them to 32 x 64"),
        (np.zeros((2, 3, 64, 32), np.uint8), 0, r"takes \(N, \*\(64, 32, 3\)\) of uint8"),
        (np.zeros((2, 64, 32, 3), np.float32), 0, r"takes \(N, \*\(3, 64, 32\)\) of float32"),
        (np.zeros((64, 32, 3), np.uint8), 0, "pictures are"),
        (np.zeros((2, 3, 64, 32), np.float64), 0, "pictures are float64; give uint8"),
        (np.full((2, 3, 64, 32), 255, np.float32), 0, "values from 255 to 255; give uint8, or float32 in 0..1"),
        (np.full((2, 3, 64, 32), np.nan, np.float32), 0, "values from nan to nan"),
        (np.zeros((2, 64, 32, 3), np.uint8), [0], r"2 pictures have modalities of shape \(1,\)"),
        (np.zeros((2, 64, 32, 3), np.uint8), [0, 2], r"run from 0 to 2; known: 0 \(visible\), 1 \(infrared\)"),
        (np.zeros((2, 64, 32, 3), np.uint8), -1, "run from -1 to -1"),
    ],
)
def test_what_is_no_picture_of_this_model_is_refused(
    opened: Model, images: np.ndarray, modalities: object, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        opened.describe(images, modalities)  # type: ignore[arg-type]


def test_cameras_are_one_for_each_picture_or_one_for_all(opened: Model, pictures: np.ndarray) -> None:
    with pytest.raises(DataError, match=r"5 pictures have cameras of shape \(4,\); give one each, or one for all"):
        opened.describe(pictures, 0, [1, 2, 3, 4])


def test_facts_name_the_model_the_runtime_and_the_precision(make_run: Make, make_artefact: Make, opened: Model) -> None:
    exported = open_model(make_artefact("two_stream", "torchscript"), device="cpu", trust_code=True)
    assert exported.facts == opened.facts | {"runtime": "torchscript"}
    assert opened.facts["model"] == opened.id
    assert (opened.facts["runtime"], opened.facts["precision"]) == ("torch", "fp32")
    assert (opened.facts["size"], opened.facts["metric"], opened.facts["mirror"]) == ([64, 32], "cosine", True)
    assert open_model(make_run("two_stream"), mirror=False, precision="fp32").id != opened.id
    assert open_model(make_run("ide"), precision="fp32").id != opened.id


def test_a_run_in_bf16_says_so_and_how_far_it_is_from_fp32(make_run: Make, opened: Model, pictures: np.ndarray) -> None:
    rounded = open_model(make_run("two_stream"), precision="bf16", device="cpu")
    assert rounded.facts == opened.facts | {"precision": "bf16"}
    assert 0.999 < rounded.cosine_to_fp32 < 1
    apart = cosines(rounded.describe(pictures, 0), opened.describe(pictures, 0))
    assert 0.999 < apart.min() < 0.9999999


def test_bf16_that_turns_vectors_away_is_refused_or_left_on_auto(
    make_run: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "compare", lambda found, expected: (0.1, 0.998))
    monkeypatch.setattr(sessions, "resolve_precision", lambda name, device, place: "bf16")
    with pytest.raises(RecipeError, match=r"in bf16 a vector keeps a cosine of 0.9980 only .* use fp32 or auto"):
        open_model(make_run("ide"), precision="bf16", device="cpu")
    model = open_model(make_run("ide"), precision="auto", device="cpu")
    assert (model.precision, model.cosine_to_fp32) == ("fp32", 1.0)


def without_bf16() -> bool:
    return "BF16" not in openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def test_openvino_is_never_left_to_choose(make_artefact: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "has_fast_bf16", lambda device: False)
    folder = make_artefact("agw_vi", "openvino")
    assert open_model(folder).precision == "fp32"
    with pytest.raises(RecipeError, match="'bf16' needs a CPU with AMX or AVX-512 BF16, this one has neither"):
        open_model(folder, precision="bf16")


@pytest.mark.skipif("without_bf16()", reason="this CPU has no bfloat16 arithmetic at all")
def test_openvino_takes_bf16_by_itself_where_the_cpu_has_it_and_vectors_keep_their_place(
    make_artefact: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_artefact("ide", "openvino")
    rounded = open_model(folder, precision="bf16")
    assert (rounded.precision, open_model(folder).precision) == ("bf16", "bf16")
    assert 0.999 < rounded.cosine_to_fp32 < 1
    monkeypatch.setattr(probe, "compare", lambda found, expected: (0.1, 0.9))
    assert open_model(folder).precision == "fp32"
    with pytest.raises(RecipeError, match=r"keeps a cosine of 0\.9000 only"):
        open_model(folder, precision="bf16")


@pytest.mark.parametrize(("runtime", "precision"), [("onnx", "bf16"), ("onnx", "fp16"), ("openvino", "fp8")])
def test_a_precision_that_a_runtime_lacks_is_refused(make_artefact: Make, runtime: str, precision: str) -> None:
    with pytest.raises(RecipeError, match=f"precision '{precision}' is not available with {runtime}; use fp32 or auto"):
        open_model(make_artefact("agw_vi", runtime), precision=precision)


def test_a_torchscript_artefact_runs_only_where_it_is_allowed_to(make_artefact: Make) -> None:
    folder = make_artefact("ide", "torchscript")
    with pytest.raises(ArtefactError, match="TorchScript is a program that would run here; allow it"):
        open_model(folder)
    assert open_model(folder, trust_code=True, device="cpu").facts["runtime"] == "torchscript"


def test_a_missing_library_is_named_with_its_extra(make_artefact: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ArtefactError, match=r"openvino cannot be imported .*pip install 'tapetum\[export\]'"):
        open_model(make_artefact("agw_vi", "openvino"))


def test_files_that_the_library_cannot_read_are_refused_in_one_line(
    make_artefact: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tapetum.inference.artefact._check_file", lambda path, expected: None)
    folder = shutil.copytree(make_artefact("agw_vi", "onnx"), tmp_path / "copy")
    (folder / "network.onnx").write_bytes(b"no network")
    with pytest.raises(ArtefactError, match=r"onnx cannot open it .*; export it again") as caught:
        open_model(folder)
    assert "\n" not in str(caught.value)


def test_a_calibration_beside_the_run_goes_with_its_model_and_with_no_other(make_run: Make, tmp_path: Path) -> None:
    run = Path(shutil.copy(make_run("ide"), tmp_path / "run.safetensors"))
    facts = {name: value for name, value in Embedder(run).facts.items() if name != "device"}
    tail = Tail((0.01,), (0.8,))
    fitted = PairCalibration((0.1, 0.7), (0.2, 0.9), tail, {100: tail}, {"people": 40})
    calibration = Calibration(
        facts, {"name": "drawn"}, "test", 0, 0.5, "isotonic", (0.01,), {"visible-visible": fitted}
    )
    assert open_model(run, precision="fp32").calibration == {"pairs": {}}
    write_calibration(calibration_path(run), calibration)
    assert from_content(open_model(run, precision="fp32").calibration, "run") == calibration
    assert open_model(run, precision="fp32", mirror=False).calibration == {"pairs": {}}
    artefact = export_run(run, "torchscript", tmp_path / "exported")
    assert from_content(artefact.calibration, "exported") == calibration
    assert open_model(tmp_path / "exported", trust_code=True).calibration == artefact.calibration
    shutil.copy(make_run("bnneck"), run)
    assert open_model(run, precision="fp32").calibration == {"pairs": {}}
    calibration_path(run).write_text("{}")
    with pytest.raises(CheckpointError, match="is no calibration; run `tapetum calibrate` again"):
        open_model(run, precision="fp32")


def test_a_place_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such run folder or checkpoint file"):
        open_model(tmp_path / "nothing")
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        open_model(tmp_path)


def test_who_is_done_on_a_gpu_leaves_fp32_to_those_who_still_compute() -> None:
    cudnn, gpu = torch.backends.cudnn, torch.device("cuda")
    before = cudnn.allow_tf32
    first, second = torch_sessions._without_tf32(gpu), torch_sessions._without_tf32(gpu)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert not cudnn.allow_tf32
    second.__exit__(None, None, None)
    assert cudnn.allow_tf32 == before
    assert before, "else this says nothing"
