"""The light of the street: lamps with a place, a colour and a near-infrared share, and the glow of the sky; or the day.

Strength falls with the square of the distance, so tint, direction and fall-off over the picture follow from where
somebody stands. Every light has four channels: red, green, blue and near-infrared.
"""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

LampKind = Literal["street", "headlight", "advert", "illuminator", "sun"]
Light = tuple[float, float, float, float]
LIGHT_CHANNELS = 4

STREET_LIGHTS: dict[str, Light] = {  # relative power per channel; the luminance is about 1
    "sodium": (1.75, 0.78, 0.16, 0.55),
    "warm": (1.32, 0.94, 0.52, 0.08),
    "neutral": (1.0, 1.0, 0.95, 0.05),
    "cold": (0.82, 1.02, 1.28, 0.04),
    "mercury": (0.72, 1.16, 0.88, 0.06),
}
ADVERTS: dict[str, Light] = {
    "magenta": (1.9, 0.45, 1.6, 0.05),
    "cyan": (0.35, 1.2, 1.45, 0.05),
    "green": (0.4, 1.4, 0.45, 0.05),
    "blue": (0.4, 0.9, 2.9, 0.05),
    "red": (2.6, 0.3, 0.3, 0.10),
    "amber": (1.9, 0.75, 0.1, 0.10),
}
STARLIGHT: Light = (0.80, 1.0, 1.45, 0.45)
CITY_GLOW: Light = (1.4, 0.92, 0.55, 0.3)
HEADLIGHT: Light = (1.08, 1.0, 0.86, 0.6)
ILLUMINATOR: Light = (0.0, 0.0, 0.0, 1.0)
DAY_SKY: Light = (0.93, 1.0, 1.09, 0.85)  # with the sun about neutral, so that a camera needs no tint against it
SUN: Light = (1.08, 1.0, 0.89, 1.0)
_SUN_M = 1000.0  # so far away that its strength is the same all over a street


@dataclass(frozen=True)
class Lamp:
    """A point-like lamp."""

    kind: LampKind
    position: tuple[float, float, float]  # (X, Y, Z) in the camera's world, metres
    light: Light
    radius_m: float = 1.0  # size of the lamp; strength stops rising nearer than this

    def scaled(self, factor: float) -> "Lamp":
        """The same lamp, stronger or weaker."""
        return replace(self, light=_times(self.light, factor))


@dataclass(frozen=True)
class Lighting:
    """Everything that sheds light on a camera's view."""

    lamps: tuple[Lamp, ...]
    sky: Light  # light that comes from all of the upper half, per channel

    def scaled(self, factor: float) -> "Lighting":
        """The same light, stronger or weaker."""
        return Lighting(tuple(lamp.scaled(factor) for lamp in self.lamps), _times(self.sky, factor))

    @property
    def by_day(self) -> bool:
        """Whether the sun is up."""
        return any(lamp.kind == "sun" for lamp in self.lamps)

    def arriving(self, points: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(K, N, 3) unit directions from points to lamps; (K, N) strengths before the lamp's colour, 1 at 5 m."""
        places = np.array([lamp.position for lamp in self.lamps], np.float64).reshape(-1, 1, 3)
        radii = np.array([lamp.radius_m for lamp in self.lamps], np.float64).reshape(-1, 1)
        way = places - points[None]
        squares = np.einsum("knc,knc->kn", way, way)
        return way / np.sqrt(squares)[..., None], 25.0 / (squares + radii**2)

    @property
    def colours(self) -> NDArray[np.float64]:
        """(K, 4) power of each lamp."""
        return np.array([lamp.light for lamp in self.lamps], np.float64).reshape(-1, LIGHT_CHANNELS)

    def on_surface(
        self, points: NDArray[np.floating], normal: NDArray[np.floating], facing_up: float
    ) -> NDArray[np.float32]:
        """(N, 4) float32 light on a matt surface at (N, 3) points that sees the share `facing_up` of the sky."""
        points = np.asarray(points, np.float32)
        total = np.tile(np.array(self.sky, np.float32) * np.float32(facing_up), (len(points), 1))
        for lamp in self.lamps:  # one after the other: there are few lamps and may be half a million points
            way = np.array(lamp.position, np.float32) - points
            squares = np.einsum("nc,nc->n", way, way)
            strength = np.maximum(way @ np.asarray(normal, np.float32), 0)
            strength *= 25 / (np.sqrt(squares) * (squares + np.float32(lamp.radius_m**2)))
            total += strength[:, None] * np.array(lamp.light, np.float32)
        return total


def draw_lighting(rng: np.random.Generator, near_m: float, far_m: float, *, dark: bool) -> Lighting:
    """A street's lamps in front of a camera; overall strength is arbitrary (the camera sets its exposure).

    Where it is dark, there is no lamp nearby, so that star- and city light and far lamps remain.
    """
    lamps = []
    if dark:
        sky = _blend(STARLIGHT, CITY_GLOW, rng.uniform(0, 0.5), 0.5)
        side = 1 if rng.uniform() < 0.5 else -1
        lamps.append(_street(rng, (side * rng.uniform(9, 16), rng.uniform(far_m, far_m + 14), rng.uniform(5, 9))))
    else:
        sky = _blend(STARLIGHT, CITY_GLOW, rng.uniform(0, 1), rng.uniform(0.06, 0.2))
        for number in range(1 + int(rng.uniform() < 0.5)):
            x = rng.uniform(1.0, 6.5) * (1 if (rng.uniform() < 0.5) == (number == 0) else -1)
            lamps.append(_street(rng, (x, rng.uniform(0.3 * near_m, far_m), rng.uniform(4.2, 6.5))))
        if rng.uniform() < 0.45:
            name = list(ADVERTS)[int(rng.integers(len(ADVERTS)))]
            side = 1 if rng.uniform() < 0.5 else -1
            place = (side * rng.uniform(3, 6), rng.uniform(near_m, far_m), rng.uniform(1.2, 2.6))
            lamps.append(Lamp("advert", place, _times(ADVERTS[name], rng.uniform(0.3, 0.9)), 1.5))
    return Lighting(tuple(lamps), sky)


def draw_daylight(rng: np.random.Generator) -> Lighting:
    """A bright sky with the sun behind haze, from some side; the strength is arbitrary, as in `draw_lighting`."""
    elevation, azimuth = rng.uniform(0.45, 1.1), rng.uniform(-np.pi, np.pi)
    towards = np.array((np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)))
    x, y, z = (_SUN_M * towards).tolist()
    share = rng.uniform(0.3, 1.0)  # of the sky's light, where a surface faces the sun
    return Lighting((Lamp("sun", (x, y, z), _times(SUN, share * _SUN_M**2 / 25)),), DAY_SKY)


def draw_headlight(rng: np.random.Generator, at: tuple[float, float]) -> Lamp:
    """A car that passes while the picture is taken."""
    side = 1 if rng.uniform() < 0.5 else -1
    place = (at[0] + side * rng.uniform(3.5, 9), max(0.5, at[1] + rng.uniform(-7, 5)), rng.uniform(0.55, 0.95))
    return Lamp("headlight", place, HEADLIGHT, 2.0)


def _street(rng: np.random.Generator, place: tuple[float, float, float]) -> Lamp:
    name = list(STREET_LIGHTS)[int(rng.integers(len(STREET_LIGHTS)))]
    tint = np.array(STREET_LIGHTS[name]) * np.exp(0.06 * rng.standard_normal(LIGHT_CHANNELS))
    return Lamp("street", place, _light(tint * rng.uniform(0.7, 1.3)), 1.2)


def _blend(first: Light, second: Light, share: float, power: float) -> Light:
    return _light((np.array(first) * (1 - share) + np.array(second) * share) * power)


def _times(light: Light, factor: float) -> Light:
    return _light(np.array(light) * factor)


def _light(values: NDArray[np.float64]) -> Light:
    red, green, blue, infrared = (float(v) for v in values)
    return red, green, blue, infrared
