"""Footage to crops: detect, follow, choose, write; source by source, so that a stopped run goes on where it was.

Below the output folder:

- ``crops/KEY/...jpg``: the crops of one source. KEY names its content, camera, start and all settings.
- ``sources/KEY.jsonl``: one line a sighting, written when the source is finished; its presence says so.

Crops are written whole or not at all, before their sighting is given out. What a stopped run leaves are whole crops
without a list; the next run writes the same ones again under the same names and ids.
"""

import contextlib
import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from tapetum.core.atomic import make_folder, write_bytes
from tapetum.core.errors import DataError, RecipeError
from tapetum.core.pixels import encode_jpeg
from tapetum.core.sighting import Box, Sighting
from tapetum.core.types import Modality
from tapetum.data.crop_video import widen_box
from tapetum.data.image_io import Picture, read_picture, without_option
from tapetum.data.threads import Progress, map_in_threads
from tapetum.footage.choose import CropCandidate, CropChooser
from tapetum.footage.decode import Limits
from tapetum.footage.detect import Detections, Detector, compute_intersection
from tapetum.footage.facts import Origin, SourceOptions, picture_time
from tapetum.footage.fingerprint import fingerprint_names, fingerprint_source
from tapetum.footage.frames import Extent, Frame, count_units, read_source_frames
from tapetum.footage.lists import CROPS, list_path, read_list, reading_alone, writing_list
from tapetum.footage.quality import QualityOptions, is_too_dark, judge_modality, measure_quality, touches_edge
from tapetum.footage.readings import Reading, Readings
from tapetum.footage.report import FootageReport
from tapetum.footage.sources import LoosePicture, Source
from tapetum.footage.track import Tracker, TrackerOptions, Tracklet

_FIRST_OPTIONS = frozenset({"kind", "camera", "start", "utc_offset_hours", "frames_per_second", "modality"})
FORMAT = 1  # another number wherever the same footage gives other crops
_REPORT_EVERY = 20
_KEPT_AS_THEY_ARE = {b"\xff\xd8\xff": ".jpg", b"\x89PNG": ".png"}
Refuse = Callable[[Sighting], str]  # why a sighting must not be kept, in a few words; empty where it may be


@dataclass(frozen=True)
class ExtractOptions:
    """How footage becomes crops.

    Attributes:
        crops_per_tracklet: most crops kept of one tracklet.
        every_seconds: least time between two of them, about.
        margin: added on each side of a box, as a fraction of it.
        min_detections: tracklets with fewer are dropped.
        min_seconds: shorter tracklets are dropped; those of a folder of frames are kept from `min_detections` on.
        min_travel: with a detector that takes what moves for a person, a tracklet must move by this fraction of its
            own height.
        least_quality_share: crops of a tracklet below this share of its best one's quality are left out.
        max_people: boxes used of one frame, the best first.
        max_crop_height: pixels; higher crops are shrunk to that when they are stored.
        rate: most frames a second that are looked at; None looks at all.
        jpeg_quality: of stored crops.
        modality: of everything; None decides by each frame.
        workers: threads that decode loose pictures.
        tracker: when boxes belong together.
        quality: limits of the remarks.
        limits: how much a stranger's file may ask for.
    """

    crops_per_tracklet: int = 8
    every_seconds: float = 0.5
    margin: float = 0.05
    min_detections: int = 3
    min_seconds: float = 0.5
    min_travel: float = 0.5
    least_quality_share: float = 0.5
    max_people: int = 100
    max_crop_height: int = 1024
    rate: float | None = None
    jpeg_quality: int = 95
    modality: Modality | None = None
    workers: int = 2
    tracker: TrackerOptions = field(default_factory=TrackerOptions)
    quality: QualityOptions = field(default_factory=QualityOptions)
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        for name, holds, allowed in (
            ("crops_per_tracklet", self.crops_per_tracklet >= 1, "1 or more"),
            ("every_seconds", self.every_seconds > 0, "above 0"),
            ("margin", 0 <= self.margin <= 1, "in 0..1"),
            ("max_people", self.max_people >= 1, "1 or more"),
            ("max_crop_height", self.max_crop_height >= 16, "16 or more"),
            ("rate", self.rate is None or self.rate > 0, "above 0"),
            ("jpeg_quality", 1 <= self.jpeg_quality <= 100, "in 1..100"),
        ):
            if not holds:
                raise RecipeError(f"footage: {name} is {getattr(self, name)}; it must be {allowed}")


def extract_all(
    sources: Sequence[Source],
    out: Path,
    detector: Detector | None,
    *,
    options: ExtractOptions | None = None,
    report: FootageReport | None = None,
    progress: Progress | None = None,
) -> Iterator[Sighting]:
    """The sightings of many sources; one that cannot be read is noted and passed over.

    Args:
        sources: from `find_sources`.
        out: the folder, as for `extract_sightings`.
        detector: as for `extract_sightings`.
        options: settings; None takes the defaults.
        report: is added to.
        progress: called with (done, total) frames and pictures of all sources.
    Raises:
        OutputError: the folder cannot be written, or another run writes the same source.
    """
    told = report if report is not None else FootageReport()
    counts = [count_units(source) for source in sources] if progress else [0] * len(sources)
    total, before = sum(counts), 0
    for source, count in zip(sources, counts, strict=True):
        here = None if progress is None else _shifted(progress, before, total)
        yield from extract_sightings(source, out, detector, options=options, report=told, progress=here)
        before += count
        if progress:
            progress(before, total)


def extract_sightings(
    source: Source,
    out: Path,
    detector: Detector | None,
    *,
    options: ExtractOptions | None = None,
    report: FootageReport | None = None,
    progress: Progress | None = None,
    refuse: Refuse | None = None,
    before_end: Callable[[], None] | None = None,
) -> Generator[Sighting, None, None]:
    """Find the people of one source, write their crops, and give out their sightings as tracklets end.

    A source that was finished earlier with the same settings gives nothing; `read_sightings` has its list. The list is
    written when the last sighting has been taken. A crop lies on disk before its sighting is given out.

    Args:
        source: from `find_sources`.
        out: the folder below which crops are written; a gallery's folder.
        detector: finds people in frames; loose crops need none.
        options: settings; None takes the defaults.
        report: is added to; then a source of which nothing can be read is noted there.
        progress: called with (done, total) frames or pictures; total is 0 where the source does not tell.
        refuse: says why a sighting must not be kept: then neither its crop nor its line is written, and it is counted.
        before_end: called when the last sighting has been taken and before the list says that the source is finished;
            what it raises leaves the source unfinished.
    Raises:
        DataError: nothing of the source can be read, and there is no report to note it in.
        RecipeError: frames without a detector.
        OutputError: the folder cannot be written, or another run writes the same source.
    """
    settings = options or ExtractOptions()
    told = report if report is not None else FootageReport()
    counted = told.files.total()
    try:
        key, finished = _find_list(source, out, detector, settings)
        if source.kind != "crops":
            if detector is None:
                raise RecipeError(f"{source.name}: holds frames, and no detector is given; name one")
            told.detector = detector.name
        if finished:
            told.finished_before += 1
            told.files["finished"] += source.num_files
            return
        told.sources += 1
        make_folder(out / CROPS / key)
        with reading_alone(out, key, source):
            yield from _extract(source, out, key, detector, settings, told, progress, refuse, before_end)
        told.files["read"] += source.num_files - (told.files.total() - counted)
    except DataError as error:
        if report is None:
            raise
        told.failed += 1
        told.files["failed"] += source.num_files - (told.files.total() - counted)
        told.note(source.name, str(error))


def extract_part(
    source: Source,
    key: str,
    out: Path,
    *,
    options: ExtractOptions,
    report: FootageReport,
    progress: Progress | None = None,
    refuse: Refuse | None = None,
) -> Iterator[Sighting]:
    """The sightings of some of a source's loose crops, as `extract_sightings` gives them; `finish_parts` ends it.

    Args:
        source: with those pictures alone.
        key: `source_key` of the whole source.
        out: as for `extract_sightings`.
        report: is added to; a part of which nothing can be read is noted there.
        progress: called with (done, total) pictures.
        refuse: as for `extract_sightings`.
    Raises:
        OutputError: the folder cannot be written.
    """
    make_folder(out / CROPS / key)
    counted = report.files.total()
    try:
        for sighting in _copy_pictures(source, key, out, options, report, progress, refuse):
            _count_crop(sighting, report)
            yield sighting
        report.files["read"] += source.num_files - (report.files.total() - counted)
    except DataError as error:
        report.note(source.name, str(error))


def finish_parts(
    source: Source,
    key: str,
    out: Path,
    sightings: Iterable[Sighting],
    refused: Mapping[str, int],
    time_origins: Mapping[Origin, int],
) -> None:
    """Write the list of a source whose parts were read on their own: now it is finished.

    Args:
        source: whole.
        key: its `source_key`.
        out: as for `extract_sightings`.
        sightings: of all its parts, in their order.
        refused: why how many others were not kept.
        time_origins: what said when -> how many.
    Raises:
        OutputError: the folder cannot be written.
    """
    with writing_list(out, key, source, "", lambda: (refused, time_origins)) as add:
        for sighting in sightings:
            add(sighting)


def read_sightings(
    source: Source, out: Path, detector: Detector | None, options: ExtractOptions | None = None
) -> Iterator[Sighting]:
    """The sightings of a finished source, from its list; nothing where it is not finished.

    Args:
        source: as given to `extract_sightings`.
    Raises:
        DataError: the source is gone, or its list is damaged.
    """
    yield from read_list(list_path(out, _find_list(source, out, detector, options or ExtractOptions())[0]))


def is_finished(source: Source, out: Path, detector: Detector | None, options: ExtractOptions | None = None) -> bool:
    """Whether a run with the same settings has been through a source.

    Args:
        source: as given to `extract_sightings`.
    Raises:
        DataError: the source is gone.
    """
    return _find_list(source, out, detector, options or ExtractOptions())[1]


def source_key(source: Source, detector: Detector | None, options: ExtractOptions) -> str:
    """Names a source's content with everything that decides its crops; 20 hexadecimal digits.

    Args:
        detector: finds people in its frames.
    Raises:
        DataError: the source is gone.
    """
    return _key(source, fingerprint_source(source), detector, options)


def _key(source: Source, content: str, detector: Detector | None, options: ExtractOptions) -> str:
    deciding = {
        "format": FORMAT,
        "content": content,
        "camera": source.camera,
        "cameras": sorted({picture.camera for picture in source.pictures}),
        "start": source.start if source.start_origin != "mtime" else None,  # a copy is the same footage
        "source": _stated(source.options),
        "options": {**asdict(options), "workers": 0},
        "detector": "" if source.kind == "crops" or detector is None else detector.key,
    }
    return hashlib.sha256(json.dumps(deciding, sort_keys=True, default=str).encode()).hexdigest()[:20]


def _stated(options: SourceOptions) -> dict[str, object]:
    """The options that decide; one that is newer than the first galleries counts where it is used."""
    usual = asdict(SourceOptions())
    return {name: value for name, value in asdict(options).items() if name in _FIRST_OPTIONS or value != usual[name]}


def _find_list(source: Source, out: Path, detector: Detector | None, options: ExtractOptions) -> tuple[str, bool]:
    """The key of a source, and whether a list says that it is finished.

    Version 0.1.0 named pictures by name and size: a list of that kind counts while no picture was changed after it.
    """
    key = source_key(source, detector, options)
    if source.kind == "video" or list_path(out, key).is_file():
        return key, list_path(out, key).is_file()
    earlier = _key(source, fingerprint_names(source), detector, options)
    with contextlib.suppress(OSError):
        written = list_path(out, earlier).stat().st_mtime
        states = (picture.path.stat() for picture in source.pictures)
        if all(max(state.st_mtime, state.st_ctime) < written for state in states):
            return earlier, True
    return key, False


def _extract(
    source: Source,
    out: Path,
    key: str,
    detector: Detector | None,
    options: ExtractOptions,
    report: FootageReport,
    progress: Progress | None,
    refuse: Refuse | None,
    before_end: Callable[[], None] | None,
) -> Iterator[Sighting]:
    """Give out the sightings and write them down; the list appears when all is done."""
    crops_before, refused_before, origins_before = report.crops, report.refused.copy(), report.time_origins.copy()

    def counted() -> tuple[Counter[str], Counter[Origin]]:
        return report.refused - refused_before, report.time_origins - origins_before

    if source.kind == "crops" or detector is None:
        found = _copy_pictures(source, key, out, options, report, progress, refuse)
    else:
        found = _follow_people(source, key, out, detector, options, report, progress, refuse)
    with writing_list(out, key, source, report.detector, counted) as add:
        for sighting in found:
            add(sighting)
            _count_crop(sighting, report)
            yield sighting
        if before_end is not None:
            before_end()
    if report.crops == crops_before and not counted()[0]:
        report.without_person.append(source.name)


def _count_crop(sighting: Sighting, report: FootageReport) -> None:
    report.crops += 1
    report.remarks.update(filter(None, sighting.remark.split("; ")))


def _follow_people(
    source: Source,
    key: str,
    out: Path,
    detector: Detector,
    options: ExtractOptions,
    report: FootageReport,
    progress: Progress | None,
    refuse: Refuse | None,
) -> Iterator[Sighting]:
    """The sightings of a video or of a folder of frames, as its tracklets end."""
    total = count_units(source)
    content = fingerprint_source(source)
    choosers: dict[int, CropChooser] = {}
    doubtful_before = report.doubtful_modality
    with _going_on(source, content, key, out, detector, options, report) as (reading, extent):
        for frame, found, owners, ended in follow_frames(
            source, detector, options, report, known_until=reading.seconds, extent=extent
        ):
            if frame is not None:
                if frame.seconds > reading.seconds:
                    _offer_crops(frame, found, owners, choosers, source, options)
                if progress and (frame.number + 1) % _REPORT_EVERY == 0:
                    progress(min(frame.number + 1, total) if total else frame.number + 1, total)
            for tracklet in ended:
                chooser = choosers.pop(tracklet.number, None)
                if chooser is None:  # of frames that an earlier run has read
                    continue
                if not is_walk(tracklet, source, detector, options):
                    report.dropped_tracklets += 1
                    continue
                report.tracklets += 1
                yield from _write_crops(tracklet, chooser, source, reading.content, key, out, options, report, refuse)
    _note_doubts(source, report.doubtful_modality - doubtful_before, report)


def _note_doubts(source: Source, crops: int, report: FootageReport) -> None:
    if crops:
        report.note(
            source.name,
            f"{source.name}: the modality of {crops} crops is in doubt, grey under a single tint: purple is taken for "
            "infrared, another for visible; say --modality",
        )


@contextlib.contextmanager
def _going_on(
    source: Source,
    content: str,
    key: str,
    out: Path,
    detector: Detector,
    options: ExtractOptions,
    report: FootageReport,
) -> Iterator[tuple[Reading, Extent]]:
    """Go on where an earlier run ended that read the beginning of the same video; afterwards note how far this came."""
    extent = Extent()
    if source.kind != "video":
        yield Reading(source.name, content), extent
        return
    size = source.path.stat().st_size
    readings = Readings(out, source, _key(source, "", detector, options))
    reading = readings.find()
    if reading is None:
        reading = Reading(source.name, content)
        readings.write(reading)
    elif reading.packets:
        report.note(
            source.name,
            f"{source.name}: an earlier run read it to {reading.seconds:.1f} s, when it was shorter or not finished; "
            "only what comes after is added",
        )
    yield reading, extent
    if extent.complete:
        readings.write(reading.extended(key, extent))
    with contextlib.suppress(OSError):
        if source.path.stat().st_size != size:
            report.note(
                source.name,
                f"{source.name}: is still being written; it was read to {extent.seconds:.1f} s, the same command adds "
                "the rest later",
            )


def _write_crops(
    tracklet: Tracklet,
    chooser: CropChooser,
    source: Source,
    content: str,
    key: str,
    out: Path,
    options: ExtractOptions,
    report: FootageReport,
    refuse: Refuse | None,
) -> Iterator[Sighting]:
    """The crops of a walk that are kept, written, and their sightings."""
    for candidate in chooser.choose(options.least_quality_share):
        sighting = Sighting(
            id=_make_id(content, candidate.frame, candidate.box),
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
        refusal = refuse(sighting) if refuse else ""
        if refusal:
            report.refused[refusal] += 1
            continue
        write_bytes(out / sighting.crop, candidate.jpeg)
        report.time_origins[source.start_origin or "mtime"] += 1
        report.doubtful_modality += candidate.doubtful
        yield sighting


def follow_frames(
    source: Source,
    detector: Detector,
    options: ExtractOptions,
    report: FootageReport,
    *,
    known_until: float = -1.0,
    extent: Extent | None = None,
) -> Iterator[tuple[Frame | None, Detections, NDArray[np.int64], list[Tracklet]]]:
    """Detection and tracking through a source, a picture at a time.

    Args:
        source: of kind "video" or "frames".
        detector: finds people.
        report: is added to.
        known_until: seconds since the source began; whoever is followed there ends, and is followed anew.
        extent: as for `read_source_frames`.
    Returns:
        For each frame: the frame, its detections, the number of each one's tracklet (-1: none), and the tracklets that
        ended before it. At the end once without a frame, with everybody still followed.
    Raises:
        DataError: nothing of the source can be read, or the detector does not fit.
    """
    detector.start()
    tracker = Tracker(options.tracker)
    frames = read_source_frames(
        source,
        lambda message: report.note(source.name, message),
        limits=options.limits,
        rate=options.rate,
        extent=extent,
    )
    before = -1.0
    looked_at = dark = crowded = 0
    for frame in frames:
        looked_at += 1
        dark += is_too_dark(frame.picture, options.quality)
        found = detector.detect(frame.picture)
        if len(found) > options.max_people:
            crowded += 1
            best = np.sort(np.argsort(-found.scores, kind="stable")[: options.max_people])
            found = replace(found, boxes=found.boxes[best], scores=found.scores[best])
        broken = frame.broken or before <= known_until < frame.seconds
        before = frame.seconds
        owners, ended = tracker.update(frame.number, frame.seconds, found, broken=broken)
        report.frames += 1
        report.detections += len(found)
        yield frame, found, owners, ended
    report.dark_frames += dark
    if dark:
        report.note(
            source.name,
            f"{source.name}: {dark} of {looked_at} frames looked at are too dark to see anybody in; light the scene or "
            "use an infrared camera",
        )
    if crowded:
        report.note(
            source.name,
            f"{source.name}: {crowded} frames show more than {options.max_people} people; the others are left out, "
            "raise max_people",
        )
    nothing = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32))
    yield None, nothing, np.zeros(0, np.int64), tracker.finish()


def is_walk(tracklet: Tracklet, source: Source, detector: Detector, options: ExtractOptions) -> bool:
    """Whether a tracklet is kept: long enough, and where the detector takes all that moves for a person, it walked.

    Args:
        tracklet: ended.
        source: it was seen in.
        detector: that saw it.
    """
    if len(tracklet.frames) < (options.min_detections if source.kind == "video" else 1):
        return False
    if source.kind == "video" and tracklet.seconds < options.min_seconds - 1e-6:
        return False
    return not detector.moving_only or tracklet.travel >= options.min_travel


def _offer_crops(
    frame: Frame,
    found: Detections,
    owners: NDArray[np.int64],
    choosers: dict[int, CropChooser],
    source: Source,
    options: ExtractOptions,
) -> None:
    """Measure each detection and keep its crop where it is the best of its stretch of time."""
    if not len(found):
        return
    size = (frame.picture.shape[0], frame.picture.shape[1])
    modality = options.modality if options.modality is not None else source.options.modality
    doubtful = False
    hidden = _hidden_shares(found)
    for row, owner in enumerate(owners.tolist()):
        if owner < 0:
            continue
        left, top, right, bottom = np.rint(found.boxes[row]).astype(int).tolist()
        tight: Box = (left, top, right - left, bottom - top)
        box = widen_box(tight, options.margin, size)
        crop = frame.picture[box[1] : box[1] + box[3], box[0] : box[0] + box[2]]
        quality = measure_quality(
            crop, cut=touches_edge(tight, size), hidden_share=float(hidden[row]), options=options.quality
        )
        chooser = choosers.setdefault(owner, CropChooser(options.crops_per_tracklet, options.every_seconds))
        if not chooser.wants(frame.seconds, quality.value):
            continue
        if modality is None:
            modality, doubtful = judge_modality(frame.picture)  # once a frame, and only where a crop is kept
        stored = encode_jpeg(_shrink(crop, options.max_crop_height), options.jpeg_quality)
        chooser.add(CropCandidate(frame.number, frame.seconds, box, modality, quality, stored, doubtful))


def _hidden_shares(found: Detections) -> NDArray[np.float32]:
    """(N,) largest share of each box that a nearer one covers; who stands lower in the frame is nearer."""
    boxes = found.boxes
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    nearer = boxes[None, :, 3] > boxes[:, None, 3]
    share = np.where(nearer, compute_intersection(boxes, boxes) / area[:, None], 0)
    return np.asarray(share.max(1), np.float32)


def _shrink(crop: Picture, max_height: int) -> Picture:
    height, width = crop.shape[:2]
    if height <= max_height:
        return np.ascontiguousarray(crop)
    target = (max(1, round(width * max_height / height)), max_height)
    return np.asarray(cv2.resize(crop, target, interpolation=cv2.INTER_AREA), np.uint8)


def _copy_pictures(
    source: Source,
    key: str,
    out: Path,
    options: ExtractOptions,
    report: FootageReport,
    progress: Progress | None,
    refuse: Refuse | None,
) -> Iterator[Sighting]:
    """The sightings of loose crops; a picture that cannot be read is noted and passed over."""
    readable = doubts = 0

    def prepare(picture: LoosePicture) -> tuple[Sighting, Origin, str, bool] | str:
        try:
            return _copy_picture(picture, source, key, out, options, refuse)
        except DataError as error:
            return without_option(error)

    total = len(source.pictures)
    for number, made in enumerate(map_in_threads(prepare, source.pictures, options.workers)):
        report.frames += 1
        if progress and ((number + 1) % _REPORT_EVERY == 0 or number + 1 == total):
            progress(number + 1, total)
        if isinstance(made, str):
            report.note(source.name, made)
            report.files["failed"] += 1
            continue
        sighting, origin, refusal, doubtful = made
        readable += 1
        if refusal:
            report.refused[refusal] += 1
            continue
        report.tracklets += 1
        report.time_origins[origin] += 1
        report.doubtful_modality += doubtful
        doubts += doubtful
        yield sighting
    _note_doubts(source, doubts, report)
    if not readable:
        raise DataError(f"{source.name}: none of its {total} pictures can be read; correct the folder")


def _copy_picture(
    picture: LoosePicture, source: Source, key: str, out: Path, options: ExtractOptions, refuse: Refuse | None
) -> tuple[Sighting, Origin, str, bool]:
    """The sighting of a loose crop, where its time comes from, why it is refused, whether its modality is in doubt."""
    decoded = read_picture(picture.path, max_pixels=options.limits.max_pixels)
    height, width = decoded.shape[:2]
    box = (0, 0, width, height)
    quality = measure_quality(decoded, options=options.quality)
    time, origin = picture_time(picture.path, source.options)
    modality = options.modality if options.modality is not None else picture.modality
    doubtful = False
    if modality is None:
        modality, doubtful = judge_modality(decoded)
    relative = os.path.relpath(picture.path, source.path) if source.path.is_dir() else picture.path.name
    name = _make_id(f"{relative} {hashlib.sha256(decoded.tobytes()).hexdigest()}", 0, box)
    content = picture.path.read_bytes()
    suffix = next((suffix for mark, suffix in _KEPT_AS_THEY_ARE.items() if content.startswith(mark)), None)
    if suffix is None or height > options.max_crop_height:
        suffix, content = ".jpg", encode_jpeg(_shrink(decoded, options.max_crop_height), options.jpeg_quality)
    sighting = Sighting(
        id=name,
        source=picture.name,
        camera=picture.camera,
        time=round(time, 6),
        frame=0,
        box=box,
        tracklet=f"{key}-{name[:12]}",
        modality=modality,
        light=quality.light,
        quality=quality.value,
        remark=quality.remark,
        crop=f"{CROPS}/{key}/{name}{suffix}",
    )
    refusal = refuse(sighting) if refuse else ""
    if not refusal:
        write_bytes(out / sighting.crop, content)
    return sighting, origin, refusal, doubtful


def _make_id(content: str, frame: int, box: Box) -> str:
    return hashlib.sha256(f"{content} {frame} {box}".encode()).hexdigest()[:24]


def _shifted(progress: Progress, before: int, total: int) -> Callable[[int, int], None]:
    return lambda done, _: progress(before + done, total)
