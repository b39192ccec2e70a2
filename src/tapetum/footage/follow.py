"""Detection and tracking through one source, and which tracklets are people walking.

Frames are read by one thread and looked at by others while the caller deals with those before: what decodes, what
detects and what follows keep each other waiting no longer than the slowest takes. The order is that of the frames.
"""

from collections import deque
from collections.abc import Generator
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tapetum.data.threads import map_in_threads, read_ahead
from tapetum.footage.dark import TOO_DARK_TO_DETECT, measure_lightness
from tapetum.footage.detect import Detections, Detector, detect_at_once
from tapetum.footage.frames import Extent, Frame, read_source_frames
from tapetum.footage.lists import is_mostly_dark
from tapetum.footage.options import ExtractOptions
from tapetum.footage.quality import is_too_dark
from tapetum.footage.report import FootageReport
from tapetum.footage.sources import Source
from tapetum.footage.track import FEW, Tracker, Tracklet

_STILL_SECONDS, _STILL_TRAVEL = 30.0, 0.05  # heights; people who stand and look at something swayed by 0.18
_ROUNDING = 1e-6  # seconds
_HALF_A_FRAME = 0.02  # seconds by which pictures of a rate lie beside its moments
_LONG_SILENCE = 600.0  # seconds without a single box after which the detector is doubted
_AHEAD = 8  # frames that wait to be looked at
_HELD_BYTES = 64 << 20  # of frames that wait to be looked at, and again for each thread that looks at one


def follow_frames(
    source: Source,
    detector: Detector,
    options: ExtractOptions,
    report: FootageReport,
    *,
    known_until: float = -1.0,
    extent: Extent | None = None,
) -> Generator[tuple[Frame | None, Detections, NDArray[np.int64], list[Tracklet]], None, None]:
    """Detection and tracking through a source, a picture at a time.

    Whoever leaves it before its end closes it: then its threads have ended.

    Args:
        source: of kind "video" or "frames".
        known_until: seconds since the source began; whoever is followed there ends, and is followed anew.
        extent: as for `read_source_frames`.
    Returns:
        For each frame: the frame, its detections, the number of each one's tracklet (-1: none), and the tracklets that
        ended before it. At the end once without a frame, with everybody still followed.
    Raises:
        DataError: nothing of the source can be read, or the detector does not fit.
    """

    noted: deque[str] = deque()  # by the thread that reads; a report is filled by one thread

    def pass_on_notes() -> None:
        while noted:
            report.note(source.name, noted.popleft())

    detector.start()
    tracker = Tracker(options.tracker)
    before = -1.0
    counts = _FrameCounts()

    def look(frame: Frame) -> tuple[Frame, Detections, bool, bool]:
        too_dark = is_too_dark(frame.picture, options.quality)
        cannot_detect = measure_lightness(frame.picture) < TOO_DARK_TO_DETECT
        return frame, detector.detect(frame.picture), too_dark, cannot_detect

    read = read_source_frames(source, noted.append, limits=options.limits, rate=options.rate, extent=extent)
    ahead = read_ahead(read, _AHEAD, weigh=_weigh, heaviest=_HELD_BYTES)
    at_once = detect_at_once(detector)

    def weigh_looked_at(frame: Frame) -> int:
        """A share of its bytes, so that as many as are looked at always have room."""
        return _weigh(frame) // at_once

    looked = map_in_threads(look, ahead, at_once, ahead=2, weigh=weigh_looked_at, heaviest=_HELD_BYTES)
    with ExitStack() as stack:
        # However it ends, the last first: when the threads have ended, their notes and then what was counted.
        stack.callback(_report_frames, counts, source.name, detector.name, options.max_people, report)
        stack.callback(pass_on_notes)
        stack.enter_context(closing(ahead))
        stack.enter_context(closing(looked))
        for frame, detections, too_dark, cannot_detect in looked:
            counts.frames += 1
            counts.dark += too_dark
            counts.undetectable += cannot_detect
            if len(detections) > options.max_people:
                counts.crowded += 1
                best = np.sort(np.argsort(-detections.scores, kind="stable")[: options.max_people])
                detections = replace(detections, boxes=detections.boxes[best], scores=detections.scores[best])
            broken = frame.broken or before <= known_until < frame.seconds
            before = counts.last = frame.seconds
            owners, tracklets = tracker.update(
                frame.number, frame.seconds, detections, broken=broken, stated_interval=frame.stated_interval
            )
            report.frames += 1
            report.detections += len(detections)
            counts.detections += len(detections)
            pass_on_notes()
            yield frame, detections, owners, tracklets
    nothing = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32))
    yield None, nothing, np.zeros(0, np.int64), tracker.finish()


@dataclass
class _FrameCounts:
    """What was seen of one source's frames so far."""

    frames: int = 0
    dark: int = 0
    undetectable: int = 0
    crowded: int = 0
    detections: int = 0
    last: float = 0.0  # seconds since the source began


def _report_frames(counts: _FrameCounts, name: str, detector: str, max_people: int, report: FootageReport) -> None:
    """What the frames were like, with a line for each thing that somebody should know."""
    report.dark_frames += counts.dark
    report.undetectable_frames += counts.undetectable
    frames, mostly_undetectable = counts.frames, is_mostly_dark(counts.undetectable, counts.frames)
    lines = []
    if counts.dark:
        lines.append(
            f"{counts.dark} of {frames} frames looked at are too dark to see anybody in; light the scene or use an "
            "infrared camera"
        )
    if counts.undetectable:
        if mostly_undetectable:
            report.undetectable.append(name)
        lines.append(
            f"{counts.undetectable} of {frames} frames looked at have a mean lightness below {TOO_DARK_TO_DETECT:g} of "
            "255, too dark to detect: detectors miss half of the people there and more, so that nobody was found does "
            "not say that nobody was there; light the scene or use an infrared camera"
        )
    if not counts.detections and counts.last >= _LONG_SILENCE and not mostly_undetectable:
        lines.append(
            f"not a single box in {counts.last / 60:.0f} minutes ({frames} frames) by {detector}; if people are to be "
            "seen there, look at it with `tapetum detector try` and choose another detector"
        )
    if counts.crowded:
        lines.append(
            f"{counts.crowded} frames show more than {max_people} people; the others are left out, raise max_people"
        )
    for line in lines:
        report.note(name, f"{name}: {line}")


def _weigh(frame: Frame) -> int:
    return frame.picture.nbytes


def is_walk(tracklet: Tracklet, source: Source, detector: Detector, options: ExtractOptions) -> bool:
    """Whether an ended tracklet is kept: long enough, and where the detector takes all that moves, it walked.

    Where few frames are looked at, as many detections as a second brings are enough, and each stands for the time in
    which nobody looked.
    """
    detections, seconds = (options.min_detections, options.min_seconds) if source.kind == "video" else (1, 0.0)
    if tracklet.interval > FEW + _HALF_A_FRAME:
        detections = min(detections, max(1, round(1 / tracklet.interval)))
        seconds -= tracklet.interval
    if len(tracklet.frames) < detections or tracklet.seconds < seconds - _ROUNDING:
        return False
    return not detector.moving_only or tracklet.travel >= options.min_travel


def is_still(tracklet: Tracklet) -> bool:
    """Whether a tracklet never moved in all its time, as posters and reflections do, and few people."""
    return tracklet.seconds >= _STILL_SECONDS and tracklet.travel < _STILL_TRAVEL
