"""Whole-frame video of a camera: people walk through its view, one or several at a time.

The people, streets, lamps and sensors are those of the scene's pictures; the ground truth comes from the drawn
surfaces themselves.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from tapetum.core.errors import OutputError, RecipeError
from tapetum.core.seeding import numpy_generator
from tapetum.synth.background import build_street
from tapetum.synth.body import pose
from tapetum.synth.camera import FRAME_SIZE, Camera
from tapetum.synth.raster import FloatArray, View
from tapetum.synth.render import WALK_SPEED, outline_box, paint_person, through_lens
from tapetum.synth.scene import Scene, photograph
from tapetum.synth.sensor import Picture, check_settings

_LEAST_HEIGHT_PX = 12  # smaller boxes are no ground truth
_LEAST_SHARE = 0.25  # of a person inside the frame, for a box


@dataclass(frozen=True)
class VideoOptions:
    """How videos are taken."""

    size: tuple[int, int] = (360, 640)  # (height, width) of the frames, even numbers
    fps: int = 10
    zoom: float = 2.0  # focal length against that of the pictures; larger shows people larger
    people: tuple[int, ...] | None = None  # who walks through; None: one for each `seconds_between`, test people first
    seconds_between: float = 5.0  # mean time between two people under one camera
    quality: int = 22  # constant quality of the encoder; smaller is better, 18 to 28 is usual

    def check(self, seconds: float) -> None:
        """Raise RecipeError where a video cannot be made like this."""
        rules = [
            ("size", min(self.size) >= 64 and not any(side % 2 for side in self.size), "even numbers of 64 or more"),
            ("fps", 1 <= self.fps <= 120, "in 1..120"),
            ("zoom", self.zoom > 0, "above 0"),
            ("seconds_between", self.seconds_between > 0, "above 0"),
            ("quality", 0 <= self.quality <= 51, "in 0..51"),
        ]
        check_settings("video", self, rules)
        if seconds * self.fps < 1:
            raise RecipeError(f"video: {seconds} seconds at {self.fps} frames a second are no frame; make it longer")


@dataclass(frozen=True)
class Passage:
    """One walk through a camera's view, in a straight line."""

    pid: int
    middle: tuple[float, float]  # ground position (X, Y) at the time `middle_seconds`, metres
    middle_seconds: float  # when the person is in the middle of the view
    heading: float
    speed: float
    phase: float

    def at(self, seconds: float) -> tuple[float, float]:
        """Ground position at a time."""
        way = self.speed * (seconds - self.middle_seconds)
        x, y = self.middle
        return x + way * float(np.sin(self.heading)), y - way * float(np.cos(self.heading))


@dataclass(frozen=True)
class Box:
    """Ground truth: one person in one frame."""

    frame: int
    time_seconds: float
    pid: int
    x: int  # of the part inside the frame, pixels
    y: int
    width: int
    height: int
    visible: float  # share of the person's pixels that nobody in front hides


def plan_passages(scene: Scene, camid: int, options: VideoOptions, seconds: float) -> list[Passage]:
    """Who walks through a camera's view, when and where; from the time stream."""
    camera, seed = scene.camera(camid), scene.options.time_seed
    people = options.people
    if people is None:
        known = [*scene.options.test_pids, *scene.options.train_pids]
        people = tuple(known[: max(1, round(seconds / options.seconds_between))])
    rng = numpy_generator(seed, "video", camid)
    order = rng.permutation(len(people))
    passages = []
    for place, person in enumerate(order.tolist()):
        distance = float(np.exp(rng.uniform(np.log(camera.near_m * 1.2), np.log(camera.far_m))))
        side = 1.0 if rng.uniform() < 0.5 else -1.0
        heading = side * (np.pi / 2 + rng.uniform(-0.6, 0.6))
        when = (place + 0.5 + rng.uniform(-0.35, 0.35)) * seconds / len(people)
        passages.append(
            Passage(
                pid=people[person],
                middle=(float(rng.uniform(-0.15, 0.15)) * distance, distance),
                middle_seconds=float(when),
                heading=float(heading),
                speed=float(WALK_SPEED * rng.uniform(0.85, 1.15)),
                phase=float(rng.uniform(0, 2 * np.pi)),
            )
        )
    return passages


def render_frames(
    scene: Scene, camid: int, options: VideoOptions, seconds: float
) -> Iterator[tuple[Picture, list[Box]]]:
    """The frames of one camera in order, each with its boxes."""
    camera = scene.camera(camid)
    camera = replace(camera, focal_px=camera.focal_px * options.zoom)
    street = build_street(camera, options.size)
    view = camera.frame_view(options.size)
    blur = camera.focus_px * options.size[0] / FRAME_SIZE[0]
    passages = plan_passages(scene, camid, options, seconds)
    for frame in range(round(seconds * options.fps)):
        time = frame / options.fps
        linear = street.light.copy()
        boxes = _paint_people(linear, view, camera, scene, passages, frame, time)
        linear = through_lens(linear, blur, options.size)
        noise = numpy_generator(scene.options.time_seed, "video noise", camid, frame)
        yield photograph(linear, camera, noise), boxes


def write_camera_video(path: Path, scene: Scene, camid: int, options: VideoOptions, seconds: float) -> list[Box]:
    """Encode the video of one camera as mp4; returns its ground truth.

    Raises:
        OutputError: the file cannot be written.
    """
    import av  # pictures of the scene need none

    boxes: list[Box] = []
    # H.264 where this build of FFmpeg has it
    codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
    try:
        with av.open(str(path), "w") as container:
            quality = {"b": "2M"}
            if codec == "libx264":  # its macroblock tree gives other bytes from run to run
                quality = {"crf": str(options.quality), "preset": "veryfast", "x264-params": "mbtree=0"}
            stream = cast(av.VideoStream, container.add_stream(codec, rate=options.fps, options=quality))
            stream.height, stream.width = options.size
            stream.pix_fmt = "yuv420p"
            stream.time_base = Fraction(1, options.fps)
            stream.codec_context.thread_count = 1  # the same bytes on every machine
            for number, (picture, seen) in enumerate(render_frames(scene, camid, options, seconds)):
                boxes += seen
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                frame.pts, frame.time_base = number, Fraction(1, options.fps)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    except (OSError, av.FFmpegError) as error:
        raise OutputError(
            f"{path}: the video cannot be written ({error}); free space or choose another folder"
        ) from None
    return boxes


def _paint_people(
    linear: FloatArray, view: View, camera: Camera, scene: Scene, passages: list[Passage], frame: int, time: float
) -> list[Box]:
    """Everybody who is in view, the farthest first, in place; returns the boxes, the farthest first."""
    height, width = view.size
    owner = np.full((height, width), -1, np.int32)
    figures: list[tuple[Passage, NDArray[np.int64], NDArray[np.int64], int]] = []
    here = [(passage.at(time), passage) for passage in passages]
    here = [(at, passage) for at, passage in here if at[1] > 2.0]
    for at, passage in sorted(here, key=lambda item: -np.hypot(*item[0])):
        figure = scene.figure(passage.pid)
        phase = passage.phase + 2 * np.pi * figure.person.cadence_hz * time
        posture = pose(figure, phase).place(at, passage.heading)
        left, top, right, bottom = outline_box(posture, view)
        margin = 0.1 * (bottom - top)
        x0, y0 = max(0, int(left - margin)), max(0, int(top - margin))
        x1, y1 = min(width, int(right + margin) + 1), min(height, int(bottom + margin) + 1)
        if x1 - x0 < 2 or y1 - y0 < 2:
            continue
        centre = (view.centre_px[0] - x0, view.centre_px[1] - y0)
        window = replace(view, centre_px=centre, size=(y1 - y0, x1 - x0))
        surface = paint_person(linear[y0:y1, x0:x1], window, camera, camera.lighting, figure, posture, passage.heading)
        solid = surface.pixels[surface.coverage >= 0.5]
        inside = (min(right, width) - max(left, 0)) / (right - left)
        if not len(solid) or inside < _LEAST_SHARE:
            continue
        rows, columns = solid // (x1 - x0) + y0, solid % (x1 - x0) + x0
        owner[rows, columns] = len(figures)
        figures.append((passage, rows, columns, len(solid)))
    boxes = []
    for number, (passage, rows, columns, total) in enumerate(figures):
        x, y = int(columns.min()), int(rows.min())
        wide, tall = int(columns.max()) - x + 1, int(rows.max()) - y + 1
        if tall < _LEAST_HEIGHT_PX:
            continue
        visible = float((owner[rows, columns] == number).sum()) / total
        boxes.append(Box(frame, time, passage.pid, x, y, wide, tall, visible))
    return boxes
