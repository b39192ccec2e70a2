"""A trained detector as a file that OpenVINO runs: TFLite, or ONNX with a layout of `footage.layouts`."""

import re
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tapetum.core.digest import digest_file
from tapetum.core.errors import DataError, MissingLibraryError, RecipeError, nearest_name
from tapetum.core.extras import install_hint
from tapetum.core.openvino_core import openvino_core
from tapetum.core.threads import count_threads
from tapetum.data.image_io import Picture
from tapetum.footage.detect import Detections, keep_inside, suppress_overlaps
from tapetum.footage.layouts import LAYOUTS
from tapetum.footage.onnx import letterbox

_READING = 1  # another number wherever the same network gives other boxes
_SIDES = 16, 4096
_HINTS = {"fp32": "f32", "bf16": "bf16"}  # precision -> as OpenVINO calls it
_REMEDY = "give another export of the network, or fetch it again"


@dataclass(frozen=True)
class NetworkOptions:
    """How a network is asked and understood."""

    layout: str  # of `LAYOUTS`
    person_class: int  # column of the scores
    size: tuple[int, int] | None = None  # (height, width) of its input where the file leaves it open
    min_score: float = 0.3  # weaker detections are dropped
    max_iou: float = 0.45  # overlap up to which two detections are two people
    threads: int = 0  # that look at pictures, one each; 0 takes as many as `count_threads` says
    precision: str = "fp32"  # of `_HINTS`

    def __post_init__(self) -> None:
        if self.layout not in LAYOUTS:
            raise RecipeError(f"detector: layout {self.layout!r} is unknown; {nearest_name(self.layout, LAYOUTS)}")
        if self.precision not in _HINTS:
            raise RecipeError(f"detector: precision {self.precision!r} is unknown; use {' or '.join(_HINTS)}")


class NetworkDetector:
    """People by a network in a file.

    Args:
        name: for people; None takes the file's.
        content: names what the file was made from, where the same network can be written in several ways; None takes
            the SHA-256 of the file.
    Raises:
        DataError: the file is missing, damaged, or has other inputs or outputs than its layout.
        RecipeError: this CPU has not the arithmetic.
        MissingLibraryError: OpenVINO is not installed.
    """

    moving_only = False

    def __init__(
        self, path: Path, options: NetworkOptions, *, name: str | None = None, content: str | None = None
    ) -> None:
        self._path, self._options = path, options
        self._layout = LAYOUTS[options.layout]
        try:
            digest = content or digest_file(path)
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror}); give a network's file") from None
        self.at_once = options.threads or count_threads()
        self._network = _compile(path, self.at_once, options.precision)
        self._requests = threading.local()  # a request serves one thread at a time
        self._size = self._read_input()
        self.name = name or f"network {path.name} ({digest[:16]})"
        self.key = (
            f"network {_READING} {digest[:16]} {options.layout} {options.person_class} {self._size} "
            f"{options.min_score} {options.max_iou}"
        )
        if options.precision != "fp32":  # galleries from before there was another know it without
            self.name, self.key = f"{self.name} in {options.precision}", f"{self.key} {options.precision}"

    def start(self) -> None:
        """Nothing to forget: each picture stands for itself."""

    def detect(self, picture: Picture) -> Detections:
        """People in one picture."""
        options = self._options
        canvas, factor, (left, top) = letterbox(picture, self._size)
        if not hasattr(self._requests, "own"):
            self._requests.own = self._network.create_infer_request()
        outputs = self._requests.own.infer(self._layout.prepare(canvas))
        arrays = [outputs[place] for place in range(len(self._network.outputs))]
        try:
            boxes, scores = self._layout.decode(arrays, self._size, options.person_class, options.min_score)
        except DataError as error:
            raise DataError(f"{self._path}: {str(error).removeprefix('detector: ')}") from None
        kept = suppress_overlaps(boxes, scores, options.max_iou)
        shift = np.array([left, top, left, top], np.float32)
        return keep_inside((boxes[kept] - shift) / np.float32(factor), scores[kept], picture.shape[:2])

    def _read_input(self) -> tuple[int, int]:
        """(height, width) of the input, the picture's own or with its channels last."""
        inputs = self._network.inputs
        if len(inputs) != 1 or len(inputs[0].partial_shape) != 4:
            raise DataError(f"{self._path}: takes {len(inputs)} inputs; a detector must take one picture")
        shape = inputs[0].partial_shape
        if shape.is_dynamic:
            raise DataError(f"{self._path}: leaves the size of its input open, {shape}; export it with a fixed size")
        expected = self._layout.prepare(np.zeros((2, 3, 3), np.uint8)).shape  # (1, 2, 3, 3) or (1, 3, 2, 3)
        sides = tuple(int(side) for side in inputs[0].shape)
        first = expected[1] == 3
        size, channels = (sides[2:], sides[1]) if first else (sides[1:3], sides[3])
        if channels != 3 or sides[0] != 1 or not _SIDES[0] <= min(size) <= max(size) <= _SIDES[1]:
            raise DataError(
                f"{self._path}: takes {sides}; layout {self._options.layout} is "
                f"{'(1, 3, H, W)' if first else '(1, H, W, 3)'} with sides in {_SIDES[0]}..{_SIDES[1]}"
            )
        return size[0], size[1]


def _compile(path: Path, threads: int, precision: str) -> Any:
    """The network ready to run.

    Each of the threads computes a picture of its own. Several on one picture wait for each other after every layer:
    that costs a quarter more, and beside a busy process they wait for whichever is not running.
    """
    try:
        core = openvino_core()
    except ImportError:
        raise MissingLibraryError(
            f"{path}: this detector needs OpenVINO; install it with: {install_hint('openvino')}"
        ) from None
    if path.suffix.lower() == ".tflite" and not _is_tflite(path):  # OpenVINO would guess at other formats, aloud
        raise DataError(f"{path}: is no TFLite network; {_REMEDY}")
    settings = {
        "INFERENCE_PRECISION_HINT": _HINTS[precision],
        "NUM_STREAMS": threads,
        "INFERENCE_NUM_THREADS": threads,
        "ENABLE_CPU_PINNING": False,  # a thread that is bound to a core waits for whatever else runs there
    }
    try:
        network = core.compile_model(str(path), "CPU", settings)
    except Exception as error:  # OpenVINO has one type for every way of being no network
        raise DataError(f"{path}: OpenVINO cannot read it ({explain(str(error))}); {_REMEDY}") from None
    if network.get_property("INFERENCE_PRECISION_HINT").get_type_name() != _HINTS[precision]:
        raise RecipeError(f"detector {path.stem}: this CPU has no {precision} of its own; leave its precision out")
    return network


def explain(message: str) -> str:
    """What OpenVINO says in many lines, in a few words; operations that it does not know are named.

    Args:
        message: of its exception.
    """
    unknown = re.findall(r"No translator found for (\w+) node", message)
    if unknown:
        return f"operation {', '.join(dict.fromkeys(unknown))} is not known to it"
    told = [line.strip() for line in message.splitlines() if line.strip() and "Exception from" not in line]
    said = [line for line in told if not line.startswith(("Check '", "src/", "FrontEnd API"))]
    return ((said or told or ["no reason given"])[-1])[:200]


def _is_tflite(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(8)[4:] == b"TFL3"
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); give a network's file") from None
