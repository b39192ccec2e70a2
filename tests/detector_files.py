"""Small stand-ins for what registries hold: a package, a TensorFlow.js graph, a TFLite file, a detector's ONNX file."""

import base64
import io
import json
import math
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def write_package(path: Path, files: Mapping[str, bytes], *, name: str = "@some/body", version: str = "1.0.0") -> Path:
    """An archive as `npm pack` makes it."""
    described = {"package/package.json": json.dumps({"name": name, "version": version}).encode()} | dict(files)
    with tarfile.open(path, "w:gz") as archive:
        for label, content in described.items():
            member = tarfile.TarInfo(label)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def text(word: str) -> dict[str, str]:
    return {"s": base64.b64encode(word.encode()).decode()}


def numbers(*values: int) -> dict[str, Any]:
    return {"list": {"i": [str(value) for value in values]}}


def node(name: str, op: str, inputs: tuple[str, ...] = (), **attributes: Any) -> dict[str, Any]:
    return {"name": name, "op": op, "input": list(inputs), "attr": attributes}


def graph_model(nodes: list[dict[str, Any]], constants: Mapping[str, np.ndarray]) -> tuple[bytes, bytes]:
    """The JSON and the weights of a TensorFlow.js graph; floats are stored as float16, whole numbers as they are."""
    manifest, content = [], b""
    for name, array in constants.items():
        whole = array.dtype.kind == "i"
        entry: dict[str, Any] = {"name": name, "shape": list(array.shape), "dtype": "int32" if whole else "float32"}
        if not whole:
            entry["quantization"] = {"dtype": "float16", "original_dtype": "float32"}
        manifest.append(entry)
        content += array.astype(np.int32 if whole else np.float16).tobytes()
    nodes = [*nodes, *(node(name, "Const") for name in constants)]
    model = {"modelTopology": {"node": nodes}, "weightsManifest": [{"paths": ["w.bin"], "weights": manifest}]}
    return json.dumps(model).encode(), content


def picture_input(height: int, width: int) -> dict[str, Any]:
    sides = [{"size": str(side)} for side in (1, height, width, 3)]
    return node("image", "Placeholder", shape={"shape": {"dim": sides}})


def write_centres(path: Path, scores: np.ndarray, sides: np.ndarray, *, size: int = 32) -> Path:
    """A network of layout centernet that answers the same to every picture."""
    nodes = [
        helper.make_node("ReduceMean", ["image"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
        helper.make_node("Add", ["scores", "nothing"], ["out_scores"]),
        helper.make_node("Add", ["sides", "nothing"], ["out_sides"]),
    ]
    arrays = {"zero": np.float32(0), "scores": scores.astype(np.float32), "sides": sides.astype(np.float32)}
    info = helper.make_tensor_value_info
    outputs = [info(f"out_{name}", TensorProto.FLOAT, arrays[name].shape) for name in ("scores", "sides")]
    graph = helper.make_graph(
        nodes,
        "centres",
        [info("image", TensorProto.FLOAT, (1, size, size, 3))],
        outputs,
        [numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), str(path))
    return path


def centres_of_one(box: tuple[float, float, float, float] = (8, 4, 16, 28), *, score: float = 0.9) -> Any:
    """Scores and sides, (1, 8, 8, 2 and 4), of a network of 32 x 32: a person, a weaker place beside, a car."""
    scores, sides = np.zeros((1, 8, 8, 2)), np.zeros((1, 8, 8, 4))
    left, top, right, bottom = box
    row, column = round((top + bottom) / 8), round((left + right) / 8)
    scores[0, row, column, 0], scores[0, row, column + 1, 0], scores[0, 1, 6, 1] = score, score - 0.1, 0.95
    sides[0, row, column] = [4 * column - left, 4 * row - top, right - 4 * column, bottom - 4 * row]
    return scores, sides


def nanodet_literally(
    outputs: list[np.ndarray], size: tuple[int, int], person_class: int, min_score: float
) -> list[tuple[list[float], float]]:
    """Boxes and scores of layout nanodet by its formula, one place and one side after the other."""
    found = []
    for level, stride in enumerate((8, 16, 32)):
        scores, steps = outputs[level][0], outputs[3 + level][0]
        for row in range(size[0] // stride):
            for column in range(size[1] // stride):
                place = row * (size[1] // stride) + column
                if scores[place, person_class] < min_score:
                    continue
                bins, sides = steps.shape[1] // 4, []
                for side in range(4):
                    powers = [math.exp(steps[place, side * bins + step]) for step in range(bins)]
                    sides.append(stride * sum(step * power for step, power in enumerate(powers)) / sum(powers))
                x, y = (column + 0.5) * stride, (row + 0.5) * stride
                box = [x - sides[0], y - sides[1], x + sides[2], y + sides[3]]
                found.append((box, float(scores[place, person_class])))
    return found


def write_tflite(path: Path, operation: int) -> Path:
    """A TFLite file of one operation, which takes and gives a picture of 32 x 32."""
    import flatbuffers

    builder = flatbuffers.Builder(1024)

    def vector(items: list[int], add: Any, width: int = 4) -> int:
        builder.StartVector(width, len(items), 4)
        for item in reversed(items):
            add(item)
        return int(builder.EndVector())

    def tensor(label: str, buffer: int) -> int:
        name, shape = builder.CreateString(label), vector([1, 32, 32, 3], builder.PrependInt32)
        builder.StartObject(4)
        builder.PrependUOffsetTRelativeSlot(0, shape, 0)
        builder.PrependUint32Slot(2, buffer, 0)
        builder.PrependUOffsetTRelativeSlot(3, name, 0)
        return int(builder.EndObject())

    buffers = []
    for _ in range(3):
        builder.StartObject(1)
        buffers.append(int(builder.EndObject()))
    builder.StartObject(4)
    builder.PrependInt8Slot(0, operation, 0)
    builder.PrependInt32Slot(2, 1, 1)
    builder.PrependInt32Slot(3, operation, 0)
    codes = vector([int(builder.EndObject())], builder.PrependUOffsetTRelative)
    tensors = vector([tensor("image", 1), tensor("out", 2)], builder.PrependUOffsetTRelative)
    inputs, outputs = vector([0], builder.PrependInt32), vector([1], builder.PrependInt32)
    builder.StartObject(3)
    builder.PrependUOffsetTRelativeSlot(1, inputs, 0)
    builder.PrependUOffsetTRelativeSlot(2, outputs, 0)
    operators = vector([int(builder.EndObject())], builder.PrependUOffsetTRelative)
    builder.StartObject(4)
    for slot, offset in enumerate((tensors, inputs, outputs, operators)):
        builder.PrependUOffsetTRelativeSlot(slot, offset, 0)
    subgraphs = vector([int(builder.EndObject())], builder.PrependUOffsetTRelative)
    buffer_vector = vector(buffers, builder.PrependUOffsetTRelative)
    builder.StartObject(5)
    builder.PrependUint32Slot(0, 3, 0)
    builder.PrependUOffsetTRelativeSlot(1, codes, 0)
    builder.PrependUOffsetTRelativeSlot(2, subgraphs, 0)
    builder.PrependUOffsetTRelativeSlot(4, buffer_vector, 0)
    builder.Finish(builder.EndObject(), b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    return path
