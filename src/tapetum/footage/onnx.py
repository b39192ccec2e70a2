"""A detector of the operator's own, as an ONNX file.

Input: one picture, (1, 3, H, W) or (3, H, W), RGB; float numbers in 0..1, or uint8 in 0..255. The picture is
letterboxed to the network's size. Output, told apart by its shape or named by the operator:

- "yolo": (1, 4 + C, N): centre x, centre y, width, height in pixels of the input, then a score for each of C classes;
- "yolo_objectness": (1, N, 5 + C): the same four, an objectness, then C class scores that are multiplied with it;
- "boxes": three outputs, boxes (N, 4) as left, top, right, bottom in pixels of the input, labels (N,) and scores (N,).

Boxes of "yolo" and "yolo_objectness" go through non-maximum suppression here; those of "boxes" went through it in the
network, and a second time does no harm.
"""

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from tapetum.core.errors import DataError, RecipeError, first_line, nearest_name
from tapetum.core.extras import install_hint
from tapetum.core.threads import count_threads
from tapetum.data.image_io import Picture
from tapetum.footage.detect import Detections, FloatArray, keep_inside, suppress_overlaps

Layout = Literal["yolo", "yolo_objectness", "yolo_end_to_end", "boxes"]
_DYNAMIC_SIZE = (640, 640)
_LARGEST_SIDE = 4096
_PADDING = 114  # grey value around a letterboxed picture, as YOLO networks are trained with
_DTYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(uint8)": np.uint8}


@dataclass(frozen=True)
class OnnxDetectorOptions:
    """How an ONNX detector is read."""

    layout: Layout | None = None  # of its output; None tells by its shape
    # which class is a person; None is 0 for the YOLO layouts and 1 for "boxes" (COCO in both)
    person_class: int | None = None
    min_score: float = 0.35  # weaker detections are dropped
    max_iou: float = 0.6  # overlap up to which two detections are two people
    size: tuple[int, int] | None = None  # (height, width) of the input where the file leaves it open; None is 640 x 640
    threads: int = 0  # that look at pictures, one each; 0 takes as many as `count_threads` says

    def __post_init__(self) -> None:
        if self.layout is not None and self.layout not in get_args(Layout):
            raise RecipeError(
                f"detector: layout {self.layout!r} is unknown; {nearest_name(self.layout, get_args(Layout))}"
            )


class OnnxDetector:
    """People by a network in an ONNX file.

    Raises:
        DataError: the file is missing, no network, or has other inputs or outputs than documented.
        RecipeError: the package for ONNX is not installed.
    """

    moving_only = False

    def __init__(self, path: Path, options: OnnxDetectorOptions | None = None) -> None:
        try:
            import onnxruntime
        except ImportError:
            raise RecipeError(
                f"{path}: an ONNX detector needs ONNX Runtime; install it with: {install_hint('onnxruntime')}"
            ) from None
        self._options = options or OnnxDetectorOptions()
        self._path = path
        settings = onnxruntime.SessionOptions()
        settings.log_severity_level = 4
        settings.intra_op_num_threads = 1  # each of those that ask computes its own picture, and waits for nobody
        self.at_once = self._options.threads or count_threads()
        try:
            digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
            self._session = onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror}); give an ONNX file") from None
        except Exception as error:  # the runtime has a type of its own for every way of being no network
            reason = first_line(error)
            raise DataError(f"{path}: no ONNX network ({reason}); export the detector again") from None
        self.name = f"ONNX {path.name} ({digest})"
        self.key = f"onnx {digest} {sorted(asdict(self._options).items(), key=str)}"
        self._input = self._session.get_inputs()[0]
        self._size = self._read_input()
        self._layout = self._options.layout or self._tell_layout()

    def start(self) -> None:
        """Nothing to forget: each picture stands for itself."""

    def detect(self, picture: Picture) -> Detections:
        """People in one picture."""
        canvas, factor, (left, top) = letterbox(picture, self._size)
        dtype = _DTYPES[self._input.type]
        image = np.ascontiguousarray(canvas.transpose(2, 0, 1))
        image = image if dtype == np.uint8 else (image.astype(np.float32) / 255).astype(dtype)
        batch = image if len(self._input.shape) == 3 else image[None]
        try:
            outputs = self._session.run(None, {self._input.name: batch})
        except Exception as error:  # as above
            reason = first_line(error)
            raise DataError(
                f"{self._path}: does not run on a picture of {self._size} ({reason}); set its size"
            ) from None
        boxes, scores = self._read_outputs(outputs)
        strong = scores >= self._options.min_score
        boxes, scores = boxes[strong], np.minimum(scores[strong], 1)
        kept = suppress_overlaps(boxes, scores, self._options.max_iou)
        shift = np.array([left, top, left, top], np.float32)
        return keep_inside((boxes[kept] - shift) / np.float32(factor), scores[kept], picture.shape[:2])

    def _read_input(self) -> tuple[int, int]:
        """(height, width) of the input."""
        shape, kind = self._input.shape, self._input.type
        accepted_shapes = "(1, 3, H, W) or (3, H, W)"
        batch = shape[0] if len(shape) == 4 else None
        channels = shape[-3] if len(shape) in (3, 4) else None
        if kind not in _DTYPES or len(shape) not in (3, 4) or (isinstance(batch, int) and batch != 1):
            raise DataError(f"{self._path}: takes {kind} of shape {shape}; a detector must take {accepted_shapes}")
        if isinstance(channels, int) and channels != 3:
            raise DataError(
                f"{self._path}: takes {channels} channels, shape {shape}; a detector must take {accepted_shapes}"
            )
        otherwise = self._options.size or _DYNAMIC_SIZE
        height, width = (
            length if isinstance(length, int) else fallback
            for length, fallback in zip(shape[-2:], otherwise, strict=True)
        )
        if not 16 <= min(height, width) <= max(height, width) <= _LARGEST_SIDE:
            raise DataError(f"{self._path}: takes pictures of {height} x {width}; sides must be in 16..{_LARGEST_SIDE}")
        return height, width

    def _tell_layout(self) -> Layout:
        """By number and shape of the outputs; where the file leaves the shape open, by an empty picture's output."""
        outputs = self._session.get_outputs()
        if len(outputs) >= 3:
            return "boxes"
        shape = outputs[0].shape
        if len(shape) != 3 or not all(isinstance(side, int) for side in shape[1:]):
            blank = np.zeros((3, *self._size), _DTYPES[self._input.type])
            batch = blank if len(self._input.shape) == 3 else blank[None]
            shape = np.asarray(self._session.run(None, {self._input.name: batch})[0]).shape
        if len(shape) != 3 or min(shape[1:]) < 5:
            raise DataError(
                f"{self._path}: gives {len(outputs)} output of shape {tuple(shape)}; a detector must give "
                f"(1, 4 + C, N), (1, N, 5 + C), or boxes, labels and scores"
            )
        if shape[2] == 6 <= shape[1]:
            raise DataError(
                f"{self._path}: gives {tuple(shape)}, which may be corners, score and class (yolo_end_to_end), or a "
                "box, objectness and one class (yolo_objectness); say which by --detector-layout"
            )
        return "yolo" if shape[1] < shape[2] else "yolo_objectness"

    def _read_outputs(self, outputs: list[Any]) -> tuple[FloatArray, FloatArray]:
        """Corners in pixels of the input, and the score of being a person."""
        person = self._options.person_class
        if self._layout == "boxes":
            boxes, labels, scores = self._read_boxes(outputs)
            people = labels == (1 if person is None else person)
            return boxes[people], scores[people]
        raw = np.asarray(outputs[0], np.float32)
        if raw.ndim != 3 or raw.shape[0] != 1:
            raise DataError(f"{self._path}: gives an output of shape {raw.shape}; {self._layout} is (1, ., .)")
        if self._layout == "yolo_end_to_end":
            if raw.shape[2] != 6:
                raise DataError(f"{self._path}: gives an output of shape {raw.shape}; yolo_end_to_end is (1, N, 6)")
            people = raw[0][:, 5] == (person or 0)
            return raw[0][people, :4], raw[0][people, 4]
        rows = raw[0].T if self._layout == "yolo" else raw[0]
        first = 4 if self._layout == "yolo" else 5
        column = first + (person or 0)
        if column >= rows.shape[1]:
            raise DataError(f"{self._path}: has {max(0, rows.shape[1] - first)} classes; person_class is {person or 0}")
        scores = rows[:, column] if first == 4 else rows[:, column] * rows[:, 4]
        half = rows[:, 2:4] / 2
        return np.concatenate([rows[:, :2] - half, rows[:, :2] + half], 1), scores

    def _read_boxes(self, outputs: list[Any]) -> tuple[FloatArray, NDArray[np.int64], FloatArray]:
        """By their names where they have them, else in torchvision's order."""
        names = [output.name.lower() for output in self._session.get_outputs()]
        arrays = []
        for place, word in enumerate(("box", "label", "score")):
            number = next((number for number, name in enumerate(names) if word in name), place)
            arrays.append(np.asarray(outputs[number]))
        boxes, labels, scores = arrays[0].reshape(-1, 4), arrays[1].reshape(-1), arrays[2].reshape(-1)
        if not len(boxes) == len(labels) == len(scores):
            raise DataError(
                f"{self._path}: gives {len(boxes)} boxes, {len(labels)} labels and {len(scores)} scores; "
                f"name the outputs boxes, labels and scores"
            )
        return boxes.astype(np.float32), labels.astype(np.int64), scores.astype(np.float32)


def letterbox(picture: Picture, size: tuple[int, int]) -> tuple[Picture, float, tuple[int, int]]:
    """A picture inside a given size: shrunk or enlarged as a whole, grey bars around it.

    Args:
        size: (height, width).
    Returns:
        The picture of that size, the factor it was scaled with, and (left, top) of its place in there.
    """
    height, width = picture.shape[:2]
    factor = min(size[0] / height, size[1] / width)
    inner = (max(1, round(height * factor)), max(1, round(width * factor)))
    top, left = (size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2
    canvas = np.full((*size, 3), _PADDING, np.uint8)
    filter_ = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    canvas[top : top + inner[0], left : left + inner[1]] = cv2.resize(picture, inner[::-1], interpolation=filter_)
    return canvas, factor, (left, top)
