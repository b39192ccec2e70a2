"""Person crops with times out of a clip of a static camera, as a data set that can be searched.

The built-in detector takes whatever moves in front of a still background for a person, so it is for static cameras that
see nobody in the first moments; a trained detector, where one is given, is better everywhere else. The first half of
each appearance becomes camera 1 and the query, the second half camera 2 and the gallery, in the layout which
`tapetum.data.datasets.folder` reads; ``crops.json`` says where and when each crop was seen.
"""

import hashlib
import json
import math
import secrets
import shutil
from collections import defaultdict
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tapetum.core.atomic import make_folder, write_bytes
from tapetum.core.errors import DataError, OutputError
from tapetum.core.sighting import Box
from tapetum.data.datasets.folder import picture_path
from tapetum.data.image_io import write_picture
from tapetum.data.threads import Progress
from tapetum.footage.crops import REPORT_EVERY, cut_out, widen_box
from tapetum.footage.detect import BackgroundDetector, Detector
from tapetum.footage.follow import follow_frames, is_walk
from tapetum.footage.frames import count_units
from tapetum.footage.motion import MotionOptions
from tapetum.footage.options import ExtractOptions
from tapetum.footage.report import FootageReport
from tapetum.footage.sources import Source, find_sources
from tapetum.footage.track import TrackerOptions

MANIFEST = "crops.json"
_EDGE = 2  # pixels


@dataclass(frozen=True)
class CropVideoOptions:
    """Settings of `crop_video`."""

    every_seconds: float = 0.5  # between two crops of one person
    margin: float = 0.05  # added on each side, as a fraction of the box
    learning_rate: float = 0.0005  # of the built-in detector's background, per frame, while nobody is seen
    seen_factor: float = 0.1  # that rate is multiplied with this while somebody is seen
    detection_height: int = 240  # frames are made this high (pixels) for it; crops come from the full frame
    min_height: float = 0.3  # smallest person, as a fraction of the frame's height
    aspect: tuple[float, float] = (1.3, 6.0)  # smallest and largest height over width of a box that is cropped
    max_gap_seconds: float = 1.5  # a person unseen for longer is a new appearance
    min_seconds: float = 1.0  # shorter appearances are dropped
    min_travel: float = 0.5  # of its own height that an appearance must move, where the detector takes what moves


@dataclass(frozen=True)
class Crop:
    """One crop."""

    path: str  # relative to the output folder
    appearance: int  # from 1; also the crop's pid
    camid: int  # 1 for the first half of the appearance, 2 for the second
    frame: int  # number in the clip, from 0
    time_seconds: float  # of that frame by the clip's own stamps, since its first frame
    box: Box  # left, top, width, height in pixels of the clip, margin included


@dataclass(frozen=True)
class CropVideoResult:
    """What was found in a clip."""

    out: Path  # `open_dataset("folder", out)` reads it
    frames: int  # of the clip
    appearances: int
    crops: tuple[Crop, ...]  # sorted by appearance and time
    problems: tuple[str, ...] = ()  # what is wrong with the clip, one line each


class _Cut(NamedTuple):
    """A crop that lies on disk under a name for the moment."""

    path: Path
    frame: int
    seconds: float
    box: Box


def crop_video(
    clip: Path,
    out: Path,
    *,
    detector: Detector | None = None,
    options: CropVideoOptions | None = None,
    progress: Progress | None = None,
) -> CropVideoResult:
    """Find people in a clip and write their crops.

    Args:
        clip: a video file, of a static camera for the built-in detector.
        out: a new or empty folder, or one that the same call has filled before (then nothing is done).
        detector: None takes the built-in one, with its part of the options.
        progress: called with (done, total) frames. Total is 0 where the clip does not tell.
    Raises:
        DataError: the clip is missing, damaged or shows nobody.
        OutputError: `out` holds something else, or cannot be written.
    """
    settings = options or CropVideoOptions()
    key = _make_key(clip, settings, detector)
    earlier = _read_finished(out, key)
    if earlier:
        return earlier
    make_folder(out.parent)
    partial = out.with_name(f".{out.name}.{secrets.token_hex(4)}.partial")
    report = FootageReport()
    try:
        appearances = _cut_people(clip, partial, detector, settings, report, progress)
        if not appearances:
            remedy = (
                "look at its boxes with tapetum detector try"
                if detector
                else ("the built-in detector needs a static camera that first sees the empty scene")
            )
            raise DataError(f"{clip}: nobody found in {report.frames} frames; {remedy}")
        crops = _name_crops(appearances, partial)
        problems = tuple(problem.message for problem in report.problems)
        manifest = {
            "clip": clip.name,
            "key": key,
            "frames": report.frames,
            "appearances": len(appearances),
            "detector": detector.name if detector else "",
            "options": asdict(settings),
            "crops": [asdict(crop) for crop in crops],
            "problems": problems,
        }
        write_bytes(partial / MANIFEST, json.dumps(manifest, indent=1).encode())
        try:
            partial.replace(out)
        except OSError as error:
            raise OutputError(f"{out}: cannot be written ({error.strerror}); choose another folder") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return CropVideoResult(out, report.frames, len(appearances), crops, problems)


def open_clip(clip: Path) -> Source:
    """The first video of a file.

    Raises:
        DataError: it is missing or a picture.
    """
    source = find_sources([clip])[0]
    if source.kind != "video":
        raise DataError(f"{clip}: holds no video; give a video file")
    return source


def _cut_people(
    clip: Path,
    folder: Path,
    detector: Detector | None,
    settings: CropVideoOptions,
    report: FootageReport,
    progress: Progress | None,
) -> list[list[_Cut]]:
    """Two crops or more of each appearance, in the order of first sight.

    A box at the left or right edge is left out: the person stands partly outside of the picture.
    """
    source = open_clip(clip)
    make_folder(folder)
    detector = detector or BackgroundDetector(
        options=MotionOptions(settings.learning_rate, settings.seen_factor, settings.detection_height)
    )
    rules = ExtractOptions(
        min_detections=1,
        min_seconds=settings.min_seconds,
        min_travel=settings.min_travel,
        tracker=TrackerOptions(max_gap_seconds=settings.max_gap_seconds, max_seconds=math.inf),
    )
    cuts: dict[int, list[_Cut]] = defaultdict(list)  # number of a tracklet -> its crops so far
    appearances: dict[int, list[_Cut]] = {}
    total = count_units(source)
    followed = follow_frames(source, detector, rules, report)
    with closing(followed):
        for frame, detections, owners, tracklets in followed:
            for row, owner in enumerate(owners.tolist()):
                if frame is None:
                    break
                if owner < 0:  # a box within another one, which is nobody's
                    continue
                height, width = frame.picture.shape[:2]
                tight = detections.pixels(row)
                inside = tight[0] > _EDGE and tight[0] + tight[2] < width - _EDGE
                tall = tight[3] >= settings.min_height * height
                upright = settings.aspect[0] <= tight[3] / tight[2] <= settings.aspect[1]
                so_far = cuts[owner]
                due = not so_far or frame.seconds - so_far[-1].seconds >= settings.every_seconds - 1e-6
                if inside and tall and upright and due:
                    box = widen_box(tight, settings.margin, (height, width))
                    path = folder / f"{owner:06d}_{frame.number:08d}.jpg"
                    write_picture(path, cut_out(frame.picture, box))
                    so_far.append(_Cut(path, frame.number, frame.seconds, box))
            for tracklet in tracklets:
                own = cuts.pop(tracklet.number, [])
                if len(own) >= 2 and is_walk(tracklet, source, detector, rules):  # one has no half to search with
                    appearances[tracklet.number] = own
                else:
                    for cut in own:
                        cut.path.unlink()
            if progress and frame is not None and (report.frames % REPORT_EVERY == 0 or report.frames == total):
                progress(min(report.frames, total or report.frames), total)
    return [appearances[number] for number in sorted(appearances)]


def _name_crops(appearances: list[list[_Cut]], folder: Path) -> tuple[Crop, ...]:
    """Move crops to where the data set's layout wants them, the halves of each appearance under two cameras."""
    for split in ("query", "gallery"):
        make_folder(folder / split)
    crops = []
    for appearance, own in enumerate(appearances, 1):
        for order, cut in enumerate(own):
            camid = 1 if order < len(own) / 2 else 2
            path = picture_path("query" if camid == 1 else "gallery", appearance, camid, cut.frame)
            cut.path.rename(folder / path)
            crops.append(Crop(path.as_posix(), appearance, camid, cut.frame, round(cut.seconds, 6), cut.box))
    return tuple(crops)


def _make_key(clip: Path, options: CropVideoOptions, detector: Detector | None) -> str:
    """Names clip content, settings and detector, to know finished work again."""
    try:
        with clip.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{clip}: cannot be read ({error.strerror}); give a video file") from None
    found_by = f" {detector.key}" if detector else ""
    key = f"{digest} {json.dumps(asdict(options), sort_keys=True)}{found_by}"
    return hashlib.sha256(key.encode()).hexdigest()[:20]


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
    try:
        content: dict[str, Any] = json.loads((out / MANIFEST).read_text(encoding="utf-8"))
        crops = tuple(Crop(**{**crop, "box": tuple(crop["box"])}) for crop in content["crops"])
        counts = int(content["frames"]), int(content["appearances"])
        result, its_key = CropVideoResult(out, *counts, crops, tuple(content.get("problems", ()))), content["key"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{out / MANIFEST}: cannot be read ({error}); crop the clip again into a new folder") from None
    missing = [crop.path for crop in crops if not (out / crop.path).is_file()]
    if missing:
        raise DataError(f"{out}: {len(missing)} crops are missing, e.g. {missing[0]}; crop the clip again")
    if its_key != key:
        raise OutputError(f"{out}: holds crops of another clip or with other settings; choose another folder")
    return result
