from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch.nn import functional

from detector_files import graph_model, node, numbers, picture_input, text
from tapetum.core.errors import DataError
from tapetum.footage import tfjs as module
from tapetum.footage.tfjs import convert_graph

CONV = {"strides": numbers(1, 2, 2, 1), "dilations": numbers(1, 1, 1, 1), "padding": text("SAME")}


def half(array: np.ndarray) -> np.ndarray:
    """As it comes out of its two bytes."""
    return array.astype(np.float16).astype(np.float32)


@pytest.fixture
def constants() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "kernel": half(rng.normal(size=(3, 3, 3, 4))),
        "bias": half(rng.normal(size=4)),
        "deep": half(rng.normal(size=(3, 3, 4, 1))),
        "scale": half(rng.normal(size=4)),
        "sides": np.array([1, 2]),
        "size": np.array([9, 7]),
        "last": np.array(3),
        "k": np.array(100),
    }


def small_graph() -> list[dict[str, Any]]:
    """Convolution with bias and ReLU6, depthwise one, mean that weighs the channels, resizing, joining; then a TopK."""
    return [
        picture_input(10, 8),
        node("first", "_FusedConv2D", ("image", "kernel", "bias"), **CONV, fused_ops={"list": {"s": fused()}}),
        node("second", "DepthwiseConv2dNative", ("first", "deep"), **CONV),
        node("mean", "Mean", ("second", "sides"), keep_dims={"b": True}),
        node("gate", "Sigmoid", ("mean",)),
        node("weighed", "Mul", ("second", "gate")),
        node("scaled", "Mul", ("weighed", "scale")),
        node("large", "ResizeBilinear", ("scaled", "size"), half_pixel_centers={"b": True}),
        node("again", "ResizeBilinear", ("second", "size"), half_pixel_centers={"b": True}),
        node("joined", "ConcatV2", ("large", "again", "last")),
        node("wanted", "Identity", ("joined:0",)),
        node("strongest", "TopKV2", ("wanted", "k")),
    ]


def fused() -> list[str]:
    return [text("BiasAdd")["s"], text("Relu6")["s"]]


def run(network: bytes, picture: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(network, providers=["CPUExecutionProvider"])
    return [np.asarray(each) for each in session.run(None, {session.get_inputs()[0].name: picture})]


def literally(picture: np.ndarray, constants: dict[str, np.ndarray]) -> np.ndarray:
    """The same graph in PyTorch, written from its meaning."""

    def pad(image: torch.Tensor) -> torch.Tensor:
        amounts = []
        for side in (image.shape[3], image.shape[2]):
            total = max(0, (-(-side // 2) - 1) * 2 + 3 - side)
            amounts += [total // 2, total - total // 2]
        return functional.pad(image, amounts)

    values = {name: torch.from_numpy(array) for name, array in constants.items()}
    image = torch.from_numpy(picture).permute(0, 3, 1, 2)
    first = functional.conv2d(pad(image), values["kernel"].permute(3, 2, 0, 1), values["bias"], stride=2).clamp(0, 6)
    second = functional.conv2d(pad(first), values["deep"].permute(2, 3, 0, 1), stride=2, groups=4)
    scaled = second * second.mean((2, 3), keepdim=True).sigmoid() * values["scale"].reshape(1, 4, 1, 1)
    resized = [functional.interpolate(each, (9, 7), mode="bilinear") for each in (scaled, second)]
    return torch.cat(resized, 1).permute(0, 2, 3, 1).numpy()


def test_a_graph_gives_what_its_operations_mean(constants: dict[str, np.ndarray]) -> None:
    network = convert_graph(*graph_model(small_graph(), constants), ["wanted", "gate"], "small")
    picture = np.random.default_rng(1).uniform(0, 1, (1, 10, 8, 3)).astype(np.float32)
    wanted, gate = run(network, picture)
    assert wanted.shape == (1, 9, 7, 8)
    assert gate.shape == (1, 1, 1, 4)
    np.testing.assert_allclose(wanted, literally(picture, constants), atol=1e-5)


def test_what_the_outputs_do_not_need_is_cut_off(constants: dict[str, np.ndarray]) -> None:
    network = convert_graph(*graph_model(small_graph(), constants), ["wanted"], "small")
    assert b"TopK" not in network
    with pytest.raises(DataError, match="node strongest is a TopKV2, which is not among the operations known here"):
        convert_graph(*graph_model(small_graph(), constants), ["strongest"], "small")


def test_transpositions_are_made_once_and_not_around_each_convolution(constants: dict[str, np.ndarray]) -> None:
    network = convert_graph(*graph_model(small_graph(), constants), ["wanted"], "small")
    assert network.count(b"Transpose") == 2  # of the picture, and of the result


def test_networks_with_their_channels_first_keep_them_and_whole_numbers_are_worked_out() -> None:
    """As graphs that came from PyTorch: transposed for each convolution, sizes put together of constants."""
    plain = {**CONV, "strides": numbers(1, 1, 1, 1), "padding": text("VALID")}
    nodes = [
        node("image", "Placeholder", shape={"shape": {"dim": [{"size": str(side)} for side in (1, 3, 4, 4)]}}),
        node("padded", "Pad", ("image", "paddings")),
        node("last", "Transpose", ("padded", "to_last")),
        node("conv", "Conv2D", ("last", "kernel"), **plain),
        node("biased", "Add", ("conv", "bias")),
        node("first", "Transpose", ("biased", "to_first")),
        node("leaky", "LeakyRelu", ("first",), alpha={"f": 0.1}),
        node("zeros", "SparseToDense", ("none", "two", "nothing", "zero")),
        node("shape", "AddV2", ("sizes", "zeros")),
        node("flat", "Reshape", ("leaky", "shape")),
        node("parts", "SplitV", ("flat", "lengths", "one")),
        node("second", "Identity", ("parts:1",)),
    ]
    rng = np.random.default_rng(0)
    constants = {
        "kernel": half(rng.normal(size=(3, 3, 3, 2))),
        "bias": half(rng.normal(size=2)),
        "paddings": np.array([[0, 0], [0, 0], [1, 1], [1, 1]]),
        "to_last": np.array([0, 2, 3, 1]),
        "to_first": np.array([0, 3, 1, 2]),
        "none": np.zeros((0, 1), int),
        "two": np.array([2]),
        "nothing": np.zeros(0, int),
        "zero": np.array(0),
        "sizes": np.array([2, 16]),
        "lengths": np.array([4, 12]),
        "one": np.array(1),
    }
    picture = rng.normal(size=(1, 3, 4, 4)).astype(np.float32)
    found = run(convert_graph(*graph_model(nodes, constants), ["second"], "small"), picture)[0]
    kernel = torch.from_numpy(constants["kernel"]).permute(3, 2, 0, 1)
    expected = functional.conv2d(torch.from_numpy(picture), kernel, torch.from_numpy(constants["bias"]), padding=1)
    np.testing.assert_allclose(found, functional.leaky_relu(expected, 0.1).reshape(2, 16)[:, 4:].numpy(), atol=1e-5)


def test_numbers_in_fewer_bytes_are_scaled_back_and_int32_are_not() -> None:
    manifest = [
        {"name": "a", "shape": [2], "dtype": "float32", "quantization": {"dtype": "uint8", "scale": 0.5, "min": -1}},
        {"name": "b", "shape": [], "dtype": "int32"},
    ]
    found = module._read_weights(manifest, bytes([0, 4]) + np.int32(-7).tobytes(), "small")
    assert found["a"].tolist() == [-1.0, 1.0]
    assert (found["b"].tolist(), found["b"].dtype) == (-7, np.int64)


def test_damaged_files_are_named(constants: dict[str, np.ndarray]) -> None:
    model, weights = graph_model(small_graph(), constants)
    for content in (b"", b"no json", b"[]", b'{"modelTopology": {"node": 3}}', b"[" * 100_000):
        with pytest.raises(DataError, match=r"small: is no TensorFlow\.js graph model"):
            convert_graph(content, weights, ["wanted"], "small")
    with pytest.raises(DataError, match="its weights end after 10 bytes, kernel needs 216; the file is cut short"):
        convert_graph(model, weights[:10], ["wanted"], "small")
    with pytest.raises(DataError, match="bytes of weights where"):
        convert_graph(model, weights + b"more", ["wanted"], "small")
    with pytest.raises(DataError, match="has no node elsewhere"):
        convert_graph(model, weights, ["elsewhere"], "small")


def test_graphs_that_cannot_be_are_refused(constants: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(complaint: str, *nodes: dict[str, Any], output: str = "out") -> None:
        with pytest.raises(DataError, match=complaint):
            convert_graph(*graph_model([picture_input(10, 8), *nodes], constants), [output], "small")

    refused("node out needs its own result", node("out", "Relu", ("round",)), node("round", "Relu", ("out",)))
    refused("resizes to", node("out", "ResizeBilinear", ("image", "k")))
    refused("has other inputs or settings than expected", node("out", "Mean", ("image",)))
    refused("is worked out from the picture", node("out", "Reshape", ("image", "image")))
    refused("its parts do not fit together", node("out", "Add", ("image", "size")))
    refused("takes 0 inputs", node("out", "Identity", ("bias",)))
    huge = {"name": "w", "shape": [1 << 20, 1 << 20], "dtype": "float32"}
    with pytest.raises(DataError, match="are too many"):
        module._read_weights([huge], b"", "small")
    with pytest.raises(DataError, match="cannot be read"):
        module._read_weights([{"name": "w", "shape": [1], "dtype": "string"}], b"abcd", "small")
    monkeypatch.setattr(module, "_MOST_NODES", 3)
    with pytest.raises(DataError, match="more than 3; it is another network"):
        convert_graph(*graph_model(small_graph(), constants), ["wanted"], "small")
