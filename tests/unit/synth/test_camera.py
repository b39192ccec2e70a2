"""Cameras: levels, viewpoints, exposure, projection."""

from dataclasses import replace

import numpy as np
import pytest

from tapetum.core.pixels import LIGHTNESS_WEIGHTS
from tapetum.core.types import Modality
from tapetum.synth.camera import draw_camera, look_at


def test_a_camera_depends_on_its_seed_and_number_alone() -> None:
    assert draw_camera(0, 3) == draw_camera(0, 3)
    assert draw_camera(0, 3) != draw_camera(1, 3)
    assert replace(draw_camera(0, 3), camid=4) != draw_camera(0, 4)


def test_cameras_two_five_and_eight_are_the_dark_ones() -> None:
    for seed in range(5):
        levels = {camid: draw_camera(seed, camid).level for camid in range(1, 9)}
        dark = max(levels[camid] for camid in (2, 5, 8))
        assert all(levels[camid] > dark for camid in (1, 3, 4, 6, 7))


def test_both_viewpoints_occur_and_differ_in_height() -> None:
    cameras = [draw_camera(seed, camid) for seed in range(5) for camid in range(1, 9)]
    heights = {kind: [c.height_m for c in cameras if c.viewpoint == kind] for kind in ("parallel", "downward")}
    assert len(heights["parallel"]) > 10
    assert len(heights["downward"]) > 10
    assert max(heights["parallel"]) < min(heights["downward"])


def test_grey_on_the_path_is_displayed_at_the_camera_level() -> None:
    for camid in range(1, 9):
        camera = draw_camera(0, camid)
        distance = np.linspace(camera.near_m, camera.far_m, 5)
        points = np.stack([np.zeros(5), distance, np.full(5, 1.1)], 1)
        facing = camera.lighting.on_surface(points, np.array((0.0, -1.0, 0.0)), 0.5)
        above = camera.lighting.on_surface(points, np.array((0.0, 0.0, 1.0)), 1.0)
        light = 0.25 * (0.7 * facing + 0.3 * above).mean(0)[:3] * np.array(camera.sensor.white_balance)
        level = 255 * (light @ np.array(LIGHTNESS_WEIGHTS) * camera.sensor.gain) ** (1 / camera.sensor.gamma)
        assert level == pytest.approx(camera.level, rel=1e-3)


def test_the_light_scale_moves_the_level_and_difficulty_zero_removes_the_noise() -> None:
    assert draw_camera(0, 1, light_scale=2.0).level == pytest.approx(2 * draw_camera(0, 1).level)
    easy = draw_camera(0, 1, difficulty=0.0)
    assert easy.sensor.read_noise_electrons == easy.focus_px == easy.shutter_seconds == 0
    assert easy.sensor.white_balance == (1, 1, 1)
    assert easy.sensor.full_well_electrons > 1e6


def test_an_infrared_camera_brings_its_own_light() -> None:
    visible, infrared = draw_camera(0, 2), draw_camera(0, 2, modality=Modality.INFRARED)
    assert infrared.lighting.lamps[0].kind == "illuminator"
    assert infrared.channels == (3,)
    assert visible.channels == (0, 1, 2)
    assert draw_camera(0, 2, modality=Modality.INFRARED, band="thermal").channels == (4,)
    assert (infrared.height_m, infrared.path, infrared.focal_px) == (visible.height_m, visible.path, visible.focal_px)


def test_looking_at_a_place_puts_it_in_the_middle_with_a_level_horizon() -> None:
    view = look_at((0.0, 0.0, 4.0), np.array((2.0, 9.0, 1.0)), 500.0, (100, 80))
    pixel, depth = view.project(np.array(((2.0, 9.0, 1.0), (2.0, 9.0, 2.0))))
    assert pixel[0] == pytest.approx((39.5, 49.5))
    assert depth[0] == pytest.approx(np.sqrt(4 + 81 + 9))
    assert pixel[1, 0] == pytest.approx(39.5)
    assert pixel[1, 1] < 49.5
    assert view.axes @ view.axes.T == pytest.approx(np.eye(3))
    assert np.linalg.det(view.axes) == pytest.approx(1)
