"""What an index can read: folders of crops, folders of frames, videos, a data set's records, trees of all of these."""

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import av
import numpy as np
from PIL import Image

from tapetum.core.errors import DataError, nearest_name
from tapetum.core.types import Modality, Record
from tapetum.data.catalog import Dataset
from tapetum.data.image_io import MAX_PIXELS, picture_size
from tapetum.data.layout import SUFFIXES
from tapetum.data.video import count_streams
from tapetum.footage.clock import parse_time, read_time_in_name

Kind = Literal["crops", "frames", "video"]
Origin = Literal["option", "metadata", "name", "mtime"]
KINDS: tuple[Kind, ...] = ("crops", "frames", "video")
VIDEO_SUFFIXES = frozenset(
    {".3gp", ".asf", ".avi", ".dav", ".flv", ".h264", ".h265", ".264", ".265", ".hevc", ".ivf", ".m4v", ".mjpg"}
    | {".mjpeg", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".m2ts", ".mxf", ".ogv", ".ts", ".webm", ".wmv"}
)
# Only files, and only the containers that hold pictures themselves: a playlist would make FFmpeg open what it names.
OPEN_OPTIONS = {
    "protocol_whitelist": "file",
    "format_whitelist": "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,h264,hevc,flv,asf,dhav,ogg,"
    "ivf,mjpeg,mxf",
}
_LOOKED_AT = 32  # pictures of a folder whose shape decides between crops and frames
_UPRIGHT = 1.2  # height over width from which a picture may be a crop of a standing person
_CROP_SHARE = 0.75  # of the pictures looked at
_CROP_HEIGHT = 1024  # pixels; higher upright pictures are frames of a camera mounted upright
_CAMERA_WORD = re.compile(
    r"(?:^|(?<=[-_. ]))((?:camera|cam|channel|ch)[-_ ]?\d+|c\d{1,2})(?![a-rt-z\d])", re.IGNORECASE
)
_EXIF_FOLDER, _EXIF_TIMES = 0x8769, (0x9003, 0x9004)  # taken, digitised
_EXIF_CHANGED = 0x0132
_GALLERY = "gallery.json"  # what every gallery's folder holds


@dataclass(frozen=True)
class SourceOptions:
    """How places are read.

    Attributes:
        kind: what folders of pictures hold, "crops" or "frames"; None tells by their shape (see `tell_kind`).
        camera: name of the camera; None takes it from file or folder (see `name_camera`).
        start: when it begins, seconds since 1970-01-01 UTC; None takes metadata, name or time of writing.
        utc_offset_hours: of clocks that say no zone, for times in names and in pictures' metadata.
        frames_per_second: of folders of frames whose names hold no times.
        modality: of everything read; None decides per picture.
    """

    kind: Literal["crops", "frames"] | None = None
    camera: str | None = None
    start: float | None = None
    utc_offset_hours: float = 0.0
    frames_per_second: float = 10.0
    modality: Modality | None = None

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


@dataclass(frozen=True)
class LoosePicture:
    """A picture of a folder or data set.

    Attributes:
        path: the file.
        name: as the operator would name it.
        camera: its camera.
        modality: where it is known; None decides by the picture.
    """

    path: Path
    name: str
    camera: str
    modality: Modality | None = None


@dataclass(frozen=True)
class Source:
    """One thing to read from beginning to end: a video, a folder of frames, or a set of crops.

    Attributes:
        kind: "crops", "frames" or "video".
        name: as the operator named it.
        path: file or folder.
        camera: of a video or folder of frames; crops may each have their own.
        start: when it begins, seconds since 1970-01-01 UTC; of crops, None where each has its own time.
        start_origin: where `start` comes from; "mtime" is the time of writing and may be that of a copy.
        options: how it is read.
        pictures: of crops and frames, in order.
        stream: which of a file's videos, from 0.
    """

    kind: Kind
    name: str
    path: Path
    camera: str
    start: float | None
    start_origin: Origin | None
    options: SourceOptions
    pictures: tuple[LoosePicture, ...] = ()
    stream: int = 0


def find_sources(
    places: Iterable[str | Path | Dataset], options: SourceOptions | None = None, *, ignored: list[Path] | None = None
) -> list[Source]:
    """Everything that can be read below some places, sorted by camera and start.

    A file is a video, or a picture (a crop) by its ending; a file named by itself with an unknown ending is tried as
    a video. The second video stream of a file is a source of its own, under the camera NAME-2, and so on. A folder's
    own pictures are one source, crops or frames; its sub-folders are looked through the same way.
    Hidden files and folders, linked folders and galleries are passed over.

    Args:
        places: files, folders, or opened data sets, whose records become crops.
        options: how they are read; None takes the defaults.
        ignored: collects files that are neither picture nor video.
    Raises:
        DataError: a place is missing, or nothing in all places can be read.
    """
    chosen = options or SourceOptions()
    passed_over: list[Path] = []
    found: list[Source] = []
    named = list(places)
    for place in named:
        if isinstance(place, Dataset):
            found.append(source_of_records(place.records, place.name, chosen))
            continue
        path = Path(place)
        if path.is_dir():
            found += _walk(path, chosen, passed_over)
        elif path.is_file():
            found += _sources_of_file(path, chosen)
        else:
            state = "is no file or folder" if path.exists() else "does not exist"
            raise DataError(f"{place}: {state}; give a video, a picture or a folder of them")
    if ignored is not None:
        ignored += passed_over
    if not found:
        places_named = ", ".join(str(place) for place in named) or "no place"
        raise DataError(
            f"{places_named}: holds no picture and no video ({len(passed_over)} other files); "
            f"pictures end in {', '.join(sorted(SUFFIXES))}, videos in .mp4, .mkv, .avi, ..."
        )
    return sorted(found, key=lambda source: (source.camera, source.start or 0.0, source.name))


def source_of_records(records: Sequence[Record], name: str, options: SourceOptions | None = None) -> Source:
    """A data set's records as crops: cameras and modalities are known, identities are left behind.

    Args:
        records: of the data set.
        name: of the data set.
        options: how they are read; None takes the defaults.
    """
    chosen = options or SourceOptions()
    pictures = tuple(
        LoosePicture(
            record.path, str(record.path), chosen.camera or f"c{record.camid}", chosen.modality or record.modality
        )
        for record in records
    )
    if not pictures:
        raise DataError(f"{name}: has no picture; correct the root of the data set")
    folder = Path(os.path.commonpath([picture.path.parent for picture in pictures]))
    return Source("crops", name, folder, _common_camera(pictures, name), *_stated_start(chosen), chosen, pictures)


def tell_kind(pictures: Sequence[Path]) -> Literal["crops", "frames"]:
    """Whether a folder's pictures are crops of people or whole frames, by the shape of up to 32 of them.

    Crops where three quarters of those looked at are upright (at least 1.2 times as high as wide) and at most 1024
    pixels high; frames otherwise.

    Args:
        pictures: the folder's pictures.
    """
    step = max(1, len(pictures) // _LOOKED_AT)
    votes = []
    for path in pictures[::step][:_LOOKED_AT]:
        try:
            height, width = picture_size(path)
        except DataError:  # named when it is read in earnest
            continue
        votes.append(height >= _UPRIGHT * width and height <= _CROP_HEIGHT)
    return "crops" if votes and float(np.mean(votes)) >= _CROP_SHARE else "frames"


def name_camera(path: Path, *, file_counts: bool = True) -> str:
    """A camera's name out of a path.

    The first of: a camera word with a number in the file's name (``cam3``, ``camera_3``, ``ch02``, ``c3``); the
    file's name before a time in it; where the name is nothing but a time, the folder's name; the file's name without
    its ending. Of a folder: a camera word in its name, else its name.

    Args:
        path: of a file or folder.
        file_counts: False for pictures of a folder, whose own names are mere numbers: only a camera word is taken.
    """
    stem, folder = path.stem, path.resolve().parent
    word = _CAMERA_WORD.search(stem)
    if word:
        return clean_camera(re.sub(r"[-_ ]", "", word[1]).lower())
    if not file_counts:
        return _name_folder(folder)
    time = read_time_in_name(path.name)
    before = stem[: time[1][0]].strip("-_. ") if time else stem
    return clean_camera(before) if before else _name_folder(folder)


def clean_camera(name: str) -> str:
    """A name of letters, digits, '.', '_' and '-' alone.

    Args:
        name: any name.
    """
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:64] or "camera"


def picture_time(path: Path, options: SourceOptions) -> tuple[float, Origin]:
    """When a picture was taken and where that comes from: option, EXIF, name, time of writing.

    Args:
        path: the picture.
        options: how it is read.
    Raises:
        DataError: the file is gone.
    """
    return _first_time(path, options, lambda: _read_exif_time(path, options))


def _walk(root: Path, options: SourceOptions, ignored: list[Path]) -> list[Source]:
    found = []
    for folder, below, files in os.walk(root):
        if _GALLERY in files:  # its crops are no footage
            below[:] = []
            continue
        below[:] = sorted(name for name in below if not name.startswith("."))
        paths = [Path(folder) / name for name in files if not name.startswith(".")]
        paths = [path for path in paths if path.is_file()]
        pictures = sorted((path for path in paths if path.suffix.lower() in SUFFIXES), key=_natural_key)
        videos = sorted((path for path in paths if path.suffix.lower() in VIDEO_SUFFIXES), key=_natural_key)
        ignored += sorted(set(paths) - set(pictures) - set(videos))
        found += [source for path in videos for source in _sources_of_video(path, options)]
        if pictures:
            found.append(_source_of_pictures(Path(folder), pictures, options))
    return found


def _sources_of_file(path: Path, options: SourceOptions) -> list[Source]:
    if path.suffix.lower() in SUFFIXES:
        if options.kind == "frames":
            return [_source_of_pictures(path.parent, [path], options)]
        picture = LoosePicture(
            path, str(path), options.camera or name_camera(path, file_counts=False), options.modality
        )
        start, origin = picture_time(path, options)
        return [Source("crops", str(path), path, picture.camera, start, origin, options, (picture,))]
    return _sources_of_video(path, options)


def _sources_of_video(path: Path, options: SourceOptions) -> list[Source]:
    """One a video stream: recorders put front and rear into one file."""
    first = _source_of_video(path, options)
    others = [
        replace(first, name=f"{path} (video {number + 1})", camera=f"{first.camera}-{number + 1}", stream=number)
        for number in range(1, count_streams(path, OPEN_OPTIONS))
    ]
    return [first, *others]


def _source_of_video(path: Path, options: SourceOptions) -> Source:
    start, origin = _first_time(path, options, lambda: _read_creation_time(path))
    return Source("video", str(path), path, options.camera or name_camera(path), start, origin, options)


def _source_of_pictures(folder: Path, pictures: Sequence[Path], options: SourceOptions) -> Source:
    kind = options.kind or tell_kind(pictures)
    own = _name_folder(folder.resolve())
    if kind == "crops":
        loose = tuple(
            LoosePicture(path, str(path), options.camera or name_camera(path, file_counts=False), options.modality)
            for path in pictures
        )
        camera = _common_camera(loose, own)
        return Source("crops", str(folder), folder, camera, *_stated_start(options), options, loose)
    camera = options.camera or own
    loose = tuple(LoosePicture(path, str(path), camera, options.modality) for path in pictures)
    first, first_origin = picture_time(pictures[0], options)
    in_folder = read_time_in_name(folder.resolve().name, options.utc_offset_hours)
    if first_origin == "mtime" and in_folder:
        first, first_origin = in_folder[0], "name"
    return Source("frames", str(folder), folder, camera, first, first_origin, options, loose)


def _stated_start(options: SourceOptions) -> tuple[float | None, Origin | None]:
    return (None, None) if options.start is None else (options.start, "option")


def _first_time(path: Path, options: SourceOptions, read_metadata: Callable[[], float | None]) -> tuple[float, Origin]:
    if options.start is not None:
        return options.start, "option"
    stated = read_metadata()
    if stated is not None:
        return stated, "metadata"
    named = read_time_in_name(path.name, options.utc_offset_hours)
    if named:
        return named[0], "name"
    try:
        return path.stat().st_mtime, "mtime"
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); correct the path or its permissions") from None


def _read_creation_time(path: Path) -> float | None:
    """As the container states it; a damaged file states nothing here and is named when it is read."""
    try:
        with av.open(str(path), options=OPEN_OPTIONS, metadata_errors="replace") as container:
            metadata = [container.metadata, *(stream.metadata for stream in container.streams.video)]
    except (av.error.FFmpegError, OSError, ValueError):
        return None
    times = [parse_time(each[key]) for each in metadata for key in ("creation_time", "date") if key in each]
    return next((time for time in times if time is not None), None)


def _read_exif_time(path: Path, options: SourceOptions) -> float | None:
    try:
        height, width = picture_size(path)
        if height * width > MAX_PIXELS:  # refused when it is read
            return None
        with Image.open(path) as picture:
            exif = picture.getexif()
            stated = [exif.get_ifd(_EXIF_FOLDER).get(tag) for tag in _EXIF_TIMES] + [exif.get(_EXIF_CHANGED)]
    except Exception:  # anything may be in a stranger's metadata; the picture itself is judged when it is read
        return None
    times = [parse_time(text, options.utc_offset_hours) for text in stated if isinstance(text, str)]
    return next((time for time in times if time is not None), None)


def _common_camera(pictures: Sequence[LoosePicture], otherwise: str) -> str:
    cameras = Counter(picture.camera for picture in pictures)
    return next(iter(cameras)) if len(cameras) == 1 else clean_camera(otherwise)


def _name_folder(folder: Path) -> str:
    word = _CAMERA_WORD.search(folder.name)
    return clean_camera(re.sub(r"[-_ ]", "", word[1]).lower() if word else folder.name)


def _natural_key(path: Path) -> list[tuple[int, int | str]]:
    """Frame 9 before frame 10."""
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in re.split(r"(\d+)", path.name)]
