"""Tubes on a picture, against what geometry says."""

import numpy as np
import pytest

from tapetum.synth.raster import PROFILE_ROWS, Posture, Tube, View, draw_tubes


def view(height: int = 120, width: int = 100, focal: float = 400.0) -> View:
    axes = np.array(((1.0, 0, 0), (0, 0, 1.0), (0, -1.0, 0)))  # looks along +Y
    return View(np.array((0.0, -5.0, 1.0)), axes, focal, (width / 2 - 0.5, height / 2 - 0.5), (height, width))


def cylinder(a: float = 0.2, b: float = 0.2, *, start: int = 0, behind: float = 0.0) -> Tube:
    profile = np.tile(np.array((a, b, 0.0), np.float32), (PROFILE_ROWS, 1))
    return Tube(profile, start, (10, 40), behind)


def draw(*tubes: Tube, at: tuple[tuple[float, float], ...] = ((0.0, 0.0),), side: tuple[float, ...] = (-1.0, 0, 0)):
    feet = np.array([(x, y, 0.5) for x, y in at])
    tips = np.array([(x, y, 1.5) for x, y in at])
    return draw_tubes(tubes, Posture(feet, tips, np.tile(side, (len(tubes), 1))), view())


def test_a_cylinder_covers_the_rectangle_that_perspective_gives() -> None:
    surface = draw(cylinder())
    covered = np.zeros((120, 100))
    covered.ravel()[surface.pixels] = surface.coverage
    assert covered.sum(axis=1)[60] == pytest.approx(2 * 0.2 * 400 / 5, rel=0.05)
    assert covered.sum(axis=0)[50] == pytest.approx(400 / 5, rel=0.06)


def test_a_flat_cross_section_is_narrow_from_its_side() -> None:
    broad, narrow = draw(cylinder(0.2, 0.1)), draw(cylinder(0.2, 0.1), side=(0, 1.0, 0))
    assert broad.coverage.sum() == pytest.approx(2 * narrow.coverage.sum(), rel=0.05)


def test_normals_face_the_camera_in_the_middle_and_turn_away_at_the_edges() -> None:
    surface = draw(cylinder())
    row = surface.pixels // 100 == 60
    normals, columns = surface.normals[row], surface.pixels[row] % 100
    assert np.linalg.norm(surface.normals, axis=1) == pytest.approx(1, abs=1e-3)
    assert normals[np.abs(columns - 49.5).argmin(), 2] > 0.99
    assert normals[columns.argmin(), 0] < -0.85
    assert normals[columns.argmax(), 0] > 0.85


def test_the_nearer_tube_hides_the_farther_one_unless_it_gives_way() -> None:
    front, rear = cylinder(start=0), cylinder(start=1000)
    assert draw(front, rear, at=((0, -0.6), (0, 0.6))).texels.max() < 1000
    assert draw(rear, front, at=((0, 0.6), (0, -0.6))).texels.max() < 1000
    polite = cylinder(start=0, behind=2.0)
    surface = draw(polite, rear, at=((0, -0.6), (0, 0.6)))
    middle = np.abs(surface.pixels - 6049).argmin()
    assert surface.texels[middle] >= 1000


def test_texture_columns_show_the_side_that_faces_the_camera() -> None:
    for side, quarter in (((-1.0, 0, 0), 0.25), ((1.0, 0, 0), 0.75), ((0, -1.0, 0), 0.0), ((0, 1.0, 0), 0.5)):
        surface = draw(cylinder(), side=side)
        middle = np.abs(surface.pixels % 100 - 49.5) < 1
        turn = (surface.texels[middle] % 40 + 0.5) / 40
        apart = np.abs((turn - quarter + 0.5) % 1 - 0.5)
        assert apart.max() < 0.06


def test_texture_rows_rise_with_height() -> None:
    surface = draw(cylinder())
    rows = surface.texels // 40
    heights = surface.pixels // 100
    assert np.corrcoef(rows, heights)[0, 1] < -0.99


def test_what_is_outside_the_picture_is_left_out() -> None:
    surface = draw(cylinder(), at=((30.0, 0.0),))
    assert len(surface.pixels) == 0
    half = draw(cylinder(), at=((0.62, 0.0),))
    assert 0 < len(half.pixels) < len(draw(cylinder()).pixels)
