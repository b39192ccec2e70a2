"""Finding people in a picture: what a detector is, boxes and their overlaps, and the detectors that need no file.

A detector is anything with `name`, `key`, `moving_only`, `start` and `detect`; `OnnxDetector` is in `footage.onnx`. One
that several threads may ask at once says so by a number `at_once`.
"""

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from tapetum.core.errors import DataError, RecipeError, first_line, nearest_name
from tapetum.core.sighting import Box
from tapetum.data.image_io import Picture
from tapetum.footage.dark import GAMMA_KEY, brighten_for_detection, brightening_curve
from tapetum.footage.motion import MotionDetector, MotionOptions
from tapetum.footage.torchvision_file import build_with_own_weights

FloatArray = NDArray[np.float32]
_MOST_CANDIDATES = 2000  # boxes that enter suppression, the best first
TORCHVISION_DETECTORS = (
    "fasterrcnn_mobilenet_v3_large_320_fpn",
    "fasterrcnn_mobilenet_v3_large_fpn",
    "fasterrcnn_resnet50_fpn",
    "fasterrcnn_resnet50_fpn_v2",
    "fcos_resnet50_fpn",
    "retinanet_resnet50_fpn",
    "retinanet_resnet50_fpn_v2",
    "ssd300_vgg16",
    "ssdlite320_mobilenet_v3_large",
)
_DARK = 50.0  # median lightness below which a scene is brightened: the background model has a fixed least noise
_BRIGHTENED = 0.45  # where that median goes, of 0..1
_LEAST_VARIANCE = 15.0  # of a lit scene, OpenCV's first guess; below, a camera's brightness control passes for people
_OTHER_LIGHT = 2.0  # factor of the median
_CHANGED_FRAMES = 50
_FIRST_FRAMES = 15  # learnt as a running mean: who walks through the first frame leaves no ghost
_STEP, _PIECE_GAPS, _PERSON_SHAPE = 0.15, (0.05, 0.15), 1.4  # of the height of both together; their height over width
_KEYED = {  # what the key of 0.1.0 named besides: galleries know by it what they have finished
    "aspect": (1.3, 6.0),
    "every_seconds": 0.5,
    "margin": 0.05,
    "max_gap_seconds": 1.5,
    "min_height": 0.3,
    "min_seconds": 1.0,
    "min_travel": 0.5,
}
_PART_INSIDE, _SAME_TOP = 0.85, 0.15  # share of a part inside its body; tops apart, in heights of the body
_COCO_CLASSES, _COCO_PERSON = 91, 1  # of torchvision's detectors; 0 is background


@dataclass(frozen=True)
class Detections:
    """People found in one picture."""

    boxes: FloatArray  # (N, 4) float32 left, top, right, bottom in pixels of the picture, inside it
    scores: FloatArray  # (N,) float32 in 0..1

    def __len__(self) -> int:
        return len(self.boxes)

    def pixels(self, row: int) -> Box:
        """One box in whole pixels."""
        left, top, right, bottom = np.rint(self.boxes[row]).astype(int).tolist()
        return left, top, right - left, bottom - top


class Detector(Protocol):
    """What extraction asks of a detector."""

    @property
    def name(self) -> str:
        """For people: which detector found something; a fallback says that it is one."""

    @property
    def key(self) -> str:
        """Names everything that decides its answers, to know finished work again."""

    @property
    def moving_only(self) -> bool:
        """Whether it takes whatever moves for a person, so that what never walks is nobody."""

    def start(self) -> None:
        """A new source begins: forget the one before."""

    def detect(self, picture: Picture) -> Detections:
        """People in the next picture of the source."""


def detect_at_once(detector: Detector) -> int:
    """How many threads may ask a detector at once, each with a picture of its own; one where it does not say.

    What takes whatever moves compares each picture with those before, so it is asked in their order.
    """
    return 1 if detector.moving_only else int(getattr(detector, "at_once", 1))


class BackgroundDetector:
    """The built-in fallback for static cameras: slow-learning background subtraction (MOG2).

    It takes whatever moves in front of a still background for a person, so it needs a static camera that first sees
    the empty scene; people who overlap are one box. A trained detector is better everywhere else.

    Args:
        min_height: smallest box, as a fraction of the frame's height.
        aspect: smallest and largest height over width of a box; a person cut by the frame's edge may be narrower.
    """

    name = "background subtraction (MOG2, fallback for static cameras; give a trained detector for anything else)"
    moving_only = True

    def __init__(
        self,
        *,
        min_height: float = 0.1,
        aspect: tuple[float, float] = (1.0, 7.0),
        options: MotionOptions | None = None,
    ) -> None:
        self._options = options or MotionOptions()
        self._min_height, self._aspect = min_height, aspect
        self.key = f"mog2 {min_height} {aspect} {sorted((_KEYED | asdict(self._options)).items())}"
        self.start()

    def start(self) -> None:
        """Forget the background."""
        self._motion = MotionDetector(self._options, least_variance=_LEAST_VARIANCE)
        self._light: float | None = None  # median lightness of the scene that the background was learnt in
        self._curve = np.arange(256, dtype=np.uint8)
        self._seen_frames = 0
        self._changed = 0  # frames in a row in another light

    def detect(self, picture: Picture) -> Detections:
        """What stands before the background in the next frame."""
        height, width = picture.shape[:2]
        scale = min(1.0, self._options.detection_height / height)
        target = (max(1, round(width * scale)), max(1, round(height * scale)))
        small = np.asarray(cv2.resize(picture, target, interpolation=cv2.INTER_AREA), np.uint8)
        self._follow_light(float(np.median(small[::4, ::4])))
        if self._curve[1] != 1:
            small = np.asarray(cv2.LUT(cv2.GaussianBlur(small, (3, 3), 0), self._curve), np.uint8)
        self._seen_frames += 1
        rate = 1 / self._seen_frames if self._seen_frames <= _FIRST_FRAMES else None
        boxes = np.array(self._motion.detect(small, learning_rate=rate), np.float32).reshape(-1, 4) / np.float32(scale)
        corners = _join_diagonal(np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1))
        tall = corners[:, 3] - corners[:, 1]
        ratio = tall / np.maximum(corners[:, 2] - corners[:, 0], 1)
        person = (tall >= self._min_height * height) & (ratio >= self._aspect[0]) & (ratio <= self._aspect[1])
        corners = corners[person]
        return keep_inside(corners, np.ones(len(corners), np.float32), (height, width))

    def _follow_light(self, light: float) -> None:
        """Begin anew where the scene is in another light for good (lamps, day and night); brighten what is dark."""
        if self._light is not None:
            ratio = (light + 1) / (self._light + 1)
            self._changed = self._changed + 1 if ratio > _OTHER_LIGHT or ratio < 1 / _OTHER_LIGHT else 0
            if self._changed < _CHANGED_FRAMES:
                return
        self.start()
        self._light = light
        if light < _DARK:
            self._curve = brightening_curve(light, _BRIGHTENED)
            self._motion = MotionDetector(self._options, shadows=False)


def _join_diagonal(boxes: FloatArray) -> FloatArray:
    """Join a body that fell apart while it leans: trunk and legs side by side, one higher than the other.

    Only where both together have the shape of one person. Two people behind each other are not diagonal: the nearer
    one reaches both higher and lower in the frame.
    """
    bodies = boxes.copy()
    while len(bodies) > 1:
        upper, lower = bodies[:, None], bodies[None]
        union = np.concatenate(
            [np.minimum(upper[..., :2], lower[..., :2]), np.maximum(upper[..., 2:], lower[..., 2:])], 2
        )
        width, height = union[..., 2] - union[..., 0], union[..., 3] - union[..., 1]
        gap = np.maximum(upper[..., 0], lower[..., 0]) - np.minimum(upper[..., 2], lower[..., 2])
        apart = np.maximum(upper[..., 1], lower[..., 1]) - np.minimum(upper[..., 3], lower[..., 3])
        diagonal = (lower[..., 1] - upper[..., 1] > _STEP * height) & (lower[..., 3] - upper[..., 3] > _STEP * height)
        fits = (
            diagonal
            & (gap <= _PIECE_GAPS[0] * height)
            & (apart <= _PIECE_GAPS[1] * height)
            & (height >= _PERSON_SHAPE * width)
        )
        if not fits.any():
            break
        first, second = np.argwhere(fits)[0]
        bodies = np.concatenate([np.delete(bodies, (first, second), 0), union[first, second][None]])
    return bodies


class TorchvisionDetector:
    """One of torchvision's own detectors, trained on COCO.

    Args:
        model: e.g. "fasterrcnn_mobilenet_v3_large_320_fpn"; see `TORCHVISION_DETECTORS`.
        weights: a file of torchvision's weights for this model; None takes torchvision's own, downloaded once.
        min_score: weaker detections are dropped.
    """

    moving_only = False

    def __init__(
        self,
        model: str = "fasterrcnn_mobilenet_v3_large_320_fpn",
        weights: Path | None = None,
        *,
        min_score: float = 0.5,
    ) -> None:
        import torch
        from torchvision.models import detection

        if model not in TORCHVISION_DETECTORS:
            raise RecipeError(f"detector {model!r} is unknown; {nearest_name(model, TORCHVISION_DETECTORS)}")
        self.name = f"torchvision {model}"
        self._min_score = min_score
        build = getattr(detection, model)
        if weights is None:
            network = build_with_own_weights(model, build)
            self.key = f"{model} default {min_score}"
        else:
            network = build(weights=None, weights_backbone=None, num_classes=_COCO_CLASSES)
            try:
                content = weights.read_bytes()
                state: dict[str, Any] = torch.load(weights, map_location="cpu", weights_only=True)
                network.load_state_dict(state)
            except Exception as error:  # every way in which a file can be no weights of this network
                reason = first_line(error)
                raise DataError(f"{weights}: no weights of {model} ({reason}); give the file of this model") from None
            self.key = f"{model} {hashlib.sha256(content).hexdigest()[:16]} {min_score}"
        self._network = network.eval()

    def start(self) -> None:
        """Nothing to forget: each picture stands for itself."""

    def detect(self, picture: Picture) -> Detections:
        """People in one picture."""
        import torch

        image = torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1).float() / 255
        with torch.inference_mode():
            output = self._network([image])[0]
        people = (output["labels"] == _COCO_PERSON) & (output["scores"] >= self._min_score)
        return keep_inside(output["boxes"][people].numpy(), output["scores"][people].numpy(), picture.shape[:2])


class BrighteningDetector:
    """A detector that sees dark frames brightened; crops are cut out of the frames as they are.

    Args:
        detector: a trained one; the built-in fallback brightens by itself.
        brighten: from one picture to another of the same size.
        name: of that, for people.
        key: names everything that decides what it makes.
        longest_side: of what is brightened, pixels; larger frames are made smaller first. None leaves them.
    """

    def __init__(
        self,
        detector: Detector,
        brighten: Callable[[Picture], Picture] = brighten_for_detection,
        *,
        name: str = "gamma",
        key: str = GAMMA_KEY,
        longest_side: int | None = None,
    ) -> None:
        self._detector, self._brighten, self._longest_side = detector, brighten, longest_side
        self.name = f"{detector.name}, dark frames brightened by {name}"
        self.key = f"{detector.key} after {key}"
        self.moving_only = detector.moving_only
        # Gamma is arithmetic; an enhancer may be a network whose threads are enough for one picture.
        self.at_once = detect_at_once(detector) if brighten is brighten_for_detection else 1

    def start(self) -> None:
        """A new source begins."""
        self._detector.start()

    def detect(self, picture: Picture) -> Detections:
        """People in the next picture."""
        scale = min(1.0, (self._longest_side or max(picture.shape)) / max(picture.shape))
        if scale == 1:
            return self._detector.detect(self._brighten(picture))
        target = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
        small = np.asarray(cv2.resize(picture, target, interpolation=cv2.INTER_AREA), np.uint8)
        found = self._detector.detect(self._brighten(small))
        return keep_inside(found.boxes / np.float32(scale), found.scores, picture.shape[:2])


def keep_inside(boxes: FloatArray, scores: FloatArray, size: tuple[int, ...]) -> Detections:
    """Boxes clipped to the picture, without the empty and the unreadable ones.

    Args:
        size: (height, width) of the picture.
    """
    limit = np.array([size[1], size[0], size[1], size[0]], np.float32)
    finite = np.isfinite(boxes).all(1) & np.isfinite(scores)
    corners = np.clip(np.where(finite[:, None], boxes, 0), 0, limit)
    kept = finite & (corners[:, 2] - corners[:, 0] >= 2) & (corners[:, 3] - corners[:, 1] >= 2)
    return Detections(corners[kept].astype(np.float32), scores[kept].astype(np.float32))


def compute_iou(a: FloatArray, b: FloatArray) -> FloatArray:
    """Intersection over union of all pairs, (N, M) in 0..1.

    Not torchvision's: on the few boxes of a frame it takes eight times as long, and following asks twice a frame.

    Args:
        a: (N, 4) left, top, right, bottom.
        b: (M, 4).
    """
    common = compute_intersection(a, b)
    areas = [(boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]) for boxes in (a, b)]
    return np.asarray(common / np.maximum(areas[0][:, None] + areas[1] - common, 1e-9), np.float32)


def compute_intersection(a: FloatArray, b: FloatArray) -> FloatArray:
    """Common area of all pairs as for `compute_iou`, (N, M) pixels."""
    corner = np.minimum(a[:, None, 2:], b[None, :, 2:]) - np.maximum(a[:, None, :2], b[None, :, :2])
    return np.asarray(np.maximum(corner, 0).prod(2), np.float32)


def find_parts(boxes: FloatArray) -> NDArray[np.bool_]:
    """(N,) whether a box is head and shoulders of a body that has a larger box: nearly all inside it, tops alike.

    Somebody small before or behind somebody large has another top, and is no part.

    Args:
        boxes: (N, 4) left, top, right, bottom.
    """
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    inside = compute_intersection(boxes, boxes) >= _PART_INSIDE * areas[:, None]
    heights = boxes[:, 3] - boxes[:, 1]
    same_top = np.abs(boxes[:, None, 1] - boxes[None, :, 1]) <= _SAME_TOP * heights[None]
    return np.asarray((inside & same_top & (areas[:, None] < areas[None])).any(1), np.bool_)


def suppress_overlaps(boxes: FloatArray, scores: FloatArray, max_iou: float) -> NDArray[np.int64]:
    """Greedy non-maximum suppression: rows of the boxes that stay, the best first.

    Args:
        boxes: (N, 4) left, top, right, bottom.
        max_iou: overlap up to which both of two boxes stay.
    """
    import torch
    from torchvision.ops import nms

    best = np.argsort(-scores, kind="stable")[:_MOST_CANDIDATES]
    limit = float(np.float32(max_iou))  # as overlaps are computed: one that is equal stays
    stays = nms(torch.from_numpy(boxes[best]), torch.from_numpy(scores[best]), limit)
    return np.asarray(best[stays.numpy()], np.int64)
