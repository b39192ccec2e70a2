"""The night scene: who is seen by which camera, when and how, as a pure function of its options.

Three independent streams: `identity_seed` makes the people, `camera_seed` the cameras and their streets, `time_seed`
everything that differs from one picture to the next (place, walk, headlights, occluders, sensor noise). Changing one
leaves the others as they are: "the same people, other cameras" is another `camera_seed`.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache, lru_cache, partial
from typing import Literal

import cv2
import numpy as np

from tapetum.core.errors import RecipeError
from tapetum.core.seeding import numpy_generator
from tapetum.core.types import Modality
from tapetum.synth.background import build_street
from tapetum.synth.body import Figure, build_figure, pose
from tapetum.synth.camera import FRAME_SIZE, Camera, InfraredBand, draw_camera
from tapetum.synth.lamps import Lamp, Lighting, draw_headlight
from tapetum.synth.people import Person, draw_person, dress_alike, liken
from tapetum.synth.raster import FloatArray
from tapetum.synth.render import add_occluder, choose_window, paint_person, through_lens
from tapetum.synth.sensor import Picture, capture, check_settings, develop, mean_lightness

_FIGURES_KEPT = 64
_SHARES = ("occluded_share", "badly_cut_share", "headlight_share", "infrared_likeness")


@dataclass(frozen=True)
class SceneOptions:
    """Everything that decides a scene."""

    num_train_people: int = 60
    num_test_people: int = 60
    lookalikes: int = 1  # people, of the training or of the testing ones, who wear the same clothes
    cameras: int = 8
    pictures_per_camera: int = 3
    cameras_per_person: int | None = None  # cameras that meet a person; None is all of them
    size: tuple[int, int] = (256, 128)  # nominal (height, width); with varying sizes most pictures are smaller
    sizes: Literal["varying", "fixed"] = "varying"  # "varying" as a detector would cut them, or "fixed" at `size`
    identity_seed: int = 0
    camera_seed: int = 0
    time_seed: int = 0
    # "day" shows the same streets by daylight; "both" at night, and by day under numbers above those of the night
    light: Literal["night", "day", "both"] = "night"
    light_scale: float = 1.0  # factor of the light of every camera at night; 1 is a campus
    difficulty: float = 1.0  # strength of noise, blur, colour casts, occlusion and bad cuts; 0 has none of them
    occluded_share: float = 0.12  # pictures with something in front of the person
    badly_cut_share: float = 0.10  # pictures whose box misses or dwarfs the person
    headlight_share: float = 0.15  # pictures taken while a car passes
    infrared_cameras: tuple[int, ...] = ()
    paired_cameras: tuple[int, ...] = ()  # beside which an infrared camera of the same number hangs
    infrared_band: InfraredBand = "near"  # "near" (with an illuminator) or "thermal"
    infrared_likeness: float = 0.0  # how far near-infrared reflectance follows visible lightness; 0 is not at all
    first_pid: int = 1

    def __post_init__(self) -> None:
        infrared, paired = set(self.infrared_cameras), set(self.paired_cameras)
        known = set(range(1, self.cameras + 1))
        rules = [
            *((name, vars(self)[name] >= 0, "0 or more") for name in ("num_train_people", "num_test_people")),
            *(
                (name, vars(self)[name] >= 1, "1 or more")
                for name in ("lookalikes", "cameras", "pictures_per_camera", "first_pid")
            ),
            ("size", len(self.size) == 2 and min(self.size) >= 16, "(height, width) of 16 or more"),
            ("size", max(self.size) <= 2048, "2048 or less"),
            ("sizes", self.sizes in ("varying", "fixed"), "varying or fixed"),
            ("light", self.light in ("night", "day", "both"), "night, day or both"),
            ("light_scale", self.light_scale > 0, "above 0"),
            ("difficulty", self.difficulty >= 0, "0 or more"),
            *((name, 0 <= vars(self)[name] <= 1, "in 0..1") for name in _SHARES),
            ("infrared_cameras", infrared <= known, f"camera numbers in 1..{self.cameras}"),
            ("paired_cameras", paired <= known, f"camera numbers in 1..{self.cameras}"),
            ("paired_cameras", not infrared & paired, "visible cameras, none of infrared_cameras"),
            ("infrared_band", self.infrared_band in ("near", "thermal"), "near or thermal"),
            ("cameras_per_person", self.cameras_per_person in {None, *known}, f"in 1..{self.cameras}"),
        ]
        check_settings("scene", self, rules)

    @property
    def camids(self) -> range:
        """Numbers of the cameras; with light "both", camera n is also n + `cameras`, by day."""
        return range(1, self.cameras * (2 if self.light == "both" else 1) + 1)

    @property
    def train_pids(self) -> range:
        """Identities for training."""
        return range(self.first_pid, self.first_pid + self.num_train_people)

    @property
    def test_pids(self) -> range:
        """Identities for testing; none of them is in training."""
        return range(self.train_pids.stop, self.train_pids.stop + self.num_test_people)


@dataclass(frozen=True)
class Shot:
    """One picture and what is known about it."""

    picture: Picture  # (H, W, 3) uint8 RGB before JPEG
    modality: Modality
    # heading_deg (0 faces the camera), distance_m, occluded, badly_cut, headlight, lightness (0..255), electrons (mean)
    facts: dict[str, float | bool]


@dataclass(frozen=True)
class SceneMoment:
    """Where and how somebody is while a picture is taken."""

    at: tuple[float, float]  # ground position (X, Y) in the camera's world, metres
    heading: float
    phase: float
    effort: float  # share of the usual swing


class Scene:
    """The pictures of a scene, each computed on its own: order, repetition and number of workers change nothing."""

    def __init__(self, options: SceneOptions) -> None:
        self.options = options
        self._draw_camera = cache(
            partial(
                draw_camera,
                options.camera_seed,
                band=options.infrared_band,
                light_scale=options.light_scale,
                difficulty=options.difficulty,
            )
        )
        self._build_street = cache(build_street)
        self._build_figure = lru_cache(_FIGURES_KEPT)(lambda pid: build_figure(self.person(pid)))

    def person(self, pid: int) -> Person:
        """Attributes of a person; they depend on what the options say of people, and on the pid, alone."""
        person, model = draw_person(self.options.identity_seed, pid), self.outfit(pid)
        if model != pid:
            person = dress_alike(person, draw_person(self.options.identity_seed, model))
        return liken(person, self.options.infrared_likeness)

    def outfit(self, pid: int) -> int:
        """The pid of the first who wears the same clothes; no one for training wears those of one for testing."""
        options = self.options
        first = options.test_pids.start if pid >= options.test_pids.start else options.first_pid
        return pid - (pid - first) % options.lookalikes

    def camera(self, camid: int, modality: Modality | None = None) -> Camera:
        """A camera, as the options have it or as if it saw the other modality."""
        options = self.options
        if camid not in options.camids:
            raise RecipeError(f"scene: camera {camid} is unknown; this scene has cameras 1 to {options.camids[-1]}")
        place = self._place(camid)
        if modality is None:
            modality = Modality.INFRARED if place in options.infrared_cameras else Modality.VISIBLE
        by_day = options.light == "day" or camid != place
        camera = self._draw_camera(place, modality=modality, light="day" if by_day else "night")
        return camera if camid == place else replace(camera, camid=camid)

    def _place(self, camid: int) -> int:
        """The number that a camera has at night."""
        return (camid - 1) % self.options.cameras + 1

    def figure(self, pid: int) -> Figure:
        """The person's painted figure; the last ones used are kept."""
        return self._build_figure(pid)

    def cameras_of(self, pid: int) -> tuple[int, ...]:
        """The cameras that meet a person."""
        count = self.options.cameras_per_person
        if count is None:
            return tuple(self.options.camids)
        rng = numpy_generator(self.options.time_seed, "visits", pid)
        places = set((rng.permutation(self.options.cameras)[:count] + 1).tolist())
        return tuple(camid for camid in self.options.camids if self._place(camid) in places)

    def views(self) -> list[tuple[int, Modality]]:
        """Every camera with its modality; a pair is two entries of one number."""
        camids = self.options.camids
        infrared = [(camid, Modality.INFRARED) for camid in camids if self._place(camid) in self.options.paired_cameras]
        return sorted([(camid, self.camera(camid).modality) for camid in camids] + infrared)

    def pictures_of(self, pid: int) -> list[tuple[int, Modality, int]]:
        """(camera, modality, index) of each picture of a person, camera by camera.

        The infrared camera of a pair takes other moments than the visible one, so that nobody is recognised by a step.
        """
        count, met = self.options.pictures_per_camera, set(self.cameras_of(pid))
        paired = set(self.options.paired_cameras)
        return [
            (camid, modality, count * (self._place(camid) in paired and modality is Modality.INFRARED) + index)
            for camid, modality in self.views()
            if camid in met
            for index in range(count)
        ]

    def picture(self, pid: int, camid: int, index: int, modality: Modality | None = None) -> Picture:
        """One picture, (H, W, 3) uint8 RGB before JPEG; another modality shows the same moment to its sensor."""
        return self.shot(pid, camid, index, modality).picture

    def moment(self, pid: int, camid: int, index: int) -> SceneMoment:
        """Where and how the person is in a picture; pictures of one camera belong to one walk across its view."""
        camera = self.camera(camid)
        walk = numpy_generator(self.options.time_seed, "walk", pid, camid)
        distance = float(np.exp(walk.uniform(np.log(camera.near_m), np.log(camera.far_m))))
        half = 0.42 * distance * FRAME_SIZE[1] / camera.focal_px
        middle = np.array((walk.uniform(-half, half), distance))
        back = bool(walk.uniform() < 0.5)
        heading = camera.path + np.pi * back + walk.normal(0, 0.35)
        rng = numpy_generator(self.options.time_seed, "moment", pid, camid, index)
        heading += rng.normal(0, 0.15)
        x, y = middle + rng.uniform(-2.2, 2.2) * np.array((np.sin(heading), -np.cos(heading)))
        y = float(np.clip(y, camera.near_m * 0.85, camera.far_m * 1.1))
        standing = rng.uniform() < 0.08
        return SceneMoment(
            (float(np.clip(x, -half, half)), y),
            float((heading + np.pi) % (2 * np.pi) - np.pi),
            float(rng.uniform(0, 2 * np.pi)),
            float(rng.uniform(0.05, 0.25) if standing else rng.uniform(0.75, 1.15)),
        )

    def shot(self, pid: int, camid: int, index: int, modality: Modality | None = None) -> Shot:
        """One picture with its ground truth."""
        options, camera = self.options, self.camera(camid, modality)
        spoilt = min(options.difficulty, 1.0)
        rng = numpy_generator(options.time_seed, "picture", pid, camid, index)
        moment = self.moment(pid, camid, index)
        figure = self.figure(pid)
        posture = pose(figure, moment.phase, effort=moment.effort).place(moment.at, moment.heading)
        street = self._build_street(camera)
        window = choose_window(
            camera,
            street,
            posture,
            options.size,
            fixed=options.sizes == "fixed",
            badly_cut_share=options.badly_cut_share * spoilt,
            jitter=options.difficulty,
            rng=rng,
        )
        flicker = float(np.exp(0.22 * options.difficulty * rng.standard_normal()))
        lighting = camera.lighting.scaled(flicker)
        linear = street.cut(window.street_centre, window.street_span, window.view.size)
        linear *= np.float32(flicker)
        headlight = bool(rng.uniform() < options.headlight_share * spoilt)
        if headlight and camera.modality is Modality.VISIBLE:
            car = _draw_car(moment, rng)  # by day too, when nobody sees it: what is drawn next stays the same
            if not lighting.by_day:
                lighting = _pass_car(linear, lighting, moment, car)
        paint_person(linear, window.view, camera, lighting, figure, posture, moment.heading)
        occluded = bool(rng.uniform() < options.occluded_share * spoilt)
        if occluded:
            add_occluder(linear, window, camera, lighting, moment.at, rng)
        linear = through_lens(linear, camera.focus_px * window.view.focal_px / camera.focal_px, window.size)
        picture = photograph(linear, camera, numpy_generator(options.time_seed, "noise", pid, camid, index))
        towards = np.arctan2(-moment.at[0], moment.at[1])
        heading = float(np.degrees((moment.heading - towards + np.pi) % (2 * np.pi) - np.pi))
        facts: dict[str, float | bool] = {
            "heading_deg": round(heading, 1),
            "distance_m": round(float(np.hypot(*moment.at)), 2),
            "occluded": occluded,
            "badly_cut": window.badly_cut,
            "headlight": headlight and not lighting.by_day,
            "lightness": round(mean_lightness(picture), 2),
            "electrons": round(float(linear.mean()) * camera.sensor.full_well_electrons, 3),
        }
        return Shot(picture, camera.modality, facts)


def photograph(linear: FloatArray, camera: Camera, rng: np.random.Generator) -> Picture:
    """What the camera's sensor makes of linear light in its channels; infrared comes out grey."""
    raw = capture(linear, camera.sensor, rng)
    if camera.modality is Modality.VISIBLE:
        return develop(raw, camera.sensor)
    grey = develop(np.repeat(raw, 3, axis=2), replace(camera.sensor, white_balance=(1.0, 1.0, 1.0)))
    return np.asarray(np.repeat(grey[..., 1:2], 3, axis=2), np.uint8)


def contact_sheet(
    options: SceneOptions,
    pids: Iterable[int],
    *,
    modality: Modality | None = None,
    size: tuple[int, int] = (192, 96),
) -> Picture:
    """A table of pictures for reports and read-me files: one row a person, one column a camera.

    With a modality, what a camera of that modality sees in the place of each.
    """
    scene = Scene(options)
    rows = []
    for pid in pids:
        pictures = [scene.picture(pid, camid, 0, modality) for camid in options.camids]
        rows.append(np.hstack([cv2.resize(each, size[::-1], interpolation=cv2.INTER_AREA) for each in pictures]))
    return np.asarray(np.vstack(rows), np.uint8)


def _draw_car(moment: SceneMoment, rng: np.random.Generator) -> tuple[Lamp, float, float]:
    """A passing car's headlight, its strength against the usual light, and how far it washes over the street."""
    return draw_headlight(rng, moment.at), rng.uniform(0.5, 3.0), rng.uniform(0.1, 0.7)


def _pass_car(linear: FloatArray, lighting: Lighting, moment: SceneMoment, car: tuple[Lamp, float, float]) -> Lighting:
    """A passing car: its headlight joins the lamps and washes over the street, stronger on one side."""
    lamp, share, wash = car
    here = np.array(((*moment.at, 1.0),))
    usual = float(lighting.on_surface(here, np.array((0.0, -1.0, 0.0)), 0.5)[0, :3].mean())
    _, strength = replace(lighting, lamps=(lamp,)).arriving(here)
    factor = share * usual / float(strength[0, 0])
    lighting = replace(lighting, lamps=(*lighting.lamps, lamp.scaled(factor)))
    side = np.sign(lamp.position[0] - moment.at[0])
    ramp = 0.5 + 0.5 * side * np.linspace(-1, 1, linear.shape[1], dtype=np.float32)
    linear *= 1 + np.float32(wash) * ramp[:, None]
    return lighting
