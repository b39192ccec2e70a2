import cv2
import numpy as np
import pytest

from fixed_draws import FixedDraws, draw_anew
from tapetum.data.augmentations.resize_crop import Options, change

PICTURES = np.random.default_rng(0).integers(0, 256, (6, 32, 16, 3), dtype=np.uint8)


@pytest.mark.parametrize(("scale", "large"), [(1.125, (36, 18)), (1.5, (48, 24))])
def test_a_picture_is_enlarged_and_cut_at_the_drawn_place(scale: float, large: tuple[int, int]) -> None:
    numbers = np.random.default_rng(1).random((6, 2))
    found = change(PICTURES.copy(), Options(scale), FixedDraws(numbers))
    for picture, result, (row, column) in zip(PICTURES, found, numbers, strict=True):
        enlarged = cv2.resize(picture, large[::-1], interpolation=cv2.INTER_LINEAR)
        top, left = int(row * (large[0] - 31)), int(column * (large[1] - 15))
        assert np.array_equal(result, enlarged[top : top + 32, left : left + 16])


def test_along_the_diagonal_one_number_places_both_sides() -> None:
    numbers = np.random.default_rng(1).random((6, 2))
    found = change(PICTURES.copy(), Options(1.5, diagonal=True), FixedDraws(numbers))
    expected = change(PICTURES.copy(), Options(1.5), FixedDraws(numbers[:, :1].repeat(2, axis=1)))
    assert np.array_equal(found, expected)
    assert not np.array_equal(found, change(PICTURES.copy(), Options(1.5), FixedDraws(numbers)))


def test_every_cut_occurs_from_the_first_to_the_last_row() -> None:
    rows = np.broadcast_to(np.arange(40, dtype=np.uint8)[:, None, None], (400, 40, 8, 3)).copy()
    found = change(rows, Options(1.125), draw_anew(0, 400))[:, 0, 0, 0]
    assert set(found.tolist()) == set(range(found.min(), found.max() + 1))
    assert found.min() == 0
    assert found.max() in (4, 5)  # rows 0 to 5 of 45, enlarged from 40
