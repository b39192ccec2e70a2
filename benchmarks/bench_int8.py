"""The packaged model in int8, by ONNX Runtime and OpenVINO: how fast, against fp32, and what accuracy is lost.

`tapetum export` writes the network as ONNX; ONNX Runtime's static quantisation puts 8-bit numbers before and behind its
convolutions and products (QDQ; a scale for each filter, and one for each map, from generated pictures of other people).
OpenVINO reads the same file: its own quantiser, nncf, is no dependency and not used. Rank-1, mAP and what share of the
first 20 of a gallery stays the same are those of a generated scene that nothing was trained or calibrated on; the
vectors of each side come from files, as a search has them. For speed both compute the same batch in memory. bf16 stands
beside.
"""

import dataclasses
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from benchmarks.lite0 import CACHE, SCENES, Sides, sides_of
from benchmarks.measure import alternate, build_row
from tapetum.core.arrays import Real
from tapetum.core.types import EmbeddingSet, Record
from tapetum.data.loader import EvalLoader
from tapetum.data.pictures import PictureOptions
from tapetum.evaluation.metrics import evaluate
from tapetum.inference.export import export_run
from tapetum.inference.model import Model
from tapetum.inference.precision import has_fast_bf16
from tapetum.inference.runtimes import NETWORK_FILES, OnnxSession, OpenVinoSession, import_extra
from tapetum.inference.sessions import open_model
from tapetum.runs.sources import open_scene, training_records

MODEL = Path("tapetum-lite0")
CALIBRATING = {"num_train_people": 25, "num_test_people": 1, "cameras": 8, "pictures_per_camera": 1}
CALIBRATION_SEED, SEED = 7, 11
PICTURES = 32  # in a batch, as `Model` computes them
FIRST = 20
ROUNDS = 5
LEAST_COSINE = 0.95  # of the mean picture's vector to its fp32 form; below, something is broken rather than rounded
QUANTISED = ("Conv", "Gemm", "MatMul", "Add", "Clip", "GlobalAveragePool")


class Reader(CalibrationDataReader):
    """Pictures for the calibration, batch after batch; visible."""

    def __init__(self, batches: Iterator[Real]) -> None:
        self.batches = batches

    def get_next(self) -> dict[str, Any] | None:
        images = next(self.batches, None)
        return None if images is None else {"images": images, "modalities": np.zeros(len(images), dtype=np.int64)}


def run() -> Iterator[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        export_run(MODEL, "onnx", folder / "onnx")
        export_run(MODEL, "openvino", folder / "openvino")
        model = open_model(folder / "onnx", precision="fp32")
        people = open_scene(CALIBRATING | seeds(CALIBRATION_SEED), None, CACHE)
        quantise(folder, read_batches(model, training_records(people)))
        yield from compare(open_sides(folder, model), draw_sides())


def seeds(seed: int) -> dict[str, int]:
    return {"identity_seed": seed, "camera_seed": seed, "time_seed": seed}


def draw_sides() -> Sides:
    scene = open_scene({**SCENES["eight cameras"], **seeds(SEED)}, None, CACHE)
    return sides_of(scene, scene.default_protocol)


def read_batches(model: Model, records: Sequence[Record]) -> Iterator[Real]:
    """(N, 3, H, W) float32 in 0..1."""
    settings = model.settings
    options = PictureOptions(settings.size, settings.interpolation, settings.backend)
    for batch in EvalLoader(records, options, batch_size=PICTURES):
        yield batch.images.numpy()


def quantise(folder: Path, batches: Iterator[Real]) -> None:
    """The packaged model's ONNX file in a folder to `onnx-int8` and `openvino-int8` there."""
    openvino = import_extra("openvino")
    file = NETWORK_FILES["onnx"][0]
    for kind in ("onnx-int8", "openvino-int8"):
        (folder / kind).mkdir()
    prepared = folder / "prepared.onnx"
    quant_pre_process(str(folder / "onnx" / file), str(prepared), skip_symbolic_shape=True)
    quantize_static(
        str(prepared),
        str(folder / "onnx-int8" / file),
        Reader(batches),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=list(QUANTISED),
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        calibrate_method=CalibrationMethod.MinMax,
    )
    network = openvino.convert_model(folder / "onnx-int8" / file)
    openvino.save_model(network, folder / "openvino-int8" / NETWORK_FILES["openvino"][0], compress_to_fp16=False)


def open_sides(folder: Path, model: Model) -> dict[str, Model]:
    """By runtime and arithmetic; what is rounded to int8 leaves the rest in fp32."""
    sessions: dict[str, Any] = {
        "ONNX Runtime, fp32": OnnxSession(folder / "onnx", "fp32", "cpu"),
        "ONNX Runtime, int8": OnnxSession(folder / "onnx-int8", "fp32", "cpu"),
        "OpenVINO, fp32": OpenVinoSession(folder / "openvino", "fp32", "cpu"),
        "OpenVINO, int8": OpenVinoSession(folder / "openvino-int8", "fp32", "cpu"),
    }
    if has_fast_bf16("cpu"):
        sessions["OpenVINO, bf16"] = OpenVinoSession(folder / "openvino", "bf16", "cpu")
    return {name: dataclasses.replace(model, session=session) for name, session in sessions.items()}


def compare(models: dict[str, Model], sides: Sides) -> Iterator[dict[str, Any]]:
    """A row for each that is not fp32, against fp32 by the same runtime."""
    images = next(read_batches(next(iter(models.values())), sides.gallery[:PICTURES]))
    kinds = np.zeros(len(images), dtype=np.int64)
    work: dict[str, Callable[[], object]] = {
        name: partial(model.session.run, images, kinds, kinds) for name, model in models.items()
    }
    rates = {name: len(images) / seconds for name, seconds in alternate(work, ROUNDS).items()}
    found = {name: describe(model, sides) for name, model in models.items()}
    for name in models:
        plain = f"{name.partition(',')[0]}, fp32"
        if name == plain:
            continue
        facts = compare_vectors(found[name], found[plain], sides)
        if not facts["cosine"] >= LEAST_COSINE:
            raise AssertionError(f"{name}: mean cosine {facts['cosine']:.3f} to fp32, {LEAST_COSINE} is the least")
        note = (
            f"rank-1 {facts['plain_rank1']:.1f} to {facts['rank1']:.1f} %, mAP {facts['plain_mean_ap']:.1f} to "
            f"{facts['mean_ap']:.1f} %, first {FIRST} the same in {100 * facts['agreement']:.1f} %, mean cosine of a "
            f"vector to fp32 {facts['cosine']:.4f}"
        )
        row = f"{name}: extraction, {MODEL}, {len(images)} pictures, against fp32"
        yield build_row(row, rates[name], rates[plain], "pictures/s", note=note) | facts


def describe(model: Model, sides: Sides) -> tuple[EmbeddingSet, EmbeddingSet]:
    query, gallery = (model.describe_records(some)[0] for some in (sides.query, sides.gallery))
    return query, gallery


def compare_vectors(
    tried: tuple[EmbeddingSet, EmbeddingSet], plain: tuple[EmbeddingSet, EmbeddingSet], sides: Sides
) -> dict[str, float]:
    """Rank-1 and mAP of both in percent, the share of the first 20 in common, and the mean cosine of the gallery's."""
    metrics = [evaluate(*each, sides.rules).metrics for each in (tried, plain)]
    first = [(query.vectors @ gallery.vectors.T).topk(FIRST).indices for query, gallery in (tried, plain)]
    return {
        "rank1": 100 * metrics[0].rank(1),
        "mean_ap": 100 * metrics[0].mean_ap,
        "plain_rank1": 100 * metrics[1].rank(1),
        "plain_mean_ap": 100 * metrics[1].mean_ap,
        "agreement": float((first[0][:, :, None] == first[1][:, None]).any(2).double().mean()),
        "cosine": float((tried[1].vectors * plain[1].vectors).sum(1).mean()),
    }
