"""The frames of one stream of a video as they are stored, and what was found to be wrong with the file meanwhile.

FFmpeg's own messages never reach the terminal: PyAV keeps them silent, and it must stay so, because they name no file,
and because turning them into Python calls can lock up its decoding threads. What they would say is found again here:
what a decoder refuses, what demuxer or decoder mark as damaged, and a stream that ends before its index does. A frame
whose errors the decoder conceals without a mark cannot be told from a sound one.
"""

import hashlib
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import Any

import av
from av.video.reformatter import VideoReformatter

from tapetum.core.errors import DataError
from tapetum.data.image_io import MAX_PIXELS, Picture
from tapetum.data.video import OPEN_OPTIONS, convert_frame, pixel_aspect, square_size, video_streams
from tapetum.footage.sources import Source

ASSUMED_RATE = 25.0  # frames a second where nothing states any; FFmpeg's own assumption
Take = Callable[[], Picture | None]  # decodes a frame where it is wanted
Stamped = Iterator[tuple[float | None, tuple[int, Take]]]  # stamp in seconds, number, picture

_RAW = frozenset({"h264", "hevc", "mjpeg"})  # demuxers that have no stamps, and make some up by a rate of their own
_MARK = Fraction(7919, 1000)  # a rate that no camera has: where it comes back, the stream states none
_RATES = 0.01, 1000.0  # frames a second; others are none
_LATE = 1.0  # seconds that a stream may be shorter than stated


@dataclass(frozen=True)
class Limits:
    """How much a stranger's file may ask for."""

    max_pixels: int = MAX_PIXELS  # of a picture or frame; larger ones are refused before they are decoded
    max_frames: int = 20_000_000  # of a source; what comes after is left out, and this is said
    max_seconds: float = 14 * 86400.0  # from a video's first to its last frame; as above
    max_bad_packets: int = 2_000  # damaged parts of a video, one behind the other, before its rest is given up


class VideoDecoder:
    """One pass over one stream."""

    def __init__(self, source: Source, limits: Limits) -> None:
        self._source, self._limits = source, limits
        self.rate: float | None = None  # frames a second, as the stream states it
        self.stated_frames = 0  # by its index; 0 where it has none
        self.pixels = 1  # of a frame, as stored
        self.packets = 0
        self.frames = 0
        self.at_end = False
        self._digest = self._digest_before = hashlib.sha256()
        self._stated_seconds: float | None = None
        self._begins, self._ends = math.inf, -math.inf  # seconds, of all packets
        self._refused = self._marked = 0
        self._in_a_row = 0  # refused ones since the last frame
        self._first_refused = self._first_marked = ""
        self._broke_off = ""

    @property
    def digest(self) -> str:
        """Of all packets but the newest, which may have been written in part."""
        return self._digest_before.hexdigest()

    def read(self) -> Stamped:
        """Stamp, number and picture of every frame that can be decoded.

        Raises:
            DataError: nothing can be decoded, or the limits are passed.
        """
        name, limits = self._source.name, self._limits
        try:
            with av.open(
                str(self._source.path), options=OPEN_OPTIONS | {"framerate": str(_MARK)}, metadata_errors="replace"
            ) as container:
                stream = self._open_stream(container)
                made_up = container.format.name in _RAW
                aspect, reformatter = pixel_aspect(stream), VideoReformatter()
                for packet in container.demux(stream):
                    for frame in self._decode(packet):
                        self.frames += 1
                        self.pixels = frame.height * frame.width
                        height, width = square_size(frame.height, frame.width, aspect)
                        _check_size(name, max(height * width, self.pixels), limits)
                        stamp = None if made_up else frame.time
                        yield stamp, (self.frames - 1, partial(convert_frame, frame, reformatter, aspect))
                self.at_end = True
        except (av.error.FFmpegError, OSError, ValueError) as error:
            if not self.frames:
                raise DataError(
                    f"{name}: cannot be opened as a video ({reason_of(error)}); give a whole file of a known format"
                ) from None
            self._broke_off = reason_of(error)
        if not self.frames:
            raise DataError(f"{name}: no frame of it can be decoded; give a whole file of a known format")

    def lines(self, *, sound_clock: bool) -> list[str]:
        """What was wrong with the file, a line a kind.

        Args:
            sound_clock: whether its stamps are such that its end can be told by them.
        """
        problems = []
        last = self.frames - 1
        if self._refused:
            problems.append(
                f"damaged in {self._refused} places that cannot be decoded, the first {self._first_refused}; "
                "they are passed over"
            )
        if self._marked:
            problems.append(
                f"{self._marked} packets or frames are marked as damaged, the first {self._first_marked}; "
                "what can be decoded of them is used"
            )
        if self._broke_off:
            problems.append(f"damaged after frame {last} ({self._broke_off}); the rest is left out")
        remedy = "it was cut short or is still being written; index it again when it is whole"
        by_rate = round((self._ends - self._begins) * self.rate) if self.rate and self._ends > self._begins else 0
        stated_seconds = self._stated_seconds
        if self.at_end and max(self.packets, by_rate) < self.stated_frames:
            problems.append(f"ends after frame {last} of {self.stated_frames}: {remedy}")
        elif self.at_end and sound_clock and stated_seconds is not None and self._ends < stated_seconds - _LATE:
            problems.append(
                f"ends after frame {last}, at {self._ends:.1f} s of the {stated_seconds:.1f} s that it states: {remedy}"
            )
        return [f"{self._source.name}: {line}" for line in problems]

    def _open_stream(self, container: Any) -> Any:
        name = self._source.name
        streams = video_streams(container)
        if not streams:
            raise DataError(f"{name}: holds no video; give a video file")
        if self._source.stream >= len(streams):
            raise DataError(f"{name}: has {len(streams)} video streams now; name the file again")
        stream = streams[self._source.stream]
        if stream.codec_context is None:
            raise DataError(f"{name}: its codec is unknown to this FFmpeg; convert it, e.g. to H.264 in MP4")
        _check_size(name, stream.codec_context.width * stream.codec_context.height, self._limits)
        stream.thread_type = "AUTO"
        raw = container.format.name in _RAW
        rate = stream.codec_context.framerate if raw else stream.average_rate
        if rate and rate != _MARK and _RATES[0] <= rate <= _RATES[1]:
            self.rate = float(rate)
        self.stated_frames = 0 if raw else int(stream.frames)
        self._stated_seconds = _read_duration(stream.metadata.get("DURATION", ""))
        return stream

    def _decode(self, packet: Any) -> list[Any]:
        if packet.size:
            self.packets += 1
            self._digest_before = self._digest.copy()
            self._digest.update(bytes(packet))
            if packet.pts is not None:
                begin = float(packet.pts * packet.time_base)
                self._begins = min(self._begins, begin)
                self._ends = max(self._ends, begin + float((packet.duration or 0) * packet.time_base))
        try:
            frames: list[Any] = packet.decode()
        except (av.error.FFmpegError, ValueError) as error:
            self._refused += 1
            self._in_a_row += 1
            if self._in_a_row > self._limits.max_bad_packets:
                raise ValueError(f"{self._in_a_row} places behind each other cannot be decoded") from None
            self._first_refused = self._first_refused or f"after frame {self.frames - 1} ({reason_of(error)})"
            return []
        if frames:
            self._in_a_row = 0
        num_damaged = packet.is_corrupt or sum(frame.is_corrupt for frame in frames)
        if num_damaged:
            self._marked += int(num_damaged)
            self._first_marked = self._first_marked or f"at frame {self.frames}"
        return frames


def reason_of(error: Exception) -> str:
    """Why something failed, in a few words."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _check_size(name: str, pixels: int, limits: Limits) -> None:
    if pixels > limits.max_pixels:
        raise DataError(f"{name}: frames of {pixels} pixels exceed the limit of {limits.max_pixels}; make it smaller")


def _read_duration(text: str) -> float | None:
    """Seconds of Matroska's ``00:00:17.000000000``."""
    match = re.fullmatch(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)", text)
    return 3600.0 * int(match[1]) + 60.0 * int(match[2]) + float(match[3]) if match else None
