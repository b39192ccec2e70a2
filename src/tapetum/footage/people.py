"""Crops of the people who walk through a video or a folder of frames, and how far it was read."""

import contextlib
import math
from collections.abc import Generator, Iterator

import numpy as np
from numpy.typing import NDArray

from tapetum.core.sighting import Sighting
from tapetum.footage.choose import CropCandidate, CropChooser
from tapetum.footage.crops import REPORT_EVERY, Extraction, cut_out, make_id, widen_box
from tapetum.footage.detect import Detections, Detector, FloatArray, compute_intersection
from tapetum.footage.fingerprint import fingerprint_source
from tapetum.footage.follow import follow_frames, is_still, is_walk
from tapetum.footage.frames import Extent, Frame, count_units
from tapetum.footage.lists import CROPS
from tapetum.footage.quality import judge_modality, measure_quality, touches_edge
from tapetum.footage.readings import Reading, Readings
from tapetum.footage.track import Tracklet


def extract_people(
    extraction: Extraction, detector: Detector, readings: Readings | None
) -> Generator[Sighting, None, None]:
    """The sightings of a video or of a folder of frames, as its tracklets end.

    Args:
        readings: of the same video by earlier runs, which this one goes on from; None for a folder.
    Raises:
        DataError: nothing of it can be read.
    """
    source, options, report = extraction.source, extraction.options, extraction.report
    reading, extent, total = Reading(source.name, fingerprint_source(source)), Extent(), count_units(source)
    size = source.path.stat().st_size
    if readings is not None:
        reading = _go_on(extraction, readings, reading)
    known_until = reading.seconds if readings is not None else -math.inf
    choosers: dict[int, CropChooser] = {}
    still = 0
    followed = follow_frames(source, detector, options, report, known_until=known_until, extent=extent)
    with contextlib.closing(followed):
        for frame, detections, owners, tracklets in followed:
            if frame is not None:
                if frame.seconds > known_until:
                    _offer_crops(frame, detections, owners, choosers, extraction)
                if extraction.progress and (frame.number + 1) % REPORT_EVERY == 0:
                    extraction.progress(min(frame.number + 1, total or frame.number + 1), total)
            for tracklet in tracklets:
                chooser = choosers.pop(tracklet.number, None)
                if chooser is None:  # of frames that an earlier run has read
                    continue
                if is_walk(tracklet, source, detector, options):
                    report.tracklets += 1
                    still += not detector.moving_only and is_still(tracklet)
                    yield from _write_crops(tracklet, chooser, reading.content, extraction)
                else:
                    report.dropped_tracklets += 1
                    report.dropped_detections += len(tracklet.frames)
    if still:
        report.note(
            source.name,
            f"{source.name}: {still} tracklets of half a minute and more never moved: somebody who sits, or a poster, "
            "a reflection, a doll; look at their crops, and delete what is nobody with `tapetum gallery delete`",
        )
    if readings is None:
        return
    if extent.complete:
        readings.write(reading.extended(extraction.key, extent))
    with contextlib.suppress(OSError):
        if source.path.stat().st_size != size:
            report.note(
                source.name,
                f"{source.name}: is still being written; it was read to {extent.seconds:.1f} s, the same command adds "
                "the rest later",
            )


def _go_on(extraction: Extraction, readings: Readings, new: Reading) -> Reading:
    """Where an earlier run read the beginning of the same video, its reading; else a new one, written down."""
    reading = readings.find()
    if reading is None:
        readings.write(new)
        return new
    if reading.packets:
        name = extraction.source.name
        extraction.report.note(
            name,
            f"{name}: an earlier run read it to {reading.seconds:.1f} s, when it was shorter or not finished; "
            "only what comes after is added",
        )
    return reading


def _offer_crops(
    frame: Frame,
    detections: Detections,
    owners: NDArray[np.int64],
    choosers: dict[int, CropChooser],
    extraction: Extraction,
) -> None:
    """Measure each detection and keep its crop where it is the best of its stretch of time."""
    if not len(detections):
        return
    options, size = extraction.options, frame.picture.shape[:2]
    modality = options.modality if options.modality is not None else extraction.source.options.modality
    doubtful = False
    hidden_shares = _hidden_shares(detections.boxes)
    for row, owner in enumerate(owners.tolist()):
        if owner < 0:
            continue
        tight = detections.pixels(row)
        box = widen_box(tight, options.margin, size)
        crop = cut_out(frame.picture, box)
        quality = measure_quality(
            crop, cut=touches_edge(tight, size), hidden_share=float(hidden_shares[row]), options=options.quality
        )
        chooser = choosers.setdefault(owner, CropChooser(options.crops_per_tracklet, options.every_seconds))
        if not chooser.wants(frame.seconds, quality.value):
            continue
        if modality is None:
            modality, doubtful = judge_modality(frame.picture)  # once a frame, and only where a crop is kept
        jpeg = extraction.encode(crop)
        chooser.add(CropCandidate(frame.number, frame.seconds, box, modality, quality, jpeg, doubtful))


def _hidden_shares(boxes: FloatArray) -> FloatArray:
    """(N,) largest share of each box that a nearer one covers; who stands lower in the frame is nearer."""
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    nearer = boxes[None, :, 3] > boxes[:, None, 3]
    return np.asarray(np.where(nearer, compute_intersection(boxes, boxes) / area[:, None], 0).max(1), np.float32)


def _write_crops(tracklet: Tracklet, chooser: CropChooser, content: str, extraction: Extraction) -> Iterator[Sighting]:
    source, key = extraction.source, extraction.key
    for candidate in chooser.choose(extraction.options.least_quality_share):
        sighting = Sighting(
            id=make_id(content, candidate.frame, candidate.box),
            source=source.name,
            camera=source.camera,
            time=round((source.start or 0.0) + candidate.seconds, 6),
            frame=candidate.frame,
            box=candidate.box,
            tracklet=f"{key}-{tracklet.number:06d}",
            modality=candidate.modality,
            light=candidate.quality.light,
            quality=candidate.quality.value,
            remark=candidate.quality.remark,
            crop=f"{CROPS}/{key}/{tracklet.number:06d}_{candidate.frame:08d}.jpg",
        )
        refusal = extraction.write(sighting, candidate.jpeg)
        extraction.count(refusal, source.start_origin or "mtime", doubtful=candidate.doubtful)
        if not refusal:
            yield sighting
