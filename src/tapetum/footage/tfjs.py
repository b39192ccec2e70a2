"""A network that was saved for TensorFlow.js, as ONNX: a graph in JSON beside one file of weights.

Only what the wanted outputs need is turned into ONNX, so that a graph can be cut before what computes slowly
elsewhere. The file orders pictures as (1, H, W, C), ONNX as (1, C, H, W): what lies between convolutions is turned
into ONNX's order once, because runtimes do not take transpositions out again (with one around each convolution,
CenterNet took 282 ms instead of 62). Small whole numbers (axes, sizes, paddings) are worked out here, because ONNX
wants them as constants.

The file is a stranger's: its size, its number of nodes and every shape is checked before anything is built, an
operation that is not listed is named, and nothing of it is run.
"""

import base64
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tapetum.core.errors import DataError, first_line

if TYPE_CHECKING:
    import onnx

Array = NDArray[Any]
_OPSET, _IR_VERSION = 13, 8
_MOST_NODES = 5000
_MOST_NUMBERS = 64 << 20  # of all weights together
_LARGEST_SIDE = 4096
_STORED = {"float32": np.float32, "int32": np.int32, "bool": np.bool_, "uint8": np.uint8}  # dtype in the manifest
_QUANTISED = {"float16": np.float16, "uint8": np.uint8, "uint16": np.uint16}
_FUSED = {"Relu", "Relu6", "LeakyRelu", "Elu", "Sigmoid"}
_SAME = {"Relu", "Sigmoid", "Elu", "Tanh", "Identity", "LeakyRelu"}  # one tensor in, one out, of the same name in ONNX
_TWO = {
    "Add": "Add",
    "AddV2": "Add",
    "BiasAdd": "Add",
    "Sub": "Sub",
    "Mul": "Mul",
    "RealDiv": "Div",
    "Maximum": "Max",
    "Minimum": "Min",
}
_WHOLE: Mapping[str, Callable[..., Array]] = {"Add": np.add, "AddV2": np.add, "Sub": np.subtract, "Mul": np.multiply}
_TO_ONNX, _TO_TF = (0, 3, 1, 2), (0, 2, 3, 1)  # pictures' axes: (1, H, W, C) to (1, C, H, W) and back


def convert_graph(model: bytes, weights: bytes, outputs: Sequence[str], name: str) -> bytes:
    """The part of a TensorFlow.js graph that some of its tensors need, as an ONNX file.

    Args:
        model: the JSON file, with topology and manifest.
        weights: the file of weights; of several, joined in the manifest's order.
        outputs: names of the nodes whose results are wanted, in the order in which the network shall give them.
        name: of the network, for errors.
    Raises:
        DataError: it is no such graph, it is damaged or too large, or it has an operation that is not known here.
    """
    import onnx

    nodes, manifest = _read_model(model, name)
    constants = _read_weights(manifest, weights, name)
    graph = _Graph(name, constants)
    for node in _in_order(nodes, outputs, name):
        graph.add(node)
    graph.finish(outputs)
    if len(graph.placeholders) != 1:
        raise DataError(f"{name}: takes {len(graph.placeholders)} inputs where one picture is expected")
    info = onnx.helper.make_tensor_value_info
    described = [info(f"out:{each}", onnx.TensorProto.FLOAT, None) for each in outputs]
    image = info(*graph.placeholders[0][:1], onnx.TensorProto.FLOAT, graph.placeholders[0][1])
    body = onnx.helper.make_graph(graph.built, "network", [image], described, graph.initializers())
    opsets = [onnx.helper.make_opsetid("", _OPSET)]
    whole = onnx.helper.make_model(body, opset_imports=opsets, ir_version=_IR_VERSION)
    try:
        whole = onnx.shape_inference.infer_shapes(whole, check_type=True, strict_mode=True)
        onnx.checker.check_model(whole)
    except Exception as error:  # every way in which shapes can contradict each other
        raise DataError(f"{name}: its parts do not fit together ({first_line(error)}); fetch it again") from None
    return bytes(whole.SerializeToString())


@dataclass(frozen=True)
class _Node:
    name: str
    op: str
    inputs: tuple[str, ...]
    attributes: Mapping[str, Any]


def _read_model(content: bytes, name: str) -> tuple[dict[str, _Node], list[dict[str, Any]]]:
    """Nodes by name, and the description of the weights in their order."""
    wrong = DataError(f"{name}: is no TensorFlow.js graph model; give the package that is asked for")
    try:
        document = json.loads(content)
        written = document["modelTopology"]["node"]
        manifest = [each for group in document["weightsManifest"] for each in group["weights"]]
        if len(written) > _MOST_NODES:
            raise DataError(f"{name}: has {len(written)} nodes, more than {_MOST_NODES}; it is another network")
        nodes = {
            str(each["name"]): _Node(
                str(each["name"]), str(each["op"]), tuple(map(str, each.get("input", ()))), each.get("attr", {})
            )
            for each in written
        }
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise wrong from None
    return nodes, manifest


def _read_weights(manifest: list[dict[str, Any]], content: bytes, name: str) -> dict[str, Array]:
    """The constants; those stored in fewer bytes are float32 again, whole numbers stay whole."""
    constants, place = dict[str, Array](), 0
    numbers = 0
    for each in manifest:
        try:
            shape, kind, packed = tuple(map(int, each["shape"])), str(each["dtype"]), each.get("quantization")
            stored = np.dtype(_STORED[kind] if packed is None else _QUANTISED[packed["dtype"]])
            scale, least = (1.0, 0.0) if packed is None else (packed.get("scale", 1.0), packed.get("min", 0.0))
            label = str(each["name"])
        except (KeyError, TypeError, ValueError):
            raise DataError(
                f"{name}: weights {str(each)[:80]} cannot be read; floats and int32 are, whole or quantised"
            ) from None
        count = math.prod(shape)
        numbers += count
        if min(shape, default=0) < 0 or numbers > _MOST_NUMBERS:
            raise DataError(f"{name}: weights {label} of shape {shape} are too many; it is another network")
        end = place + count * stored.itemsize
        if end > len(content):
            raise DataError(
                f"{name}: its weights end after {len(content)} bytes, {label} needs {end}; the file is cut short, "
                "fetch it again"
            )
        array: Array = np.frombuffer(content, stored.newbyteorder("<"), count, place).reshape(shape)
        if packed is not None:
            array = np.asarray(array.astype(np.float32) * np.float32(scale) + np.float32(least), np.float32)
        constants[label] = array.astype(np.int64) if kind in ("int32", "uint8") and packed is None else array
        place = end
    if place != len(content):
        raise DataError(f"{name}: has {len(content)} bytes of weights where {place} are described; fetch it again")
    return constants


def _in_order(nodes: Mapping[str, _Node], outputs: Sequence[str], name: str) -> list[_Node]:
    """What the outputs need, each node after those that it takes from."""
    ordered, state = list[_Node](), dict[str, int]()  # 1 is being visited, 2 is done
    stack = list(reversed(outputs))
    while stack:
        label = stack[-1]
        if label not in nodes:
            raise DataError(f"{name}: has no node {label}; it is another network")
        if state.get(label) == 2:
            stack.pop()
            continue
        waiting = [each for each in map(_source, nodes[label].inputs) if state.get(each) != 2]
        if not waiting:
            state[label] = 2
            ordered.append(nodes[stack.pop()])
            continue
        if state.get(label) == 1:
            raise DataError(f"{name}: node {label} needs its own result; the graph is damaged")
        state[label] = 1
        stack += waiting
    return ordered


def _source(tensor: str) -> str:
    """The node that a tensor comes from: `a:1` is the second output of `a`, `^a` only waits for it."""
    return tensor.lstrip("^").partition(":")[0]


@dataclass
class _Graph:
    """ONNX nodes as they come; whole numbers are worked out at once.

    Each tensor is there in the file's own order, with the channels first, or in both: what convolutions give stays as
    it is until something asks for the other order.
    """

    name: str
    constants: dict[str, Array]
    built: list["onnx.NodeProto"] = field(default_factory=list)
    placeholders: list[tuple[str, tuple[int, ...]]] = field(default_factory=list)
    own: dict[str, Array] = field(default_factory=dict)  # constants in the order or shape that ONNX wants
    plain: dict[str, str] = field(default_factory=dict)  # tensor of the file -> its name in ONNX, in its own order
    first: dict[str, str] = field(default_factory=dict)  # the same with the channels first

    def finish(self, outputs: Sequence[str]) -> None:
        """Give the wanted tensors their own names, in their own order."""
        for tensor in outputs:
            self._emit("Identity", [self._plain(tensor)], f"out:{tensor}")

    def initializers(self) -> list["onnx.TensorProto"]:
        """The constants that some node takes."""
        from onnx import numpy_helper

        taken = {tensor for node in self.built for tensor in node.input}
        known = self.constants | self.own
        return [numpy_helper.from_array(np.ascontiguousarray(known[each]), each) for each in sorted(taken & set(known))]

    def add(self, node: _Node) -> None:
        """Turn one node into ONNX."""
        inputs = [each.removesuffix(":0") for each in node.inputs if not each.startswith("^")]
        if node.op == "Const":
            if node.name not in self.constants:
                raise DataError(f"{self.name}: constant {node.name} has no weights; fetch it again")
            return
        if self._fold(node, inputs):
            return
        try:
            self._add(node, inputs)
        except (IndexError, KeyError, ValueError, TypeError, AttributeError):
            raise DataError(
                f"{self.name}: node {node.name} ({node.op}) has other inputs or settings than expected; fetch it again"
            ) from None

    def _add(self, node: _Node, inputs: list[str]) -> None:
        op, out = node.op, node.name
        if op == "Placeholder":
            self.placeholders.append((out, self._shape(node)))
            self.plain[out] = out
        elif op in ("Conv2D", "_FusedConv2D", "DepthwiseConv2dNative", "FusedDepthwiseConv2dNative"):
            self._convolve(node, inputs)
        elif op in _TWO:
            self._combine(_TWO[op], inputs[:2], out)
        elif op == "Relu6":
            self._alike("Clip", inputs[0], out, [self._constant(np.float32(0)), self._constant(np.float32(6))])
        elif op in _SAME:
            settings = {"alpha": self._number(node, "alpha", 0.2)} if op == "LeakyRelu" else {}
            self._alike(op, inputs[0], out, settings=settings)
        elif op == "Mean":
            axes, keep = self._known(inputs[1]).reshape(-1).tolist(), self._flag(node, "keep_dims")
            if keep and inputs[0] in self.first:
                axes = [_TO_ONNX.index(axis % 4) for axis in axes]
                self._put_first("ReduceMean", [self.first[inputs[0]]], out, axes=axes, keepdims=1)
            else:
                self._put("ReduceMean", [self._plain(inputs[0])], out, axes=axes, keepdims=int(keep))
        elif op == "ConcatV2":
            axis = int(self._known(inputs[-1]))
            if all(each in self.first for each in inputs[:-1]):
                axis = _TO_ONNX.index(axis % 4)
                self._put_first("Concat", [self.first[each] for each in inputs[:-1]], out, axis=axis)
            else:
                self._put("Concat", [self._plain(each) for each in inputs[:-1]], out, axis=axis)
        elif op == "ResizeBilinear":
            self._resize(node, inputs)
        elif op == "Transpose":
            self._transpose(inputs, out)
        elif op == "Reshape":
            shape = self._constant(self._known(inputs[1]).reshape(-1).astype(np.int64))
            self._put("Reshape", [self._plain(inputs[0]), shape], out)
        elif op in ("Pad", "PadV2"):
            pads = self._constant(self._known(inputs[1]).T.reshape(-1).astype(np.int64))
            value = inputs[2] if op == "PadV2" else self._constant(np.float32(0))
            self._put("Pad", [self._plain(inputs[0]), pads, value], out)
        elif op == "SplitV":
            sizes = self._known(inputs[1]).reshape(-1).astype(np.int64)
            parts = [out, *(f"{out}:{number}" for number in range(1, len(sizes)))]
            axis = int(self._known(inputs[2]))
            self._emit("Split", [self._plain(inputs[0]), self._constant(sizes)], *parts, axis=axis)
            self.plain |= {part: part for part in parts}
        elif op == "MaxPool":
            window = {"kernel_shape": self._list(node, "ksize")[1:3], "strides": self._list(node, "strides")[1:3]}
            self._put_first("MaxPool", [self._first(inputs[0])], out, auto_pad=self._padding(node), **window)
        else:
            raise DataError(
                f"{self.name}: node {node.name} is a {op}, which is not among the operations known here; "
                "it is another network, or was exported in another way"
            )

    def _convolve(self, node: _Node, inputs: list[str]) -> None:
        """A convolution with the bias and the activation that were fused into it."""
        weights = self._known(inputs[1])  # (height, width, channels, filters)
        settings: dict[str, Any] = {
            "auto_pad": self._padding(node),
            "strides": self._list(node, "strides")[1:3],
            "dilations": self._list(node, "dilations", (1, 1, 1, 1))[1:3],
        }
        if "Depthwise" in node.op:
            settings["group"] = weights.shape[2]
            weights = weights.reshape(*weights.shape[:2], 1, -1)
        kernel = self._constant(np.transpose(weights, (3, 2, 0, 1)))
        fused = self._words(node, "fused_ops")
        if fused[:1] not in ([], ["BiasAdd"]) or (fused[1:] and fused[1] not in _FUSED) or fused[2:]:
            raise DataError(f"{self.name}: node {node.name} fuses {', '.join(fused)}, which is not known here")
        out = node.name if not fused[1:] else f"{node.name}//before"
        self._put_first("Conv", [self._first(inputs[0]), kernel, *(inputs[2:3] if fused else [])], out, **settings)
        if fused[1:]:
            alpha = {"alpha": {"f": self._number(node, "leakyrelu_alpha", 0.2)}}
            self._add(_Node(node.name, fused[1], (out,), alpha), [out])

    def _combine(self, op: str, inputs: list[str], out: str) -> None:
        """Two tensors, number by number; a constant is brought into the other one's order."""
        if any(each in self.first for each in inputs) and all(
            each in self.first or each in self.constants for each in inputs
        ):
            self._put_first(op, [self.first.get(each) or self._turned(each) for each in inputs], out)
        else:
            self._put(op, [self._plain(each) for each in inputs], out)

    def _turned(self, tensor: str) -> str:
        """A constant that is combined with a tensor whose channels come first."""
        array = self.constants[tensor]
        array = array.reshape((1,) * (4 - array.ndim) + array.shape)
        return self._constant(np.transpose(array, _TO_ONNX))

    def _transpose(self, inputs: list[str], out: str) -> None:
        """Only another name where the tensor is there in that order."""
        order = tuple(self._known(inputs[1]).reshape(-1).tolist())
        if order == _TO_ONNX:
            self.plain[out] = self._first(inputs[0])
        elif order == _TO_TF:
            self.first[out] = self._plain(inputs[0])
        else:
            self._put("Transpose", [self._plain(inputs[0])], out, perm=order)

    def _resize(self, node: _Node, inputs: list[str]) -> None:
        """Bilinear; the sizes of batch and channels are asked of the picture, because ONNX wants all four."""
        sizes = self._known(inputs[1]).reshape(-1).astype(np.int64)
        if sizes.shape != (2,) or not 1 <= int(sizes.min()) <= int(sizes.max()) <= _LARGEST_SIDE:
            raise DataError(f"{self.name}: node {node.name} resizes to {sizes.tolist()}; it is another network")
        corners, half = self._flag(node, "align_corners"), self._flag(node, "half_pixel_centers")
        mode = "align_corners" if corners else "half_pixel" if half else "asymmetric"
        before, out = self._first(inputs[0]), node.name
        self._emit("Shape", [before], f"{out}//shape")
        bounds = [self._constant(np.array([each], np.int64)) for each in (0, 2)]
        self._emit("Slice", [f"{out}//shape", *bounds], f"{out}//own")
        self._emit("Concat", [f"{out}//own", self._constant(sizes)], f"{out}//sizes", axis=0)
        settings = {"mode": "linear", "coordinate_transformation_mode": mode}
        self._put_first("Resize", [before, "", "", f"{out}//sizes"], out, **settings)

    def _alike(
        self, op: str, tensor: str, out: str, more: Sequence[str] = (), *, settings: Mapping[str, Any] | None = None
    ) -> None:
        """An operation on each number by itself, in whatever order the tensor is."""
        if tensor in self.first:
            self._put_first(op, [self.first[tensor], *more], out, **settings or {})
        else:
            self._put(op, [self._plain(tensor), *more], out, **settings or {})

    def _first(self, tensor: str) -> str:
        """A picture with its channels first."""
        if tensor not in self.first:
            self._emit("Transpose", [self._plain(tensor)], f"{tensor}//first", perm=_TO_ONNX)
            self.first[tensor] = f"{tensor}//first"
        return self.first[tensor]

    def _plain(self, tensor: str) -> str:
        """A tensor in its own order."""
        if tensor not in self.plain and tensor in self.first:
            self._emit("Transpose", [self.first[tensor]], f"{tensor}//plain", perm=_TO_TF)
            self.plain[tensor] = f"{tensor}//plain"
        return tensor if tensor in self.constants else self.plain[tensor]

    def _put(self, op: str, inputs: Sequence[str], out: str, **settings: Any) -> None:
        self._emit(op, inputs, out, **settings)
        self.plain[out] = out

    def _put_first(self, op: str, inputs: Sequence[str], out: str, **settings: Any) -> None:
        self._emit(op, inputs, f"{out}//first", **settings)
        self.first[out] = f"{out}//first"

    def _emit(self, op: str, inputs: Sequence[str], *outputs: str, **settings: Any) -> None:
        from onnx import helper

        self.built.append(helper.make_node(op, list(inputs), list(outputs), **settings))

    def _constant(self, value: Array | np.generic) -> str:
        label = f"constant//{len(self.own)}"
        self.own[label] = np.asarray(value)
        return label

    def _fold(self, node: _Node, inputs: list[str]) -> bool:
        """Whether all inputs are known whole numbers, so that the result is one of the constants."""
        if not inputs or not all(each in self.constants for each in inputs):
            return False
        known = [self.constants[each] for each in inputs]
        if any(each.dtype.kind not in "ib" for each in known):
            return False
        if node.op in _WHOLE and len(known) == 2:
            self.constants[node.name] = _WHOLE[node.op](*known)
        elif node.op == "SparseToDense" and len(known) == 4 and known[1].size == 1 and not known[0].size:
            length = int(known[1].reshape(-1)[0])
            if not 0 <= length <= 8:
                raise DataError(f"{self.name}: node {node.name} makes {length} numbers of none; fetch it again")
            self.constants[node.name] = np.full(length, known[3].reshape(-1)[0], np.int64)
        elif node.op == "Identity":
            self.constants[node.name] = known[0]
        else:
            return False
        return True

    def _known(self, tensor: str) -> Array:
        if tensor not in self.constants:
            raise DataError(f"{self.name}: {tensor} is worked out from the picture where a constant is expected")
        return self.constants[tensor]

    def _shape(self, node: _Node) -> tuple[int, ...]:
        sides = tuple(int(each["size"]) for each in node.attributes["shape"]["shape"]["dim"])
        if len(sides) != 4 or not 1 <= min(sides) <= max(sides) <= _LARGEST_SIDE:
            raise DataError(f"{self.name}: takes a tensor of shape {sides}; one picture of fixed size is expected")
        return sides

    def _padding(self, node: _Node) -> str:
        """TensorFlow's SAME puts the odd pixel below and right, which ONNX calls upper."""
        word = base64.b64decode(node.attributes["padding"]["s"]).decode()
        return {"SAME": "SAME_UPPER", "VALID": "VALID"}[word]

    def _list(self, node: _Node, key: str, otherwise: Sequence[int] | None = None) -> list[int]:
        if key not in node.attributes and otherwise is not None:
            return list(otherwise)
        return [int(each) for each in node.attributes[key]["list"]["i"]]

    def _words(self, node: _Node, key: str) -> list[str]:
        written = node.attributes.get(key, {}).get("list", {}).get("s", ())
        return [base64.b64decode(each).decode() for each in written]

    def _flag(self, node: _Node, key: str) -> bool:
        return bool(node.attributes.get(key, {}).get("b", False))

    def _number(self, node: _Node, key: str, otherwise: float) -> float:
        return float(node.attributes.get(key, {}).get("f", otherwise))
