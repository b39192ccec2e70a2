"""A tiny generated clip of a static street, for the tests of video."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

HEIGHT, WIDTH, RATE = 120, 160, 10
COLOURS = ((20, 20, 160), (150, 30, 20))


def write_clip(path: Path, frames: list[np.ndarray], seconds: list[float] | None = None) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.bit_rate = 4_000_000
        stream.codec_context.time_base = Fraction(1, 1000)
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.time_base = Fraction(1, 1000)
            frame.pts = round(1000 * (seconds[number] if seconds else number / RATE))
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def street(frame: int, *, empty: bool = False) -> np.ndarray:
    """A static street that one person after the other walks through; the camera opens its iris for dark coats."""
    rng = np.random.default_rng(0)
    picture = rng.integers(90, 130, (HEIGHT // 8, WIDTH // 8, 3)).repeat(8, 0).repeat(8, 1).astype(float)
    walking = (20, 60, 0), (85, 125, 1)
    for first, last, who in walking:
        if first <= frame < last and not empty:
            middle = round(10 + (WIDTH - 20) * (frame - first) / (last - first))
            picture *= 1.1  # exposure follows
            picture[30:100, max(0, middle - 12) : middle + 12] = COLOURS[who]
            picture[20:32, max(0, middle - 5) : middle + 5] = (200, 160, 140)
    return np.clip(picture, 0, 255).astype(np.uint8)


def write_street(path: Path) -> Path:
    """Two people, one after the other."""
    return write_clip(path, [street(frame) for frame in range(145)])
