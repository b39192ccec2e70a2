"""How trained networks want a picture and say where people are: one class for each layout of inputs and outputs.

These are the layouts of networks that `tapetum detector get` fetches; those of an operator's ONNX file are told in
`footage.onnx`. All of them get a letterboxed picture and answer in its pixels.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from tapetum.core.errors import DataError
from tapetum.data.image_io import Picture
from tapetum.footage.detect import FloatArray

Found = tuple[FloatArray, FloatArray]  # (N, 4) left, top, right, bottom in pixels of the input, and (N,) scores in 0..1


class NetworkLayout(Protocol):
    """How one kind of network is asked and understood."""

    def prepare(self, canvas: Picture) -> NDArray[Any]:
        """The input of the network for a picture of its size, (H, W, 3) uint8 RGB."""

    def decode(
        self, outputs: Sequence[NDArray[Any]], size: tuple[int, int], person_class: int, min_score: float
    ) -> Found:
        """Candidates above a score, several for one person.

        Args:
            outputs: of the network, in its order.
            size: (height, width) of its input.
        Raises:
            DataError: the outputs have other shapes than the layout's.
        """


@dataclass(frozen=True)
class SsdLayout:
    """Single-shot detector on MobileNet: boxes as changes of anchors, a logit for each class; input in -1..1.

    Anchors: on maps of every 16th to 512th pixel, of scales from 0.2 to 0.95 of the picture in equal steps, of the
    ratios 1, 2, 1/2, 3, 1/3, and a square between two scales; on the finest map a square of a tenth and the ratios 2
    and 1/2.

    Source: Liu et al., SSD, ECCV 2016; TensorFlow's object detection API for the steps and for 10 and 5, by which the
    changes of place and size were multiplied in training.
    """

    smallest: float = 0.2
    largest: float = 0.95
    finest: float = 0.1

    def prepare(self, canvas: Picture) -> NDArray[Any]:
        """As `NetworkLayout.prepare`."""
        return (canvas.astype(np.float32) / 127.5 - 1)[None]

    def decode(
        self, outputs: Sequence[NDArray[Any]], size: tuple[int, int], person_class: int, min_score: float
    ) -> Found:
        """As `NetworkLayout.decode`; outputs are (1, A, 4) changes of y, x, height, width, and (1, A, C) logits."""
        anchors = _ssd_anchors(size, self.smallest, self.largest, self.finest)
        changes, logits = _two_of(outputs, len(anchors), "ssd")
        scores = _sigmoid(_class_of(logits, person_class))
        strong = scores >= min_score
        changes, anchors = changes[strong], anchors[strong]
        middles = changes[:, 1::-1] / 10 * anchors[:, 2:] + anchors[:, :2]
        with np.errstate(over="ignore"):  # an infinite box is thrown away later
            halves = np.exp(changes[:, :1:-1] / 5) * anchors[:, 2:] / 2
        boxes = np.concatenate([middles - halves, middles + halves], 1) * np.array([*size[::-1]] * 2, np.float32)
        return np.asarray(boxes, np.float32), scores[strong]


@dataclass(frozen=True)
class CentreLayout:
    """CenterNet: people are peaks of a map of scores, with four distances to the sides of the box; input in 0..255.

    Source: Zhou et al., Objects as Points, 2019; four distances instead of width and height as in TTFNet (AAAI 2020).
    """

    def prepare(self, canvas: Picture) -> NDArray[Any]:
        """As `NetworkLayout.prepare`."""
        return canvas.astype(np.float32)[None]

    def decode(
        self, outputs: Sequence[NDArray[Any]], size: tuple[int, int], person_class: int, min_score: float
    ) -> Found:
        """As `NetworkLayout.decode`; outputs are (1, h, w, C) scores and (1, h, w, 4) distances in pixels."""
        shapes = [np.shape(each) for each in outputs]
        if len(shapes) != 2 or any(len(shape) != 4 or shape[0] != 1 for shape in shapes) or shapes[1][3] != 4:
            raise DataError(
                f"detector: gives outputs of shapes {shapes}; layout centernet is (1, h, w, C), (1, h, w, 4)"
            )
        if shapes[0][1:3] != shapes[1][1:3]:
            raise DataError(f"detector: gives maps of two sizes, {shapes}; layout centernet has one")
        scores = np.ascontiguousarray(_class_of(outputs[0][0], person_class), np.float32)
        peaks = (scores == cv2.dilate(scores, np.ones((3, 3), np.uint8))) & (scores >= min_score)
        rows, columns = np.nonzero(peaks)
        step = np.array([size[1] / scores.shape[1], size[0] / scores.shape[0]], np.float32)
        middles = np.stack([columns, rows], 1).astype(np.float32) * step
        sides = np.asarray(outputs[1][0][rows, columns], np.float32)
        return np.concatenate([middles - sides[:, :2], middles + sides[:, 2:]], 1), scores[rows, columns]


@dataclass(frozen=True)
class NanoDetLayout:
    """NanoDet: every place of three maps scores the classes, and for each side of a box how many steps away it is.

    A distance is the mean of its numbers of steps, 0 and up, weighed by the softmax of their scores; a step is the
    map's stride, and distances begin in the middle of a place. Input: BGR, channels first, less the mean of ImageNet
    and divided by its deviation.

    Source: Li et al., Generalized Focal Loss, NeurIPS 2020; github.com/RangiLyu/nanodet, at 4e02e91,
    config/legacy_v0.x_configs/nanodet-g.yml, for strides, mean and deviation.
    """

    strides: tuple[int, ...] = (8, 16, 32)
    mean: tuple[float, float, float] = (103.53, 116.28, 123.675)  # blue, green, red
    deviation: tuple[float, float, float] = (57.375, 57.12, 58.395)

    def prepare(self, canvas: Picture) -> NDArray[Any]:
        """As `NetworkLayout.prepare`."""
        normal = (canvas[..., ::-1] - np.array(self.mean, np.float32)) / np.array(self.deviation, np.float32)
        return np.ascontiguousarray(normal.transpose(2, 0, 1)[None])

    def decode(
        self, outputs: Sequence[NDArray[Any]], size: tuple[int, int], person_class: int, min_score: float
    ) -> Found:
        """As `NetworkLayout.decode`; for each stride (1, P, C) scores after the sigmoid, then (1, P, 4 S) of steps."""
        places = [_middles(size, stride) for stride in self.strides]
        scores, steps = _maps_of(outputs, [len(each) for each in places])
        scores = _class_of(scores, person_class)
        strong = scores >= min_score
        middles = np.concatenate(places)[strong]
        strides = np.repeat(np.array(self.strides, np.float32), [len(each) for each in places])[strong, None]
        with np.errstate(invalid="ignore"):  # a box of no numbers is thrown away later
            logits = steps[strong]
            weights = np.exp(logits - logits.max(2, keepdims=True))
            sides = weights @ np.arange(weights.shape[2], dtype=np.float32) / weights.sum(2) * strides
        return np.concatenate([middles - sides[:, :2], middles + sides[:, 2:]], 1), scores[strong]


LAYOUTS: Mapping[str, NetworkLayout] = {"ssd": SsdLayout(), "centernet": CentreLayout(), "nanodet": NanoDetLayout()}


@lru_cache(maxsize=8)
def _ssd_anchors(size: tuple[int, int], smallest: float, largest: float, finest: float) -> FloatArray:
    """(A, 4) middle x and y, width and height, as fractions of the picture."""
    strides = (16, 32, 64, 128, 256, 512)
    scales = [smallest + (largest - smallest) * place / (len(strides) - 1) for place in range(len(strides))] + [1.0]
    maps = []
    for place, stride in enumerate(strides):
        if place == 0:
            shapes = [(finest, 1.0), (scales[0], 2.0), (scales[0], 0.5)]
        else:
            shapes = [(scales[place], ratio) for ratio in (1.0, 2.0, 0.5, 3.0, 1 / 3)]
            shapes.append((math.sqrt(scales[place] * scales[place + 1]), 1.0))
        height, width = (math.ceil(side / stride) for side in size)
        y, x = np.mgrid[:height, :width]
        middles = np.stack([(x + 0.5) / width, (y + 0.5) / height], 2)[:, :, None].repeat(len(shapes), 2)
        extents = np.array([(scale * math.sqrt(ratio), scale / math.sqrt(ratio)) for scale, ratio in shapes])
        maps.append(np.concatenate([middles, np.broadcast_to(extents, middles.shape)], 3).reshape(-1, 4))
    return np.concatenate(maps).astype(np.float32)


@lru_cache(maxsize=16)
def _middles(size: tuple[int, int], stride: int) -> FloatArray:
    """(P, 2) middles x and y of a map's places in pixels of the input, row by row."""
    height, width = (math.ceil(side / stride) for side in size)
    y, x = np.mgrid[:height, :width]
    return np.asarray((np.stack([x, y], 2).reshape(-1, 2) + 0.5) * stride, np.float32)


def _maps_of(outputs: Sequence[NDArray[Any]], counts: Sequence[int]) -> tuple[FloatArray, FloatArray]:
    """(P, C) scores and (P, 4, S) steps of a network that gives both for each of its maps; the maps are joined.

    Args:
        counts: of places, of each map.
    """
    shapes = [np.shape(each) for each in outputs]
    columns = [shape[-1] for shape in shapes[:1] + shapes[-1:] if shape]  # C and 4 * S
    expected = [(1, count, column) for column in columns for count in counts]
    if len(columns) != 2 or shapes != expected or columns[1] < 8 or columns[1] % 4:
        wanted = ", ".join(f"(1, {count}, {column})" for column in ("C", "4 S") for count in counts)
        raise DataError(f"detector: gives outputs of shapes {shapes}; layout nanodet is {wanted} here")
    joined = np.concatenate(outputs[: len(counts)], 1)[0], np.concatenate(outputs[len(counts) :], 1)[0]
    scores, steps = (np.asarray(each, np.float32) for each in joined)
    return scores, steps.reshape(len(steps), 4, -1)


def _two_of(outputs: Sequence[NDArray[Any]], count: int, layout: str) -> tuple[FloatArray, FloatArray]:
    """The boxes and the classes of a network with one row for each anchor."""
    shapes = [np.shape(each) for each in outputs]
    if len(shapes) != 2 or shapes[0] != (1, count, 4) or shapes[1][:2] != (1, count) or len(shapes[1]) != 3:
        raise DataError(
            f"detector: gives outputs of shapes {shapes}; layout {layout} is (1, {count}, 4), (1, {count}, C) here"
        )
    return np.asarray(outputs[0][0], np.float32), np.asarray(outputs[1][0], np.float32)


def _class_of(scores: NDArray[Any], person_class: int) -> FloatArray:
    if not 0 <= person_class < scores.shape[-1]:
        raise DataError(f"detector: has {scores.shape[-1]} classes; person_class is {person_class}")
    return np.asarray(scores[..., person_class], np.float32)


def _sigmoid(logits: FloatArray) -> FloatArray:
    return np.asarray(1 / (1 + np.exp(-np.clip(logits, -60, 60))), np.float32)
