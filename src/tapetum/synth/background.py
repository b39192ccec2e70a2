"""The street behind the people, rendered once as a full frame of light, and what stands in front of them."""

from dataclasses import dataclass

import cv2
import numpy as np

from tapetum.core.seeding import numpy_generator
from tapetum.synth.camera import Camera
from tapetum.synth.raster import FloatArray, View

STREET_SIZE = (540, 960)  # rendered at half the camera's resolution: it is out of focus anyway
_CHANNELS = 5  # red, green, blue, near-infrared, warmth
_SKY_BY_DAY = (0.95, 1.15, 1.5, 0.6, 0.02)  # as if it were a surface that sends on more light than falls on it


@dataclass(frozen=True)
class Street:
    """The empty view of one camera."""

    view: View
    light: FloatArray  # (H, W, C) float32 linear light in the channels that the camera sees

    def cut(self, centre: tuple[float, float], span: float, size: tuple[int, int]) -> FloatArray:
        """A window, `span` frame pixels a pixel, around (x, y) of the frame; beyond the frame it is mirrored."""
        left, top = centre[0] - span * (size[1] - 1) / 2, centre[1] - span * (size[0] - 1) / 2
        matrix = np.array(((span, 0, left), (0, span, top)), np.float64)
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        window = cv2.warpAffine(self.light, matrix, size[::-1], flags=flags, borderMode=cv2.BORDER_REFLECT_101)
        return np.asarray(window, np.float32).reshape(*size, self.light.shape[2])


def build_street(camera: Camera, size: tuple[int, int] = STREET_SIZE) -> Street:
    """Render the empty view of a camera; a few tenths of a second."""
    rng = numpy_generator(camera.street_seed, "street")
    view = camera.frame_view(size)
    height, width = size
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    rays = np.stack(
        [(columns - view.centre_px[0]) / view.focal_px, (view.centre_px[1] - rows) / view.focal_px, -np.ones(size)], 2
    ).astype(np.float32) @ view.axes.astype(np.float32)
    wall = camera.far_m * float(rng.uniform(1.1, 1.9)) + 2
    to_ground = np.where(rays[..., 2] < -1e-3, camera.height_m / np.maximum(-rays[..., 2], 1e-3), np.inf)
    to_wall = wall / np.maximum(rays[..., 1], 0.05)
    ground = to_ground < to_wall
    points = rays * np.minimum(to_ground, to_wall)[..., None]
    points[..., 2] += camera.height_m

    surface = np.empty((*size, _CHANNELS), np.float32)
    glow = np.zeros((*size, _CHANNELS), np.float32)
    _paint_wall(surface, glow, points, camera.lighting.by_day, rng)
    floor = np.empty_like(surface)
    _paint_ground(floor, points, rng)
    surface[ground] = floor[ground]
    _add_objects(surface, view, camera, wall, rng)
    for octave, strength in ((4, 0.10), (16, 0.10), (64, 0.07)):
        surface *= 1 + strength * _noise(size, octave, rng)[..., None]

    if camera.channels == (4,):
        warmth = np.asarray(cv2.GaussianBlur(np.ascontiguousarray(surface[..., 4]), (0, 0), 1.5), np.float32)
        return Street(view, thermal_light(warmth, camera)[..., None])
    flat, floor_mask = points.reshape(-1, 3), ground.ravel()
    light = np.empty((len(flat), 4), np.float32)
    light[floor_mask] = camera.lighting.on_surface(flat[floor_mask], np.array((0.0, 0.0, 1.0)), 1.0)
    light[~floor_mask] = camera.lighting.on_surface(flat[~floor_mask], np.array((0.0, -1.0, 0.0)), 0.5)
    typical = float(np.mean(light))
    picture = surface[..., :4] * light.reshape(*size, 4) + glow[..., :4] * typical
    picture = np.asarray(cv2.GaussianBlur(picture, (0, 0), 1.6), np.float32)
    return Street(view, np.ascontiguousarray(picture[..., list(camera.channels)]))


def thermal_light(warmth: FloatArray, camera: Camera) -> FloatArray:
    """What a thermal sensor receives from surfaces of a warmth between 0 (the air) and 1 (skin): nothing else."""
    level = np.clip(np.float32(0.10) + np.float32(0.72) * warmth, 0, 1)
    return np.asarray(level**camera.sensor.gamma / camera.sensor.gain, np.float32)


def _paint_ground(surface: FloatArray, points: FloatArray, rng: np.random.Generator) -> None:
    """Asphalt, pavement with slabs, a strip of grass, a kerb and lane marks, in bands at some angle."""
    angle = rng.uniform(-0.9, 0.9)
    along = points[..., 0] * np.float32(np.cos(angle)) + points[..., 1] * np.float32(np.sin(angle))
    across = points[..., 1] * np.float32(np.cos(angle)) - points[..., 0] * np.float32(np.sin(angle))
    kerb, verge = rng.uniform(3, 9), rng.uniform(10, 16)
    asphalt, slab = rng.uniform(0.06, 0.14), rng.uniform(0.16, 0.32)
    surface[:] = _grey(asphalt, rng)
    pavement = (across > kerb) & (across < verge)
    surface[pavement] = _grey(slab, rng)
    tile = rng.uniform(0.5, 1.0)
    joints = pavement & (((along / tile) % 1 < 0.05) | ((across / tile) % 1 < 0.05))
    surface[joints] *= np.float32(0.6)
    surface[across >= verge] = (0.05, 0.09, 0.03, 0.45, 0.16)
    surface[np.abs(across - kerb) < 0.12] = _grey(0.35, rng)
    if rng.uniform() < 0.7:
        surface[(np.abs(across - kerb + 2.6) < 0.08) & ((along / 3) % 1 < 0.55)] = _grey(0.6, rng)


def _paint_wall(
    surface: FloatArray, glow: FloatArray, points: FloatArray, by_day: bool, rng: np.random.Generator
) -> None:
    """A facade with windows, some of them lit at night, above a plinth; the sky above it."""
    x, z = points[..., 0], points[..., 2]
    tone = rng.uniform(0.08, 0.35) * np.exp(0.15 * rng.standard_normal(3))
    surface[:] = (*tone, rng.uniform(0.15, 0.5), 0.22)
    if rng.uniform() < 0.5:  # courses of brick
        surface[(z % 0.35) < 0.05] *= np.float32(0.75)
    pitch_x, pitch_z = rng.uniform(2.2, 4), rng.uniform(2.8, 3.6)
    shift = rng.uniform(0, 3)
    cell_x, cell_z = np.floor((x + shift) / pitch_x).astype(np.int32), np.floor((z - 0.6) / pitch_z).astype(np.int32)
    inside = (((x + shift) / pitch_x) % 1 < 0.55) & (((z - 0.6) / pitch_z) % 1 < 0.6) & (z > 0.6)
    surface[inside] = (0.03, 0.035, 0.04, 0.05, 0.28)
    lights = rng.uniform(size=(64, 64)) < rng.uniform(0.05, 0.3)
    tint = np.array((1.25, 1.0, 0.6, 0.1)) * rng.uniform(0.2, 0.8)
    burning = inside & lights[cell_x % 64, cell_z % 64]
    glow[burning, :4] = tint
    surface[z < 0.5] *= np.float32(0.7)
    roof = rng.uniform(6, 14)
    surface[z > roof] = _SKY_BY_DAY if by_day else (0.01, 0.01, 0.012, 0.01, 0.02)
    glow[z > roof] = 0
    if by_day:  # what burns behind a window cannot be seen
        glow[:] = 0


def _add_objects(surface: FloatArray, view: View, camera: Camera, wall: float, rng: np.random.Generator) -> None:
    """Posts, trunks, hedges and parked cars behind the path, as flat silhouettes facing the camera."""
    for _ in range(int(rng.integers(3, 8))):
        kind = int(rng.integers(4))
        distance = rng.uniform(camera.far_m * 0.8, wall)
        x = rng.uniform(-0.6, 0.6) * distance
        wide, tall = ((0.1, 4.0), (0.35, 5.0), (rng.uniform(1, 4), rng.uniform(0.6, 1.3)), (4.2, 0.75))[kind]
        tone = float(rng.uniform(0.03, 0.3))
        colour = tone * np.exp(0.25 * rng.standard_normal(3))
        if kind == 2:
            colour = np.array((0.04, 0.08, 0.03))
        value = (*np.clip(colour, 0.01, 0.8).tolist(), float(rng.uniform(0.1, 0.6)))
        _board(surface, view, x, distance, wide, 0.0, tall, (*value, 0.2))
        if kind == 3:  # the cabin above the car's body
            _board(surface, view, x, distance, wide * 0.55, 0.7, 1.4, (0.03, 0.03, 0.035, 0.05, 0.3))


def _board(
    surface: FloatArray,
    view: View,
    x: float,
    distance: float,
    wide: float,
    low: float,
    high: float,
    value: tuple[float, ...],
) -> None:
    left, right = x - wide / 2, x + wide / 2
    corners = [(left, distance, low), (right, distance, low), (right, distance, high), (left, distance, high)]
    pixels, depth = view.project(np.array(corners))
    if depth.min() <= 0.5:
        return
    mask = np.zeros(surface.shape[:2], np.uint8)
    cv2.fillConvexPoly(mask, np.clip(np.rint(pixels), -30_000, 30_000).astype(np.int32), 1)
    surface[mask.astype(bool)] = value


def draw_occluder(
    size: tuple[int, int], floor: float, metre: float, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """Something between the camera and the person: a post, a bicycle, a bush or a car.

    Args:
        floor: row where the person's feet stand, pixels.
        metre: pixels a metre at the person.
    Returns:
        (H, W) float32 coverage and (5,) float32 surface in the channels of `cloth`.
    """
    height, width = size
    kind = int(rng.choice(4, p=(0.3, 0.25, 0.25, 0.2)))
    mask = np.zeros(size, np.uint8)
    metre *= 1.15  # nearer than the person
    x = rng.uniform(0.05, 0.95) * width
    ground = floor + 0.15 * metre
    if kind == 0:
        half = max(0.6, rng.uniform(0.04, 0.09) * metre)
        top = -10 if rng.uniform() < 0.6 else int(ground - 1.0 * metre)
        cv2.rectangle(mask, _pixel(x - half, top), _pixel(x + half, height + 10), 255, -1)
        surface = (0.12, 0.13, 0.13, 0.3, 0.25)
    elif kind == 1:
        thick = max(1, round(0.035 * metre))
        wheel, hub = 0.33 * metre, ground - 0.33 * metre
        for side in (-1, 1):
            cv2.circle(mask, _pixel(x + side * 0.52 * metre, hub), round(wheel), 255, thick, cv2.LINE_AA)
        frame = [(-0.52, 0), (-0.1, 0), (0.35, -0.5), (-0.2, -0.5), (-0.52, 0)]
        fork = [(0.52, 0), (0.35, -0.62), (0.22, -0.68)]
        seat = [(-0.1, 0), (-0.24, -0.62), (-0.34, -0.62)]
        for line in (frame, fork, seat):
            corners = np.array([_pixel(x + dx * metre, hub + dy * metre) for dx, dy in line], np.int32)
            cv2.polylines(mask, [corners], False, 255, thick, cv2.LINE_AA)
        surface = (*(0.3 * rng.uniform(0.1, 1, 3)).tolist(), float(rng.uniform(0.1, 0.6)), 0.22)
    elif kind == 2:
        for _ in range(14):
            dx, dy = rng.normal(0, 0.35) * metre, rng.uniform(-0.55, 0.15) * metre
            cv2.circle(mask, _pixel(x + dx, ground + dy), max(1, round(rng.uniform(0.1, 0.24) * metre)), 255, -1)
        holes = _noise(size, max(2, round(height / 6)), rng)
        mask[holes > 0.9] = 0
        surface = (0.03, 0.07, 0.02, 0.5, 0.2)
    else:
        body = np.array([(-2.1, 0), (-2.1, -0.45), (-1.3, -0.55), (-0.7, -0.95), (0.7, -0.95), (1.3, -0.55),
                         (2.1, -0.45), (2.1, 0)])  # fmt: skip
        shift = np.array((x + rng.choice((-1, 1)) * 1.5 * metre, ground + 0.25 * metre))
        cv2.fillPoly(mask, [np.rint(body * metre + shift).astype(np.int32)], 255, cv2.LINE_AA)
        surface = (*(rng.uniform(0.02, 0.4) * rng.uniform(0.5, 1, 3)).tolist(), float(rng.uniform(0.1, 0.7)), 0.3)
    return mask.astype(np.float32) / np.float32(255), np.array(surface, np.float32)


def _pixel(x: float, y: float) -> tuple[int, int]:
    return round(x), round(y)


def _grey(tone: float, rng: np.random.Generator) -> tuple[float, ...]:
    return (*(tone * np.exp(0.05 * rng.standard_normal(3))).tolist(), tone * float(rng.uniform(0.8, 2.0)), 0.2)


def _noise(size: tuple[int, int], cells: int, rng: np.random.Generator) -> FloatArray:
    """Smooth noise of unit deviation, about `cells` blobs down the picture."""
    coarse = rng.standard_normal((cells + 1, max(2, round(cells * size[1] / size[0]) + 1)), dtype=np.float32)
    return np.asarray(cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC), np.float32)
