"""Streets and occluders."""

import numpy as np
import pytest

from tapetum.core.types import Modality
from tapetum.synth.background import build_street, draw_occluder
from tapetum.synth.camera import draw_camera

SMALL = (90, 160)


def test_a_street_belongs_to_its_camera() -> None:
    first = build_street(draw_camera(0, 1), SMALL)
    assert np.array_equal(first.light, build_street(draw_camera(0, 1), SMALL).light)
    assert not np.allclose(first.light, build_street(draw_camera(0, 3), SMALL).light)
    assert first.light.shape == (*SMALL, 3)
    assert first.light.min() >= 0


def test_each_band_has_its_channels() -> None:
    for band in ("near", "thermal"):
        camera = draw_camera(0, 1, modality=Modality.INFRARED, band=band)
        assert build_street(camera, SMALL).light.shape == (*SMALL, 1)


def test_a_window_at_full_scale_is_the_frame_itself() -> None:
    street = build_street(draw_camera(0, 1), SMALL)
    window = street.cut((40.0 - 0.5, 30.0 - 0.5), 1.0, (20, 10))
    assert window == pytest.approx(street.light[20:40, 35:45], rel=1e-4)


def test_a_window_beyond_the_frame_is_filled() -> None:
    street = build_street(draw_camera(0, 1), SMALL)
    assert np.isfinite(street.cut((-30.0, 200.0), 0.5, (64, 32))).all()


def test_occluders_cover_a_part_of_the_picture_and_vary() -> None:
    shares = []
    for seed in range(40):
        cover, surface = draw_occluder((256, 128), 230.0, 120.0, np.random.default_rng(seed))
        assert cover.shape == (256, 128)
        assert 0 <= cover.min() <= cover.max() <= 1
        assert surface.shape == (5,)
        shares.append(float(cover.mean()))
    assert np.mean([share > 0.005 for share in shares]) > 0.8
    assert max(shares) < 0.8
    assert np.std(shares) > 0.02
