"""Videos as players show them: which streams are video, how large a pixel is, which way is up, how many frames."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from tapetum.data.image_io import Picture

# Only files, and only the containers that hold pictures themselves: a playlist would make FFmpeg open what it names.
OPEN_OPTIONS = {
    "protocol_whitelist": "file",
    "format_whitelist": "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,h264,hevc,flv,asf,dhav,ogg,"
    "ivf,mjpeg,mxf",
}
SQUARE = Fraction(1)
_PLAUSIBLE_ASPECT = Fraction(1, 8), Fraction(8)  # of a pixel; others are taken for damage
_NEARLY_SQUARE = 0.01  # no scaling for less
_NOT_WATCHED = ("attached_pic", "timed_thumbnails", "still_image")  # covers and previews


def video_streams(container: Any) -> list[Any]:
    """The streams of an opened file that a camera took; covers and previews are none, unless there is nothing else."""
    streams = list(container.streams.video)
    watched = [
        stream for stream in streams if not any(stream.disposition & _disposition(name) for name in _NOT_WATCHED)
    ]
    return watched or streams


def read_header(clip: Path) -> tuple[int, float]:
    """Streams of a file that a camera took, and its seconds as it states them, 0 where it does not.

    Both are 0 where it cannot be opened, which is named when it is read.
    """
    try:
        with av.open(str(clip), options=OPEN_OPTIONS, metadata_errors="replace") as container:
            return len(video_streams(container)), (container.duration or 0) / av.time_base
    except (av.error.FFmpegError, OSError, ValueError):
        return 0, 0.0


def pixel_aspect(stream: Any) -> Fraction:
    """Width over height of a stream's pixels; 1 where it states none, or one outside 1/8..8."""
    ratio = stream.sample_aspect_ratio
    if not ratio or not _PLAUSIBLE_ASPECT[0] <= ratio <= _PLAUSIBLE_ASPECT[1]:
        return SQUARE
    return Fraction(ratio)


def square_size(height: int, width: int, aspect: Fraction) -> tuple[int, int]:
    """(height, width) of a frame with square pixels: the shorter side of its pixels grows, so that nothing is lost."""
    if abs(float(aspect) - 1) < _NEARLY_SQUARE:
        return height, width
    return (round(height / aspect), width) if aspect < 1 else (height, round(width * aspect))


def convert_frame(frame: Any, reformatter: VideoReformatter, aspect: Fraction = SQUARE) -> Picture:
    """A decoded frame as a player shows it: square pixels, turned and mirrored as the file says.

    Args:
        reformatter: one for all frames of a stream; a frame's own would start threads anew for each.
    Returns:
        (H, W, 3) uint8 RGB.
    """
    height, width = square_size(frame.height, frame.width, aspect)
    if (height, width) == (frame.height, frame.width):
        scaled_frame = reformatter.reformat(frame, format="rgb24")
    else:
        scaled_frame = reformatter.reformat(frame, width, height, format="rgb24", interpolation="BICUBIC")
    picture = np.asarray(scaled_frame.to_ndarray(), np.uint8)
    matrix = next((side for side in frame.side_data if side.type.name == "DISPLAYMATRIX"), None)
    if matrix is None:
        return picture
    # Where a point is shown: x' = a x + c y, y' = b x + d y; real files turn by quarters and mirror.
    a, b, _, c, d = np.frombuffer(bytes(matrix), np.int32)[:5].tolist()
    if abs(b) + abs(c) > abs(a) + abs(d):
        picture, along, down = picture.transpose(1, 0, 2), c, b
    else:
        along, down = a, d
    return np.ascontiguousarray(picture[:: -1 if down < 0 else 1, :: -1 if along < 0 else 1])


def count_frames(clip: Path, stream: int = 0) -> int:
    """Frames as the container states them, or an estimate; 0 where it tells nothing.

    Args:
        stream: which of its video streams.
    """
    try:
        with av.open(str(clip), options=OPEN_OPTIONS, metadata_errors="replace") as container:
            video = video_streams(container)[stream]
            if video.frames:
                return int(video.frames)
            rate, length = video.average_rate, container.duration
            return int(float(rate) * length / av.time_base) if rate and length else 0
    except (av.error.FFmpegError, OSError, IndexError):
        return 0  # opening it again in earnest gives the error


def _disposition(name: str) -> Any:
    return getattr(av.stream.Disposition, name)
