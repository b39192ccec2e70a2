"""Loose crops, taken as they are: measured, named by their content, copied."""

import hashlib
import os
from collections.abc import Generator
from typing import NamedTuple

from tapetum.core.errors import DataError
from tapetum.core.sighting import Sighting
from tapetum.data.image_io import read_picture, without_option
from tapetum.data.threads import map_in_threads
from tapetum.footage.crops import REPORT_EVERY, Extraction, make_id
from tapetum.footage.facts import decide_picture_time
from tapetum.footage.lists import CROPS
from tapetum.footage.origin import Origin
from tapetum.footage.quality import judge_modality, measure_quality
from tapetum.footage.sources import LoosePicture

_KEPT_AS_THEY_ARE = {b"\xff\xd8\xff": ".jpg", b"\x89PNG": ".png"}


class _Copy(NamedTuple):
    sighting: Sighting
    origin: Origin  # of its time
    refusal: str  # why it is not kept
    doubtful: bool  # whether its modality is


def extract_loose(extraction: Extraction) -> Generator[Sighting, None, None]:
    """The sightings of a source's loose crops; one that cannot be read is noted and passed over.

    Raises:
        DataError: none can be read.
    """
    source, report = extraction.source, extraction.report

    def copy(picture: LoosePicture) -> _Copy | str:
        try:
            return _copy_picture(picture, extraction)
        except DataError as error:
            return without_option(error)

    readable, total = 0, len(source.pictures)
    for number, made in enumerate(map_in_threads(copy, source.pictures, extraction.options.workers), 1):
        report.frames += 1
        if extraction.progress and (number % REPORT_EVERY == 0 or number == total):
            extraction.progress(number, total)
        if isinstance(made, str):
            report.note(source.name, made)
            report.files["failed"] += 1
            continue
        readable += 1
        extraction.count(made.refusal, made.origin, doubtful=made.doubtful)
        if not made.refusal:
            report.tracklets += 1
            yield made.sighting
    if not readable:
        raise DataError(f"{source.name}: none of its {total} pictures can be read; correct the folder")


def _copy_picture(picture: LoosePicture, extraction: Extraction) -> _Copy:
    source, options, key = extraction.source, extraction.options, extraction.key
    image = read_picture(picture.path, max_pixels=options.limits.max_pixels)
    height, width = image.shape[:2]
    box = (0, 0, width, height)
    quality = measure_quality(image, options=options.quality)
    time = picture.time or decide_picture_time(picture.path, source.options)
    modality = options.modality if options.modality is not None else picture.modality
    doubtful = False
    if modality is None:
        modality, doubtful = judge_modality(image)
    relative = os.path.relpath(picture.path, source.path) if source.path.is_dir() else picture.path.name
    name = make_id(f"{relative} {hashlib.sha256(image.tobytes()).hexdigest()}", 0, box)
    content = picture.path.read_bytes()
    suffix = next((suffix for mark, suffix in _KEPT_AS_THEY_ARE.items() if content.startswith(mark)), None)
    if suffix is None or height > options.max_crop_height:
        suffix, content = ".jpg", extraction.encode(image)
    sighting = Sighting(
        id=name,
        source=picture.name,
        camera=picture.camera,
        time=round(time.seconds, 6),
        frame=0,
        box=box,
        tracklet=f"{key}-{name[:12]}",
        modality=modality,
        light=quality.light,
        quality=quality.value,
        remark=quality.remark,
        crop=f"{CROPS}/{key}/{name}{suffix}",
    )
    return _Copy(sighting, time.origin, extraction.write(sighting, content), doubtful)
