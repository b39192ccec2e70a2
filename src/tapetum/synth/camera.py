"""The cameras of a scene: where they hang, what they see, how they expose; drawn from the camera stream alone."""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tapetum.core.pixels import LIGHTNESS_WEIGHTS
from tapetum.core.seeding import numpy_generator
from tapetum.core.types import Modality
from tapetum.synth.lamps import ILLUMINATOR, Lamp, Lighting, draw_daylight, draw_lighting
from tapetum.synth.raster import View
from tapetum.synth.sensor import SensorOptions

Viewpoint = Literal["parallel", "downward"]
InfraredBand = Literal["near", "thermal"]
Light = Literal["night", "day"]

FRAME_SIZE = (1080, 1920)  # full frame of a camera, pixels, at the nominal picture height of 256
_NOMINAL = 256
# Display level (0..255) of a mid-grey surface on the walking path. Dark cameras are those of Night600 (2, 5, 8);
# the others repeat from brightest to darkest so that each scene has the paper's mixture of light levels.
_DARK_LEVELS = (11.5, 9.0, 15.0)
_LIT_LEVELS = (27.0, 38.0, 23.0, 84.0, 31.0)
_GREY = 0.25
_DAY_LEVEL = 112.0  # by day every camera has light enough for its exposure
_DAY_SHUTTER_SECONDS = 1 / 250


@dataclass(frozen=True)
class Camera:
    """One camera and the street in front of it. Its world: X right, Y away, Z up, origin below the camera."""

    camid: int
    modality: Modality
    band: InfraredBand  # what an infrared camera sees
    viewpoint: Viewpoint  # "parallel" hangs at eye level, "downward" looks from a mast
    height_m: float  # above the ground
    near_m: float  # nearest and farthest distance of people
    far_m: float
    focal_px: float  # focal length in pixels of the full frame `FRAME_SIZE`
    path: float  # heading in which most people cross the view (or its opposite), radians
    level: float  # display level of a mid-grey surface on the path, 0..255
    lighting: Lighting  # lamps and sky, already scaled so that `level` comes out
    sensor: SensorOptions
    focus_px: float  # deviation of the blur of the lens, in pixels of the full frame
    shutter_seconds: float
    street_seed: int

    @property
    def channels(self) -> tuple[int, ...]:
        """Surface channels (see `cloth`) that the sensor sees: three colours, near-infrared, or warmth."""
        if self.modality is Modality.VISIBLE:
            return (0, 1, 2)
        return (3,) if self.band == "near" else (4,)

    def frame_view(self, size: tuple[int, int] = FRAME_SIZE) -> View:
        """The camera itself, looking at the middle of the path; the field of view stays for every (height, width)."""
        middle = np.array((0.0, np.sqrt(self.near_m * self.far_m), 1.0))
        scale = size[0] / FRAME_SIZE[0]
        return look_at((0.0, 0.0, self.height_m), middle, self.focal_px * scale, size)


def look_at(
    position: tuple[float, float, float], target: NDArray[np.float64], focal_px: float, size: tuple[int, int]
) -> View:
    """A view with its optical axis through `target` and its horizon level."""
    place = np.array(position)
    towards = place - target
    towards /= np.linalg.norm(towards)
    right = np.array((-towards[1], towards[0], 0.0))
    right /= np.linalg.norm(right)
    axes = np.stack([right, np.cross(towards, right), towards])
    return View(place, axes, focal_px, (size[1] / 2 - 0.5, size[0] / 2 - 0.5), size)


def draw_camera(
    camera_seed: int,
    camid: int,
    *,
    modality: Modality = Modality.VISIBLE,
    band: InfraredBand = "near",
    light: Light = "night",
    light_scale: float = 1.0,
    difficulty: float = 1.0,
) -> Camera:
    """The camera `camid` of the street `camera_seed`; light_scale and difficulty as in `SceneOptions`.

    By day it hangs where it hangs at night, before the same street: light and exposure are all that differs.
    """
    rng = numpy_generator(camera_seed, "camera", camid)
    downward = (camid % 2 == 0) if rng.uniform() < 0.8 else (camid % 2 == 1)
    height = rng.uniform(3.4, 5.5) if downward else rng.uniform(1.5, 2.3)
    near = rng.uniform(4.5, 7.0)
    far = near * rng.uniform(2.2, 3.4)
    zoom = rng.uniform(0.8, 1.2)
    middle = np.hypot(np.sqrt(near * far), height - 1)
    # A dark camera in three, as in Night600; levels vary by a tenth or so from street to street.
    dark = camid % 3 == 2
    order = (camid - 1) // 3 if dark else camid - 1 - camid // 3
    levels = _DARK_LEVELS if dark else _LIT_LEVELS
    level = levels[order % len(levels)] * float(np.exp(0.10 * rng.standard_normal())) * light_scale
    lighting = draw_lighting(rng, near, far, dark=dark)
    gain = float(np.exp(rng.uniform(np.log(6), np.log(14))) if dark else np.exp(rng.uniform(np.log(3), np.log(8))))
    noise = difficulty**2  # fewer electrons for the same picture
    tint = np.exp(0.10 * difficulty * rng.standard_normal(3))
    red, green, blue = (tint / tint.mean()).tolist()
    sensor = SensorOptions(
        full_well_electrons=12_000.0 / max(noise, 1e-3),
        gain=gain,
        read_noise_electrons=float(rng.uniform(1.2, 2.6)) * min(difficulty, 1.0),
        row_noise_electrons=float(rng.uniform(0, 0.35)) * min(difficulty, 1.0),
        black_level=0.003,
        white_balance=(red, green, blue),
        denoise=float(rng.uniform(0.0, 0.6)) if rng.uniform() < 0.75 else 0.0,
        gamma=float(rng.uniform(2.0, 2.4)),
        jpeg_quality=int(rng.integers(72, 94)),
    )
    camera = Camera(
        camid=camid,
        modality=modality,
        band=band,
        viewpoint="downward" if downward else "parallel",
        height_m=height,
        near_m=near,
        far_m=far,
        focal_px=0.56 * _NOMINAL * zoom * middle / 1.7,
        level=level,
        lighting=lighting,
        sensor=sensor,
        focus_px=float(rng.uniform(0.3, 1.5)) * difficulty,  # the arguments are drawn in this order
        shutter_seconds=float(rng.uniform(1 / 60, 1 / 20)) * difficulty,
        path=float(rng.uniform(-np.pi, np.pi)),
        street_seed=int(rng.integers(2**31)),
    )
    if light == "day":
        return _exposed(_by_day(camera, numpy_generator(camera_seed, "camera", camid, "day"), difficulty))
    if modality is Modality.INFRARED:
        level = float(rng.uniform(38, 75)) * light_scale
        lamp = Lamp("illuminator", (rng.uniform(-0.4, 0.4), 0.0, height + 0.2), ILLUMINATOR)
        leaking = lighting.scaled(0.05 * float(rng.uniform(0.2, 1.0)))
        camera = replace(camera, level=level, lighting=replace(leaking, lamps=(lamp, *leaking.lamps)))
    return _exposed(camera)


def _by_day(camera: Camera, rng: np.random.Generator, difficulty: float) -> Camera:
    """The camera under a bright sky: a well filled at no gain, a short shutter, colours balanced for daylight."""
    sensor = replace(camera.sensor, gain=1.0, row_noise_electrons=0.0, denoise=0.0, white_balance=(1.0, 1.0, 1.0))
    return replace(
        camera,
        level=_DAY_LEVEL * float(np.exp(0.10 * difficulty * rng.standard_normal())),
        lighting=draw_daylight(rng),
        sensor=sensor,
        shutter_seconds=min(camera.shutter_seconds, _DAY_SHUTTER_SECONDS),
    )


def _exposed(camera: Camera) -> Camera:
    """The camera with its light scaled so that mid-grey clothes on the path come out at `level`."""
    if camera.channels == (4,):
        return camera
    distance = np.linspace(camera.near_m, camera.far_m, 5)
    points = np.stack([np.zeros(5), distance, np.full(5, 1.1)], 1)
    facing = camera.lighting.on_surface(points, np.array((0.0, -1.0, 0.0)), 0.5)
    above = camera.lighting.on_surface(points, np.array((0.0, 0.0, 1.0)), 1.0)
    light = (0.7 * facing + 0.3 * above).mean(0)
    if camera.modality is Modality.VISIBLE:
        colours = light[:3] * np.array(camera.sensor.white_balance)
        strength = float(colours @ np.array(LIGHTNESS_WEIGHTS))
    else:
        strength = float(light[3])
    target = (min(camera.level, 250.0) / 255) ** camera.sensor.gamma / camera.sensor.gain / _GREY
    return replace(camera, lighting=camera.lighting.scaled(target / strength))
