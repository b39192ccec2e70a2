"""Who took a recording and when: the one place that decides it, and says which source of facts it was.

The first of these that says something: the operator's options, the operator's pattern of paths, metadata (of times
alone), the file's name, the folders above it, the time of writing the file. The last is a guess; so is a name that can
be read in two ways, and each says so in a doubt.
"""

import os
import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import av
from PIL import Image

from tapetum.core.errors import DataError, nearest_name
from tapetum.core.types import Modality
from tapetum.data.image_io import MAX_PIXELS, picture_size
from tapetum.data.video import OPEN_OPTIONS
from tapetum.footage.clock import format_time, parse_zoned_time
from tapetum.footage.moments import read_zone
from tapetum.footage.origin import GUESSED_CHANGE, GUESSED_TIME, ORIGINS, CameraFact, Origin
from tapetum.footage.paths import PathFacts, clean_camera, read_path
from tapetum.footage.pattern import PatternFacts, compile_pattern

_SAME_TIME = 600.0  # seconds between metadata and a name that may be the length of a recording
_A_DAY = 90000.0  # and an hour, for the recording that begins before midnight
_PNG_SIGNATURE, _JPEG_SIGNATURE, _JPEG_EXIF = b"\x89PNG\r\n\x1a\n", b"\xff\xd8", b"Exif\0\0"
_HEAD = (
    1 << 20
)  # bytes in which a JPEG's EXIF begins; it stands before the picture, behind a profile of colours at most
_EXIF_FOLDER = 0x8769
# tags of EXIF: time, its zone, its fraction of a second
_EXIF_TAKEN, _EXIF_DIGITISED = (0x9003, 0x9011, 0x9291), (0x9004, 0x9012, 0x9292)
_EXIF_CHANGED = (0x0132, 0x9010, 0x9290)


@dataclass(frozen=True)
class SourceOptions:
    """How places are read."""

    # what folders of pictures hold, "crops" or "frames"; None tells by their shape (see
    # `footage.sources.tell_kind`)
    kind: Literal["crops", "frames"] | None = None
    camera: str | None = None  # name of the camera; None takes it from file or folder (see `footage.paths.read_path`)
    # when it begins, seconds since 1970-01-01 UTC; None takes metadata, name or time of writing
    start: float | None = None
    utc_offset_hours: float = 0.0  # of clocks that say no zone, for times in names and in pictures' metadata
    frames_per_second: float = 10.0  # of folders of frames whose names hold no times
    modality: Modality | None = None  # of everything read; None decides per picture
    # which parts of a path are camera and time, e.g. "{date}/{hour}/{camera}/{minute}.{second}" (see
    # `footage.pattern`); None tells by the names
    path_pattern: str | None = None

    def __post_init__(self) -> None:
        if self.kind not in (None, "crops", "frames"):
            raise DataError(f"sources: kind is {self.kind!r}; {nearest_name(str(self.kind), ('crops', 'frames'))}")
        if self.frames_per_second <= 0:
            raise DataError(f"sources: frames_per_second is {self.frames_per_second}; it must be above 0")
        if not -14 <= self.utc_offset_hours <= 14:
            raise DataError(f"sources: utc_offset_hours is {self.utc_offset_hours}; it must be in -14..14")
        if self.camera is not None and self.camera != clean_camera(self.camera):
            raise DataError(
                f"sources: camera {self.camera!r} has other signs than letters, digits, '.', '_' and '-'; "
                f"write {clean_camera(self.camera)!r}"
            )
        if self.path_pattern is not None:
            compile_pattern(self.path_pattern)


@dataclass(frozen=True)
class TimeFact:
    """When it begins, or was taken."""

    seconds: float
    origin: Origin  # what says so
    zone_written: bool = True  # whether its zone is known too; else `utc_offset_hours` is taken
    in_name: bool = False  # whether the file's own name says a part of it
    doubts: tuple[str, ...] = ()  # why it may be another
    guessed: bool = False  # whether it is only when the file was written or changed


@dataclass(frozen=True)
class Said:
    """What path and operator say of a file."""

    camera: CameraFact  # which it was
    camera_doubts: tuple[str, ...] = ()  # why it may be another
    time: TimeFact | None = None  # when; None where only metadata or the file itself can tell
    # when the day begins that is known, where no time of day is; with the origin of that
    day: tuple[float, Origin] | None = None


def read_said(path: Path, options: SourceOptions, *, is_picture: bool = False, is_folder: bool = False) -> Said:
    """What the operator and a path say; the file itself is not opened.

    Args:
        path: of the file, or of a folder that is read as one.
        is_folder: as for `read_path`; a pattern is of files and says nothing of it.
    Raises:
        DataError: the path does not fit the pattern.
    """
    offset = options.utc_offset_hours
    facts = read_path(path, offset, is_picture=is_picture, is_folder=is_folder)
    pattern_facts, doubts = None, tuple[str, ...]()
    if options.path_pattern is not None and not is_folder:
        pattern_facts = compile_pattern(options.path_pattern).read(path, offset)
    if options.camera is not None:
        camera = CameraFact(options.camera, options.camera, "option")
    elif pattern_facts is not None and pattern_facts.camera is not None:
        camera = CameraFact(clean_camera(pattern_facts.camera), pattern_facts.camera, "pattern")
    else:
        camera = CameraFact(clean_camera(facts.camera), facts.camera, facts.camera_origin, facts.site)
        doubts = facts.camera_doubts
    time, day = _time_said(options, facts, pattern_facts)
    return Said(camera, doubts, time, day)


def decide_time(
    path: Path, facts: Said, options: SourceOptions, read_metadata: Callable[[Path, float], TimeFact | None]
) -> TimeFact:
    """When a file begins or was taken.

    Args:
        read_metadata: takes the file and the hours of clocks without a zone; None where it states no time.
    Raises:
        DataError: the file is gone.
    """
    time = facts.time
    if time is not None and time.origin in ("option", "pattern"):
        return time
    stated = read_metadata(path, options.utc_offset_hours)
    if stated is not None and not stated.guessed:
        if time is not None and abs(time.seconds - stated.seconds) > _SAME_TIME:
            doubt = (
                f"metadata says {format_time(stated.seconds)}, the {ORIGINS[time.origin]} {format_time(time.seconds)}"
            )
            return replace(stated, doubts=(doubt,))
        return stated
    if time is not None:
        return time
    guess = stated or _time_of_writing(path)
    if facts.day is not None and not facts.day[0] <= guess.seconds <= facts.day[0] + _A_DAY:
        doubts = ("only the day is written, its beginning is taken",)
        return TimeFact(facts.day[0], facts.day[1], zone_written=False, doubts=doubts)
    return guess


def decide_picture_time(path: Path, options: SourceOptions) -> TimeFact:
    """When a picture was taken.

    Raises:
        DataError: the file is gone, or does not fit the pattern.
    """
    return decide_time(path, read_said(path, options, is_picture=True), options, read_exif_time)


def read_creation_time(path: Path, utc_offset_hours: float = 0.0) -> TimeFact | None:
    """As a video's container states it; a damaged file states nothing here and is named when it is read.

    Args:
        utc_offset_hours: where no zone is stated.
    """
    try:
        with av.open(str(path), options=OPEN_OPTIONS, metadata_errors="replace") as container:
            metadata = [container.metadata, *(stream.metadata for stream in container.streams.video)]
    except (av.error.FFmpegError, OSError, ValueError):
        return None
    texts = [each[key] for each in metadata for key in ("creation_time", "date") if key in each]
    times = [_metadata_time(text, utc_offset_hours) for text in texts if len(text.strip()) > len("2026-11-20")]
    return next((time for time in times if time is not None), None)  # a day alone is no time


def read_exif_time(path: Path, utc_offset_hours: float = 0.0) -> TimeFact | None:
    """As a picture's EXIF states it; a guess where it says only when the picture was changed.

    Args:
        utc_offset_hours: where no zone is stated, as by cameras made before 2016.
    """
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
        if head.startswith(_JPEG_SIGNATURE) and _JPEG_EXIF not in head:
            return None
        height, width = picture_size(path)
        if height * width > MAX_PIXELS:  # refused when it is read
            return None
        with Image.open(path) as picture:
            if picture.format == "PNG":  # of which Pillow would decode all pixels to look behind them
                picture.info.setdefault("exif", _exif_of_png(path))
            exif = Image.Image.getexif(picture)
            tags = dict(exif) | exif.get_ifd(_EXIF_FOLDER)
    except Exception:  # anything may be in a stranger's metadata; the picture itself is judged when it is read
        return None
    taken = _exif_time(tags, _EXIF_TAKEN, utc_offset_hours) or _exif_time(tags, _EXIF_DIGITISED, utc_offset_hours)
    changed = None if taken else _exif_time(tags, _EXIF_CHANGED, utc_offset_hours)
    return taken if changed is None else replace(changed, guessed=True, doubts=(GUESSED_CHANGE,))


def _exif_of_png(path: Path) -> bytes | None:
    with path.open("rb") as file:
        file.seek(len(_PNG_SIGNATURE))
        while len(head := file.read(8)) == 8:
            length, kind = struct.unpack(">I4s", head)
            if kind == b"eXIf":
                return file.read(length)
            file.seek(length + 4, os.SEEK_CUR)  # and the checksum
    return None


def _exif_time(tags: Mapping[int, Any], names: tuple[int, int, int], utc_offset_hours: float) -> TimeFact | None:
    """One of EXIF's times, whose zone and fraction of a second are tags of their own."""
    text, zone, fraction = (str(tags.get(name, "")).strip("\0 ") for name in names)
    has_zone = re.fullmatch(r"Z|[-+]\d\d:\d\d", zone) is not None and read_zone(zone) is not None
    time = _metadata_time(text + zone if has_zone else text, utc_offset_hours)
    if time is None or re.fullmatch(r"[0-9]+", fraction) is None:
        return time
    return replace(time, seconds=time.seconds + float(f"0.{fraction}"))


def _metadata_time(text: str, utc_offset_hours: float) -> TimeFact | None:
    stated = parse_zoned_time(text, utc_offset_hours)
    return None if stated is None else TimeFact(stated[0], "metadata", zone_written=stated[1])


def _time_of_writing(path: Path) -> TimeFact:
    try:
        seconds = path.stat().st_mtime
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); correct the path or its permissions") from None
    return TimeFact(seconds, "mtime", guessed=True, doubts=(GUESSED_TIME,))


def _time_said(
    options: SourceOptions, facts: PathFacts, pattern_facts: PatternFacts | None
) -> tuple[TimeFact | None, tuple[float, Origin] | None]:
    if options.start is not None:
        return TimeFact(options.start, "option"), None
    if pattern_facts is not None and pattern_facts.time is not None:
        return TimeFact(
            pattern_facts.time, "pattern", pattern_facts.zone_written, in_name=True, doubts=pattern_facts.doubts
        ), None
    if pattern_facts is not None and pattern_facts.day is not None:
        return None, (pattern_facts.day, "pattern")
    if facts.time is not None and facts.time_origin is not None:
        return TimeFact(facts.time, facts.time_origin, facts.zone_written, facts.in_name, facts.time_doubts), None
    if facts.day is not None and facts.time_origin is not None:
        return None, (facts.day, facts.time_origin)
    return None, None
