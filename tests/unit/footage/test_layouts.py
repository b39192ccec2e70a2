import math
from collections.abc import Callable

import numpy as np
import pytest

from detector_files import centres_of_one, nanodet_literally
from tapetum.core.errors import DataError
from tapetum.footage.layouts import LAYOUTS, CentreLayout, NanoDetLayout, SsdLayout, _ssd_anchors

PERSON, CAR = 4, 23


def anchors_literally(size: int) -> list[tuple[float, float, float, float]]:
    """Middle x and y, width and height, one after the other."""
    rows = []
    scales = [0.2, 0.35, 0.5, 0.65, 0.8, 0.95, 1.0]
    for place, stride in enumerate((16, 32, 64, 128, 256, 512)):
        count = math.ceil(size / stride)
        for row in range(count):
            for column in range(count):
                shapes = [(scales[place], ratio) for ratio in (1, 2, 0.5, 3, 1 / 3)]
                shapes.append((math.sqrt(scales[place] * scales[place + 1]), 1))
                if place == 0:
                    shapes = [(0.1, 1), (0.2, 2), (0.2, 0.5)]
                for scale, ratio in shapes:
                    middle = ((column + 0.5) / count, (row + 0.5) / count)
                    rows.append((*middle, scale * math.sqrt(ratio), scale / math.sqrt(ratio)))
    return rows


def test_anchors_of_300_pixels_are_the_1917_of_the_paper_s_layout() -> None:
    anchors = _ssd_anchors((300, 300), 0.2, 0.95, 0.1)
    np.testing.assert_allclose(anchors, anchors_literally(300), atol=1e-6)
    assert len(anchors) == 1917


def ssd_outputs() -> list[np.ndarray]:
    changes, logits = np.zeros((1, 1917, 4), np.float32), np.full((1, 1917, 24), -9, np.float32)
    logits[0, 700, PERSON], logits[0, 1500, CAR] = 2.0, 5.0
    changes[0, 700] = [1.0, -0.5, 2.5, -1.0]  # y, x, height, width
    return [changes, logits]


def test_ssd_boxes_are_changed_anchors_and_a_car_is_nobody() -> None:
    boxes, scores = SsdLayout().decode(ssd_outputs(), (300, 300), PERSON, 0.3)
    x, y, width, height = anchors_literally(300)[700]
    middle = (x - 0.5 / 10 * width, y + 1.0 / 10 * height)
    wide, high = width * math.exp(-1.0 / 5), height * math.exp(2.5 / 5)
    expected = [middle[0] - wide / 2, middle[1] - high / 2, middle[0] + wide / 2, middle[1] + high / 2]
    np.testing.assert_allclose(boxes, [[300 * each for each in expected]], rtol=1e-5)
    assert scores.tolist() == pytest.approx([1 / (1 + math.exp(-2))])


def test_ssd_pictures_lie_between_minus_one_and_one() -> None:
    canvas = np.array([[[0, 127.5, 255]]], np.float64).astype(np.uint8)
    assert SsdLayout().prepare(canvas)[0, 0, 0].tolist() == pytest.approx([-1, 0, 1], abs=0.004)


def test_wild_changes_make_no_warning_and_no_crash() -> None:
    changes, logits = ssd_outputs()
    changes[:], logits[0, :, PERSON] = 1e30, 1e30
    boxes, scores = SsdLayout().decode([changes, logits], (300, 300), PERSON, 0.3)
    assert scores.tolist() == [1.0] * 1917
    assert not np.isfinite(boxes).all()


def test_centres_are_peaks_with_the_distances_that_stand_there() -> None:
    scores, sides = centres_of_one((8, 4, 16, 28))
    boxes, found = CentreLayout().decode([scores, sides], (32, 32), 0, 0.3)
    assert boxes.tolist() == [[8, 4, 16, 28]]
    assert found.tolist() == pytest.approx([0.9])
    cars, _ = CentreLayout().decode([scores, sides], (32, 32), 1, 0.3)
    assert len(cars) == 1


def nanodet_outputs(height: int = 64, width: int = 96) -> list[np.ndarray]:
    """Two classes and 11 steps, drawn: scores of strides 8, 16, 32, then steps."""
    rng = np.random.default_rng(0)
    counts = [height // stride * (width // stride) for stride in (8, 16, 32)]
    scores = [rng.uniform(0, 1, (1, count, 2)).astype(np.float32) for count in counts]
    return scores + [rng.normal(0, 3, (1, count, 44)).astype(np.float32) for count in counts]


@pytest.mark.parametrize("person_class", [0, 1])
def test_nanodet_boxes_are_those_of_a_slow_loop_over_all_places(person_class: int) -> None:
    outputs = nanodet_outputs()
    boxes, scores = NanoDetLayout().decode(outputs, (64, 96), person_class, 0.7)
    expected = nanodet_literally(outputs, (64, 96), person_class, 0.7)
    assert 20 < len(expected) < 50
    np.testing.assert_allclose(boxes, [box for box, _ in expected], rtol=1e-5, atol=1e-4)
    assert scores.tolist() == pytest.approx([score for _, score in expected])
    assert boxes.dtype == scores.dtype == np.float32


def test_nanodet_s_certain_distances_are_whole_steps() -> None:
    outputs = nanodet_outputs()
    for each in outputs[:3]:
        each[:] = 0
    outputs[1][0, 8, 0] = 0.9  # of 4 x 6 places of 16 pixels: the second row, the third column
    outputs[4][0, 8] = 0
    for side, step in enumerate((2, 1, 10, 0)):
        outputs[4][0, 8, 11 * side + step] = 200
    boxes, _ = NanoDetLayout().decode(outputs, (64, 96), 0, 0.3)
    assert boxes.tolist() == [[40 - 32, 24 - 16, 40 + 160, 24 + 0]]
    nobody, scores = NanoDetLayout().decode(outputs, (64, 96), 0, 0.95)
    assert (nobody.shape, scores.shape) == ((0, 4), (0,))


def test_nanodet_takes_blue_first_and_each_channel_by_its_own_mean_and_deviation() -> None:
    canvas = np.zeros((2, 3, 3), np.uint8)
    canvas[1, 2] = (255, 128, 1)  # red, green, blue
    prepared = NanoDetLayout().prepare(canvas)
    assert (prepared.shape, prepared.dtype) == ((1, 3, 2, 3), np.float32)
    expected = [(1 - 103.53) / 57.375, (128 - 116.28) / 57.12, (255 - 123.675) / 58.395]
    assert prepared[0, :, 1, 2].tolist() == pytest.approx(expected, rel=1e-5)


def test_nanodet_s_wild_steps_make_no_warning_and_no_crash() -> None:
    outputs = nanodet_outputs()
    outputs[3][0, :10], outputs[3][0, 10:20], outputs[3][0, 20:30] = 1e30, np.inf, np.nan
    outputs[0][:] = 1
    boxes, scores = NanoDetLayout().decode(outputs, (64, 96), 0, 0.99)
    assert np.isfinite(boxes[:10]).all()  # all steps alike
    assert not np.isfinite(boxes[10:30]).any()
    assert len(scores) == len(boxes) >= 96


@pytest.mark.parametrize(
    "change",
    [
        lambda outputs: [],
        lambda outputs: outputs[:3],
        lambda outputs: outputs[3:] + outputs[:3],
        lambda outputs: [outputs[1], outputs[0], *outputs[2:]],
        lambda outputs: [*outputs[:2], outputs[2][..., :1], *outputs[3:]],
        lambda outputs: [*outputs[:3], *(each[..., :42] for each in outputs[3:])],
        lambda outputs: [*outputs[:3], *(each[..., :4] for each in outputs[3:])],
        lambda outputs: [np.float32(0)] * 6,
    ],
)
def test_nanodet_s_maps_of_other_shapes_are_named(change: Callable[[list[np.ndarray]], list[np.ndarray]]) -> None:
    with pytest.raises(DataError, match=r"shapes .*; layout nanodet is \(1, 96, C\), .*\(1, 6, 4 S\) here"):
        NanoDetLayout().decode(change(nanodet_outputs()), (64, 96), 0, 0.3)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_outputs_of_another_network_are_named(layout: str) -> None:
    wrong = [np.zeros((1, 10, 4), np.float32), np.zeros((1, 11, 24), np.float32)]
    with pytest.raises(DataError, match=rf"gives outputs of shapes .* layout {layout} is"):
        LAYOUTS[layout].decode(wrong, (300, 300), 0, 0.3)
    right, size = {
        "ssd": (ssd_outputs(), (300, 300)),
        "centernet": (list(centres_of_one()), (32, 32)),
        "nanodet": (nanodet_outputs(), (64, 96)),
    }[layout]
    with pytest.raises(DataError, match="person_class is 80"):
        LAYOUTS[layout].decode(right, size, 80, 0.3)


def test_maps_of_two_sizes_are_named() -> None:
    scores, sides = centres_of_one()
    with pytest.raises(DataError, match="gives maps of two sizes"):
        CentreLayout().decode([scores, sides[:, :4]], (32, 32), 0, 0.3)
