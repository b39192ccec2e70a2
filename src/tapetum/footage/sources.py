"""What an index can read: folders of crops, folders of frames, videos, a data set's records, trees of all of these.

What is found and what is passed over add up to what lies below a place; `footage.facts` decides who took it and when.
"""

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from tapetum.core.errors import DataError
from tapetum.core.types import Modality, Record
from tapetum.data.catalog import Dataset
from tapetum.data.image_io import picture_size
from tapetum.data.layout import SUFFIXES
from tapetum.data.video import read_header
from tapetum.footage.facts import (
    Said,
    SourceOptions,
    TimeFact,
    decide_time,
    read_creation_time,
    read_exif_time,
    read_said,
)
from tapetum.footage.origin import CameraFact, Origin
from tapetum.footage.overlaps import Recording, doubt_overlaps, refuse_one_start
from tapetum.footage.paths import clean_camera, name_folder
from tapetum.footage.report import FootageReport, SourceFacts

Kind = Literal["crops", "frames", "video"]
KINDS: tuple[Kind, ...] = ("crops", "frames", "video")
VIDEO_SUFFIXES = frozenset(
    {".3gp", ".asf", ".avi", ".dav", ".flv", ".h264", ".h265", ".264", ".265", ".hevc", ".ivf", ".m4v", ".mjpg"}
    | {".mjpeg", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".m2ts", ".mxf", ".ogv", ".ts", ".webm", ".wmv"}
)
OTHER_FILE, HIDDEN, LINK = "that are neither picture nor video", "that are hidden", "that are links to folders"
ODD_NAME = "whose names hold control characters or are no UTF-8: rename them"
IN_GALLERY, UNREADABLE = "that lie in galleries", "that cannot be looked at"
_LOOKED_AT = 32  # pictures of a folder whose shape decides between crops and frames
_UPRIGHT = 1.2  # height over width from which a picture may be a crop of a standing person
_CROP_SHARE = 0.75  # of the pictures looked at
_CROP_HEIGHT = 1024  # pixels; higher upright pictures are frames of a camera mounted upright
_GALLERY = "gallery.json"  # what every gallery's folder holds
_MOST_DOUBTS = 3  # told of the pictures of one source; more are counted


@dataclass(frozen=True)
class LoosePicture:
    """A picture of a folder or data set."""

    path: Path
    name: str  # as the operator would name it
    camera: str  # its camera
    modality: Modality | None = None  # where it is known; None decides by the picture
    time: TimeFact | None = None  # when it was taken; None where its file is gone

    @property
    def stamp(self) -> float | None:
        """Its own time among frames, of its EXIF or its name; None where it has none."""
        time = self.time
        return time.seconds if time is not None and (time.origin == "metadata" or time.in_name) else None


@dataclass(frozen=True)
class Source:
    """One thing to read from beginning to end: a video, a folder of frames, or a set of crops."""

    kind: Kind  # "crops", "frames" or "video"
    name: str  # as the operator named it
    path: Path  # file or folder
    camera: str  # of a video or folder of frames; crops may each have their own
    start: float | None  # when it begins, seconds since 1970-01-01 UTC; of crops, None where each has its own time
    start_origin: Origin | None  # where `start` comes from; "mtime" is the time of writing and may be that of a copy
    options: SourceOptions
    pictures: tuple[LoosePicture, ...] = ()  # of crops and frames, in order
    cameras: tuple[CameraFact, ...] = ()  # where each of its cameras' names comes from
    doubts: tuple[str, ...] = ()  # why a camera or a time may be another
    zone_written: bool = True  # whether every time's zone is known; else `utc_offset_hours` of the options is taken
    stream: int = 0  # which of a file's videos, from 0
    # how long a video states to be, or frames by their rate are; 0 where nobody knows, and of photographs
    seconds: float = 0.0

    @property
    def num_files(self) -> int:
        """Files that it consists of; a file of several videos counts with its first."""
        return int(self.stream == 0) if self.kind == "video" else len(self.pictures)


def find_sources(
    places: Iterable[str | Path | Dataset],
    options: SourceOptions | None = None,
    *,
    report: FootageReport | None = None,
) -> list[Source]:
    """Everything that can be read below some places, sorted by camera and start.

    A file is a video, or a picture (a crop) by its ending; a file named by itself with an unknown ending is tried as
    a video. The second video stream of a file is a source of its own, under the camera NAME-2, and so on. A folder's
    own pictures are one source, crops or frames (of each camera in their names one); its sub-folders are looked
    through the same way. Hidden files and folders, linked folders, galleries and what cannot be read are passed over.

    Args:
        places: files, folders, or opened data sets, whose records become crops.
        report: is told what each source is taken for and why, and each file and folder that is passed over.
    Raises:
        DataError: a place is missing, a path does not fit the pattern, nothing in all places can be read, or several
            videos of one camera would have the start that the options name.
    """
    options, report = options or SourceOptions(), report or FootageReport()
    sources: list[Source] = []
    places = list(places)
    for place in places:
        path = Path(place.name if isinstance(place, Dataset) else place)
        if isinstance(place, Dataset):
            sources.append(source_of_records(place.records, place.name, options))
        elif path.is_dir():
            sources += _walk(path, options, report)
        elif path.is_file():
            if _is_odd(str(path)):
                raise DataError(f"{_spell(path)}: the name holds control characters or is no UTF-8; rename it")
            sources += _sources_of_file(path, options)
        else:
            state = "is no file or folder" if path.exists() else "does not exist"
            raise DataError(f"{place}: {state}; give a video, a picture or a folder of them")
    if not sources:
        names = ", ".join(map(_spell, places)) or "no place"
        reasons = Counter(each.message for each in report.passed)
        others = ", ".join(f"{count} files and folders {why}" for why, count in reasons.most_common()) or "nothing else"
        raise DataError(
            f"{names}: holds no picture and no video, but {others}; "
            f"pictures end in {', '.join(sorted(SUFFIXES))}, videos in .mp4, .mkv, .avi, ..."
        )
    sources = _doubt_overlaps(_doubt_shared_names(sources), options)
    for source in sources:
        report.tell(
            SourceFacts(
                source=source.name,
                kind=source.kind,
                files=source.num_files,
                cameras=source.cameras,
                start=source.start,
                start_from=source.start_origin,
                zone_written=source.zone_written,
                doubts=source.doubts,
            )
        )
    return sorted(sources, key=lambda source: (source.camera, source.start or 0.0, source.name))


def source_of_records(records: Sequence[Record], name: str, options: SourceOptions | None = None) -> Source:
    """A data set's records as crops: cameras and modalities are known, identities are left behind."""
    options = options or SourceOptions()
    pictures = tuple(
        LoosePicture(
            each.path,
            str(each.path),
            options.camera or f"c{each.camid}",
            options.modality or each.modality,
            _picture_time(each.path, read_said(each.path, options, is_picture=True), options),
        )
        for each in records
    )
    if not pictures:
        raise DataError(f"{name}: has no picture; correct the root of the data set")
    folder = Path(os.path.commonpath([picture.path.parent for picture in pictures]))
    origin: Origin = "metadata" if options.camera is None else "option"
    cameras = tuple(CameraFact(camera, camera, origin) for camera in sorted({each.camera for each in pictures}))
    camera = _common_camera(cameras, name)
    doubts, start = _tell_doubts(_time_doubts(pictures)), _stated_start(options)
    return Source("crops", name, folder, camera, *start, options, pictures, cameras, doubts, _zones_written(pictures))


def are_by_rate(stamps: Sequence[float | None]) -> bool:
    """Whether the times of frames are by `frames_per_second`, because their own do not tell them apart."""
    return len(set(stamps) - {None}) < 2


def tell_kind(pictures: Sequence[Path]) -> Literal["crops", "frames"]:
    """Whether a folder's pictures are crops of people or whole frames, by the shape of up to 32 of them.

    Crops where three quarters of those looked at are upright (at least 1.2 times as high as wide) and at most 1024
    pixels high; frames otherwise.
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


def _walk(root: Path, options: SourceOptions, report: FootageReport) -> Iterator[Source]:
    def tell_unreadable(error: OSError) -> None:
        report.note(str(error.filename), f"{error.filename}: cannot be read ({error.strerror}); it is passed over")
        report.pass_over(str(error.filename), UNREADABLE, 0)  # nobody knows how many files it holds

    for folder, below, names in os.walk(root, onerror=tell_unreadable):
        here = Path(folder)
        if _GALLERY in names:  # its crops are no footage
            report.pass_over(folder, IN_GALLERY, _count_files(here))
            below[:] = []
            continue
        for name in sorted(below):
            if name.startswith("."):
                report.pass_over(str(here / name), HIDDEN, _count_files(here / name))
            elif (here / name).is_symlink():
                report.pass_over(str(here / name), LINK, 0)
        below[:] = sorted(name for name in below if not name.startswith("."))  # links are not followed
        pictures, videos = [], []
        for name in sorted(names):
            path = here / name
            reason = _pass_over(path)
            if reason:
                report.pass_over(_spell(path), reason)
            elif path.suffix.lower() in SUFFIXES:
                pictures.append(path)
            else:
                videos.append(path)
        for path in sorted(videos, key=_natural_key):
            yield from _sources_of_video(path, options)
        if pictures:
            yield from _sources_of_pictures(here, sorted(pictures, key=_natural_key), options)


def _pass_over(path: Path) -> str:
    """Why a file of a folder is no footage; empty where it is."""
    if path.name.startswith("."):
        return HIDDEN
    if path.suffix.lower() not in SUFFIXES | VIDEO_SUFFIXES:
        return OTHER_FILE
    if _is_odd(str(path)):
        return ODD_NAME
    try:
        return "" if path.is_file() else UNREADABLE  # a link to nothing, a pipe
    except OSError:  # its folder may be listed and not entered
        return UNREADABLE


def _is_odd(name: str) -> bool:
    """Whether no gallery can keep a name: it is no UTF-8, or has control characters."""
    return any(ord(letter) < 32 or ord(letter) == 127 or 0xD800 <= ord(letter) < 0xE000 for letter in name)


def _spell(place: object) -> str:
    """A name as every terminal can show it."""
    return str(place).encode(errors="backslashreplace").decode()


def _count_files(folder: Path) -> int:
    return sum(len(names) for _, _, names in os.walk(folder))


def _sources_of_file(path: Path, options: SourceOptions) -> Iterable[Source]:
    if path.suffix.lower() not in SUFFIXES:
        return _sources_of_video(path, options)
    if options.kind == "frames":
        return _sources_of_pictures(path.parent, [path], options)
    facts = read_said(path, options, is_picture=True)
    time = decide_time(path, facts, options, read_exif_time)
    picture = LoosePicture(path, str(path), facts.camera.camera, options.modality, time)
    return [_source_of("crops", path, facts, time, options, (picture,))]


def _sources_of_video(path: Path, options: SourceOptions) -> Iterator[Source]:
    """One a video stream: recorders put front and rear into one file."""
    facts = read_said(path, options)
    streams, seconds = read_header(path)
    first = _source_of("video", path, facts, decide_time(path, facts, options, read_creation_time), options)
    first = replace(first, seconds=max(0.0, seconds))
    if first.start_origin == "mtime" and first.start is not None:  # a recording is written last at its end
        first = replace(first, start=first.start - first.seconds)
    yield first
    for stream in range(1, streams):
        name, camera = f"{first.name} (video {stream + 1})", f"{first.camera}-{stream + 1}"
        cameras = (replace(facts.camera, camera=camera),)
        yield replace(first, name=name, camera=camera, cameras=cameras, stream=stream)


def _source_of(
    kind: Kind,
    path: Path,
    facts: Said,
    time: TimeFact,
    options: SourceOptions,
    pictures: tuple[LoosePicture, ...] = (),
) -> Source:
    camera, doubts = facts.camera, (*facts.camera_doubts, *time.doubts)
    begin = time.seconds, time.origin
    return Source(kind, str(path), path, camera.camera, *begin, options, pictures, (camera,), doubts, time.zone_written)


def _sources_of_pictures(folder: Path, pictures: Sequence[Path], options: SourceOptions) -> Iterator[Source]:
    """Crops, or the frames of each camera."""
    facts = [read_said(path, options, is_picture=True) for path in pictures]
    if (options.kind or tell_kind(pictures)) == "crops":
        yield _source_of_crops(folder, pictures, facts, options)
        return
    whole = read_said(folder, options, is_folder=True)
    cameras = sorted({each.camera for each in facts}, key=lambda fact: fact.camera)
    for camera in cameras:
        own = [(path, each) for path, each in zip(pictures, facts, strict=True) if each.camera == camera]
        loose = tuple(_loose(path, each, options) for path, each in own)
        first, first_said = own[0]
        start = next((picture.time for picture in loose if picture.stamp is not None), None)
        if start is None:  # a folder that is one recording
            first_said = replace(first_said, time=whole.time, day=first_said.day or whole.day)
            start = decide_time(first, first_said, options, read_exif_time)
        timed = (picture for picture in loose if picture.stamp is not None)
        others = [doubt for doubt in _time_doubts(timed) if doubt not in start.doubts]
        doubts = (*start.doubts, *_tell_doubts(others), *_doubt_stamps(loose, options))
        start = replace(start, doubts=doubts, zone_written=start.zone_written and _zones_written(loose))
        by_rate = are_by_rate([picture.stamp for picture in loose])
        seconds = len(loose) / options.frames_per_second if by_rate else 0.0
        yield replace(_source_of("frames", folder, first_said, start, options, loose), seconds=seconds)


def _doubt_stamps(pictures: Sequence[LoosePicture], options: SourceOptions) -> list[str]:
    """Why the times of frames after the first may be others."""
    stamps = [picture.stamp for picture in pictures]
    if len(stamps) > 1 and are_by_rate(stamps):
        own_times = "do not tell them apart" if options.start is None else "do not count beside --start"
        rate = f"times within it are by --frame-rate, {options.frames_per_second:g} frames a second"
        return [f"{rate}: names and EXIF {own_times}"]
    lacking = stamps.count(None)
    if len(stamps) > 1 and lacking:
        return [f"{lacking} of {len(stamps)} pictures have no time of their own, and take it from their neighbours"]
    return []


def _source_of_crops(folder: Path, pictures: Sequence[Path], facts: Sequence[Said], options: SourceOptions) -> Source:
    loose = tuple(_loose(path, each, options) for path, each in zip(pictures, facts, strict=True))
    cameras = tuple(sorted({each.camera for each in facts}, key=lambda fact: (fact.camera, fact.written, fact.site)))
    doubts = _tell_doubts([*(doubt for each in facts for doubt in each.camera_doubts), *_time_doubts(loose)])
    camera = _common_camera(cameras, name_folder(folder.resolve().name))
    start = _stated_start(options)
    return Source("crops", str(folder), folder, camera, *start, options, loose, cameras, doubts, _zones_written(loose))


def _loose(path: Path, facts: Said, options: SourceOptions) -> LoosePicture:
    return LoosePicture(path, str(path), facts.camera.camera, options.modality, _picture_time(path, facts, options))


def _picture_time(path: Path, facts: Said, options: SourceOptions) -> TimeFact | None:
    try:
        return decide_time(path, facts, options, read_exif_time)
    except DataError:  # it went away meanwhile; named when it is read
        return None


def _time_doubts(pictures: Iterable[LoosePicture]) -> list[str]:
    """Of every picture; those whose time is that of writing the file are counted by themselves."""
    times = [picture.time for picture in pictures if picture.time is not None and picture.time.origin != "mtime"]
    return [doubt for time in times for doubt in time.doubts]


def _zones_written(pictures: Iterable[LoosePicture]) -> bool:
    return all(picture.time.zone_written for picture in pictures if picture.time is not None)


def _tell_doubts(doubts: Iterable[str]) -> tuple[str, ...]:
    """The most frequent ones, each with the number of pictures."""
    counts = Counter(doubts)
    lines = [f"{doubt} ({count} pictures)" for doubt, count in counts.most_common(_MOST_DOUBTS)]
    rest = counts.total() - sum(count for _, count in counts.most_common(_MOST_DOUBTS))
    return (*lines, f"and {rest} more doubts") if rest else tuple(lines)


def _stated_start(options: SourceOptions) -> tuple[float | None, Origin | None]:
    return (None, None) if options.start is None else (options.start, "option")


def _common_camera(cameras: Sequence[CameraFact], otherwise: str) -> str:
    names = {fact.camera for fact in cameras}
    return next(iter(names)) if len(names) == 1 else clean_camera(otherwise)


def _doubt_shared_names(sources: Sequence[Source]) -> list[Source]:
    """With a doubt on each camera that is named at several sites, or from several written names: it may be two."""
    sites: dict[str, set[str]] = {}
    spellings: dict[str, set[str]] = {}
    for fact in (fact for source in sources for fact in source.cameras):
        if fact.origin in ("name", "folder"):
            sites.setdefault(fact.camera, set()).add(fact.site)
        spellings.setdefault(fact.camera, set()).add(fact.written)
    doubt_of = {
        camera: f"camera {camera} is found at {', '.join(map(repr, sorted(places)))} and taken as one; if it is "
        "several, say which with --camera or {site} in --path-pattern"
        for camera, places in sites.items()
        if len(places) > 1
    }
    doubt_of |= {
        camera: f"camera {camera} is written {', '.join(map(repr, sorted(names)))} and taken as one"
        for camera, names in spellings.items()
        if len(names) > 1
    }

    def doubts(source: Source) -> tuple[str, ...]:
        return tuple(
            doubt_of[camera] for camera in dict.fromkeys(fact.camera for fact in source.cameras) if camera in doubt_of
        )

    return [replace(source, doubts=(*source.doubts, *doubts(source))) for source in sources]


def _doubt_overlaps(sources: Sequence[Source], options: SourceOptions) -> list[Source]:
    """With a doubt on each recording that another one of its camera lies over; one start for several is refused."""
    recordings = [Recording(each.camera, each.start or 0.0, each.name, each.seconds) for each in sources]
    whole = [recording for recording, each in zip(recordings, sources, strict=True) if each.kind != "crops"]
    if options.start is not None:
        refuse_one_start(recording for recording, each in zip(recordings, sources, strict=True) if each.kind == "video")
    doubt_of = doubt_overlaps(whole)
    return [
        replace(each, doubts=(*each.doubts, doubt_of[recording])) if recording in doubt_of else each
        for recording, each in zip(recordings, sources, strict=True)
    ]


def _natural_key(path: Path) -> list[tuple[int, int | str]]:
    """Frame 9 before frame 10."""
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in re.split(r"(\d+)", path.name)]
