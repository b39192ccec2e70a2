"""From a run to an artefact: the whole way from pixels to unit vectors as one graph, compared with PyTorch.

The graph takes ``images`` (N, 3, H, W), float32 RGB in 0..1, ``modalities`` (N,), int64, and of a method that looks at
cameras also ``camids`` (N,), int64, for any N, and gives ``vectors`` (N, D) of unit length. Normalisation and mirror
are inside. A network with a stem for each modality sends every picture through both stems and a mask chooses: exact, in
any mixture, for the price of one more stem.
"""

import dataclasses
import io
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from tapetum.core.arrays import Real
from tapetum.core.atomic import write_bytes
from tapetum.core.digest import digest_file
from tapetum.core.errors import RecipeError, TapetumError, first_line
from tapetum.core.method import Method, part_for_search
from tapetum.core.types import UNKNOWN_CAMERA
from tapetum.core.versions import read_versions
from tapetum.inference.artefact import (
    PROBE,
    RUNTIMES,
    Artefact,
    ExportError,
    ModelSettings,
    Runtime,
    check_is_free,
    write_artefact,
    writing_folder,
)
from tapetum.inference.filling import filling_of, without_filling
from tapetum.inference.identity import checkpoint_facts, settings_of, stored_calibration
from tapetum.inference.model_id import model_id
from tapetum.inference.probe import Probe, compare, save_probe
from tapetum.inference.probe_scene import COUNT, draw_probe
from tapetum.inference.runtimes import INPUTS, NETWORK_FILES, import_extra
from tapetum.inference.sessions import open_artefact
from tapetum.runs.checkpoint import load_checkpoint

OPSET = 20
OUTPUT = "vectors"
CONVOLUTION_WITH_BIAS = 3  # inputs of ONNX's Conv: maps, weight, bias
BATCHES = (1, 2, 7, 32)
# Unit vectors of float32 differ by some 1e-7 between libraries; each fault known so far shows at 3e-5 or more.
MAX_DIFFERENCE = 2e-5
MIN_COSINE = 0.999999


class Describing(nn.Module):
    """A method as the function that is exported: pictures, modalities and perhaps cameras in, vectors out."""

    def __init__(self, method: nn.Module, mirror: bool) -> None:
        super().__init__()
        self.method = method
        self.mirror = mirror

    def forward(self, images: Tensor, modalities: Tensor, camids: Tensor | None = None) -> Tensor:
        """(N, D) float32 of unit length.

        Args:
            images: (N, 3, H, W) float32 in 0..1.
            camids: (N,) int64; left out for a method that does not look at them.
        """
        cameras = torch.full_like(modalities, UNKNOWN_CAMERA) if camids is None else camids
        vectors = cast(Method, self.method).embed(images, modalities, cameras, mirror=self.mirror)
        return without_filling(vectors, filling_of(self.method))


Example = tuple[Tensor, ...]  # pictures, modalities, and cameras for a method that looks at them
Write = Callable[[nn.Module, Example, Path, int], None]


def export_run(
    place: Path,
    runtime: str,
    out: Path,
    *,
    mirror: bool | None = None,
    opset: int = OPSET,
) -> Artefact:
    """Write an artefact of a run's model; one that differs from the model is not written.

    The graph takes cameras if the vectors of a probe's pictures depend on them.

    The files are opened as anybody would open them and must give PyTorch's fp32 vectors for pictures of both
    modalities in batches of 1, 2, 7 and 32: no element further off than 2e-5, no cosine below 0.999999.

    Args:
        place: run folder or checkpoint file.
        out: folder of the artefact; absent or empty.
        mirror: join each picture with its mirror; None takes the recipe's choice.
    Raises:
        ExportError: the model cannot be exported, or what came out differs from it.
        OutputError: `out` is taken or cannot be written.
    """
    if runtime not in RUNTIMES:
        raise RecipeError(f"--to {runtime!r} is unknown; known: {', '.join(RUNTIMES)}, weights")
    check_is_free(out)
    for library in LIBRARIES[runtime]:
        import_extra(library)
    checkpoint = load_checkpoint(place)
    settings = settings_of(checkpoint.header, checkpoint.path, mirror)
    network = checkpoint.network.requires_grad_(requires_grad=False)
    probe, sees_cameras = _describe_probe(network, settings, checkpoint.header.camids)
    function = Describing(part_for_search(network), settings.mirror).eval()
    with writing_folder(out) as folder:
        few = (probe.images[:2], probe.modalities[:2], probe.camids[:2])
        example: Example = tuple(torch.tensor(each) for each in few[: 3 if sees_cameras else 2])
        try:
            with torch.no_grad(), _silence():
                WRITERS[runtime](function, example, folder, opset)
        except (TapetumError, OSError):
            raise
        except Exception as error:  # the exporters raise types of their own, by version and by what they stumble over
            reason = first_line(error)
            raise ExportError(
                f"{checkpoint.path}: cannot be exported to {runtime} ({reason}); try another --to"
            ) from error
        save_probe(folder, probe)
        artefact = Artefact(
            model=model_id(network.state_dict(), settings),
            runtime=runtime,
            settings=settings,
            dimension=probe.vectors.shape[1],
            files={name: digest_file(folder / name) for name in (*NETWORK_FILES[runtime], PROBE)},
            opset=None if runtime == "torchscript" else opset,
            calibration=stored_calibration(place, checkpoint_facts(checkpoint.path, settings)),
            versions=read_versions(),
        )
        write_artefact(folder, artefact)
        artefact = dataclasses.replace(artefact, check=check_artefact(folder, probe, str(checkpoint.path)))
        write_artefact(folder, artefact)
    return artefact


def check_artefact(folder: Path, probe: Probe, place: str) -> dict[str, Any]:
    """Compare an artefact's files with PyTorch's vectors.

    Returns:
        The findings: pictures, batches, max_difference, min_cosine.
    Raises:
        ExportError: they differ.
    """
    model = open_artefact(folder, precision="fp32", device="cpu", trust_code=True)
    worst, lowest = 0.0, 1.0
    start = 0
    for batch in BATCHES:
        rows = (start + np.arange(batch)) % len(probe.vectors)
        start += batch
        try:
            vectors = model.session.run(probe.images[rows], probe.modalities[rows], probe.camids[rows])
        except Exception as error:  # the libraries raise types of their own
            reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
            raise ExportError(
                f"{place}: the exported graph fails on a batch of {batch} ({reason}); nothing was written"
            ) from error
        reference = probe.vectors[rows]
        if vectors.shape != reference.shape:
            raise ExportError(
                f"{place}: the exported graph gives {vectors.shape} for a batch of {batch}, PyTorch "
                f"{reference.shape}; nothing was written"
            )
        difference, cosine = compare(vectors, reference)
        if not (difference <= MAX_DIFFERENCE and cosine >= MIN_COSINE):
            raise ExportError(
                f"{place}: the exported graph differs from PyTorch on a batch of {batch} (largest difference "
                f"{difference:.1e}, allowed {MAX_DIFFERENCE:.0e}; smallest cosine {cosine:.7f}, allowed {MIN_COSINE}); "
                "nothing was written"
            )
        worst, lowest = max(worst, difference), min(lowest, cosine)
    return {"pictures": COUNT, "batches": list(BATCHES), "max_difference": worst, "min_cosine": lowest}


def _describe_probe(network: nn.Module, settings: ModelSettings, camids: Sequence[int]) -> tuple[Probe, bool]:
    """What PyTorch says in fp32 on the CPU, and whether it would say otherwise of pictures of unknown cameras."""
    probe = draw_probe(settings, camids)
    images, modalities, known = map(torch.from_numpy, (probe.images, probe.modalities, probe.camids))

    def embed(cameras: Tensor) -> Tensor:
        with torch.no_grad():
            vectors = cast(Method, network).embed(images, modalities, cameras, mirror=settings.mirror)
            return without_filling(vectors, filling_of(network))

    vectors = embed(known)
    sees_cameras = not torch.equal(vectors, embed(torch.full_like(known, UNKNOWN_CAMERA)))
    return dataclasses.replace(probe, vectors=vectors.numpy()), sees_cameras


def write_onnx(function: nn.Module, example: Example, folder: Path, opset: int) -> None:
    """Write one ONNX file for any batch size."""
    file = folder / NETWORK_FILES["onnx"][0]
    batch = torch.export.Dim("batch", min=1)
    program = torch.export.export(function, example, dynamic_shapes=tuple({0: batch} for _ in example), strict=False)
    # Without the exporter's own simplification: it takes the 1e-12 under the root of GeM pooling for a zero, which
    # moves AGW's vectors by 3e-5; and the libraries simplify for themselves.
    torch.onnx.export(
        program,
        f=str(file),
        input_names=INPUTS[: len(example)],
        output_names=[OUTPUT],
        opset_version=opset,
        dynamo=True,
        external_data=False,
        optimize=False,
        verbose=False,
    )
    _simplify(file)


def _simplify(file: Path) -> None:
    """Let ONNX Runtime see what is constant, so that it folds norms and activations into the convolutions before them.

    The exporter writes the missing bias of a convolution as a zero which is cast and expanded, and casts the bounds of
    an activation. Such a bias is left out, and constants are cast here.
    """
    onnx = import_extra("onnx")
    model = onnx.load(file)
    graph = model.graph
    made_by = {name: node for node in graph.node for name in node.output}
    constants = {name: _value_of(node) for name, node in made_by.items() if node.op_type == "Constant"}
    inferred = onnx.shape_inference.infer_shapes(model).graph.value_info
    types = {each.name: each.type.tensor_type.elem_type for each in inferred}
    for node in graph.node:
        if node.op_type == "CastLike" and node.input[0] in constants and types.get(node.output[0]):
            kind = onnx.helper.tensor_dtype_to_np_dtype(types[node.output[0]])
            value = constants[node.output[0]] = constants[node.input[0]].astype(kind)
            tensor = onnx.numpy_helper.from_array(value, node.output[0])
            node.CopyFrom(onnx.helper.make_node("Constant", [], list(node.output), value=tensor))
    for node in graph.node:
        if node.op_type == "Conv" and len(node.input) == CONVOLUTION_WITH_BIAS:
            bias = made_by.get(node.input[2])
            zero = None if bias is None or bias.op_type != "Expand" else constants.get(bias.input[0])
            if zero is not None and not zero.any():
                del node.input[2]
    wanted = {each.name for each in graph.output}
    kept = []
    for node in reversed(graph.node):  # which stand in the order of their computing
        if wanted.intersection(node.output):
            wanted.update(node.input)
            kept.append(node)
    del graph.node[:]
    graph.node.extend(reversed(kept))
    write_bytes(file, model.SerializeToString())


def _value_of(constant: Any) -> Real:
    """Of a node of that type, which holds a tensor or a number."""
    onnx = import_extra("onnx")
    value = onnx.helper.get_attribute_value(constant.attribute[0])
    return np.asarray(onnx.numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else value)


def write_openvino(function: nn.Module, example: Example, folder: Path, opset: int) -> None:
    """Write OpenVINO's two files, weights in float32.

    Args:
        opset: of the ONNX file on the way.
    """
    openvino = import_extra("openvino")
    write_onnx(function, example, folder, opset)
    between = folder / NETWORK_FILES["onnx"][0]
    network = openvino.convert_model(between)
    openvino.save_model(network, folder / NETWORK_FILES["openvino"][0], compress_to_fp16=False)  # True is its default
    between.unlink()


def write_torchscript(function: nn.Module, example: Example, folder: Path, opset: int) -> None:  # noqa: ARG001
    """Write one TorchScript file."""
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.trace(function, example, check_trace=False), buffer)  # type: ignore[no-untyped-call]
    write_bytes(folder / NETWORK_FILES["torchscript"][0], buffer.getvalue())


LIBRARIES: Mapping[Runtime, tuple[str, ...]] = {
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "openvino": ("onnx", "onnxscript", "openvino"),
    "torchscript": (),
}
WRITERS: dict[Runtime, Write] = {"onnx": write_onnx, "openvino": write_openvino, "torchscript": write_torchscript}


@contextmanager
def _silence() -> Iterator[None]:
    """The exporters report progress and warn of deprecations of their own."""
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
