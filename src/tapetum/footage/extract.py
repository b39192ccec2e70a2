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
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from tapetum.core.atomic import make_folder
from tapetum.core.errors import DataError, RecipeError
from tapetum.core.sighting import Sighting
from tapetum.data.threads import Progress
from tapetum.footage.crops import Extraction, Refuse
from tapetum.footage.detect import Detector
from tapetum.footage.facts import SourceOptions
from tapetum.footage.fingerprint import fingerprint_names, fingerprint_source
from tapetum.footage.frames import count_units
from tapetum.footage.lists import CROPS, ListCounts, list_path, read_list, read_listed_at, reading_alone, writing_list
from tapetum.footage.loose import extract_loose
from tapetum.footage.options import ExtractOptions
from tapetum.footage.people import extract_people
from tapetum.footage.readings import Readings
from tapetum.footage.report import FootageReport, Problem
from tapetum.footage.sources import Source

_FIRST_OPTIONS = frozenset({"kind", "camera", "start", "utc_offset_hours", "frames_per_second", "modality"})
FORMAT = 1  # another number wherever the same footage gives other crops


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
        out: the folder, as for `extract_sightings`.
        progress: called with (done, total) frames and pictures of all sources.
    Raises:
        OutputError: the folder cannot be written, or another run writes the same source.
    """
    report = report or FootageReport()
    counts = [count_units(source) for source in sources] if progress else [0] * len(sources)
    total, before = sum(counts), 0

    def move(done: int, _: int = 0) -> None:
        if progress:
            progress(before + done, total)

    for source, count in zip(sources, counts, strict=True):
        yield from extract_sightings(source, out, detector, options=options, report=report, progress=move)
        before += count
        move(0)


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
        out: the folder below which crops are written; a gallery's folder.
        detector: finds people in frames; loose crops need none.
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
    settings, counts = options or ExtractOptions(), report or FootageReport()
    files_before = counts.files.total()
    try:
        key, finished = _find_list(source, out, detector, settings)
        if source.kind != "crops":
            if detector is None:
                raise RecipeError(f"{source.name}: holds frames, and no detector is given; name one")
            counts.detector = detector.name
        if finished:
            counts.finished_before += 1
            counts.files["finished"] += source.num_files
            listed = read_listed_at(list_path(out, key))
            if listed is not None and listed.is_dark:
                counts.undetectable.append(source.name)
                counts.note(
                    source.name,
                    f"{source.name}: {listed.undetectable} of {listed.frames} frames were too dark to detect anybody "
                    "when it was looked at; who was there is not known",
                )
            return
        counts.sources += 1
        make_folder(out / CROPS / key)
        with reading_alone(out, key, source):
            extraction = Extraction(source, key, out, settings, counts, progress, refuse)
            yield from _extract(extraction, detector, before_end)
        counts.files["read"] += source.num_files - (counts.files.total() - files_before)
    except DataError as error:
        if report is None:
            raise
        counts.failed += 1
        counts.files["failed"] += source.num_files - (counts.files.total() - files_before)
        counts.note(source.name, str(error))


def _extract(
    extraction: Extraction, detector: Detector | None, before_end: Callable[[], None] | None
) -> Iterator[Sighting]:
    """Give out the sightings and write them down; the list appears when all is done."""
    source, out, key, report = extraction.source, extraction.out, extraction.key, extraction.report
    crops_before, doubtful_before = report.crops, report.doubtful_modality
    refused_before, origins_before = report.refused.copy(), report.time_origins.copy()
    frames_before, undetectable_before = report.frames, report.undetectable_frames
    found_before, dropped_before = report.detections, report.dropped_detections

    def count() -> ListCounts:
        return ListCounts(
            report.refused - refused_before,
            report.time_origins - origins_before,
            report.frames - frames_before,
            report.undetectable_frames - undetectable_before,
        )

    if source.kind == "crops" or detector is None:
        sightings = extract_loose(extraction)
    else:
        settings = _key(source, "", detector, extraction.options)
        readings = Readings(out, source, settings) if source.kind == "video" else None
        sightings = extract_people(extraction, detector, readings)
    with contextlib.closing(sightings), writing_list(out, key, source, report.detector, count) as add:
        for sighting in sightings:
            add(sighting)
            report.crops += 1
            report.remarks.update(filter(None, sighting.remark.split("; ")))
            yield sighting
        doubtful = report.doubtful_modality - doubtful_before
        if doubtful:
            report.note(
                source.name,
                f"{source.name}: the modality of {doubtful} crops is in doubt, grey under a single tint: purple is "
                "taken for infrared, another for visible; say --modality",
            )
        if before_end is not None:
            before_end()
    if report.crops > crops_before or count().refused:
        return
    dropped = report.dropped_detections - dropped_before
    if dropped:
        report.kept_nobody.append(Problem(source.name, _say_dropped(dropped, detector, extraction.options)))
    elif report.detections == found_before:  # else all were found in what an earlier run had read
        report.without_person.append(source.name)


def _say_dropped(count: int, detector: Detector | None, options: ExtractOptions) -> str:
    """Why boxes of a source became no crop, and what to do."""
    remedy = "look at them with `tapetum detector try`" if options.rate is None else "raise --rate"
    if detector is not None and detector.moving_only:
        return f"{count} boxes of what moved, each seen too briefly or never walking; {remedy}"
    return f"{count} boxes of people, each seen too briefly to be followed; {remedy}"


def read_sightings(
    source: Source, out: Path, detector: Detector | None, options: ExtractOptions | None = None
) -> Iterator[Sighting]:
    """The sightings of a finished source, from its list; nothing where it is not finished.

    Raises:
        DataError: the source is gone, or its list is damaged.
    """
    yield from read_list(list_path(out, _find_list(source, out, detector, options or ExtractOptions())[0]))


def read_earlier_sightings(
    source: Source, out: Path, detector: Detector | None, options: ExtractOptions | None = None
) -> Iterator[Sighting]:
    """What earlier runs found in a video that has grown since, from their lists; its own list is not among them.

    Raises:
        DataError: the source is gone, or a list is damaged.
    """
    if source.kind != "video":
        return
    settings = options or ExtractOptions()
    key, readings = source_key(source, detector, settings), Readings(out, source, _key(source, "", detector, settings))
    for earlier in readings.keys_before(key):
        yield from read_list(list_path(out, earlier))


def is_finished(source: Source, out: Path, detector: Detector | None, options: ExtractOptions | None = None) -> bool:
    """Whether a run with the same settings has been through a source.

    Raises:
        DataError: the source is gone.
    """
    return _find_list(source, out, detector, options or ExtractOptions())[1]


def source_key(source: Source, detector: Detector | None, options: ExtractOptions) -> str:
    """Names a source's content with everything that decides its crops; 20 hexadecimal digits.

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
        "options": options.deciding(),
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
        list_time = list_path(out, earlier).stat().st_mtime
        states = (picture.path.stat() for picture in source.pictures)
        if all(max(state.st_mtime, state.st_ctime) < list_time for state in states):
            return earlier, True
    return key, False
