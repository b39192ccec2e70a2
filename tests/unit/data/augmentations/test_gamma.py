import numpy as np

from fixed_draws import FixedDraws
from tapetum.data.augmentations.gamma import Options, change
from tapetum.synth.sensor import gamma_darken

PICTURES = np.random.default_rng(0).integers(0, 256, (4, 8, 4, 3), dtype=np.uint8)


def test_each_picture_is_darkened_by_its_own_exponent() -> None:
    found = change(PICTURES, Options((0.5, 2.5)), FixedDraws(np.array([[0.0], [0.25], [0.5], [0.999]])))
    for picture, result, gamma in zip(PICTURES, found, (0.5, 1.0, 1.5, 2.498), strict=True):
        assert np.array_equal(result, gamma_darken(picture, gamma))
    assert np.array_equal(found[1], PICTURES[1])
