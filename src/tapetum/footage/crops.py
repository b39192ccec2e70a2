"""What every crop goes through: its box, its id, its file, and whether it may be kept."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from tapetum.core.atomic import flush, replacing
from tapetum.core.pixels import encode_jpeg
from tapetum.core.sighting import Box, Sighting
from tapetum.data.image_io import Picture
from tapetum.data.threads import Progress
from tapetum.footage.options import ExtractOptions
from tapetum.footage.origin import Origin
from tapetum.footage.report import FootageReport
from tapetum.footage.sources import Source

REPORT_EVERY = 20  # frames or pictures between two calls of a progress
# why a sighting with this content of its crop must not be kept, in a few words; empty where it may be
Refuse = Callable[[Sighting, bytes], str]


@dataclass(frozen=True)
class Extraction:
    """One source on its way to crops."""

    source: Source
    key: str  # names the folder of its crops and its list
    out: Path
    options: ExtractOptions
    report: FootageReport
    progress: Progress | None = None
    refuse: Refuse | None = None

    def write(self, sighting: Sighting, content: bytes) -> str:
        """Write a crop that may be kept, from any thread; why it may not, else empty."""
        refusal = self.refuse(sighting, content) if self.refuse else ""
        if not refusal:
            with replacing(self.out / sighting.crop, durable=False) as temporary:
                temporary.write_bytes(content)
                flush(temporary)  # the list of the source flushes all names at once
        return refusal

    def count(self, refusal: str, origin: Origin, *, doubtful: bool) -> None:
        """Count a crop that `write` wrote or refused."""
        if refusal:
            self.report.refused[refusal] += 1
        else:
            self.report.time_origins[origin] += 1
            self.report.doubtful_modality += doubtful

    def encode(self, crop: Picture) -> bytes:
        """A crop as JPEG, at most `max_crop_height` high."""
        height, width = crop.shape[:2]
        highest = self.options.max_crop_height
        if height > highest:
            target = (max(1, round(width * highest / height)), highest)
            crop = np.asarray(cv2.resize(crop, target, interpolation=cv2.INTER_AREA), np.uint8)
        return encode_jpeg(np.ascontiguousarray(crop), self.options.jpeg_quality)


def make_id(content: str, frame: int, box: Box) -> str:
    """A sighting's id: 24 hexadecimal digits that the footage alone decides.

    Args:
        content: names the source's content.
    """
    return hashlib.sha256(f"{content} {frame} {box}".encode()).hexdigest()[:24]


def cut_out(picture: Picture, box: Box) -> Picture:
    """The part of a picture that a box covers, as a view."""
    left, top, width, height = box
    return picture[top : top + height, left : left + width]


def widen_box(box: Box, margin: float, size: tuple[int, ...]) -> Box:
    """The box with its margin, inside a frame.

    Args:
        margin: added on each side, as a fraction of the box.
        size: (height, width) of the frame.
    """
    left, top, width, height = box
    across, down = round(margin * width), round(margin * height)
    first = (max(0, left - across), max(0, top - down))
    last = (min(size[1], left + width + across), min(size[0], top + height + down))
    return first[0], first[1], last[0] - first[0], last[1] - first[1]
