"""Lamps: fall-off, direction, tint."""

from dataclasses import replace

import numpy as np
import pytest

from tapetum.synth.lamps import Lamp, Lighting, draw_headlight, draw_lighting

LAMP = Lamp("street", (0.0, 0.0, 5.0), (1.0, 0.5, 0.25, 0.1), 0.001)
UP = np.array((0.0, 0.0, 1.0))


def test_light_falls_with_the_square_of_the_distance_and_keeps_its_tint() -> None:
    lighting = Lighting((LAMP,), (0.0, 0.0, 0.0, 0.0))
    near = lighting.on_surface(np.array(((0.0, 0.0, 0.0),)), UP, 1.0)[0]
    far = lighting.on_surface(np.array(((0.0, 0.0, -5.0),)), UP, 1.0)[0]
    assert near == pytest.approx(LAMP.light, rel=1e-3)
    assert far == pytest.approx(near / 4, rel=1e-3)


def test_a_surface_that_faces_away_gets_sky_light_only() -> None:
    lighting = Lighting((LAMP,), (0.1, 0.2, 0.3, 0.4))
    below = lighting.on_surface(np.array(((0.0, 0.0, 0.0),)), -UP, 0.5)[0]
    assert below == pytest.approx((0.05, 0.1, 0.15, 0.2))


def test_directions_point_to_the_lamps() -> None:
    lighting = Lighting((LAMP,), (0.0, 0.0, 0.0, 0.0))
    direction, strength = lighting.arriving(np.array(((3.0, 0.0, 1.0),)))
    assert direction[0, 0] == pytest.approx((-0.6, 0.0, 0.8))
    assert strength[0, 0] == pytest.approx(1.0, rel=1e-3)


def test_scaling_and_adding_a_lamp_change_nothing_else() -> None:
    lighting = Lighting((LAMP,), (0.1, 0.1, 0.1, 0.1))
    point = np.array(((1.0, 2.0, 0.0),))
    double = lighting.scaled(2.0).on_surface(point, UP, 1.0)
    assert double == pytest.approx(2 * lighting.on_surface(point, UP, 1.0), rel=1e-5)
    twice = replace(lighting, lamps=(LAMP, LAMP)).on_surface(point, UP, 0.0)
    assert twice == pytest.approx(2 * lighting.on_surface(point, UP, 0.0), rel=1e-5)


def test_dark_streets_have_only_far_lamps_and_lit_ones_near_lamps() -> None:
    for seed in range(20):
        dark = draw_lighting(np.random.default_rng(seed), 5, 15, dark=True)
        lit = draw_lighting(np.random.default_rng(seed), 5, 15, dark=False)
        assert min(np.hypot(*lamp.position[:2]) for lamp in dark.lamps) > 15
        assert min(np.hypot(*lamp.position[:2]) for lamp in lit.lamps) < 17
        assert {lamp.kind for lamp in lit.lamps} <= {"street", "advert"}


def test_streets_differ_in_tint() -> None:
    ratios = [draw_lighting(np.random.default_rng(seed), 5, 15, dark=False).lamps[0].light for seed in range(30)]
    warmth = np.array([light[0] / light[2] for light in ratios])
    assert warmth.max() > 4 * warmth.min()


def test_a_headlight_is_low_and_beside_the_person() -> None:
    lamp = draw_headlight(np.random.default_rng(0), (2.0, 8.0))
    assert lamp.kind == "headlight"
    assert 0.4 < lamp.position[2] < 1.1
    assert abs(lamp.position[0] - 2.0) > 3
