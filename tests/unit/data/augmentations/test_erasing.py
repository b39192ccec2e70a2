import math
from typing import Any

import numpy as np
import pytest
import torch

from fixed_draws import draw_anew
from tapetum.core.options import read_options
from tapetum.data.augmentations import erasing
from tapetum.data.augmentations.erasing import Options, change, draw_boxes, fill_colour
from tapetum.data.transforms import to_float, to_tensor
from tapetum.layers.normalisation import STATISTICS, Normalise

RNG = np.random.default_rng(0)
PICTURES = RNG.integers(1, 256, (24, 32, 16, 3), dtype=np.uint8)
IMAGENET_MEAN = STATISTICS["imagenet"][0]


def boxes_of(options: Options, count: int, size: tuple[int, int], seed: int) -> np.ndarray:
    return draw_boxes(options, np.ones(count, bool), size, np.random.default_rng(seed))


def slow_boxes(options: Options, size: tuple[int, int], rng: np.random.Generator) -> list[tuple[int, ...]]:
    """The original's loop: up to 100 tries of area and aspect, the first that fits."""
    boxes = []
    for _ in range(10000):
        for _ in range(options.tries):
            area = rng.uniform(*options.area) * size[0] * size[1]
            aspect = rng.uniform(*options.aspect)
            height, width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if height < size[0] and width < size[1]:
                top = int(rng.integers(0, size[0] - height, endpoint=True))
                boxes.append((top, int(rng.integers(0, size[1] - width, endpoint=True)), height, width))
                break
    return boxes


@pytest.mark.parametrize("size", [(256, 128), (32, 32)])
def test_erased_boxes_have_the_statistics_of_the_slow_loop(size: tuple[int, int]) -> None:
    options = Options()
    fast = boxes_of(options, 10000, size, 1)
    slow = np.array(slow_boxes(options, size, np.random.default_rng(2)))
    assert len(slow) == (fast[:, 2] > 0).sum() == 10000
    difference = np.abs(fast.mean(0) - slow.mean(0))
    assert (difference < 5 * slow.std(0) * math.sqrt(2 / len(slow))).all()
    assert ((fast[:, :2] >= 0) & (fast[:, :2] + fast[:, 2:] <= size)).all()
    share = fast[:, 2] * fast[:, 3] / (size[0] * size[1])
    assert share.min() > 0.015
    assert share.max() < 0.42


def test_log_aspect_makes_tall_and_wide_boxes_equally_likely() -> None:
    uniform = boxes_of(Options(), 4000, (400, 400), 1)
    log = boxes_of(Options(aspect_scale="log"), 4000, (400, 400), 1)
    assert abs((log[:, 2] > log[:, 3]).mean() - 0.5) < 0.05
    assert (uniform[:, 2] > uniform[:, 3]).mean() > 0.7


def test_box_that_never_fits_leaves_the_picture_whole() -> None:
    options = Options(area=(0.99, 0.999), aspect=(5.0, 6.0))
    assert not boxes_of(options, 10, (32, 16), 0).any()
    images = to_float(PICTURES)
    assert np.array_equal(change(images.copy(), options, draw_anew(0, 24)), images)


def test_more_tries_find_a_box_where_one_try_often_does_not() -> None:
    found = [(boxes_of(Options(area=(0.3, 0.9), tries=tries), 2000, (64, 32), 0)[:, 2] > 0).mean() for tries in (1, 10)]
    assert found[0] < 0.9 < 0.99 < found[1]


@pytest.mark.parametrize(
    ("fill", "colour"), [("black", (0, 0, 0)), ("mean", IMAGENET_MEAN), ((0.1, 0.2, 0.3), (0.1, 0.2, 0.3))]
)
def test_erasing_fills_exactly_its_box(fill: Any, colour: tuple[float, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    boxes = np.array([[2, 3, 10, 5], [0, 0, 0, 0], [31, 15, 1, 1]])
    monkeypatch.setattr(erasing, "draw_boxes", lambda *drawn: boxes)
    images = change(to_float(PICTURES[:3]), Options(fill=fill), draw_anew(0, 3))
    expected = to_float(PICTURES[:3])
    expected[0, 2:12, 3:8] = colour
    expected[2, 31, 15] = colour
    assert np.array_equal(images, expected)


def test_noise_differs_between_pixels_channels_and_pictures_and_stays_in_range() -> None:
    images = np.full((200, 32, 32, 3), -1.0, np.float32)
    options = Options(fill="noise", noise_mean=0.5, noise_deviation=0.1)
    erased = change(images, options, draw_anew(0, 200))
    pixels = erased[(erased != -1).any(-1)]
    assert pixels.min() >= 0
    assert pixels.max() <= 1
    assert abs(pixels.mean() - 0.5) < 0.01
    assert abs(pixels.std() - 0.1) < 0.01
    assert np.abs(np.corrcoef(pixels.T) - np.eye(3)).max() < 0.1
    assert len(np.unique(pixels[:, 0])) > 0.9 * len(pixels)


@pytest.mark.parametrize(
    ("options", "constant"),
    [
        ({"fill": [0.485, 0.456, 0.406], "normalisation": "imagenet"}, (0.485, 0.456, 0.406)),
        ({"fill": [0.4914, 0.4822, 0.4465], "normalisation": "imagenet"}, (0.4914, 0.4822, 0.4465)),
        ({"fill": [0.5, -2.0, 0.0], "normalisation": "half"}, (0.5, -2.0, 0.0)),
        ({"fill": "mean"}, (0, 0, 0)),
        ({"fill": [0.596065, 0.558144, 0.49735]}, (0.485, 0.456, 0.406)),  # as recipes write DEEN's
        ({"fill": [0.5975306, 0.5640128, 0.5064625]}, (0.4914, 0.4822, 0.4465)),  # and CAJ's
    ],
)
def test_a_filling_is_the_release_s_constant_behind_the_normalisation(options: dict, constant: tuple) -> None:
    read = read_options(Options, options)
    name = "half" if options.get("normalisation") == "half" else "imagenet"
    colour = torch.tensor(fill_colour(read), dtype=torch.float64).view(1, 3, 1, 1)
    np.testing.assert_allclose(Normalise(name)(colour).flatten(), constant, atol=1e-6)  # type: ignore[arg-type]


def test_noise_behind_a_normalisation_is_the_release_s_there() -> None:
    options = Options(fill="noise", normalisation="half", noise_mean=0, noise_deviation=1, clip=False)
    images = change(np.full((200, 32, 32, 3), np.nan, np.float32), options, draw_anew(0, 200))
    values = Normalise("half")(to_tensor(images)).permute(0, 2, 3, 1)
    pixels = values[~values.isnan().any(-1)]
    assert abs(float(pixels.mean())) < 0.01
    assert abs(float(pixels.std()) - 1) < 0.01
    assert pixels.max() > 3
