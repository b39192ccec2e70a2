"""Sightings that a gallery has already: they are counted, or corrected where the operator states something else now."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tapetum.core.sighting import Sighting
from tapetum.footage.facts import SourceOptions
from tapetum.footage.sources import Source
from tapetum.gallery.store import Store
from tapetum.indexing.report import IndexReport

_SAME_MOMENT = 1e-3  # seconds


def drop_known(
    store: Store, folder: Path, sightings: Sequence[Sighting], report: IndexReport, source: Source, doubted: set[str]
) -> tuple[list[Sighting], frozenset[str]]:
    """The sightings of a source that a gallery does not have, or has otherwise than the operator states now.

    The others are counted, and their second crops go. Those that stay another camera's are a doubt, once a source.

    Args:
        folder: of the gallery's crops.
        source: whose sightings they are.
        doubted: names of sources of which that was said; is added to.
    Returns:
        The sightings to store, and the ids of those that the gallery has otherwise.
    """
    known = {row.sighting.id: row.sighting for row in store.fetch_rows([each.id for each in sightings])}
    fresh: list[Sighting] = []
    corrected = set[str]()
    for sighting in sightings:
        before = known.get(sighting.id)
        if before is None:
            known[sighting.id] = sighting
            fresh.append(sighting)
            continue
        now = correct(before, sighting, source.options)
        if now is not before and not (folder / before.crop).is_file():
            now = replace(now, crop=sighting.crop)
        elif before.crop != sighting.crop:  # the same picture, found with other settings
            (folder / sighting.crop).unlink(missing_ok=True)
        if now.source != sighting.source and now.camera != sighting.camera and source.name not in doubted:
            doubted.add(source.name)
            what = "holds the same pictures" if source.kind == "crops" else "is the same recording"
            report.footage.doubt(
                source.name,
                f"{what} as {before.source} by camera {before.camera} in this gallery; its rows stay there, unless "
                "--camera states another",
            )
        if now is before:
            report.known += 1
            report.copies += now.source != sighting.source
        else:
            fresh.append(now)
            corrected.add(now.id)
    return fresh, frozenset(corrected)


def correct(before: Sighting, now: Sighting, stated: SourceOptions) -> Sighting:
    """A sighting as a gallery has it, with the camera, start and modality that the operator states of it now.

    What is not stated stays as it was, also where names, metadata, a pattern or a zone say otherwise today: they hold
    for many files, and an indexing that runs every night must not undo what was corrected once.
    """
    camera = now.camera if stated.camera is not None else before.camera
    moved = stated.start is not None and abs(now.time - before.time) > _SAME_MOMENT
    modality = now.modality if stated.modality is not None else before.modality
    if not moved and (camera, modality) == (before.camera, before.modality):
        return before
    # of all rows of a recording alike, so that its walks stay whole
    tracklet = now.tracklet if moved or camera != before.camera else before.tracklet
    time = now.time if moved else before.time
    return replace(before, camera=camera, time=time, modality=modality, tracklet=tracklet)
