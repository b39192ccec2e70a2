"""One narrow interface to a gallery of sightings, whatever keeps it: a folder (LanceDB) or a Milvus server."""

import contextlib
import json
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from tapetum.core.arrays import Real, lengths, to_array, unit_rows
from tapetum.core.atomic import write_bytes
from tapetum.core.errors import FilterError, GalleryError, OutputError, nearest_name
from tapetum.core.locks import SharedLock, locked
from tapetum.gallery.filters import Filter, as_filter
from tapetum.gallery.schema import (
    CROPS,
    FIELDS,
    FORMAT,
    SHARDS,
    Entries,
    Hit,
    ModelInfo,
    Row,
    SearchResult,
    check_rows,
)

if TYPE_CHECKING:
    from torch import Tensor

APPROXIMATE_ABOVE = 200_000  # rows from which compacting builds an approximate index
MOST_ANSWERS = 10_000  # of one query; Milvus has such a limit too
ORPHAN_SECONDS = 86_400.0  # a crop without a row is removed when it is older: an indexer may be about to add its row
RECALL_AT = 10
RECALL_QUERIES = 100
WANTED_RECALL = 0.98
SECONDS_A_DAY = 86_400.0
Item = TypeVar("Item")


class Store(ABC):
    """A gallery. Searching needs no lock; one process at a time may write.

    Args:
        folder: where its crops, its lock and its journal are; None keeps no crops.
        approximate_above: rows from which compacting builds an approximate index.
    """

    def __init__(self, where: str, info: ModelInfo, folder: Path | None, approximate_above: int) -> None:
        self.where = where
        self.info = info
        self.folder = folder
        self.approximate_above = approximate_above
        self._readers = SharedLock()  # of everything that reads through this object; a store may keep all of them out
        self._pen = threading.RLock()  # of its writers: a thread that writes does not keep others from searching
        self._writers = 0
        self._lock = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def expect(self, info: ModelInfo) -> None:
        """Refuse to compare with another model's embeddings.

        Raises:
            GalleryError: the gallery was made by another one.
        """
        if (info.id, info.dimension) != (self.info.id, self.info.dimension):
            raise GalleryError(
                f"{self.where}: holds embeddings of model {self.info.id!r} ({self.info.dimension}-d), not of "
                f"{info.id!r} ({info.dimension}-d); use the gallery's model, or index into another gallery"
            )

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Be the gallery's only writer for a while; every writing method does this by itself for its own duration.

        Raises:
            OutputError: another process, or another open gallery of this one, is writing.
        """
        with self._pen:
            if self._writers == 0:
                if self.folder is not None:
                    refusal = f"{self.where}: another process is writing to this gallery"
                    self._lock.enter_context(locked(self.folder / "writer.lock", refusal))
                try:
                    self._finish_erasure()
                except BaseException:
                    self._lock.close()
                    raise
            self._writers += 1
            try:
                yield
            finally:
                self._writers -= 1
                if self._writers == 0:
                    self._lock.close()

    def upsert(self, rows: Sequence[Row], vectors: "Real | Tensor") -> int:
        """Add rows, or replace those with the same id; when this returns, they are stored.

        Args:
            rows: N rows; the crop that a row names is already in the gallery's folder.
            vectors: (N, D), an array or a tensor, scaled to unit norm here.
        Raises:
            GalleryError: another model's rows, a field or vector that cannot be kept, a crop that is not there.
            OutputError: another writer, or the disk is full; nothing of these rows was stored then.
        """
        check_rows(rows, self.info, self.where)
        matrix = self._check_vectors(vectors)
        if len(matrix) != len(rows):
            raise GalleryError(f"{self.where}: {len(rows)} rows but {len(matrix)} vectors; give one a row")
        if not rows:
            return 0
        for row in rows:
            if row.sighting.crop and not (self.folder and (self.folder / row.sighting.crop).is_file()):
                remedy = (
                    "write the crop before its row" if self.folder else "open the gallery with folder=... for crops"
                )
                raise GalleryError(f"{self.where}: row {row.sighting.id!r}: no crop at {row.sighting.crop}; {remedy}")
        ids = [row.sighting.id for row in rows]
        with self.writing():
            before = self.fetch_rows(ids)
            self._upsert(rows, matrix, known=bool(before))
            self._unlink_crops({row.sighting.crop for row in before} - {row.sighting.crop for row in rows})
        return len(rows)

    def delete(self, filter: str | Filter) -> int:  # noqa: A002
        """Remove rows, their vectors and their crops for good.

        Args:
            filter: which; there is no way to say "all" by leaving it out.
        Raises:
            FilterError: the filter is wrong; nothing is removed.
            OutputError: another writer, or a file cannot be removed; the next writer finishes then.
        """
        condition = as_filter(filter)
        if condition is None:
            raise GalleryError(f"{self.where}: delete needs a filter; name the rows to remove")
        with self.writing():
            rows = self.columns(["id", "crop"], condition)
            if rows["id"]:
                self._erase(sorted(rows["id"]), sorted({*rows["crop"]} - {""}))
        return len(rows["id"])

    def search(
        self,
        vectors: "Real | Tensor",
        k: int = 10,
        filter: str | Filter | None = None,  # noqa: A002
        *,
        exact: bool | None = None,
    ) -> SearchResult:
        """The k most similar rows of each query; equal ones in the order of storing, on a Milvus server in that of ids.

        Args:
            vectors: (Nq, D), an array or a tensor, scaled to unit norm here.
            k: answers a query; fewer where fewer rows pass.
            filter: only rows that pass are searched.
            exact: True compares every row, False uses the approximate index where there is one, None decides by size.
                In a folder every row that passes a filter is compared: how many the index would find is not known.
        Raises:
            FilterError: the filter is wrong.
            GalleryError: vectors of another dimension, NaN, or k out of range.
        """
        condition = as_filter(filter)
        matrix = self._check_vectors(vectors)
        if not 1 <= k <= MOST_ANSWERS:
            raise GalleryError(f"{self.where}: k={k}; ask for 1 to {MOST_ANSWERS} answers")
        if len(matrix) == 0:
            return SearchResult((), True, None)
        with self._readers.shared():
            hits, recall = self._search(matrix, k, condition, exact)
        return SearchResult(tuple(hits), recall is None, recall or None)

    def fetch(self, ids: Sequence[str]) -> Entries:
        """Rows and embeddings by id, in the order asked; an id that the gallery does not have is left out."""
        with self._readers.shared():
            rows, vectors = self._fetch(list(dict.fromkeys(ids)))
        place = {row.sighting.id: position for position, row in enumerate(rows)}
        order = [place[name] for name in ids if name in place]
        return Entries(tuple(rows[position] for position in order), vectors[order])

    def fetch_rows(self, ids: Sequence[str]) -> list[Row]:
        """Rows by id without their embeddings, in any order; an id that the gallery does not have is left out."""
        with self._readers.shared():
            return self._fetch_rows(list(dict.fromkeys(ids)))

    def find(self, filter: str | Filter | None = None, limit: int | None = None) -> list[Row]:  # noqa: A002
        """Rows that pass, by time and id.

        Args:
            limit: at most so many, the earliest.
        """
        condition = as_filter(filter)
        with self._readers.shared():
            rows = self._find(condition)
        return sorted(rows, key=lambda row: (row.sighting.time, row.sighting.id))[:limit]

    def columns(self, names: Sequence[str], filter: str | Filter | None = None) -> dict[str, list[Any]]:  # noqa: A002
        """Some fields of all rows that pass, as plain values; far quicker than whole rows.

        Args:
            names: of fields, and "crop"; modality comes as its number.
        Returns:
            Name to values, in the same order for each name.
        Raises:
            FilterError: the filter is wrong, or there is no such field.
        """
        for name in names:
            if name not in FIELDS and name != "crop":
                raise FilterError(f"{self.where}: {name!r} is no field; {nearest_name(name, [*FIELDS, 'crop'])}")
        condition = as_filter(filter)
        with self._readers.shared():
            return self._read_columns(names, condition)

    def count(self, filter: str | Filter | None = None) -> int:  # noqa: A002
        """How many rows pass."""
        condition = as_filter(filter)
        with self._readers.shared():
            return self._count(condition)

    def count_values(self, field: str, filter: str | Filter | None = None) -> dict[str, int]:  # noqa: A002
        """How many of the rows that pass have each value of a field of text; a value that none has is left out.

        Raises:
            FilterError: the filter is wrong, or there is no such field of text.
        """
        texts = [name for name, kind in FIELDS.items() if kind == "text"]
        if field not in texts:
            raise FilterError(f"{self.where}: {field!r} is no field of text; {nearest_name(field, texts)}")
        condition = as_filter(filter)
        with self._readers.shared():
            return self._count_values(field, condition)

    def recall(self) -> float | None:
        """The measured recall@10 of the approximate index without a filter; None where there is none."""
        with self._readers.shared():
            return self._recall()

    def compact(self) -> float | None:
        """Put the files in order: replaced and deleted vectors leave the disk, the indices are brought up to date.

        Returns:
            The measured recall@10 of the approximate index; None where the gallery is too small for one.
        """
        with self.writing():
            recall = self._compact()
            self._unlink_orphans()
            return recall

    @abstractmethod
    def close(self) -> None:
        """Let go of files and connections."""

    @abstractmethod
    def _upsert(self, rows: Sequence[Row], vectors: NDArray[np.float32], *, known: bool) -> None:
        """Add or replace checked rows, each whole or not at all; `known` says whether there are any to replace."""

    @abstractmethod
    def _delete(self, ids: Sequence[str]) -> None:
        """Remove rows and their vectors from disk; ids without a row are no error."""

    @abstractmethod
    def _search(
        self, queries: Real, k: int, condition: Filter | None, exact: bool | None
    ) -> tuple[list[tuple[Hit, ...]], float | None]:
        """Hits of each query, and the recall where the search was approximate, 0 where it is not known."""

    @abstractmethod
    def _fetch(self, ids: Sequence[str]) -> tuple[list[Row], NDArray[np.float32]]:
        """Rows and vectors of the ids there are, in any order."""

    @abstractmethod
    def _fetch_rows(self, ids: Sequence[str]) -> list[Row]:
        """Rows of the ids there are, in any order."""

    @abstractmethod
    def _find(self, condition: Filter | None) -> list[Row]:
        """Rows that pass, in any order."""

    @abstractmethod
    def _read_columns(self, names: Sequence[str], condition: Filter | None) -> dict[str, list[Any]]:
        """Some columns of the rows that pass."""

    @abstractmethod
    def _count(self, condition: Filter | None) -> int:
        """How many rows pass."""

    @abstractmethod
    def _count_values(self, field: str, condition: Filter | None) -> dict[str, int]:
        """How many of the rows that pass have each value of a field of text."""

    @abstractmethod
    def _recall(self) -> float | None:
        """The measured recall of the approximate index; None where there is none."""

    @abstractmethod
    def _compact(self) -> float | None:
        """Put the files in order; the recall of the approximate index where there is one."""

    def _check_vectors(self, vectors: "Real | Tensor") -> Real:
        if vectors.ndim != 2 or vectors.shape[1] != self.info.dimension:
            raise GalleryError(
                f"{self.where}: vectors are {tuple(vectors.shape)}, model {self.info.id!r} makes (N, "
                f"{self.info.dimension}); extract them with that model"
            )
        matrix = to_array(vectors)
        with np.errstate(over="ignore", invalid="ignore"):  # complained of in our own words
            norms = lengths(matrix)
        if not (np.isfinite(matrix).all() and np.isfinite(norms).all() and (norms > 0).all()):
            raise GalleryError(f"{self.where}: a vector holds NaN, infinity or only zeros; extract it again")
        unit = np.abs(norms - 1) <= 1e-6  # stays as it is, bit for bit
        return np.ascontiguousarray(matrix if unit.all() else np.where(unit[:, None], matrix, unit_rows(matrix)))

    def _journal(self) -> Path | None:
        return self.folder / "erasing.json" if self.folder else None

    def _erase(self, ids: list[str], crops: list[str]) -> None:
        """Rows first, crops second; a journal lets the next writer finish what a killed one began."""
        journal = self._journal()
        if journal is not None:
            write_bytes(journal, json.dumps({"ids": ids, "crops": crops}).encode())
        self._delete(ids)
        self._unlink_crops(crops)
        if journal is not None:
            journal.unlink(missing_ok=True)

    def _finish_erasure(self) -> None:
        journal = self._journal()
        if journal is None:
            return
        for path in journal.parent.glob(f".{journal.name}.*"):  # by a writer that was killed
            path.unlink(missing_ok=True)
        if not journal.is_file():
            return
        try:
            content = json.loads(journal.read_bytes())
            ids, crops = list(content["ids"]), list(content["crops"])
        except (OSError, ValueError, KeyError, TypeError):
            raise GalleryError(
                f"{journal}: a deletion was interrupted and its journal cannot be read; remove it and delete again"
            ) from None
        self._erase(ids, crops)

    def _unlink_crops(self, crops: Iterable[str]) -> None:
        names = {crop for crop in crops if crop}
        if self.folder is None or not names:
            return
        used = set(self.columns(["crop"])["crop"])
        for crop in names - used:
            try:
                (self.folder / crop).unlink(missing_ok=True)
            except OSError as error:
                raise OutputError(
                    f"{self.folder / crop}: cannot be removed ({error.strerror}); allow it and repeat the command"
                ) from None

    def _unlink_orphans(self) -> None:
        """Crops that no row names any more: a run was killed between a crop and its row.

        While shards wait to be put together, a crop may be named by one of them; the next compaction looks again.
        """
        if self.folder is None or not (self.folder / CROPS).is_dir() or any(self.folder.glob(f"{SHARDS}/*/*")):
            return
        newest = (self.folder / "writer.lock").stat().st_mtime - ORPHAN_SECONDS  # touched when the lock was taken
        known = set(self.columns(["crop"])["crop"])
        for path in (self.folder / CROPS).rglob("*"):
            with contextlib.suppress(OSError):
                old = path.is_file() and path.stat().st_mtime < newest
                if old and path.relative_to(self.folder).as_posix() not in known:
                    path.unlink()


def write_about(info: ModelInfo) -> str:
    """What a gallery says about itself, as JSON."""
    model = {
        "id": info.id,
        "dimension": info.dimension,
        "description": info.description,
        "place": info.place,
    }
    return json.dumps({"format": FORMAT, "model": model}, indent=1)


def read_about(text: str | bytes, where: str) -> ModelInfo:
    """The model of a gallery.

    Raises:
        GalleryError: damaged, or of a newer version.
    """
    try:
        content: dict[str, Any] = json.loads(text)
        version = int(content["format"])
        if version > FORMAT:
            raise GalleryError(
                f"{where}: a gallery of format {version}, made by a newer Tapetum; this one reads up to {FORMAT}: "
                "update Tapetum"
            )
        model = content["model"]
        return ModelInfo(
            str(model["id"]), int(model["dimension"]), str(model["description"]), str(model.get("place", ""))
        )
    except (ValueError, KeyError, TypeError):
        raise GalleryError(
            f"{where}: what the gallery says about itself is damaged; restore it from a backup"
        ) from None


def check_model(info: ModelInfo, where: str) -> None:
    """Refuse to make a gallery for a model that cannot be one."""
    if not info.id or not 1 <= info.dimension <= 32_768:
        raise GalleryError(f"{where}: model {info.id!r} of {info.dimension} dimensions; want an id and 1 to 32768")


def chunks(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    """Some at a time."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def near(vectors: Real) -> Real:
    """Queries for measuring recall: the vectors with noise of half their length, the same at each call.

    Args:
        vectors: (N, D) with unit norm.
    """
    noise = np.random.default_rng(0).standard_normal(vectors.shape, dtype=np.float32)
    return unit_rows(vectors + np.float32(0.5 / vectors.shape[1] ** 0.5) * noise)


def recall_at_ten(approximate: Sequence[Sequence[Hit]], exact: Sequence[Sequence[Hit]]) -> float:
    """The share of the ten nearest rows that an approximate search found."""
    hits = total = 0
    for some, right in zip(approximate, exact, strict=True):
        ids = {hit.row.sighting.id for hit in right[:RECALL_AT]}
        hits += len(ids & {hit.row.sighting.id for hit in some[:RECALL_AT]})
        total += len(ids)
    return hits / max(total, 1)
