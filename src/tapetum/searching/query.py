"""Whom to search for: one person on pictures from elsewhere, on rows of the gallery, or on both."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tapetum.core.arrays import Real, to_array
from tapetum.core.errors import DataError, GalleryError
from tapetum.core.sighting import Box
from tapetum.core.types import Modality
from tapetum.data.image_io import Picture, check_picture
from tapetum.footage.doubt import doubt_picture
from tapetum.footage.quality import judge_modality, measure_quality
from tapetum.gallery.filters import Compare
from tapetum.gallery.schema import Row
from tapetum.gallery.store import Store
from tapetum.inference.model import Model

SMALLEST_PX = 8  # side of a box in which somebody may be


@dataclass(frozen=True)
class Query:
    """One person searched for, on one or more pictures.

    Attributes:
        vectors: (n, D) with unit norm, one a picture.
        modalities: of the n pictures.
        labels: of the n pictures, for people.
        rows: of the gallery that the last of the pictures are; none for pictures from elsewhere.
        remarks: what spoils each picture, e.g. "too dark to match"; empty where nothing does.
        doubts: of each picture, what makes it doubtful that it shows one person; rows of the gallery have none.
        model: id of the model that made the vectors; where it is not said, whoever made the query answers for it.
    """

    vectors: Real
    modalities: tuple[Modality, ...]
    labels: tuple[str, ...]
    rows: tuple[Row, ...] = ()
    remarks: tuple[str, ...] = ()
    doubts: tuple[tuple[str, ...], ...] = ()
    model: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "vectors", to_array(self.vectors))  # a program may give a tensor
        object.__setattr__(self, "remarks", self.remarks or ("",) * len(self.labels))
        object.__setattr__(self, "doubts", self.doubts or ((),) * len(self.labels))


def query_of_pictures(
    model: Model,
    pictures: Sequence[Picture],
    labels: Sequence[str],
    *,
    modality: Modality | None = None,
    boxes: Sequence[Box | None] | None = None,
) -> Query:
    """One person on some pictures.

    Args:
        pictures: (h, w, 3) uint8 RGB each: crops of the person, or frames with a box.
        labels: for people and messages, one a picture.
        modality: of all; None tells it by each picture.
        boxes: the person in each picture, None where the picture is the person.
    Raises:
        DataError: no picture, a box outside its picture, or one on which there can be no person.
    """
    boxes = [None] * len(pictures) if boxes is None else boxes
    if not pictures or not len(pictures) == len(labels) == len(boxes):
        raise DataError(
            f"{len(pictures)} pictures, {len(labels)} labels, {len(boxes)} boxes; give one of each a picture"
        )
    crops = [cut_person(*each) for each in zip(pictures, boxes, labels, strict=True)]
    for crop, label in zip(crops, labels, strict=True):
        if not np.ptp(crop.reshape(-1, 3), axis=0).any():
            raise DataError(f"{label}: is of one colour throughout, there is no person; give another picture or box")
    modalities = tuple(judge_modality(picture)[0] if modality is None else modality for picture in pictures)
    return Query(
        model.vectors_of(model.resize(crops), [int(each) for each in modalities]),
        modalities,
        tuple(labels),
        (),
        tuple(measure_quality(crop).remark for crop in crops),
        tuple(doubt_picture(crop) for crop in crops),
        model.id,
    )


def cut_person(picture: Picture, box: Box | None, label: str) -> Picture:
    """The person of a picture.

    Args:
        picture: (h, w, 3) uint8 RGB.
        box: where the person is; None: the picture is the person.
        label: for messages.
    Raises:
        DataError: it is no such array, the box does not lie in it, or the whole picture has not the shape of a person.
    """
    check_picture(picture, label)
    high, wide = picture.shape[:2]
    if box is None:
        if wide > high:
            raise DataError(
                f"{label}: is {wide} x {high} pixels, wider than a person; name the person in it with a box "
                f"(left,top,width,height), or 0,0,{wide},{high} for all of it"
            )
        return picture
    left, top, width, height = box
    inside = min(left, top) >= 0 and left + width <= wide and top + height <= high
    if min(width, height) < SMALLEST_PX or not inside:
        raise DataError(
            f"{label}: box {left},{top},{width},{height} does not lie in its {wide} x {high} pixels; give "
            f"left,top,width,height, at least {SMALLEST_PX} pixels wide and high"
        )
    return np.ascontiguousarray(picture[top : top + height, left : left + width])


def query_of_rows(store: Store, ids: Sequence[str]) -> Query:
    """The person on some rows of the gallery; no model is needed.

    Raises:
        GalleryError: no id, or one that the gallery does not have.
    """
    entries = store.fetch(list(dict.fromkeys(ids)))
    missing = sorted(set(ids) - {row.sighting.id for row in entries.rows})
    if missing or not ids:
        why = f"has no row {missing[0]!r}; it may have been deleted" if missing else "no row was named"
        raise GalleryError(f"{store.where}: {why}; take an id from an answer, or search by a picture")
    sightings = [row.sighting for row in entries.rows]
    return Query(
        entries.matrix,
        tuple(each.modality for each in sightings),
        tuple(f"row {each.id}" for each in sightings),
        entries.rows,
        tuple(each.remark for each in sightings),
        model=store.info.id,
    )


def query_of_tracklet(store: Store, tracklet: str) -> Query:
    """The person of a tracklet of the gallery; no model is needed.

    Raises:
        GalleryError: the gallery does not have it.
    """
    rows = store.find(Compare("tracklet", "==", tracklet)) if tracklet else []
    if not rows:
        raise GalleryError(
            f"{store.where}: has no tracklet {tracklet!r}; take its name from an answer, or search by a picture"
        )
    return query_of_rows(store, [row.sighting.id for row in rows])


def join_queries(queries: Sequence[Query]) -> Query:
    """One query out of several that show one person; rows of the gallery come after other pictures.

    Raises:
        GalleryError: they are of two models, whose vectors cannot be compared.
    """
    models = sorted({query.model for query in queries} - {""})
    if len(models) > 1:
        raise GalleryError(f"search: {' and '.join(models)} are of two models; embed them with one")
    parts = sorted(queries, key=lambda query: bool(query.rows))
    return Query(
        np.concatenate([query.vectors for query in parts]),
        tuple(each for query in parts for each in query.modalities),
        tuple(each for query in parts for each in query.labels),
        tuple(each for query in parts for each in query.rows),
        tuple(each for query in parts for each in query.remarks),
        tuple(each for query in parts for each in query.doubts),
        models[0] if models else "",
    )
