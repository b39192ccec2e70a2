import numpy as np

from fixed_draws import draw_anew
from tapetum.data.augmentations.darken import Options, change
from tapetum.synth.sensor import DarkenOptions, darken_picture, mean_lightness

PICTURES = np.random.default_rng(0).integers(60, 256, (5, 32, 16, 3), dtype=np.uint8)


def test_the_default_is_the_night_of_the_night_scene_with_a_stream_for_each_picture() -> None:
    found = change(PICTURES.copy(), Options(), draw_anew(3, 5))
    for picture, result, generator in zip(PICTURES, found, draw_anew(3, 5).generators(), strict=True):
        assert np.array_equal(result, darken_picture(picture, DarkenOptions(), generator))
    assert len({mean_lightness(picture) for picture in found}) == 5


def test_the_options_reach_the_camera() -> None:
    quiet, noisy = (
        change(PICTURES.copy(), Options(lightness=(30, 30), tint=0, falloff=0, gain=gain, denoise=0), draw_anew(3, 5))
        for gain in (1.0, 64.0)
    )
    assert noisy.std() > quiet.std() + 3
    assert all(abs(mean_lightness(picture) - 30) < 3 for picture in quiet)
