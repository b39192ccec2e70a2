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
from tapetum.core.types import Modality
from tapetum.data.image_io import Picture, read_picture, resize
from tapetum.evaluation.calibration import Calibration
from tapetum.footage.doubt import doubt_picture
from tapetum.footage.quality import measure_quality
from tapetum.gallery.filters import write_filter
from tapetum.gallery.store import Store
from tapetum.inference.sessions import Model
from tapetum.searching.find import Findings, FindOptions, find
from tapetum.searching.query import Query, cut_person, query_of_pictures, query_of_rows, query_of_tracklet
from tapetum.service.audit import hash_thumbnail
from tapetum.service.crops import crop_path
from tapetum.service.errors import NotFoundError, ServiceError
from tapetum.service.schemas import LookedAt, SearchOptions, SearchPictures, SearchRows
from tapetum.service.uploads import decode_pictures

MOST_KEPT = 256  # in all
MOST_OF_ONE = 32  # of one user, so that nobody pushes out everybody's
KEPT_SECONDS = 3600.0
KEPT_HEIGHT = 384  # pixels of a query picture
MODALITIES = {modality.name.lower(): modality for modality in Modality}


@dataclass(frozen=True)
class Search:
    """A search that was done.

    Attributes:
        id: names it.
        who: asked.
        when: seconds since 1970-01-01 UTC.
        queries: who was searched for.
        thumbnails: hash of each query picture; for the audit log.
        pictures: of each query the uploaded pictures, cut to the person and small, as JPEG; none where rows were the
            question.
        options: as asked for.
        settings: the same, as the search took them.
        filter: in words.
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
    filter: str
    findings: tuple[Findings, ...]


class Searches:
    """Searches in one gallery, and remembers the latest.

    Args:
        model: its own.
        calibration: what a similarity of it means; None where nobody calibrated it.
        hide: a text without places on the server's disk.
    """

    def __init__(self, store: Store, model: Model, calibration: Calibration | None, hide: Callable[[str], str]) -> None:
        self._store, self._model, self._calibration = store, model, calibration
        self._hide = hide
        self._kept: OrderedDict[str, Search] = OrderedDict()
        self._guard = threading.Lock()

    def by_pictures(self, who: str, asked: SearchPictures, sent: list[tuple[str, BinaryIO]]) -> Search:
        """Search for the people on pictures.

        Args:
            asked: how.
            sent: label and open file of each picture.
        Raises:
            TapetumError: no picture, a damaged one, a box outside; what `find` raises.
        """
        pictures, boxes = _take(sent, asked.boxes)
        labels = [label for label, _ in sent]
        modality = None if asked.modality is None else MODALITIES[asked.modality]
        groups = [[place] for place in range(len(pictures))] if asked.separate else [list(range(len(pictures)))]
        queries = [
            query_of_pictures(
                self._model,
                [pictures[place] for place in group],
                [labels[place] for place in group],
                modality=modality,
                boxes=[boxes[place] for place in group],
            )
            for group in groups
        ]
        shown = [cut_person(*each) for each in zip(pictures, boxes, labels, strict=True)]
        thumbnails = tuple(hash_thumbnail(picture) for picture in shown)
        kept = tuple(tuple(_shrink(shown[place]) for place in group) for group in groups)
        return self._search(who, asked, tuple(queries), thumbnails, kept)

    def by_rows(self, who: str, asked: SearchRows) -> Search:
        """Search for the person on rows of the gallery, or repeat a search.

        Args:
            asked: how, and for whom.
        Raises:
            ServiceError: nothing, or more than one thing, to start from.
            TapetumError: what `find` raises.
        """
        if sum((bool(asked.rows), asked.tracklet is not None, asked.search is not None)) != 1:
            raise ServiceError("search: name one of rows, tracklet and search")
        if asked.search is not None:
            before = self.find(asked.search, who)
            return self._search(who, asked, before.queries, before.thumbnails, before.pictures)
        if asked.tracklet is not None:
            query = query_of_tracklet(self._store, asked.tracklet)
        else:
            query = query_of_rows(self._store, asked.rows)
        thumbnails = []
        for row in query.rows:
            path = crop_path(self._store, row)
            if path is not None:
                thumbnails.append(hash_thumbnail(read_picture(path)))
        return self._search(who, asked, (query,), tuple(thumbnails), ((),))

    def find(self, search_id: str, who: str) -> Search:
        """A search of the last hour.

        Args:
            search_id: its id.
            who: asks; only their own are found.
        Raises:
            NotFoundError: there is none, or it was forgotten.
        """
        with self._guard:
            self._forget()
            search = self._kept.get(search_id)
        if search is None or search.who != who:
            raise NotFoundError(
                f"search {search_id[:40]!r}: unknown, more than an hour old, or with somebody who was deleted; "
                "search again"
            )
        return search

    def forget_rows(self, ids: frozenset[str]) -> None:
        """Forget the searches that asked with some rows or found them.

        Args:
            ids: of rows that were deleted.
        """
        with self._guard:
            for search in list(self._kept.values()):
                if not ids.isdisjoint(_rows_of(search)):
                    del self._kept[search.id]

    def _search(
        self,
        who: str,
        asked: SearchOptions,
        queries: tuple[Query, ...],
        thumbnails: tuple[str, ...],
        pictures: tuple[tuple[bytes, ...], ...],
    ) -> Search:
        chosen = asked.where.to_filter()
        options = FindOptions(
            k=asked.k,
            filter=chosen,
            exact=asked.exact,
            group=asked.group,
            exclude_seconds=asked.exclude_seconds,
            rerank=asked.rerank,
            false_alarms=asked.false_alarms,
            prior=asked.prior,
        )
        found = find(self._store, queries, options, self._calibration)
        findings = tuple(replace(each, verdict=self._hide(each.verdict)) for each in found)
        now = time.time()
        search = Search(
            secrets.token_urlsafe(12),
            who,
            now,
            queries,
            thumbnails,
            pictures,
            asked,
            options,
            write_filter(chosen),
            findings,
        )
        with self._guard:
            self._kept[search.id] = search
            own = [kept.id for kept in self._kept.values() if kept.who == who]
            for old in own[:-MOST_OF_ONE]:
                del self._kept[old]
            self._forget()
        return search

    def _forget(self) -> None:
        oldest = time.time() - KEPT_SECONDS
        while self._kept:
            first = next(iter(self._kept.values()))
            if len(self._kept) <= MOST_KEPT and first.when >= oldest:
                return
            self._kept.popitem(last=False)


def look_at(sent: list[tuple[str, BinaryIO]], boxes: Sequence[list[int] | None]) -> list[LookedAt]:
    """What is wrong with pictures to search with.

    Args:
        sent: label and open file of each.
        boxes: of the person in each, or None; none at all where each picture is the person.
    Raises:
        TapetumError: no picture, a damaged one, a box outside.
    """
    pictures, persons = _take(sent, boxes)
    told = []
    for picture, person, (label, _) in zip(pictures, persons, sent, strict=True):
        crop = cut_person(picture, person, label)
        remark = measure_quality(crop).remark
        told.append(LookedAt(label=label, remark=remark, doubt=" and ".join(doubt_picture(crop))))
    return told


def _take(
    sent: list[tuple[str, BinaryIO]], boxes: Sequence[list[int] | None]
) -> tuple[list[Picture], list[Box | None]]:
    """The pictures of an upload, decoded, and the box of each."""
    if not sent:
        raise ServiceError("pictures: none was sent; send at least one")
    pictures = decode_pictures(sent)
    if boxes and len(boxes) != len(pictures):
        raise ServiceError(f"boxes: {len(boxes)} for {len(pictures)} pictures; give one, or null, for each")
    persons: list[Box | None] = [None if box is None else (box[0], box[1], box[2], box[3]) for box in boxes]
    return pictures, persons or [None] * len(pictures)


def _rows_of(search: Search) -> Iterator[str]:
    for query in search.queries:
        yield from (row.sighting.id for row in query.rows)
    for findings in search.findings:
        yield from (row.sighting.id for found in findings.found for row in (found.row, *found.rows))


def _shrink(picture: Picture) -> bytes:
    factor = min(1.0, KEPT_HEIGHT / max(picture.shape[:2]))
    size = (max(1, round(picture.shape[0] * factor)), max(1, round(picture.shape[1] * factor)))
    return encode_jpeg(resize(picture, size), 90)
