"""Searching for a client: question in, recorded answer out; recent searches are kept for repeating and exporting."""

import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import BinaryIO

from tapetum.core.pixels import encode_jpeg
from tapetum.core.sighting import Box
from tapetum.data.image_io import Picture, read_picture, resize
from tapetum.evaluation.calibration import Calibration
from tapetum.footage.doubt import doubt_picture
from tapetum.footage.quality import measure_quality
from tapetum.gallery.filters import MODALITIES, write_filter
from tapetum.gallery.store import Store
from tapetum.inference.model import Model
from tapetum.searching.crops import crop_path
from tapetum.searching.find import Findings, find
from tapetum.searching.query import Query, cut_person, query_of_pictures, query_of_rows, query_of_tracklet
from tapetum.searching.question import FindOptions, Question
from tapetum.service.audit import hash_thumbnail
from tapetum.service.errors import NotFoundError, ServiceError
from tapetum.service.limits import MOST_SEARCHES, SEARCH_HOURS
from tapetum.service.schemas import LookedAt, SearchOptions, SearchPictures, SearchRows
from tapetum.service.uploads import decode_pictures

MOST_KEPT = 256  # in all
KEPT_HEIGHT = 384  # pixels of a query picture


@dataclass(frozen=True)
class Search:
    """A search that was done.

    Attributes:
        who: asked.
        when: seconds since 1970-01-01 UTC.
        thumbnails: hash of each query picture; for the audit log.
        pictures: of each query the uploaded pictures, cut to the person and small, as JPEG; none where rows were the
            question.
        options: as asked for.
        settings: the same, as the search took them.
        findings: one a query.
    """

    id: str
    who: str
    when: float
    queries: tuple[Query, ...]
    thumbnails: tuple[str, ...]
    pictures: tuple[tuple[bytes, ...], ...]
    options: SearchOptions
    settings: FindOptions
    findings: tuple[Findings, ...]

    @property
    def filter(self) -> str:
        """Which rows were searched, in words."""
        return write_filter(self.options.where.to_filter())

    @property
    def rows(self) -> Iterator[str]:
        """Ids of the rows that it asked with or found."""
        for query in self.queries:
            yield from (row.sighting.id for row in query.rows)
        for findings in self.findings:
            yield from (row.sighting.id for answer in findings.found for row in answer.rows)


class Searches:
    """Searches in one gallery, and remembers the latest.

    Args:
        calibration: what a similarity of the model means; None where nobody calibrated it.
        hide: a text without places on the server's disk.
    """

    def __init__(self, store: Store, model: Model, calibration: Calibration | None, hide: Callable[[str], str]) -> None:
        self._store, self._model, self._calibration = store, model, calibration
        self._hide = hide
        self._kept: OrderedDict[str, Search] = OrderedDict()
        self._guard = threading.Lock()

    def by_pictures(self, who: str, request: SearchPictures, uploads: list[tuple[str, BinaryIO]]) -> Search:
        """Search for the people on pictures.

        Args:
            uploads: label and open file of each picture.
        Raises:
            TapetumError: no picture, a damaged one, a box outside; what `find` raises.
        """
        labels, pictures, boxes = zip(*_decode(uploads, request.boxes), strict=True)
        groups = [[place] for place in range(len(pictures))] if request.separate else [list(range(len(pictures)))]
        queries = tuple(
            query_of_pictures(
                self._model,
                [pictures[place] for place in group],
                [labels[place] for place in group],
                modality=None if request.modality is None else MODALITIES[request.modality],
                boxes=[boxes[place] for place in group],
            )
            for group in groups
        )
        people = [cut_person(*each) for each in zip(pictures, boxes, labels, strict=True)]
        kept = tuple(tuple(_shrink(people[place]) for place in group) for group in groups)
        return self._search(who, request, queries, tuple(map(hash_thumbnail, people)), kept)

    def by_rows(self, who: str, request: SearchRows) -> Search:
        """Search for the person on rows of the gallery or on a tracklet, or repeat a search.

        Raises:
            ServiceError: nothing, or more than one thing, to start from.
            TapetumError: what `find` raises.
        """
        if sum((bool(request.rows), request.tracklet is not None, request.search is not None)) != 1:
            raise ServiceError("search: name one of rows, tracklet and search")
        if request.search is not None:
            before = self.find(request.search, who)
            return self._search(who, request, before.queries, before.thumbnails, before.pictures)
        if request.tracklet is not None:
            query = query_of_tracklet(self._store, request.tracklet)
        else:
            query = query_of_rows(self._store, request.rows)
        paths = (crop_path(self._store, row) for row in query.rows)
        thumbnails = tuple(hash_thumbnail(read_picture(path)) for path in paths if path is not None)
        return self._search(who, request, (query,), thumbnails, ((),))

    def find(self, search_id: str, who: str) -> Search:
        """A search of the last hour; only their own are found.

        Raises:
            NotFoundError: there is none, or it was forgotten.
        """
        with self._guard:
            self._forget()
            search = self._kept.get(search_id)
        if search is None or search.who != who or not self._is_whole(search):
            raise NotFoundError(
                f"search {search_id[:40]!r}: unknown, more than an hour old, or with somebody who was deleted; "
                "search again"
            )
        return search

    def _is_whole(self, search: Search) -> bool:
        """Whether the gallery still has every row of a search, which is forgotten otherwise: others may erase too."""
        ids = set(search.rows)
        gone = ids - {row.sighting.id for row in self._store.fetch_rows(sorted(ids))}
        self.forget_rows(frozenset(gone))
        return not gone

    def forget_rows(self, ids: frozenset[str]) -> None:
        """Forget the searches that asked with rows that were deleted, or found them."""
        with self._guard:
            for search in list(self._kept.values()):
                if not ids.isdisjoint(search.rows):
                    del self._kept[search.id]

    def _search(
        self,
        who: str,
        request: SearchOptions,
        queries: tuple[Query, ...],
        thumbnails: tuple[str, ...],
        pictures: tuple[tuple[bytes, ...], ...],
    ) -> Search:
        how = request.model_dump(include=set(Question.model_fields))
        settings = FindOptions(filter=request.where.to_filter(), **how)
        findings = tuple(
            replace(each, verdict=self._hide(each.verdict))
            for each in find(self._store, queries, settings, self._calibration)
        )
        name = secrets.token_urlsafe(12)
        search = Search(name, who, time.time(), queries, thumbnails, pictures, request, settings, findings)
        with self._guard:
            self._kept[name] = search
            own = [kept.id for kept in self._kept.values() if kept.who == who]
            for old in own[:-MOST_SEARCHES]:
                del self._kept[old]
            self._forget()
        return search

    def _forget(self) -> None:
        oldest = time.time() - 3600 * SEARCH_HOURS
        while self._kept:
            first = next(iter(self._kept.values()))
            if len(self._kept) <= MOST_KEPT and first.when >= oldest:
                return
            self._kept.popitem(last=False)


def look_at(uploads: list[tuple[str, BinaryIO]], boxes: Sequence[list[int] | None]) -> list[LookedAt]:
    """What is wrong with pictures to search with.

    Args:
        uploads: label and open file of each.
        boxes: of the person in each, or None; none at all where each picture is the person.
    Raises:
        TapetumError: no picture, a damaged one, a box outside.
    """
    remarks = []
    for label, picture, box in _decode(uploads, boxes):
        crop = cut_person(picture, box, label)
        remark = measure_quality(crop).remark
        remarks.append(LookedAt(label=label, remark=remark, doubt=" and ".join(doubt_picture(crop))))
    return remarks


def _decode(
    uploads: list[tuple[str, BinaryIO]], boxes: Sequence[list[int] | None]
) -> list[tuple[str, Picture, Box | None]]:
    """Label, picture and box of each part of an upload."""
    if not uploads:
        raise ServiceError("pictures: none was sent; send at least one")
    pictures = decode_pictures(uploads)
    if boxes and len(boxes) != len(pictures):
        raise ServiceError(f"boxes: {len(boxes)} for {len(pictures)} pictures; give one, or null, for each")
    people = [None if box is None else (box[0], box[1], box[2], box[3]) for box in boxes or [None] * len(pictures)]
    return list(zip((label for label, _ in uploads), pictures, people, strict=True))


def _shrink(picture: Picture) -> bytes:
    factor = min(1.0, KEPT_HEIGHT / max(picture.shape[:2]))
    size = (max(1, round(picture.shape[0] * factor)), max(1, round(picture.shape[1] * factor)))
    return encode_jpeg(resize(picture, size), 90)
