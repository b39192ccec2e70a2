import colorsys

import numpy as np

from fixed_draws import FixedDraws
from tapetum.data.augmentations.colour_jitter import Options, change

RNG = np.random.default_rng(0)
PICTURES = RNG.integers(1, 256, (4, 32, 16, 3), dtype=np.uint8)


def jitter(
    picture: np.ndarray, brightness: float = 1, contrast: float = 1, saturation: float = 1, hue: float = 0
) -> np.ndarray:
    """Strengths of 1 (hue 0.5) and draws that give just these factors."""
    numbers = [brightness / 2, contrast / 2, saturation / 2, hue + 0.5, 0.1, 0.2, 0.3, 0.4]
    return change(picture, Options((1.0, 1.0, 1.0, 0.5)), FixedDraws(np.array([numbers])))


def test_brightness_contrast_and_saturation_are_those_of_the_definition() -> None:
    floats = PICTURES[:1] / 255.0
    grey = floats @ np.array([0.299, 0.587, 0.114])
    expected = {
        "brightness": floats * 0.6,
        "contrast": grey.mean() + (floats - grey.mean()) * 0.6,
        "saturation": grey[..., None] + (floats - grey[..., None]) * 0.6,
    }
    for name, values in expected.items():
        changed = jitter(PICTURES[:1], **{name: 0.6})
        assert np.abs(changed - np.rint(values.clip(0, 1) * 255)).max() <= 1, name


def test_hue_turns_as_colorsys_does() -> None:
    changed = jitter(PICTURES[:1], hue=0.2)[0]
    for y in range(0, 32, 5):
        for x in range(0, 16, 5):
            hue, saturation, value = colorsys.rgb_to_hsv(*(PICTURES[0, y, x] / 255.0))
            expected = np.array(colorsys.hsv_to_rgb((hue + 0.2) % 1, saturation, value)) * 255
            assert np.abs(changed[y, x] - expected).max() <= 1


def test_grey_picture_has_no_hue_to_turn() -> None:
    grey = np.repeat(PICTURES[:1, :, :, :1], 3, axis=3)
    assert np.array_equal(jitter(grey, hue=0.3), grey)


def test_jitter_of_strength_zero_changes_nothing() -> None:
    assert np.array_equal(change(PICTURES, Options((0, 0, 0, 0)), FixedDraws(RNG.random((4, 8)))), PICTURES)
