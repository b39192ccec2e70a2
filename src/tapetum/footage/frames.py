"""The frames of a video or of a folder, one at a time, within limits that a stranger's file cannot pass."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import av
import numpy as np

from tapetum.core.errors import DataError
from tapetum.data.crop_video import count_frames
from tapetum.data.image_io import MAX_PIXELS, Picture, read_picture, without_option
from tapetum.footage.clock import SteadyClock, format_time
from tapetum.footage.facts import OPEN_OPTIONS, stamp_in_name
from tapetum.footage.sources import Source

Note = Callable[[str], None]  # takes a problem that does not end the source


@dataclass(frozen=True)
class Limits:
    """How much a stranger's file may ask for.

    Attributes:
        max_pixels: of a picture or frame; larger ones are refused before they are decoded.
        max_frames: of a source; what comes after is left out, and this is said.
        max_seconds: from its first to its last frame; as above.
        max_bad_packets: damaged parts of a video that are passed over before it is given up.
    """

    max_pixels: int = MAX_PIXELS
    max_frames: int = 20_000_000
    max_seconds: float = 14 * 86400.0
    max_bad_packets: int = 200


@dataclass(frozen=True)
class Frame:
    """One frame.

    Attributes:
        number: in its source, from 0; frames that were passed over count.
        time: seconds since 1970-01-01 UTC.
        seconds: since the source began; free of the rounding that large numbers bring, so that what is decided by it
            hangs on the footage alone.
        picture: (H, W, 3) uint8 RGB.
        broken: whether the camera's clock jumped backwards before it.
    """

    number: int
    time: float
    seconds: float
    picture: Picture
    broken: bool


def count_units(source: Source) -> int:
    """Frames or pictures of a source as far as it tells; 0 where it does not.

    Args:
        source: a source.
    """
    return count_frames(source.path) if source.kind == "video" else len(source.pictures)


def read_source_frames(
    source: Source, note: Note, *, limits: Limits | None = None, rate: float | None = None
) -> Iterator[Frame]:
    """The frames of a video or of a folder of frames, with times that never run backwards.

    A part that cannot be decoded is passed over; a picture that cannot be read likewise. Both are noted, and so are a
    clock that jumps backwards and a limit that was reached.

    Args:
        source: of kind "video" or "frames".
        note: called with each problem that does not end the source.
        limits: how much is read; None takes the defaults.
        rate: most frames a second that are given; None gives all.
    Raises:
        DataError: nothing of it can be read.
    """
    bounds = limits or Limits()
    clock = SteadyClock()
    stamped = _decode_video(source, bounds, note) if source.kind == "video" else _read_pictures(source, bounds, note)
    start = source.start or 0.0
    due = -np.inf
    broken = False
    for number, stamp, take in stamped:
        seconds, jumped = clock.read(stamp)
        time = start + seconds
        broken |= jumped
        if jumped and clock.jumps == 1:
            note(
                f"{source.name}: the clock jumps back by {clock.largest_jump:.3f} s at frame {number} "
                f"({format_time(time)}); from there on times go on from the frame before"
            )
        if number >= bounds.max_frames or seconds > bounds.max_seconds:
            reached = f"{bounds.max_frames} frames" if number >= bounds.max_frames else f"{bounds.max_seconds:g} s"
            note(
                f"{source.name}: longer than the limit of {reached}; the rest is left out, divide it or raise the limit"
            )
            break
        if rate is not None and seconds < due and not broken:
            continue
        try:
            picture = take()
        except (av.error.FFmpegError, ValueError) as error:
            note(f"{source.name}: frame {number} cannot be turned into a picture ({_reason(error)}); it is left out")
            continue
        if picture is None:
            continue
        due = seconds + 1 / rate - 1e-6 if rate else seconds
        yield Frame(number, time, seconds, picture, broken)
        broken = False
    if clock.jumps > 1:
        note(f"{source.name}: the clock jumped back {clock.jumps} times, at most by {clock.largest_jump:.3f} s")


Stamped = Iterator[tuple[int, float | None, Callable[[], Picture | None]]]  # number, stamp, decoded where it is wanted


def read_frame_at(source: Source, seconds: float, *, limits: Limits | None = None) -> Frame:
    """One frame of a video or of a folder of frames: the first at a time or after it.

    Args:
        source: of kind "video" or "frames".
        seconds: since the source began.
        limits: how much is read; None takes the defaults.
    Raises:
        DataError: nothing of it can be read, or it ends before.
    """
    bounds = limits or Limits()
    clock = SteadyClock()
    stamped = (
        _decode_video(source, bounds, _pass_over)
        if source.kind == "video"
        else _read_pictures(source, bounds, _pass_over)
    )
    last = 0.0
    for number, stamp, take in stamped:
        last, broken = clock.read(stamp)
        if number >= bounds.max_frames or last > bounds.max_seconds:
            break
        picture = take() if last >= seconds - 1e-6 else None
        if picture is not None:
            return Frame(number, (source.start or 0.0) + last, last, picture, broken)
    raise DataError(f"{source.name}: has no frame at {seconds:g} s, its last is at {last:g} s; give an earlier time")


def _pass_over(problem: str) -> None:
    """Whoever wants one frame is not told what is wrong with others."""


def _decode_video(source: Source, limits: Limits, note: Note) -> Stamped:
    number, bad, origin = -1, 0, None
    try:
        with av.open(str(source.path), options=OPEN_OPTIONS, metadata_errors="replace") as container:
            if not container.streams.video:
                raise DataError(f"{source.name}: holds no video; give a video file")
            stream = container.streams.video[0]
            if stream.codec_context is None:
                raise DataError(f"{source.name}: its codec is unknown to this FFmpeg; convert it, e.g. to H.264 in MP4")
            _check_size(source, stream.codec_context.width * stream.codec_context.height, limits)
            stream.thread_type = "AUTO"
            for packet in container.demux(stream):
                try:
                    frames = packet.decode()
                except (av.error.FFmpegError, ValueError) as error:
                    bad += 1
                    if bad > limits.max_bad_packets:
                        raise DataError(
                            f"{source.name}: damaged in more than {limits.max_bad_packets} places"
                        ) from None
                    if bad == 1:
                        note(f"{source.name}: damaged after frame {number} ({_reason(error)}); the part is passed over")
                    continue
                for frame in frames:
                    number += 1
                    _check_size(source, frame.width * frame.height, limits)
                    stamp = frame.time
                    if stamp is not None:
                        origin = stamp if origin is None else origin
                        stamp -= origin
                    yield number, stamp, partial(_convert, frame)
    except (av.error.FFmpegError, OSError, ValueError) as error:
        if number < 0:
            raise DataError(
                f"{source.name}: cannot be opened as a video ({_reason(error)}); give a whole file of a known format"
            ) from None
        note(f"{source.name}: damaged after frame {number} ({_reason(error)}); the rest is left out")
    if number < 0:
        raise DataError(f"{source.name}: no frame of it can be decoded; give a whole file of a known format")


def _convert(frame: "av.VideoFrame") -> Picture:
    picture = np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)
    turns = round(getattr(frame, "rotation", 0) / 90) % 4
    return np.ascontiguousarray(np.rot90(picture, turns)) if turns else picture


def _read_pictures(source: Source, limits: Limits, note: Note) -> Stamped:
    options = source.options
    stamps = [stamp_in_name(each.path, options) for each in source.pictures] if options.start is None else [None]
    named = None not in stamps
    readable = 0

    def read(place: int) -> Picture | None:
        nonlocal readable
        try:
            picture = read_picture(source.pictures[place].path, max_pixels=limits.max_pixels)
        except DataError as error:
            note(without_option(error))
            return None
        readable += 1
        return picture

    for number in range(len(source.pictures)):
        taken = stamps[number] if named else None
        stamp = number / options.frames_per_second if taken is None else taken - (source.start or 0.0)
        yield number, stamp, partial(read, number)
    if not readable:
        raise DataError(f"{source.name}: none of its {len(source.pictures)} pictures can be read; correct the folder")


def _check_size(source: Source, pixels: int, limits: Limits) -> None:
    if pixels > limits.max_pixels:
        raise DataError(
            f"{source.name}: frames of {pixels} pixels exceed the limit of {limits.max_pixels}; make it smaller"
        )


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
