import math

import numpy as np
import pytest

from fixed_draws import FixedDraws, draw_anew
from tapetum.data.augmentations.pad_crop import Options, change

RNG = np.random.default_rng(0)
PICTURES = RNG.integers(1, 256, (24, 32, 16, 3), dtype=np.uint8)


def slow_crop(picture: np.ndarray, pad: int, top: int, left: int, fill: float) -> np.ndarray:
    height, width, _ = picture.shape
    result = np.full_like(picture, fill)
    for y in range(height):
        for x in range(width):
            source_y, source_x = y + top - pad, x + left - pad
            if 0 <= source_y < height and 0 <= source_x < width:
                result[y, x] = picture[source_y, source_x]
    return result


@pytest.mark.parametrize("fill", [0, 127])
@pytest.mark.parametrize("floats", [False, True])
def test_cuts_equal_a_slow_loop_in_bytes_and_in_floats(fill: int, floats: bool) -> None:
    numbers = RNG.random((24, 3))
    pictures = PICTURES / np.float32(255) if floats else PICTURES
    fast = change(pictures, Options(4, fill), FixedDraws(numbers))
    assert fast.dtype == pictures.dtype
    for i in range(24):
        top, left = (int(value * 9) for value in numbers[i, 1:])
        assert np.array_equal(fast[i], slow_crop(pictures[i], 4, top, left, fill / 255 if floats else fill))


def test_every_place_of_the_crop_is_equally_likely() -> None:
    count = 4000
    marker = np.zeros((count, 9, 9, 3), np.uint8)
    marker[:, 4, 4] = 255
    found = np.argwhere(change(marker, Options(2), draw_anew(1, count))[..., 0])[:, 1:]
    assert len(found) == count
    counts = np.bincount((found[:, 0] - 2) * 5 + found[:, 1] - 2, minlength=25)
    assert np.abs(counts - count / 25).max() < 5 * math.sqrt(count / 25)
