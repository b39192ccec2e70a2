"""CenterNet on MobileNetV3, trained on COCO: one of the networks in the package `human` for TensorFlow.js.

The graph is cut before it looks for the strongest peaks, which other runtimes do slowly.
"""

from collections.abc import Mapping

from tapetum.footage.detector_catalogue import KnownDetector
from tapetum.footage.packages import Package
from tapetum.footage.tfjs import convert_graph

_MODEL, _WEIGHTS = "package/models/centernet.json", "package/models/centernet.bin"
_OUTPUTS = ("tower_0/keypoints", "tower_0/wh")  # scores after the sigmoid, and distances to the sides


def to_onnx(files: Mapping[str, bytes]) -> bytes:
    """The graph as ONNX.

    Raises:
        DataError: it is another graph, or damaged.
    """
    return convert_graph(files[_MODEL], files[_WEIGHTS], _OUTPUTS, "centernet.json")


DETECTOR = KnownDetector(
    package=Package(
        "@vladmandic/human",
        "3.3.6",
        "425e9c51dbbca0c8934362b170cb0d54c2529c11c654b3c03092b16e9d6ad3f7",
    ),
    files={_MODEL: 4 << 20, _WEIGHTS: 16 << 20},
    build=to_onnx,
    ending=".onnx",
    layout="centernet",
    size=(512, 512),
    person_class=0,
    min_score=0.3,
    max_iou=0.45,
    licence="package MIT; the licence of the weights is not stated by its source, "
    "github.com/610265158/mobilenetv3_centernet: ask there before you pass them on",
    summary="CenterNet-MobileNetV3, trained on COCO",
    found=48,
    wrong=0,
    found_dark=55,
)
