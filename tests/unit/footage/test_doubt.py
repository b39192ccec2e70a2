"""Which pictures to search with are called doubtful, and that good ones hardly ever are."""

import cv2
import numpy as np
import pytest

from tapetum.data.image_io import Picture
from tapetum.footage.doubt import EMPTY, NOISY, SEAM, SHAPE_HIGH, SHAPE_LOW, doubt_picture, say_doubts
from tapetum.synth.scene import Scene, SceneOptions

SCENE = Scene(SceneOptions(num_test_people=12, identity_seed=5, camera_seed=6, time_seed=7))


@pytest.fixture(scope="module")
def crops() -> list[Picture]:
    return [SCENE.picture(1 + number % 12, 1 + number % 8, number // 24) for number in range(60)]


def stack(upper: Picture, lower: Picture) -> Picture:
    """Two pictures of one width, one above the other."""
    width = 64
    return np.concatenate(
        [cv2.resize(each, (width, round(each.shape[0] * width / each.shape[1]))) for each in (upper, lower)]
    ).astype(np.uint8)


def test_generated_people_are_hardly_ever_doubtful(crops: list[Picture]) -> None:
    assert sum(bool(doubt_picture(crop)) for crop in crops) <= 2


def test_two_people_one_above_the_other_are_doubtful_by_their_shape(crops: list[Picture]) -> None:
    for upper, lower in zip(crops[:10], crops[10:20], strict=True):
        assert SHAPE_HIGH in doubt_picture(stack(upper, lower))


def test_two_bright_people_pressed_into_one_picture_are_doubtful_by_the_line_between() -> None:
    rows = np.linspace(60, 110, 64)[:, None, None]
    upper = np.broadcast_to(rows, (64, 64, 3)).astype(np.uint8).copy()
    lower = np.broadcast_to(rows[::-1] + 60, (64, 64, 3)).astype(np.uint8).copy()
    for half, colour in ((upper, (200, 40, 40)), (lower, (30, 60, 160))):
        half[8:60, 20:44] = colour
    assert SEAM in doubt_picture(np.concatenate([upper, lower]))


@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize("deviation", [10, 40, 120])
def test_noise_is_doubtful_whatever_its_strength(grey: bool, deviation: int) -> None:
    rng = np.random.default_rng(deviation)
    noise = np.clip(rng.normal(120, deviation, (160, 80, 1 if grey else 3)), 0, 255)
    assert doubt_picture(np.broadcast_to(noise, (160, 80, 3)).astype(np.uint8)) == (NOISY,)


def test_an_even_wall_may_show_nobody() -> None:
    wall = np.linspace(80, 130, 128)[:, None, None] + np.random.default_rng(0).normal(0, 2, (128, 64, 3))
    assert doubt_picture(wall.astype(np.uint8)) == (EMPTY,)


def test_a_picture_hardly_higher_than_wide_is_doubtful(crops: list[Picture]) -> None:
    crop = crops[0]
    assert SHAPE_LOW in doubt_picture(crop[: crop.shape[1]])


def test_doubts_are_said_in_one_sentence() -> None:
    assert say_doubts(()) == ""
    assert say_doubts((NOISY,)) == "doubtful because it is noise, in which nobody can be seen"
    assert say_doubts((SEAM, EMPTY)) == f"doubtful because it is {SEAM} and {EMPTY}"
