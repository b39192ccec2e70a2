"""Footage into a gallery: find the people, embed their crops, store the rows; what was acknowledged stays.

A run that was stopped or killed goes on with the same call. Sources whose list is written are passed over, a source
in between is read again, and what the gallery already holds is not embedded a second time. A list is written after the
rows of its source are stored. Who was erased does not come back; see `searching.retention`.

While a thread embeds a batch the caller's goes on reading; it stores the batch when the next one is full, when the
source ends, and when the run does, however that comes.
"""

import contextlib
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from tapetum.core.arrays import Real
from tapetum.core.errors import DataError, GalleryError, RecipeError
from tapetum.core.sighting import Sighting
from tapetum.data.image_io import read_picture
from tapetum.data.pictures import Pictures
from tapetum.data.threads import map_in_threads
from tapetum.footage.crops import Refuse
from tapetum.footage.detect import Detector
from tapetum.footage.extract import extract_sightings, is_finished, read_earlier_sightings, read_sightings
from tapetum.footage.facts import SourceOptions
from tapetum.footage.frames import count_units
from tapetum.footage.options import ExtractOptions
from tapetum.footage.sources import Source
from tapetum.gallery.opening import open_gallery
from tapetum.gallery.schema import LONGEST_TEXT, ModelInfo, Row, Run, check_text
from tapetum.gallery.store import Store
from tapetum.indexing.earlier import compare_with_earlier
from tapetum.indexing.known import drop_known
from tapetum.indexing.report import ERASED_BEFORE, IndexReport
from tapetum.inference.model import Model
from tapetum.runs.packaged import name_of
from tapetum.searching.retention import (
    TOO_OLD,
    apply_retention,
    check_days,
    digest_id,
    digest_picture,
    oldest_kept,
    read_erased,
    read_erased_pictures,
    read_keep_days,
    write_keep_days,
)
from tapetum.searching.strangers import has_strangers, write_strangers

Progress = Callable[[int, int], None]  # (done, total) frames and pictures
LOOKED_UP_AT_ONCE = 5_000  # ids of a finished source


@dataclass(frozen=True)
class IndexOptions:
    """How footage becomes rows."""

    extract: ExtractOptions = field(default_factory=ExtractOptions)
    batch: int = 64  # crops embedded and stored at once
    run: str = ""  # name of this run, so that all it brought can be found again
    keep_days: float | None = None  # from now on the gallery erases what is older; None leaves its rule as it is
    compact: bool = True  # put the gallery's files in order at the end, where something was added

    def __post_init__(self) -> None:
        check_text(self.run, LONGEST_TEXT, "indexing: run")
        if self.batch < 1:
            raise RecipeError(f"indexing: batch is {self.batch}; it must be 1 or more")
        if self.keep_days is not None:
            check_days(self.keep_days, "indexing")


class _StopAskedError(Exception):
    """Somebody asked the run to end."""


def index_sources(
    sources: Sequence[Source],
    store: Store,
    model: Model,
    detector: Detector | None,
    *,
    options: IndexOptions | None = None,
    report: IndexReport | None = None,
    progress: Progress | None = None,
    stop: Callable[[], bool] | None = None,
    retain: Callable[[], int] | None = None,
) -> IndexReport:
    """Read footage into a gallery.

    Args:
        detector: finds people in frames; loose crops need none.
        report: is filled; then it also tells what was done before an error.
        progress: called with (done, total) frames and pictures of the sources that are not finished.
        stop: asked now and then; True ends the run in good order.
        retain: erases what this gallery keeps no longer, behind the reading, and says how many rows; for who writes
            that down. None does it by `apply_retention`.
    Raises:
        GalleryError: another model's gallery, or one without a folder for crops.
        RecipeError: frames without a detector.
        OutputError: another run writes to this gallery, or the disk is full; every row counted so far is stored.
    """
    settings, report = options or IndexOptions(), report or IndexReport()
    report.gallery, report.run = store.where, settings.run
    report.model, report.runtime, report.precision = model.id, model.runtime, model.precision
    start = time.monotonic()
    store.expect(ModelInfo(model.id, model.dimension))
    try:
        with store.writing():
            if settings.keep_days is not None:
                write_keep_days(store, settings.keep_days)
            compare_with_earlier(sources, crops_folder(store), detector.name if detector else "", report.footage)
            with Indexing(store, model, detector, settings, report, progress, stop) as indexing:
                try:
                    indexing.read(sources)
                except _StopAskedError:
                    report.stopped = True
                    indexing.flush()
            report.dropped = len(apply_retention(store)) if retain is None else retain()
            if settings.compact and (report.added or report.corrected) and not report.stopped:
                report.recall = store.compact()
            changed = report.added or report.corrected
            if (changed and not report.dropped) or not has_strangers(store):  # an erasure measures by itself
                write_strangers(store)
        report.rows = store.count()
    finally:
        report.seconds = time.monotonic() - start
    return report


def crops_folder(store: Store) -> Path:
    """Where a gallery keeps its crops and lists.

    Raises:
        GalleryError: it has no such folder.
    """
    if store.folder is None:
        raise GalleryError(f"{store.where}: has no folder for crops; name one with --folder")
    return store.folder


def open_gallery_for(where: str | Path, model: Model, place: Path, folder: Path | None = None) -> Store:
    """Open the gallery of a model, or make it.

    Args:
        where: a folder or a Milvus address.
        place: where the model was opened; a new gallery remembers it.
        folder: for the crops of a Milvus gallery.
    Raises:
        GalleryError: it is another model's, of a newer version, damaged, or cannot be reached.
    """
    height, width = model.settings.size
    about = f"{model.settings.method}, pictures of {height} x {width}"
    return open_gallery(where, ModelInfo(model.id, model.dimension, about, name_of(place)), folder=folder)


def refusing(store: Store, stated: Callable[[], SourceOptions]) -> Refuse:
    """Says of a sighting why a gallery, as it is now, must not keep it: it was erased before, or is too old.

    A row that is there under a newer time is corrected first, and goes with all others that are too old.

    Args:
        stated: how the source that is being read is read.
    """
    folder, days = crops_folder(store), read_keep_days(store)
    erased, pictures = read_erased(folder), read_erased_pictures(folder)
    oldest = -math.inf if days is None else oldest_kept(days)

    def refuse(sighting: Sighting, content: bytes) -> str:
        if digest_id(sighting.id) in erased or (pictures and digest_picture(content) in pictures):
            return ERASED_BEFORE
        if sighting.time >= oldest or (stated().start is not None and store.fetch_rows([sighting.id])):
            return ""
        return TOO_OLD

    return refuse


@dataclass(frozen=True)
class _Embedded:
    """A batch that is ready to be stored, and what became of its other sightings."""

    rows: list[Row]
    vectors: Real  # (n, D)
    unreadable: list[tuple[str, str]]  # source and what was wrong
    gone: int  # crops that were erased meanwhile


class Indexing:
    """One run: sightings that wait to be embedded, and where to count; as a context it ends with nothing under way.

    Args:
        keep: takes what was embedded, rows and (n, D) vectors, and says how many it stored; None stores in the gallery.
    """

    def __init__(
        self,
        store: Store,
        model: Model,
        detector: Detector | None,
        options: IndexOptions,
        report: IndexReport,
        progress: Progress | None = None,
        stop: Callable[[], bool] | None = None,
        keep: Callable[[list[Row], Real], int] | None = None,
    ) -> None:
        self._gallery, self._model, self._detector = store, model, detector
        self._options, self._report = options, report
        self._progress, self._stop, self._keep = progress, stop, keep or store.upsert
        self._folder = crops_folder(store)
        self._run = Run(model.id, model.runtime, model.precision, options.run)
        self._refuse = refusing(store, lambda: SourceOptions() if self._source is None else self._source.options)
        self._doubted = set[str]()  # sources that were called copies
        self._source: Source | None = None  # that is being read
        self._waiting: list[Sighting] = []
        self._corrected: frozenset[str] = frozenset()  # ids of those under way that the gallery has otherwise
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="tapetum-embed")  # one: its libraries keep threads for it
        self._under_way: Future[_Embedded] | None = None
        self._before = self._total = 0  # frames and pictures

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._store()
            else:
                try:
                    self._store()
                except Exception as second:  # the first one is told
                    error.add_note(f"and what was under way could not be stored: {second}")
        finally:
            self._pool.shutdown()

    def read(self, sources: Sequence[Source]) -> None:
        """Go through all sources; the finished ones first, because they take no time."""
        finished = [self._is_finished(source) for source in sources]
        for source, done in zip(sources, finished, strict=True):
            if done:
                self._read_again(source)
        counts = [0 if done else count_units(source) for source, done in zip(sources, finished, strict=True)]
        self._total = sum(counts)
        for source, done, count in zip(sources, finished, counts, strict=True):
            if not done:
                self._read(source)
            self._before += count
            self._tick(0)
        self.flush()

    def read_earlier(self, source: Source) -> None:
        """Add what earlier runs found in a video that has grown since, where their rows are missing."""
        self._begin(source)
        try:
            sightings = read_earlier_sightings(source, self._folder, self._detector, self._options.extract)
            while some := list(islice(sightings, LOOKED_UP_AT_ONCE)):
                self._add(some)
        except DataError as error:
            self._report.footage.note(source.name, str(error))

    def flush(self) -> None:
        """Embed and store what waits."""
        self._pass_on()
        self._store()

    def _begin(self, source: Source) -> None:
        """Embed and store what waits of an earlier source, whose errors are not this one's."""
        self.flush()
        self._source = source

    def _read(self, source: Source) -> None:
        self._begin(source)
        sightings = extract_sightings(
            source,
            self._folder,
            self._detector,
            options=self._options.extract,
            report=self._report.footage,
            progress=self._tick,
            refuse=self._refuse,
            before_end=self.flush,
        )
        with contextlib.closing(sightings):
            for sighting in sightings:
                self._waiting.append(sighting)
                if len(self._waiting) >= self._options.batch:
                    self._pass_on()
                    self._end_if_asked()

    def _read_again(self, source: Source) -> None:
        """A finished source: its rows are in the gallery, unless its list was written by something else."""
        footage = self._report.footage
        footage.finished_before += 1
        footage.files["finished"] += source.num_files
        self._begin(source)
        try:
            sightings = read_sightings(source, self._folder, self._detector, self._options.extract)
            while some := list(islice(sightings, LOOKED_UP_AT_ONCE)):
                self._add(some)
        except DataError as error:
            footage.failed += 1
            footage.note(source.name, str(error))
        self._end_if_asked()

    def _pass_on(self) -> None:
        """Let what waits be embedded."""
        waiting, self._waiting = self._waiting, []
        self._add(waiting)

    def _add(self, sightings: Sequence[Sighting]) -> None:
        """Let those that the gallery does not have be embedded, and store what was embedded before."""
        self._store()
        if self._source is None:
            return
        fresh, self._corrected = drop_known(
            self._gallery, self._folder, sightings, self._report, self._source, self._doubted
        )
        for first in range(0, len(fresh), self._options.batch):
            self._store()
            self._under_way = self._pool.submit(self._embed, fresh[first : first + self._options.batch])

    def _store(self) -> None:
        """Wait for what is being embedded, and store it; a crop that cannot be read is noted."""
        if self._under_way is None:
            return
        wait((self._under_way,))  # an interruption leaves it under way
        done, self._under_way = self._under_way, None
        embedded, footage = done.result(), self._report.footage
        for source, problem in embedded.unreadable:
            footage.note(source, problem)
        if embedded.gone:
            footage.refused[ERASED_BEFORE] += embedded.gone
        if embedded.rows:
            stored = self._keep(embedded.rows, embedded.vectors)
            corrected = sum(row.sighting.id in self._corrected for row in embedded.rows)
            self._report.added += stored - corrected
            self._report.corrected += corrected

    def _embed(self, sightings: Sequence[Sighting]) -> _Embedded:
        def decode(sighting: Sighting) -> Pictures | str | None:
            path = self._folder / sighting.crop
            if not path.is_file():
                return None
            try:
                return self._model.resize([read_picture(path)])
            except DataError as error:
                return str(error)

        rows: list[Row] = []
        pictures: list[Pictures] = []
        unreadable: list[tuple[str, str]] = []
        gone = 0
        decoded = map_in_threads(decode, sightings, self._options.extract.workers)
        for sighting, picture in zip(sightings, decoded, strict=True):
            if isinstance(picture, str):
                unreadable.append((sighting.source, picture))
            elif picture is None:
                gone += 1
            else:
                rows.append(Row(sighting, self._run))
                pictures.append(picture)
        vectors = np.empty((0, self._model.dimension), np.float32)
        if rows:
            modalities = [int(row.sighting.modality) for row in rows]
            vectors = self._model.vectors_of(np.concatenate(pictures), modalities)
            told = (vectors != 0).any(axis=1)
            for place in np.flatnonzero(~told).tolist():
                sighting = rows[place].sighting
                problem = f"{self._folder / sighting.crop}: the model says nothing of it; it cannot be searched for"
                unreadable.append((sighting.source, problem))
            rows, vectors = [rows[place] for place in np.flatnonzero(told).tolist()], vectors[told]
        return _Embedded(rows, vectors, unreadable, gone)

    def _is_finished(self, source: Source) -> bool:
        try:
            return is_finished(source, self._folder, self._detector, self._options.extract)
        except DataError:  # it is gone; named when it is read
            return False

    def _tick(self, done: int, _: int = 0) -> None:
        if self._progress is not None:
            self._progress(self._before + done, self._total)
        self._end_if_asked()

    def _end_if_asked(self) -> None:
        if self._stop is not None and self._stop():
            raise _StopAskedError
