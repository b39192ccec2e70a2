"""A detector tried on a few frames of a clip: a picture of its boxes to look at, and how long it took."""

import math
import time
from dataclasses import dataclass

import cv2
import numpy as np

from tapetum.core.errors import DataError, RecipeError
from tapetum.data.image_io import Picture
from tapetum.footage.dark import TOO_DARK_TO_DETECT, measure_lightness
from tapetum.footage.detect import Detections, Detector
from tapetum.footage.frames import count_units, read_source_frames
from tapetum.footage.report import FootageReport
from tapetum.footage.sources import Source

_TILE_HEIGHT = 360  # pixels of a frame on the sheet, at most
_GAP = 6
_COLOUR = (255, 210, 0)
_FRAMES_LOOKED_THROUGH = 20_000  # of a clip that does not tell its length
_MOST_TILES = 36


@dataclass(frozen=True)
class Trial:
    """What a detector found on some frames."""

    sheet: Picture  # the frames beside and below each other, with boxes and scores
    frames: tuple[int, ...]  # their numbers
    people: tuple[int, ...]  # found in each
    milliseconds: float  # of one frame, the middle of all
    undetectable: int  # frames of them below `TOO_DARK_TO_DETECT`

    def lines(self) -> list[str]:
        """For people."""
        found = ", ".join(f"{number}: {count}" for number, count in zip(self.frames, self.people, strict=True))
        dark = f"too dark to detect: {self.undetectable} frames; who was there is not known"
        return [f"people by frame: {found}", *[dark] * bool(self.undetectable), f"{self.milliseconds:.0f} ms a frame"]


def try_detector(source: Source, detector: Detector, count: int = 6) -> Trial:
    """Detect on frames spread over a source.

    Args:
        source: of kind "video" or "frames".
        count: of frames that are shown; one that takes what moves looks at those in between too.
    Raises:
        DataError: nothing of it can be read.
        RecipeError: no frames, or more than fit on a picture.
    """
    if not 1 <= count <= _MOST_TILES:
        raise RecipeError(f"detector try: --frames {count} cannot be shown; it must be in 1..{_MOST_TILES}")
    total = count_units(source) or _FRAMES_LOOKED_THROUGH
    wanted = set(np.linspace(0, total - 1, min(count, total)).round().astype(int).tolist())
    tiles, numbers, people, seconds = list[Picture](), list[int](), list[int](), list[float]()
    report, undetectable = FootageReport(), 0
    detector.start()
    for frame in read_source_frames(source, lambda problem: report.note(source.name, problem)):
        shown = frame.number in wanted
        if not shown and not detector.moving_only:
            continue
        begin = time.perf_counter()
        detections = detector.detect(frame.picture)
        seconds.append(time.perf_counter() - begin)
        if shown:
            tiles.append(draw_boxes(frame.picture, detections))
            numbers.append(frame.number)
            people.append(len(detections))
            undetectable += measure_lightness(frame.picture) < TOO_DARK_TO_DETECT
        if frame.number >= max(wanted):
            break
    if not tiles:
        raise DataError(f"{source.name}: has no frame that can be shown; give another clip")
    return Trial(_lay_out(tiles), tuple(numbers), tuple(people), 1000 * float(np.median(seconds)), undetectable)


def draw_boxes(picture: Picture, detections: Detections) -> Picture:
    """A copy of a frame, at most `_TILE_HEIGHT` high, with a frame and the score around everybody found."""
    scale = min(1.0, _TILE_HEIGHT / picture.shape[0])
    target = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
    tile = np.array(cv2.resize(picture, target, interpolation=cv2.INTER_AREA), np.uint8)
    for box, score in zip(detections.boxes, detections.scores, strict=True):
        left, top, right, bottom = np.rint(box * scale).astype(int).tolist()
        cv2.rectangle(tile, (left, top), (right, bottom), _COLOUR, 2)
        cv2.putText(tile, f"{score:.2f}", (left + 3, top + 14), cv2.FONT_HERSHEY_SIMPLEX, 0.45, _COLOUR, 1, cv2.LINE_AA)
    return tile


def _lay_out(tiles: list[Picture]) -> Picture:
    """All tiles on one picture, in reading order; their sizes may differ."""
    columns = math.ceil(math.sqrt(len(tiles)))
    rows = math.ceil(len(tiles) / columns)
    height, width = (max(tile.shape[side] for tile in tiles) + _GAP for side in (0, 1))
    sheet = np.zeros((rows * height - _GAP, columns * width - _GAP, 3), np.uint8)
    for place, tile in enumerate(tiles):
        top, left = place // columns * height, place % columns * width
        sheet[top : top + tile.shape[0], left : left + tile.shape[1]] = tile
    return sheet
