"""Figures: stand on the ground, walk, and look different from behind."""

from dataclasses import replace

import numpy as np
import pytest

from tapetum.synth.body import BONES, build_figure, pose
from tapetum.synth.camera import look_at
from tapetum.synth.people import draw_person
from tapetum.synth.raster import draw_tubes

PLAIN = draw_person(0, 2)


def look(
    figure, heading: float, phase: float = 0.7, channel: int | slice = slice(0, 3)
) -> tuple[np.ndarray, np.ndarray]:
    """Albedo picture and coverage of a figure from 8 m, eye level."""
    posture = pose(figure, phase).place((0, 0), heading)
    view = look_at((0.0, -8.0, 1.4), np.array((0.0, 0.0, 0.9)), 560.0, (160, 80))
    surface = draw_tubes(figure.tubes, posture, view)
    picture = np.zeros((160 * 80, 5), np.float32)
    cover = np.zeros(160 * 80, np.float32)
    picture[surface.pixels] = figure.texels[surface.texels]
    cover[surface.pixels] = surface.coverage
    return picture.reshape(160, 80, 5)[..., channel], cover.reshape(160, 80)


def test_every_bone_carries_a_part_of_a_fully_dressed_person() -> None:
    person = replace(PLAIN, hair="long", hat="cap", lower=replace(PLAIN.lower, kind="skirt"))
    assert {part.bone for part in build_figure(person).parts} == set(BONES)


@pytest.mark.parametrize("phase", np.linspace(0, 2 * np.pi, 9)[:-1])
def test_the_figure_stands_on_the_ground_and_has_its_height(phase: float) -> None:
    person = replace(PLAIN, hat="none", hair="bald")
    posture = pose(build_figure(person), phase)
    lowest = min(posture.lower[:, 2].min(), posture.upper[:, 2].min())
    assert 0 < lowest < 0.06
    assert posture.upper[:, 2].max() == pytest.approx(person.height_m, abs=0.06)


def test_legs_swing_against_each_other_and_arms_against_legs() -> None:
    figure = build_figure(PLAIN)
    names = [part.name for part in figure.parts]
    posture = pose(figure, np.pi / 2)
    forward = {name: posture.lower[names.index(name), 1] - posture.upper[names.index(name), 1] for name in names}
    assert forward["right_thigh"] > 0 > forward["left_thigh"]
    assert forward["right_upper_arm"] < forward["left_upper_arm"]
    still = pose(figure, np.pi / 2, effort=0.0)
    assert np.abs(still.lower - pose(figure, 0.3, effort=0.0).lower).max() < 1e-9


def test_axes_and_sides_stay_perpendicular_unit_vectors() -> None:
    posture = pose(build_figure(PLAIN), 1.0).place((3.0, 7.0), 0.8)
    axis = posture.upper - posture.lower
    assert np.linalg.norm(posture.sideways, axis=1) == pytest.approx(1)
    assert np.abs(np.einsum("pc,pc->p", axis, posture.sideways)).max() < 1e-6


def test_heading_zero_walks_towards_the_camera_and_a_quarter_turn_to_the_right() -> None:
    figure = build_figure(PLAIN)
    foot = [part.name for part in figure.parts].index("right_foot")
    for heading, expected in ((0.0, (0, -1)), (np.pi / 2, (1, 0))):
        posture = pose(figure, 0.0, effort=0.0).place((0, 0), heading)
        toe = (posture.lower - posture.upper)[foot, :2]
        assert toe @ expected > 0.9 * np.linalg.norm(toe)


def test_a_logo_is_in_front_only() -> None:
    upper = replace(
        PLAIN.upper,
        kind="shirt",
        pattern="logo",
        front_open=False,
        first=replace(PLAIN.upper.first, albedo=(0.02, 0.02, 0.5)),
        second=replace(PLAIN.upper.second, albedo=(0.8, 0.02, 0.02)),
    )
    figure = build_figure(replace(PLAIN, upper=upper, bag="none", bag_dye=upper.first))
    red = {}
    for name, heading in (("front", 0.0), ("back", np.pi)):
        picture = look(figure, heading)[0][40:85, 32:48]  # the trunk without sleeves
        red[name] = int(((picture[..., 0] > 0.4) & (picture[..., 1] < 0.1)).sum())
    assert red["front"] > 40
    assert red["back"] < 0.1 * red["front"]


def test_a_backpack_is_seen_from_behind() -> None:
    dye = replace(PLAIN.bag_dye, albedo=(0.02, 0.8, 0.02))
    figure = build_figure(replace(PLAIN, bag="backpack", bag_dye=dye))
    area = {}
    for name, heading in (("front", 0.0), ("back", np.pi)):
        picture, _ = look(figure, heading)
        area[name] = int(((picture[..., 1] > 0.4) & (picture[..., 0] < 0.1)).sum())
    assert area["back"] > 3 * area["front"] > 0  # in front only the straps


def test_a_face_looks_forward_and_hair_covers_the_back_of_the_head() -> None:
    skin = replace(PLAIN.skin, albedo=(0.8, 0.02, 0.02))
    figure = build_figure(replace(PLAIN, skin=skin, hair="short", hat="none"))
    heads = [look(figure, heading)[0][:30] for heading in (0.0, np.pi)]
    front, back = (int((head[..., 0] > 0.5).sum()) for head in heads)
    assert front > 2 * back


def test_every_attribute_changes_the_picture() -> None:
    base, _ = look(build_figure(PLAIN), 0.5)
    upper, lower = PLAIN.upper, PLAIN.lower
    changes = {
        "height_m": 1.5, "build": 1.3, "hair": "long", "hat": "beanie", "bag": "shoulder_bag",
        "upper": replace(upper, kind="coat", length=1.0), "lower": replace(lower, kind="shorts"),
        "shoes": upper.second, "stride": 0.7, "skin": upper.second,
    }  # fmt: skip
    for field, value in changes.items():
        other, _ = look(build_figure(replace(PLAIN, **{field: value})), 0.5)
        assert np.abs(other - base).mean() > 1e-4, field


def test_infrared_shows_other_contrasts_than_visible_light() -> None:
    same = replace(PLAIN.upper.first, albedo=(0.3, 0.3, 0.3), infrared=0.1)
    other = replace(same, infrared=0.8)
    figure = build_figure(replace(PLAIN, upper=replace(PLAIN.upper, pattern="stripes", first=same, second=other)))
    picture, _ = look(figure, np.pi, channel=slice(0, 5))
    chest = picture[50:75, 36:44]
    assert chest[..., 3].std() > 3 * chest[..., 1].std()
