"""Light on a person, in front of a street, through a lens: the linear picture that reaches the sensor."""

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from tapetum.synth.background import Street, draw_occluder, thermal_light
from tapetum.synth.body import Figure
from tapetum.synth.camera import Camera, look_at
from tapetum.synth.lamps import Lighting
from tapetum.synth.raster import FloatArray, Posture, Surface, View, draw_tubes

WALK_SPEED = 1.35  # metres a second
_SKIN_DEPTH = 0.09  # metres between a bone's end and the outline of the body


@dataclass(frozen=True)
class Window:
    """The part of a camera's view that a picture shows."""

    view: View
    size: tuple[int, int]
    street_centre: tuple[float, float]
    street_span: float  # street pixels a rendered pixel
    metre_px: float  # rendered pixels a metre at the person
    floor_px: float  # row of the person's feet
    badly_cut: bool


def outline_box(posture: Posture, view: View) -> tuple[float, float, float, float]:
    """Left, top, right, bottom of a figure on the picture, in pixels (may lie outside)."""
    points = np.concatenate([posture.lower, posture.upper])
    pixels, depth = view.project(points)
    x, y = pixels.T
    margin = _SKIN_DEPTH * view.focal_px / depth
    below = np.minimum(margin, points[:, 2] * view.focal_px / depth)  # nothing reaches below the ground
    ends = (x - margin).min(), (y - margin * 0.35).min(), (x + margin).max(), (y + below).max()
    left, top, right, bottom = map(float, ends)
    return left, top, right, bottom


def choose_window(
    camera: Camera,
    street: Street,
    posture: Posture,
    size: tuple[int, int],
    *,
    fixed: bool,
    badly_cut_share: float,
    jitter: float,
    rng: np.random.Generator,
) -> Window:
    """The box that a detector would have cut around a person; a jitter of 1 is the inaccuracy of a good one."""
    body = posture.centre
    focal = camera.focal_px * size[0] / 256
    view = replace(look_at((0.0, 0.0, camera.height_m), body, focal, (2, 2)), centre_px=(0.0, 0.0))
    left, top, right, bottom = outline_box(posture, view)
    shift = jitter * rng.standard_normal(2) * (0.035, 0.018)
    tall = (bottom - top) * (1.0 + jitter * rng.uniform(0.0, 0.10))
    ratio = size[1] / size[0] * float(1 if fixed else np.exp(0.08 * jitter * rng.standard_normal()))
    badly_cut = bool(rng.uniform() < badly_cut_share)
    cut, side = rng.uniform(0.62, 0.85), rng.uniform(-1, 1, 2)
    if badly_cut:  # head or legs are missing, the person stands at the edge, or is lost in a large box
        kind = int(rng.integers(3))
        tall *= (cut, 1.0, 1.45)[kind]
        shift += ((0, 0.22 * np.sign(side[0])), (0.3 * np.sign(side[1]), 0.04), 0.12 * side)[kind]
    wide = tall * ratio
    x, y = (left + right) / 2 + shift[0] * wide, (top + bottom) / 2 + shift[1] * tall
    final = size if fixed else (_bounded(tall, size[0]), _bounded(wide, size[1]))
    oversample = 2.0 if final[0] < 110 else 1.5 if final[0] < 180 else 1.0
    height, width = round(final[0] * oversample), round(final[1] * oversample)
    zoom = height / tall if fixed else oversample
    focal_rendered = focal * (size[0] / tall * oversample if fixed else oversample)
    centre = (width / 2 - 0.5 - x * zoom, height / 2 - 0.5 - y * zoom)
    view = replace(view, focal_px=focal_rendered, centre_px=centre, size=(height, width))
    seen, depth = street.view.project(body[None])
    span = street.view.focal_px / focal
    floor, _ = view.project(np.array(((body[0], body[1], 0.0),)))
    return Window(
        view=view,
        size=final,
        street_centre=(float(seen[0, 0] + x * span), float(seen[0, 1] + y * span)),
        street_span=street.view.focal_px / focal_rendered,
        metre_px=focal_rendered / float(depth[0]),
        floor_px=float(floor[0, 1]),
        badly_cut=badly_cut,
    )


def _bounded(length: float, nominal: int) -> int:
    return int(np.clip(round(length), max(12, nominal // 8), 2 * nominal))


def paint_person(
    linear: FloatArray,
    view: View,
    camera: Camera,
    lighting: Lighting,
    figure: Figure,
    posture: Posture,
    heading: float,
) -> Surface:
    """Add a person and the shadow below to linear light (H, W, C) in the camera's channels, in place."""
    surface = draw_tubes(figure.tubes, posture, view)
    if not len(surface.pixels):
        return surface
    body = posture.centre
    if camera.channels != (4,):
        _cast_shadow(linear, view, lighting, body)
    colour = _shaded(surface, view, camera, lighting, figure, body)
    height, width = view.size
    layer = np.zeros((height * width, colour.shape[1] + 1), np.float32)
    layer[surface.pixels, :-1] = colour * surface.coverage[:, None]
    layer[surface.pixels, -1] = surface.coverage
    layer = layer.reshape(height, width, -1)
    metre = view.focal_px / float(-((body - view.position) @ view.axes[2]))
    motion = abs(float(np.array((np.sin(heading), -np.cos(heading), 0)) @ view.axes[0]))
    length = motion * WALK_SPEED * camera.shutter_seconds * metre
    if length >= 1.5:
        layer = np.asarray(cv2.blur(layer, (round(length), 1)), np.float32).reshape(height, width, -1)
    linear *= 1 - layer[..., -1:]
    linear += layer[..., :-1]
    return surface


def _shaded(
    surface: Surface, view: View, camera: Camera, lighting: Lighting, figure: Figure, body: NDArray[np.float64]
) -> FloatArray:
    """(N, C) light that each covered pixel sends to the camera."""
    channels = list(camera.channels)
    albedo = figure.texels.take(surface.texels, axis=0)[:, channels]
    if channels == [4]:
        return thermal_light(albedo * (np.float32(0.85) + np.float32(0.15) * surface.normals[:, 2:]), camera)
    up = surface.normals @ view.axes[:, 2].astype(np.float32)
    light = (np.float32(0.62) + np.float32(0.38) * up)[:, None] * np.array(lighting.sky, np.float32)[channels]
    if lighting.lamps:
        shares = _lamp_light(surface, view, lighting, body, figure.person.height_m)
        light += shares @ lighting.colours[:, channels].astype(np.float32)
    light *= _creases(surface, view)[:, None]
    light *= albedo
    return light


def _lamp_light(
    surface: Surface, view: View, lighting: Lighting, body: NDArray[np.float64], height: float
) -> FloatArray:
    """(N, K) strength of each lamp on each covered pixel: its direction at the body, its fall-off from head to feet."""
    stations = body[None] + np.array(((0, 0, -0.5), (0, 0, 0.0), (0, 0, 0.5))) * height
    direction, strength = lighting.arriving(stations)
    rows, _ = view.project(stations)
    order = np.argsort(rows[:, 1])
    lines = np.arange(view.size[0])
    by_row = np.stack([np.interp(lines, rows[order, 1], lamp[order]) for lamp in strength], 1).astype(np.float32)
    light: FloatArray = surface.normals @ (direction[:, 1] @ view.axes.T).astype(np.float32).T
    light += np.float32(0.12)  # lamps are not points: their light reaches a little around the edge
    light *= np.float32(1 / 1.12)
    np.maximum(light, 0, out=light)
    light *= by_row.take(surface.pixels // view.size[1], axis=0)
    return light


def _creases(surface: Surface, view: View) -> FloatArray:
    """(N,) share of the light that reaches places behind their surroundings (arm against trunk, between the legs)."""
    height, width = view.size
    depth = np.zeros((height * width, 2), np.float32)
    level = surface.near.mean()
    depth[surface.pixels, 0] = surface.near - level
    depth[surface.pixels, 1] = 1
    reach = max(1, height // 24) * 2 + 1
    soft = np.asarray(cv2.blur(depth.reshape(height, width, 2), (reach, reach)), np.float32).reshape(-1, 2)
    soft = soft.take(surface.pixels, axis=0)
    behind = soft[:, 0] / soft[:, 1] - (surface.near - level)
    return np.asarray(1 - np.minimum(np.maximum(4 * behind, 0), np.float32(0.45)), np.float32)


def _cast_shadow(linear: FloatArray, view: View, lighting: Lighting, body: NDArray[np.float64]) -> None:
    """Darken the ground: a soft patch below the feet, and one away from the strongest lamp."""
    foot = np.array((body[0], body[1], 0.0))
    direction, strength = lighting.arriving(foot[None])
    power = strength[:, 0] * lighting.colours.sum(1) * np.clip(direction[:, 0, 2], 0.02, 1)
    away = np.zeros(3)
    if len(power):
        strongest = direction[int(np.argmax(power)), 0]
        reach = min(1.5, 0.85 / max(float(strongest[2]), 0.2))
        away = -reach * np.array((strongest[0], strongest[1], 0.0))
    pixels, depth = view.project(np.stack([foot, foot + away]))
    metre = view.focal_px / depth[0]
    top = max(int(pixels[:, 1].min() - 0.6 * metre), 0)
    bottom = min(int(pixels[:, 1].max() + 0.6 * metre), view.size[0])
    if depth.min() < 0.3 or bottom - top < 3:
        return
    coarse = 4 if metre > 60 else 2 if metre > 30 else 1  # it is soft: fewer pixels are enough
    mask = np.zeros((-(-(bottom - top) // coarse), -(-view.size[1] // coarse)), np.uint8)
    slant = max(0.18, abs(float(view.axes[1, 1])))  # how far the ground is tilted towards us
    radius = 0.3 * metre / coarse
    start, end = (tuple(np.rint((p - (0, top)) / coarse).astype(int).tolist()) for p in pixels)
    cv2.ellipse(mask, start, (max(1, round(radius)), max(1, round(radius * slant))), 0, 0, 360, 150, -1)
    cv2.line(mask, start, end, 95, max(1, round(1.5 * radius * slant)))
    soft = cv2.GaussianBlur(mask, (0, 0), max(0.8, 0.07 * metre / coarse))
    soft = cv2.resize(soft, (view.size[1], bottom - top), interpolation=cv2.INTER_LINEAR)
    linear[top:bottom] *= (1 - np.asarray(soft, np.float32) * np.float32(1 / 255))[..., None]


def add_occluder(
    linear: FloatArray,
    window: Window,
    camera: Camera,
    lighting: Lighting,
    at: tuple[float, float],
    rng: np.random.Generator,
) -> None:
    """Put something in front of the person, in place."""
    cover, surface = draw_occluder(window.view.size, window.floor_px, window.metre_px, rng)
    channels = list(camera.channels)
    if channels == [4]:
        value = thermal_light(surface[channels], camera)
    else:
        point = np.array(((at[0], at[1] - 0.8, 0.6),))
        light = lighting.on_surface(point, np.array((0.0, -1.0, 0.0)), 0.5)[0, channels]
        value = surface[channels] * light.astype(np.float32)
    linear *= 1 - cover[..., None]
    linear += cover[..., None] * value


def through_lens(linear: FloatArray, blur_px: float, size: tuple[int, int]) -> FloatArray:
    """Linear light (H, W, C) blurred by a deviation in rendered pixels, then cut into the pixels of the sensor."""
    shape = (*size, linear.shape[2])
    if blur_px > 0.35:
        linear = np.asarray(cv2.GaussianBlur(linear, (0, 0), blur_px), np.float32).reshape(linear.shape)
    if linear.shape[:2] != size:
        linear = np.asarray(cv2.resize(linear, size[::-1], interpolation=cv2.INTER_AREA), np.float32)
    return linear.reshape(shape)
