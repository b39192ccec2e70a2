"""Tiny videos with whatever is wrong with them, for the tests of video."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np


def write_video(
    path: Path,
    frames: Sequence[np.ndarray],
    *,
    stamps: Sequence[float] | None = None,
    rate: int = 10,
    codec: str = "libx264",
    aspect: Fraction | None = None,
    turn: float = 0.0,
    more: Sequence[Sequence[np.ndarray]] = (),
    container: dict[str, str] | None = None,
    form: str | None = None,
    options: dict[str, str] | None = None,
) -> Path:
    """Encode frames; their packets are then stamped as asked, which no encoder would do.

    Args:
        path: to be written.
        frames: (H, W, 3) uint8 RGB.
        stamps: of the frames, seconds; None takes the rate.
        rate: frames a second, as stated.
        codec: of FFmpeg.
        aspect: width over height of a pixel.
        turn: degrees anticlockwise that players turn the picture by.
        more: frames of further video streams.
        container: options of the container.
        form: container; None takes the ending.
        options: of the encoder.
    """
    with av.open(str(path), "w", format=form, options=container or {}) as file:
        streams = []
        for pictures in (frames, *more):
            stream = file.add_stream(codec, rate=rate, options=options or {})
            stream.height, stream.width = pictures[0].shape[:2]
            stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
            stream.codec_context.max_b_frames = 0
            stream.codec_context.gop_size = 10
            if aspect is not None:
                stream.codec_context.sample_aspect_ratio = aspect
            if turn:
                stream.set_display_rotation(turn)
            streams.append((stream, pictures))
        for number in range(max(len(pictures) for _, pictures in streams)):
            for stream, pictures in streams:
                if number < len(pictures):
                    _mux(file, stream, av.VideoFrame.from_ndarray(pictures[number], format="rgb24"), number, stamps)
        for stream, _ in streams:
            _mux(file, stream, None, -1, stamps)
    return path


def _mux(file: object, stream: object, frame: object, number: int, stamps: Sequence[float] | None) -> None:
    if frame is not None:
        frame.pts, frame.time_base = number, Fraction(1, int(stream.codec_context.rate))  # type: ignore[attr-defined]
    for packet in stream.encode(frame):  # type: ignore[attr-defined]
        if stamps is not None:
            place = round(packet.pts * float(packet.time_base) * float(stream.codec_context.rate))  # type: ignore[attr-defined]
            packet.time_base = Fraction(1, 1000)
            packet.pts, packet.dts = round(1000 * stamps[place]), 100 * place
        file.mux(packet)  # type: ignore[attr-defined]
