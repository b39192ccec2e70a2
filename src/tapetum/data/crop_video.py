"""Person crops with times out of a clip of a static camera.

Built-in detector: slow-learning background subtraction (MOG2). It finds whatever moves in front of a still background,
so it is for static cameras that see nobody in the first moments; a trained detector is better everywhere else. Against
the usual learning rate a slow one does not swallow a person who stands still: on a test clip of standing people the
default found the person in 47 % of the frames, the rate 0.0005 in 96 %. Two additions: each frame is first brought to
the brightness of the empty scene (a dark coat makes the camera open its iris, and then everything "moves"), and while
somebody is seen the background learns ten times slower still.

The first half of each appearance becomes camera 1 and the query, the second half camera 2 and the gallery, in the
layout which `tapetum.data.datasets.folder` reads; ``crops.json`` says where and when each crop was seen.
"""

import hashlib
import json
import secrets
import shutil
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from tapetum.core.atomic import make_folder, write_bytes
from tapetum.core.errors import DataError, OutputError
from tapetum.data.datasets.folder import picture_path
from tapetum.data.image_io import Picture, write_picture
from tapetum.data.threads import Progress
from tapetum.data.video import convert_frame, count_frames, pixel_aspect, video_streams

MANIFEST = "crops.json"
Box = tuple[int, int, int, int]  # left, top, width, height in pixels of the clip
_REPORT_EVERY = 20
_THUMBNAIL = (96, 54)  # (width, height) for comparing brightness
_SAME_PATTERN = 0.8  # correlation with the background above which a box shows nothing but changed light
_EDGE = 2  # pixels
_FLAT = 4.0  # deviation of grey values below which a surface has no pattern
_REFERENCE_RATE = 0.02  # how fast the reference brightness follows the empty scene


@dataclass(frozen=True)
class CropVideoOptions:
    """Settings of `crop_video`.

    Attributes:
        every_seconds: time between two crops of one person.
        margin: added on each side, as a fraction of the box.
        learning_rate: of the background, per frame, while nobody is seen.
        seen_factor: that rate is multiplied with this while somebody is seen.
        detection_height: frames are made this high (pixels) for detection; crops come from the full frame.
        min_height: smallest person, as a fraction of the frame's height.
        aspect: smallest and largest height over width of a box that is cropped.
        max_gap_seconds: a person unseen for longer is a new appearance.
        min_seconds: shorter appearances are dropped.
        min_travel: an appearance must move by this fraction of its own height; what never moves is no person.
    """

    every_seconds: float = 0.5
    margin: float = 0.05
    learning_rate: float = 0.0005
    seen_factor: float = 0.1
    detection_height: int = 240
    min_height: float = 0.3
    aspect: tuple[float, float] = (1.3, 6.0)
    max_gap_seconds: float = 1.5
    min_seconds: float = 1.0
    min_travel: float = 0.5


@dataclass(frozen=True)
class Crop:
    """One crop.

    Attributes:
        path: relative to the output folder.
        appearance: from 1; also the crop's pid.
        camid: 1 for the first half of the appearance, 2 for the second.
        frame: number in the clip, from 0.
        time_seconds: of that frame, from the clip's own time stamps.
        box: left, top, width, height in pixels of the clip, margin included.
    """

    path: str
    appearance: int
    camid: int
    frame: int
    time_seconds: float
    box: Box


@dataclass(frozen=True)
class CropVideoResult:
    """What was found.

    Attributes:
        out: folder of the crops; `open_dataset("folder", out)` reads it.
        frames: of the clip.
        appearances: number of appearances.
        crops: sorted by appearance and time.
    """

    out: Path
    frames: int
    appearances: int
    crops: tuple[Crop, ...]


@dataclass
class _Track:
    """A box followed through the frames."""

    frames: list[int] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    boxes: list[Box] = field(default_factory=list)

    def add(self, frame: int, time: float, box: Box) -> None:
        self.frames.append(frame)
        self.times.append(time)
        self.boxes.append(box)


def crop_video(
    clip: Path, out: Path, *, options: CropVideoOptions | None = None, progress: Progress | None = None
) -> CropVideoResult:
    """Find people in a clip and write their crops.

    Args:
        clip: a video file of a static camera.
        out: a new or empty folder, or one that the same call has filled before (then nothing is done).
        options: settings; None takes the defaults.
        progress: called with (done, total) frames; the clip is read twice. Total is 0 where the clip does not tell.
    Raises:
        DataError: the clip is missing, damaged or shows nobody.
        OutputError: `out` holds something else, or cannot be written.
    """
    settings = options or CropVideoOptions()
    key = _make_key(clip, settings)
    finished = _read_finished(out, key)
    if finished:
        return finished
    tracks, frames, size = _follow(clip, settings, progress)
    plan = _plan_crops([track for track in tracks if _is_person(track, settings)], size, settings)
    if not plan:
        raise DataError(
            f"{clip}: nobody found in {frames} frames; the built-in detector needs a static camera "
            f"that first sees the empty scene"
        )
    make_folder(out.parent)
    partial = out.with_name(f".{out.name}.{secrets.token_hex(4)}.partial")
    try:
        crops = _write_crops(clip, partial, plan, settings.margin, progress, frames)
        appearances = max(crop.appearance for crop in crops)
        manifest = {
            "clip": clip.name,
            "key": key,
            "frames": frames,
            "appearances": appearances,
            "options": asdict(settings),
            "crops": [asdict(crop) for crop in crops],
        }
        write_bytes(partial / MANIFEST, json.dumps(manifest, indent=1).encode())
        try:
            partial.replace(out)
        except OSError as error:
            raise OutputError(f"{out}: cannot be written ({error.strerror}); choose another folder") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return CropVideoResult(out, frames, appearances, crops)


def read_frames(clip: Path, *, wanted: Collection[int] | None = None) -> Iterator[tuple[int, float, Picture]]:
    """Frames of a clip: number, time in seconds by the clip's own stamps, (H, W, 3) uint8 RGB as players show it.

    Args:
        wanted: numbers of the frames to give; None gives all.
    Raises:
        DataError: the file is missing, holds no video or is damaged.
    """
    number = -1
    try:
        with av.open(str(clip), metadata_errors="replace") as container:
            streams = video_streams(container)
            if not streams:
                raise DataError(f"{clip}: holds no video; give a video file")
            aspect, reformatter = pixel_aspect(streams[0]), VideoReformatter()
            for number, frame in enumerate(container.decode(streams[0])):
                if wanted is not None and number not in wanted:
                    continue
                time = frame.time if frame.time is not None else float(number)
                yield number, float(time), convert_frame(frame, reformatter, aspect)
    except (av.error.FFmpegError, OSError) as error:
        place = "cannot be opened" if number < 0 else f"is damaged after frame {number}"
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise DataError(f"{clip}: {place} ({reason}); give a whole video file") from None
    if number < 0:
        raise DataError(f"{clip}: holds no frame; give a whole video file")


def _follow(
    clip: Path, options: CropVideoOptions, progress: Progress | None
) -> tuple[list[_Track], int, tuple[int, int]]:
    """Boxes of all frames joined into tracks, the number of frames and their (height, width)."""
    total = 2 * count_frames(clip)
    detector = MotionDetector(options)
    done: list[_Track] = []
    active: list[_Track] = []
    frames, size = 0, (0, 0)
    for number, time, picture in read_frames(clip):
        frames, size = number + 1, (picture.shape[0], picture.shape[1])
        boxes = detector.detect(picture)
        done += [track for track in active if time - track.times[-1] > options.max_gap_seconds]
        active = [track for track in active if time - track.times[-1] <= options.max_gap_seconds]
        for track, box in _match(active, boxes):
            track.add(number, time, box)
        if progress and frames % _REPORT_EVERY == 0:
            progress(frames, total)
    return sorted(done + active, key=lambda track: track.frames[0]), frames, size


class MotionDetector:
    """Boxes of what stands before the background; holds the background and the brightness of the empty scene.

    Args:
        options: settings; of these, the learning rates and the height for detection.
        shadows: whether what is merely darker than the background is a shadow and nobody; at night, shadows are too
            faint to matter and dark clothes are not.
        least_variance: of a background pixel, grey values squared; None leaves OpenCV's.
    """

    def __init__(self, options: CropVideoOptions, *, shadows: bool = True, least_variance: float | None = None) -> None:
        self._options = options
        self._subtractor = cv2.createBackgroundSubtractorMOG2(history=500, varThreshold=25, detectShadows=shadows)
        if least_variance is not None:
            self._subtractor.setVarMin(least_variance)
        self._reference: NDArray[np.float32] | None = None
        self._seen = False

    def detect(self, picture: Picture, *, learning_rate: float | None = None) -> list[Box]:
        """Boxes in pixels of the picture.

        Args:
            picture: the next frame, (H, W, 3) uint8 RGB.
            learning_rate: of this frame; None takes that of the options.
        """
        height, width = picture.shape[:2]
        scale = min(1.0, self._options.detection_height / height)
        target = (round(width * scale), round(height * scale))
        small = np.asarray(cv2.resize(picture, target, interpolation=cv2.INTER_AREA), np.uint8)
        balanced, thumbnail = self._balance(small)
        usual = self._options.learning_rate * (self._options.seen_factor if self._seen else 1.0)
        rate = usual if learning_rate is None else learning_rate
        mask = np.asarray(self._subtractor.apply(balanced, learningRate=rate))
        blobs = _find_blobs((mask == 255).astype(np.uint8))  # 127 is shadow
        if blobs:
            background = np.asarray(self._subtractor.getBackgroundImage(), np.uint8)
            blobs = [box for box in blobs if not _is_same_surface(balanced, background, box)]
        boxes = _join_pieces(blobs, max_gap=0.2 * len(small))
        self._seen = bool(boxes)
        if not self._seen and self._reference is not None:
            self._reference += _REFERENCE_RATE * (thumbnail - self._reference)
        return [_scale(box, 1 / scale) for box in boxes]

    def _balance(self, picture: Picture) -> tuple[Picture, NDArray[np.float32]]:
        """The frame at the brightness of the empty scene; a person covers too little to move the median."""
        thumbnail = cv2.resize(picture, _THUMBNAIL, interpolation=cv2.INTER_AREA).astype(np.float32) + 1
        if self._reference is None:
            self._reference = thumbnail.copy()
        gain = np.median((self._reference / thumbnail).reshape(-1, 3), axis=0)
        table = np.clip(np.rint(np.arange(256)[:, None] * gain), 0, 255).astype(np.uint8)
        return np.asarray(cv2.LUT(picture, table[None]), np.uint8), thumbnail * gain.astype(np.float32)


def _find_blobs(mask: NDArray[np.uint8]) -> list[Box]:
    """Boxes of the larger connected pieces of a mask."""
    height, width = mask.shape
    opened = cv2.morphologyEx(mask, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    reach = (max(3, round(height * 0.07)), max(3, round(width * 0.014)))  # a body falls apart across, not along
    closed = cv2.morphologyEx(opened, cv2.MORPH_CLOSE, np.ones(reach, np.uint8))
    _, _, blobs, _ = cv2.connectedComponentsWithStats(closed)
    return [
        (int(left), int(top), int(wide), int(high))
        for left, top, wide, high, area in blobs[1:]
        if area > 0.002 * mask.size
    ]


def _is_same_surface(picture: Picture, background: Picture, box: Box) -> bool:
    """Whether a box shows the background's own pattern in another light, rather than something before it."""
    left, top, width, height = box
    area = np.s_[top : top + height, left : left + width]
    now, empty = (frame[area].mean(2).ravel() for frame in (picture, background))
    if max(now.std(), empty.std()) < _FLAT:
        return True
    if min(now.std(), empty.std()) < 1e-6:
        return False
    return float(np.corrcoef(now, empty)[0, 1]) > _SAME_PATTERN


def _join_pieces(boxes: list[Box], *, max_gap: float) -> list[Box]:
    """Join boxes that stand above each other: a head over a shirt of the wall's colour over trousers."""
    joined = sorted(boxes, key=lambda box: -box[2] * box[3])
    changed = True
    while changed:
        changed = False
        for first in range(len(joined)):
            for second in range(first + 1, len(joined)):
                if _stand_above(joined[first], joined[second], max_gap):
                    joined[first] = _union(joined[first], joined.pop(second))
                    changed = True
                    break
            if changed:
                break
    return joined


def _stand_above(a: Box, b: Box, max_gap: float) -> bool:
    across = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    gap = max(a[1], b[1]) - min(a[1] + a[3], b[1] + b[3])
    return across >= 0.5 * min(a[2], b[2]) and gap <= max_gap


def _scale(box: Box, factor: float) -> Box:
    left, top, width, height = (round(value * factor) for value in box)
    return left, top, width, height


def _union(a: Box, b: Box) -> Box:
    left, top = min(a[0], b[0]), min(a[1], b[1])
    return left, top, max(a[0] + a[2], b[0] + b[2]) - left, max(a[1] + a[3], b[1] + b[3]) - top


def _match(active: list[_Track], boxes: list[Box]) -> Iterator[tuple[_Track, Box]]:
    """Pair boxes with tracks, best overlap first, then the nearest; a box left over begins a track (added here)."""
    pairs = sorted(
        ((_closeness(track.boxes[-1], box), i, j) for i, track in enumerate(active) for j, box in enumerate(boxes)),
        reverse=True,
    )
    tracks, used_tracks, used_boxes = list(active), set(), set()
    for closeness, i, j in pairs:
        if closeness > 0 and i not in used_tracks and j not in used_boxes:
            used_tracks.add(i)
            used_boxes.add(j)
            yield tracks[i], boxes[j]
    for j, box in enumerate(boxes):
        if j not in used_boxes:
            track = _Track()
            active.append(track)
            yield track, box


def _closeness(a: Box, b: Box) -> float:
    """1 + overlap (IoU) where the boxes overlap; 1 - distance in heights where they are near; 0 where they are far."""
    across = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    down = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    if across > 0 and down > 0:
        common = across * down
        return 1 + common / (a[2] * a[3] + b[2] * b[3] - common)
    distance = float(np.hypot(a[0] + a[2] / 2 - b[0] - b[2] / 2, a[1] + a[3] / 2 - b[1] - b[3] / 2))
    return max(0.0, 1 - distance / max(a[3], b[3]))


def _is_person(track: _Track, options: CropVideoOptions) -> bool:
    """Long enough, and it walked."""
    if track.times[-1] - track.times[0] < options.min_seconds:
        return False
    boxes = np.array(track.boxes, dtype=float)
    middles = boxes[:, :2] + boxes[:, 2:] / 2
    travel = float(np.hypot(*(middles.max(0) - middles.min(0))))
    return travel >= options.min_travel * float(np.median(boxes[:, 3]))


@dataclass(frozen=True)
class _Planned:
    """A crop to be cut in the second pass."""

    appearance: int
    camid: int
    time_seconds: float
    box: Box


def _plan_crops(
    people: Sequence[_Track], frame_size: tuple[int, int], options: CropVideoOptions
) -> dict[int, list[_Planned]]:
    """Frame -> crops: every so often of each person, the halves of each appearance under two cameras.

    A box at the left or right edge is left out: the person stands partly outside of the picture.
    """
    plan: dict[int, list[_Planned]] = {}
    appearance = 0
    for track in people:
        chosen: list[int] = []
        for place, (time, box) in enumerate(zip(track.times, track.boxes, strict=True)):
            inside = box[0] > _EDGE and box[0] + box[2] < frame_size[1] - _EDGE
            fits = (
                inside
                and box[3] >= options.min_height * frame_size[0]
                and options.aspect[0] <= box[3] / box[2] <= options.aspect[1]
            )
            due = not chosen or time - track.times[chosen[-1]] >= options.every_seconds - 1e-6
            if fits and due:
                chosen.append(place)
        if len(chosen) < 2:
            continue  # no half to search with
        appearance += 1
        for order, place in enumerate(chosen):
            camid = 1 if order < len(chosen) / 2 else 2
            planned = _Planned(appearance, camid, track.times[place], track.boxes[place])
            plan.setdefault(track.frames[place], []).append(planned)
    return plan


def _write_crops(
    clip: Path, folder: Path, plan: dict[int, list[_Planned]], margin: float, progress: Progress | None, done: int
) -> tuple[Crop, ...]:
    """Cut the planned crops out of the full frames; `done` frames were read before."""
    for split in ("query", "gallery"):
        make_folder(folder / split)
    crops = []
    for number, _, picture in read_frames(clip, wanted=plan):
        for planned in plan[number]:
            box = widen_box(planned.box, margin, (picture.shape[0], picture.shape[1]))
            split = "query" if planned.camid == 1 else "gallery"
            path = picture_path(split, planned.appearance, planned.camid, number)
            left, top, width, height = box
            write_picture(folder / path, np.ascontiguousarray(picture[top : top + height, left : left + width]))
            time = round(planned.time_seconds, 6)
            crops.append(Crop(path.as_posix(), planned.appearance, planned.camid, number, time, box))
        if progress:
            progress(done + number + 1, 2 * done)
    return tuple(sorted(crops, key=lambda crop: (crop.appearance, crop.frame)))


def widen_box(box: Box, margin: float, size: tuple[int, int]) -> Box:
    """The box with its margin, inside a frame.

    Args:
        box: left, top, width, height.
        margin: added on each side, as a fraction of the box.
        size: (height, width) of the frame.
    """
    left, top, width, height = box
    across, down = round(margin * width), round(margin * height)
    first = (max(0, left - across), max(0, top - down))
    last = (min(size[1], left + width + across), min(size[0], top + height + down))
    return first[0], first[1], last[0] - first[0], last[1] - first[1]


def _make_key(clip: Path, options: CropVideoOptions) -> str:
    """Names clip content and settings, to know finished work again."""
    try:
        with clip.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{clip}: cannot be read ({error.strerror}); give a video file") from None
    return hashlib.sha256(f"{digest} {json.dumps(asdict(options), sort_keys=True)}".encode()).hexdigest()[:20]


def _parse_manifest(out: Path) -> tuple[str, CropVideoResult]:
    try:
        content: dict[str, Any] = json.loads((out / MANIFEST).read_text(encoding="utf-8"))
        crops = tuple(Crop(**{**crop, "box": tuple(crop["box"])}) for crop in content["crops"])
        key, frames, appearances = str(content["key"]), int(content["frames"]), int(content["appearances"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{out / MANIFEST}: cannot be read ({error}); crop the clip again into a new folder") from None
    missing = [crop.path for crop in crops if not (out / crop.path).is_file()]
    if missing:
        raise DataError(f"{out}: {len(missing)} crops are missing, e.g. {missing[0]}; crop the clip again")
    return key, CropVideoResult(out, frames, appearances, crops)


def _read_finished(out: Path, key: str) -> CropVideoResult | None:
    """The result of the same call made earlier; None where there is nothing yet."""
    if not out.exists():
        return None
    if not out.is_dir():
        raise OutputError(f"{out}: is a file; choose a folder for the crops")
    if not any(out.iterdir()):
        return None
    if not (out / MANIFEST).is_file():
        raise OutputError(f"{out}: holds something else than crops; choose an empty or new folder")
    found, result = _parse_manifest(out)
    if found != key:
        raise OutputError(f"{out}: holds crops of another clip or with other settings; choose another folder")
    return result
