"""The frames of a video or of a folder, one at a time, within limits that a stranger's file cannot pass."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import chain
from pathlib import Path

import av
import numpy as np

from tapetum.core.errors import DataError
from tapetum.data.image_io import Picture, read_picture, without_option
from tapetum.data.video import count_frames
from tapetum.footage.decode import ASSUMED_RATE, Limits, Stamped, Take, VideoDecoder, reason_of
from tapetum.footage.sources import Source, are_by_rate
from tapetum.footage.steady_clock import LOOK_AHEAD, Kind, SteadyClock

Note = Callable[[str], None]  # takes a problem that does not end the source
_HELD_BYTES = 128 << 20  # of decoded frames held back to judge their stamps
_FRAME_BYTES = 1.5  # a pixel, as decoders store it


@dataclass(frozen=True)
class Frame:
    """One frame."""

    number: int  # in its source, from 0; frames that were passed over count
    time: float  # seconds since 1970-01-01 UTC
    # since the source began, negative where a folder's first time is late; free of the rounding that large numbers
    # bring, so that what is decided by it hangs on the footage alone
    seconds: float
    picture: Picture
    broken: bool  # whether the camera's clock jumped backwards before it
    # seconds between frames that are given, as source and rate state them; 0: nothing does
    stated_interval: float = 0.0


@dataclass
class Extent:
    """How far a video was read, so that a later run can tell whether it has grown; filled in at the end."""

    packets: int = 0  # whole ones, from its beginning
    digest: str = ""  # of these
    seconds: float = -1.0  # since the source began, of the last frame given out; -1 where none was
    complete: bool = False  # whether it was read to its end


def count_units(source: Source) -> int:
    """Frames or pictures of a source as far as it tells; 0 where it does not."""
    return count_frames(source.path, source.stream) if source.kind == "video" else len(source.pictures)


def read_source_frames(
    source: Source,
    note: Note,
    *,
    limits: Limits | None = None,
    rate: float | None = None,
    extent: Extent | None = None,
) -> Iterator[Frame]:
    """The frames of a video or of a folder of frames, with times that never run backwards.

    A part that cannot be decoded is passed over; a picture that cannot be read likewise. Both are noted, and so is
    whatever is wrong with stamps (see `SteadyClock`), a video that ends before its index does, and a limit that was
    reached.

    Args:
        source: of kind "video" or "frames".
        note: called with each problem that does not end the source.
        rate: most frames a second that are given; None gives all.
        extent: is filled in for a video.
    Raises:
        DataError: nothing of it can be read.
    """
    bounds = limits or Limits()
    frames = _TimedFrames(source, bounds, note)
    due = -np.inf
    broken = False
    try:
        for number, seconds, jumped, take in frames:
            broken |= jumped
            if number >= bounds.max_frames or frames.are_longer_than(bounds, seconds):
                _note_limit(source, number, frames.decoder, bounds, note)
                break
            if extent is not None:
                extent.seconds = seconds
            if rate is not None and seconds < due and not broken:
                continue
            try:
                picture = take()
            except (av.error.FFmpegError, ValueError) as error:
                note(
                    f"{source.name}: frame {number} cannot be turned into a picture ({reason_of(error)}); "
                    "it is left out"
                )
                continue
            if picture is None:
                continue
            due = seconds + 1 / rate - 1e-6 if rate else seconds
            interval = max(frames.stated_interval, 1 / rate if rate else 0.0)
            yield Frame(number, (source.start or 0.0) + seconds, seconds, picture, broken, interval)
            broken = False
    finally:
        for line in frames.lines():
            note(line)
    if extent is not None and frames.decoder is not None:
        extent.packets, extent.digest = max(0, frames.decoder.packets - 1), frames.decoder.digest
        extent.complete = frames.decoder.at_end


def read_frame_at(source: Source, seconds: float, *, limits: Limits | None = None) -> Frame:
    """One frame of a video or of a folder of frames: the first at a time or after it.

    Args:
        source: of kind "video" or "frames".
        seconds: since the source began.
    Raises:
        DataError: nothing of it can be read, or it ends before.
    """
    bounds = limits or Limits()
    frames = _TimedFrames(source, bounds, _pass_over)
    last = 0.0
    for number, last, broken, take in frames:
        if number >= bounds.max_frames or frames.are_longer_than(bounds, last):
            break
        picture = take() if last >= seconds - 1e-6 else None
        if picture is not None:
            return Frame(number, (source.start or 0.0) + last, last, picture, broken)
    raise DataError(f"{source.name}: has no frame at {seconds:g} s, its last is at {last:g} s; give an earlier time")


def _pass_over(problem: str) -> None:
    """Whoever wants one frame is not lines what is wrong with others."""


class _TimedFrames:
    """Number, seconds since the source began, whether the clock jumped, and the picture, of each frame of a source."""

    def __init__(self, source: Source, limits: Limits, note: Note) -> None:
        self._source, self._limits, self._note = source, limits, note
        self.decoder = VideoDecoder(source, limits) if source.kind == "video" else None
        self._clock: SteadyClock[tuple[int, Take]] = SteadyClock(photographs=True)
        self._readable = 0

    def __iter__(self) -> Iterator[tuple[int, float, bool, Take]]:
        if self.decoder is None:
            stream, origin = self._stamp_pictures(), 0.0
        else:
            frames = self.decoder.read()
            first = next(frames)  # now its rate and the size of its frames are known
            capacity = int(_HELD_BYTES / (_FRAME_BYTES * self.decoder.pixels))
            self._clock = SteadyClock(min(LOOK_AHEAD, capacity))
            self._clock.expect(1 / (self.decoder.rate or ASSUMED_RATE))
            stream, origin = chain([first], frames), None
        for time, jumped, (number, take) in self._clock.follow(stream):
            if origin is None:
                origin = time
            yield number, time - origin, jumped, take
        if self.decoder is None and not self._readable:
            count = len(self._source.pictures)
            raise DataError(f"{self._source.name}: none of its {count} pictures can be read; correct the folder")

    def are_longer_than(self, limits: Limits, seconds: float) -> bool:
        """Whether a frame at this time is beyond the limit; photographs are limited by their number alone."""
        return self.decoder is not None and seconds > limits.max_seconds

    @property
    def stated_interval(self) -> float:
        """Seconds between frames by a video's header, or by the stamps or rate of a folder; 0 where none says so."""
        if self.decoder is not None:
            return 1 / self.decoder.rate if self.decoder.rate else 0.0
        return self._pictures_interval

    @cached_property
    def _pictures_interval(self) -> float:
        stamps = [picture.stamp for picture in self._source.pictures]
        if are_by_rate(stamps):
            return 1 / self._source.options.frames_per_second
        known = np.sort([stamp for stamp in stamps if stamp is not None])
        return float(np.median(np.diff(known))) if len(known) > 1 else 0.0

    def _stamp_pictures(self) -> Stamped:
        source, rate = self._source, self._source.options.frames_per_second
        stamps = [picture.stamp for picture in source.pictures]
        by_rate, known = (
            are_by_rate(stamps),
            next((place for place, stamp in enumerate(stamps) if stamp is not None), 0),
        )
        for number, (stamp, picture) in enumerate(zip(stamps, source.pictures, strict=True)):
            if by_rate:
                seconds: float | None = (number - known) / rate
            else:
                seconds = None if stamp is None else stamp - (source.start or 0.0)
            yield seconds, (number, partial(self._read_picture, picture.path))

    def _read_picture(self, path: Path) -> Picture | None:
        try:
            picture = read_picture(path, max_pixels=self._limits.max_pixels)
        except DataError as error:
            self._note(without_option(error))
            return None
        self._readable += 1
        return picture

    def lines(self) -> list[str]:
        """What was wrong so far with stamps and file."""
        name, start, clock = self._source.name, self._source.start or 0.0, self._clock
        lines = clock.lines(name, start - (clock.first_time if self.decoder else 0.0))
        if self.decoder is None:
            return lines
        if clock.frames and not clock.has_stamps:
            rate = self.decoder.rate
            lines.append(
                f"{name}: has no time stamps; times are by the {rate:g} frames a second that its header states"
                if rate
                else f"{name}: has no time stamps and states no rate; times are by an ASSUMED rate of {ASSUMED_RATE:g} "
                "frames a second and may run too fast or too slow; put it into a container with its true rate"
            )
        elsewhere = clock.anomalies[Kind.OUTLIER].count + clock.anomalies[Kind.JUMP].count
        return lines + self.decoder.lines(sound_clock=not elsewhere)


def _note_limit(source: Source, number: int, decoder: VideoDecoder | None, limits: Limits, note: Note) -> None:
    limit = f"{limits.max_frames} frames" if number >= limits.max_frames else f"{limits.max_seconds:g} s"
    total = len(source.pictures) if decoder is None else decoder.stated_frames
    rest = f"the last {total - number} of its {total} frames are" if total > number else "the rest is"
    note(f"{source.name}: longer than the limit of {limit}; {rest} left out, divide it or raise the limit")
