"""SSD on MobileNetV2, trained on Open Images: the detector in front of MediaPipe's Objectron, in float16.

The package holds it behind its list of 24 classes in one file of assets; the person is the fifth line, class 4.
"""

from collections.abc import Mapping

from tapetum.core.errors import DataError
from tapetum.footage.detector_catalogue import KnownDetector
from tapetum.footage.packages import Package

_ASSETS = "package/objectron_solution_packed_assets.data"
_BEGIN, _END = 184, 9_987_912
_MARK = b"TFL3"  # of a TFLite file, from its fifth byte


def cut_out(files: Mapping[str, bytes]) -> bytes:
    """The TFLite file within the assets.

    Raises:
        DataError: there is none at that place.
    """
    content = files[_ASSETS][_BEGIN:_END]
    if len(content) != _END - _BEGIN or content[4:8] != _MARK:
        raise DataError(f"{_ASSETS}: holds no TFLite network at byte {_BEGIN}; fetch the package again")
    return content


DETECTOR = KnownDetector(
    package=Package(
        "@mediapipe/objectron",
        "0.4.1675468480",
        "fc3e37b326b05e8f596099c90b3e0931b05a56cd3160b9ac450b621794bac94c",
    ),
    files={_ASSETS: 16 << 20},
    build=cut_out,
    ending=".tflite",
    layout="ssd",
    size=(300, 300),
    person_class=4,
    min_score=0.3,
    max_iou=0.35,  # of one body it gives several boxes that overlap little; at 0.45 one person became two tracklets
    licence="Apache-2.0",
    summary="SSD-MobileNetV2 of MediaPipe, trained on Open Images",
    found=48,
    wrong=0,
    found_dark=72,
)
