"""Light on people: fall-off, shadows, blur, boxes."""

from dataclasses import replace

import numpy as np
import pytest

from tapetum.core.types import Modality
from tapetum.synth.body import build_figure, pose
from tapetum.synth.camera import draw_camera
from tapetum.synth.lamps import Lamp, Lighting
from tapetum.synth.people import draw_person
from tapetum.synth.render import outline_box, paint_person, through_lens

FIGURE = build_figure(draw_person(0, 2))
CAMERA = replace(draw_camera(0, 1, difficulty=0.0), height_m=1.6)


def paint(lighting: Lighting, *, camera=CAMERA, heading: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    view = camera.frame_view((270, 480))
    posture = pose(FIGURE, 0.7).place((0.0, 8.0), heading)
    linear = np.full((270, 480, len(camera.channels)), 0.01, np.float32)
    surface = paint_person(linear, view, camera, lighting, FIGURE, posture, heading)
    mask = np.zeros((270, 480), bool)
    mask.ravel()[surface.pixels[surface.coverage > 0.9]] = True
    return linear, mask


def test_a_lamp_from_the_left_lights_the_left_side() -> None:
    sides = {}
    for name, x in (("left", -4.0), ("right", 4.0)):
        linear, mask = paint(Lighting((Lamp("street", (x, 6.0, 2.0), (1.0, 1.0, 1.0, 0.0)),), (0.0,) * 4))
        columns = np.flatnonzero(mask.any(axis=0))
        middle = int(columns.mean())
        left, right = mask.copy(), mask.copy()
        left[:, middle:] = False
        right[:, :middle] = False
        sides[name] = float(linear[left].mean() / linear[right].mean())
    assert sides["left"] > 1.2 * sides["right"]


def test_the_tint_of_the_lamp_reaches_the_person() -> None:
    linear, mask = paint(Lighting((Lamp("street", (0.0, 2.0, 4.0), (2.0, 1.0, 0.25, 0.0)),), (0.0,) * 4))
    white, _ = paint(Lighting((Lamp("street", (0.0, 2.0, 4.0), (1.0, 1.0, 1.0, 0.0)),), (0.0,) * 4))
    assert linear[mask].mean(0) / white[mask].mean(0) == pytest.approx((2.0, 1.0, 0.25), rel=0.02)


def test_the_head_is_brighter_than_the_feet_under_a_lamp_overhead() -> None:
    grey = replace(FIGURE, texels=np.full_like(FIGURE.texels, 0.3))
    view = CAMERA.frame_view((270, 480))
    posture = pose(grey, 0.7).place((0.0, 8.0), 0.0)
    lighting = Lighting((Lamp("street", (0.0, 7.0, 3.0), (1.0, 1.0, 1.0, 0.0), 0.1),), (0.0,) * 4)
    linear = np.zeros((270, 480, 3), np.float32)
    surface = paint_person(linear, view, CAMERA, lighting, grey, posture, 0.0)
    rows = surface.pixels // 480
    light = linear.reshape(-1, 3)[surface.pixels, 1]
    tenth = np.quantile(rows, (0.1, 0.9))
    assert light[rows < tenth[0]].mean() > 3 * light[rows > tenth[1]].mean()


def test_a_shadow_darkens_the_ground_below() -> None:
    linear, mask = paint(Lighting((Lamp("street", (0.0, 8.0, 6.0), (1.0, 1.0, 1.0, 0.0)),), (0.0,) * 4))
    lowest = np.flatnonzero(mask.any(axis=1)).max()
    below = linear[lowest + 1 : lowest + 3][:, np.flatnonzero(mask[lowest - 2])]
    assert below.mean() < 0.009
    assert linear[20, 20, 0] == pytest.approx(0.01)


def test_somebody_who_walks_across_is_blurred_and_somebody_who_approaches_is_not() -> None:
    slow = replace(CAMERA, shutter_seconds=0.2)
    lighting = Lighting((), (1.0, 1.0, 1.0, 0.0))
    edges = {}
    for name, heading in (("across", np.pi / 2), ("towards", 0.0)):
        linear, mask = paint(lighting, camera=slow, heading=heading)
        edges[name] = np.abs(np.diff(linear[mask.any(axis=1)], axis=1)).max()
    assert edges["towards"] > 2 * edges["across"]


def test_infrared_light_shows_infrared_reflectance() -> None:
    camera = replace(draw_camera(0, 1, modality=Modality.INFRARED, difficulty=0.0), height_m=1.6)
    linear, mask = paint(Lighting((), (5.0, 5.0, 5.0, 1.0)), camera=camera)
    assert linear.shape[2] == 1
    assert 0.03 < linear[mask].mean() < 0.9
    dark, mask = paint(Lighting((), (5.0, 5.0, 5.0, 0.0)), camera=camera)
    assert dark[mask].mean() < 1e-3


@pytest.mark.parametrize("heading", [0.0, 0.8, 1.6, 2.4, 3.1, -1.6])
def test_the_box_holds_the_drawn_person(heading: float) -> None:
    view = CAMERA.frame_view((540, 960))
    posture = pose(FIGURE, 1.3).place((1.0, 7.0), heading)
    linear = np.zeros((540, 960, 3), np.float32)
    surface = paint_person(linear, view, CAMERA, Lighting((), (1.0,) * 4), FIGURE, posture, heading)
    rows, columns = surface.pixels // 960, surface.pixels % 960
    left, top, right, bottom = outline_box(posture, view)
    slack = 0.06 * (bottom - top)
    assert left - slack <= columns.min() <= columns.max() <= right + slack
    assert top - slack <= rows.min() <= rows.max() <= bottom + slack
    assert (rows.max() - rows.min()) > 0.85 * (bottom - top)


def test_the_lens_blurs_and_the_sensor_averages() -> None:
    point = np.zeros((64, 32, 3), np.float32)
    point[32, 16] = 1
    small = through_lens(point, 1.5, (32, 16))
    assert small.shape == (32, 16, 3)
    assert small.sum() * 4 == pytest.approx(3, rel=1e-3)
    assert small.max() < 0.1
    assert through_lens(point[..., :1], 0.0, (64, 32)).shape == (64, 32, 1)
