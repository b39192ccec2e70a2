"""Painted surfaces: patterns, sleeves, warmth."""

from dataclasses import replace

import numpy as np
import pytest

from tapetum.synth.body import build_figure
from tapetum.synth.cloth import INFRARED, WARMTH
from tapetum.synth.people import Garment, Person, draw_person

BASE = draw_person(0, 2)
DARK = replace(BASE.upper.first, albedo=(0.05, 0.05, 0.05), infrared=0.8)
LIGHT = replace(BASE.upper.first, albedo=(0.8, 0.8, 0.8), infrared=0.1)


def texels(person: Person, name: str) -> np.ndarray:
    """(rows, columns, channels) of a part."""
    figure = build_figure(person)
    tube = next(tube for part, tube in zip(figure.parts, figure.tubes, strict=True) if part.name == name)
    rows, columns = tube.texture_shape
    start = tube.texture_start
    return figure.texels[start : start + rows * columns].reshape(rows, columns, -1)


def wearing(pattern: str, kind: str = "t_shirt", **changes: object) -> Person:
    upper = Garment(kind, pattern, DARK, LIGHT, length=0.0, scale_m=0.06)  # type: ignore[arg-type]
    return replace(BASE, upper=replace(upper, **changes), bag="none", hair="short")


def test_stripes_run_around_and_vertical_stripes_along_the_trunk() -> None:
    around, along = texels(wearing("stripes"), "trunk")[..., 1], texels(wearing("vertical_stripes"), "trunk")[..., 1]
    assert around.mean(axis=1).std() > 3 * around.mean(axis=0).std()
    assert along.mean(axis=0).std() > 3 * along.mean(axis=1).std()


def test_checks_have_three_tones_and_plain_cloth_one() -> None:
    tones = texels(wearing("checks"), "trunk")[..., 1]
    assert tones.std() > 2 * texels(wearing("plain"), "trunk")[5:-8, :, 1].std()
    counts, _ = np.histogram(tones, bins=[0, 0.15, 0.25, 0.55, 1.0])
    assert counts[[0, 2, 3]].min() > 0.1 * tones.size


def test_short_sleeves_bare_the_forearm_and_long_ones_cover_it() -> None:
    skin = BASE.skin.infrared
    bare = texels(wearing("plain"), "right_forearm")
    covered = texels(wearing("plain", "jacket", length=1.0), "right_forearm")
    assert bare[:, 5, INFRARED] == pytest.approx(skin, rel=0.35)
    assert covered[10:, 5, INFRARED].mean() > 1.1 * skin  # the jacket's 0.8
    assert bare[..., WARMTH].mean() > 2 * covered[..., WARMTH].mean()


def test_an_open_jacket_shows_the_inner_shirt_in_front_only() -> None:
    trunk = texels(wearing("plain", "jacket", length=1.0, front_open=True), "trunk")[40:80, :, 1]
    columns = trunk.shape[1]
    assert trunk[:, columns // 4].mean() > 0.4
    assert trunk[:, 3 * columns // 4].mean() < 0.2


def test_black_cloth_may_shine_in_infrared() -> None:
    trunk = texels(wearing("plain"), "trunk")[20:80]
    assert trunk[..., :3].mean() < 0.1
    assert trunk[..., INFRARED].mean() > 0.5


def test_skin_is_warmer_than_cloth_and_cloth_warmer_than_a_bag() -> None:
    person = replace(wearing("plain"), bag="backpack")
    skin, cloth, bag = (texels(person, name)[..., WARMTH].mean() for name in ("head", "trunk", "backpack"))
    assert skin > cloth > bag


def test_every_texel_is_a_reflectance() -> None:
    for pid in range(1, 20):
        values = build_figure(draw_person(5, pid)).texels
        assert values.dtype == np.float32
        assert 0 < values.min() <= values.max() <= 1
