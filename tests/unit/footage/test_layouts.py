import math

import numpy as np
import pytest

from detector_files import centres_of_one
from tapetum.core.errors import DataError
from tapetum.footage.layouts import LAYOUTS, CentreLayout, SsdLayout, _ssd_anchors

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


@pytest.mark.parametrize("layout", LAYOUTS)
def test_outputs_of_another_network_are_named(layout: str) -> None:
    wrong = [np.zeros((1, 10, 4), np.float32), np.zeros((1, 11, 24), np.float32)]
    with pytest.raises(DataError, match=rf"gives outputs of shapes .* layout {layout} is"):
        LAYOUTS[layout].decode(wrong, (300, 300), 0, 0.3)
    right = ssd_outputs() if layout == "ssd" else list(centres_of_one())
    with pytest.raises(DataError, match="person_class is 80"):
        LAYOUTS[layout].decode(right, (300, 300) if layout == "ssd" else (32, 32), 80, 0.3)


def test_maps_of_two_sizes_are_named() -> None:
    scores, sides = centres_of_one()
    with pytest.raises(DataError, match="gives maps of two sizes"):
        CentreLayout().decode([scores, sides[:, :4]], (32, 32), 0, 0.3)
