"""Detection and tracking through one source, and which tracklets are people walking.

Frames are read by one thread and looked at by others while the caller deals with those before: what decodes, what
detects and what follows keep each other waiting no longer than the slowest takes. The order is that of the frames.
"""

from collections import deque
from collections.abc import Generator
from contextlib import ExitStack, closing
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tapetum.data.threads import map_in_threads, read_ahead
from tapetum.footage.dark import TOO_DARK_TO_DETECT, measure_lightness
from tapetum.footage.detect import Detections, Detector, detect_at_once
from tapetum.footage.frames import Extent, Frame, read_source_frames
from tapetum.footage.options import ExtractOptions
from tapetum.footage.quality import is_too_dark
from tapetum.footage.report import FootageReport
from tapetum.footage.sources import Source
from tapetum.footage.track import Tracker, Tracklet

_STILL_SECONDS, _STILL_TRAVEL = 30.0, 0.05  # heights; people who stand and look at something swayed by 0.18
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

    def note(message: str) -> None:
        report.note(source.name, message)

    noted: deque[str] = deque()  # by the thread that reads; a report is filled by one thread

    def pass_on_notes() -> None:
        while noted:
            note(noted.popleft())

    detector.start()
    tracker = Tracker(options.tracker)
    before = -1.0
    frames = dark = undetectable = crowded = 0
    found, last = report.detections, 0.0

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
        stack.callback(pass_on_notes)  # last, when the threads have ended
        stack.enter_context(closing(ahead))
        stack.enter_context(closing(looked))
        for frame, detections, too_dark, cannot_detect in looked:
            frames += 1
            dark += too_dark
            undetectable += cannot_detect
            if len(detections) > options.max_people:
                crowded += 1
                best = np.sort(np.argsort(-detections.scores, kind="stable")[: options.max_people])
                detections = replace(detections, boxes=detections.boxes[best], scores=detections.scores[best])
            broken = frame.broken or before <= known_until < frame.seconds
            before = last = frame.seconds
            owners, tracklets = tracker.update(frame.number, frame.seconds, detections, broken=broken)
            report.frames += 1
            report.detections += len(detections)
            pass_on_notes()
            yield frame, detections, owners, tracklets
    report.dark_frames += dark
    if dark:
        note(
            f"{source.name}: {dark} of {frames} frames looked at are too dark to see anybody in; light the scene or "
            "use an infrared camera"
        )
    report.undetectable_frames += undetectable
    if undetectable:
        if 2 * undetectable > frames:
            report.undetectable.append(source.name)
        note(
            f"{source.name}: {undetectable} of {frames} frames looked at have a mean lightness below "
            f"{TOO_DARK_TO_DETECT:g} of 255, too dark to detect: detectors miss half of the people there and more, so "
            "that nobody was found does not say that nobody was there; light the scene or use an infrared camera"
        )
    if report.detections == found and last >= _LONG_SILENCE and 2 * undetectable <= frames:
        note(
            f"{source.name}: not a single box in {last / 60:.0f} minutes ({frames} frames) by {detector.name}; if "
            "people are to be seen there, look at it with `tapetum detector try` and choose another detector"
        )
    if crowded:
        note(
            f"{source.name}: {crowded} frames show more than {options.max_people} people; the others are left out, "
            "raise max_people"
        )
    nothing = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32))
    yield None, nothing, np.zeros(0, np.int64), tracker.finish()


def _weigh(frame: Frame) -> int:
    return frame.picture.nbytes


def is_walk(tracklet: Tracklet, source: Source, detector: Detector, options: ExtractOptions) -> bool:
    """Whether an ended tracklet is kept: long enough, and where the detector takes all that moves, it walked."""
    if len(tracklet.frames) < (options.min_detections if source.kind == "video" else 1):
        return False
    if source.kind == "video" and tracklet.seconds < options.min_seconds - 1e-6:
        return False
    return not detector.moving_only or tracklet.travel >= options.min_travel


def is_still(tracklet: Tracklet) -> bool:
    """Whether a tracklet never moved in all its time, as posters and reflections do, and few people."""
    return tracklet.seconds >= _STILL_SECONDS and tracklet.travel < _STILL_TRAVEL
