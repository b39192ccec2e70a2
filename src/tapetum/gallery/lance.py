"""A gallery in a folder: a LanceDB table, the vectors once more as blocks for exact search, and the crops.

    gallery.json   format and model          erasing.json   a deletion that is under way
    rows.lance/    the table                 exact/         vectors for exact search, and the other columns
    crops/         pictures                  approximate.json   the approximate index and its measured recall

The table decides what the gallery holds; LanceDB is imported where it must be asked, see `gallery.snapshot`. Its old
versions and its deletion marks keep vectors on disk, so deleting writes every data file anew that holds a dead row, and
checks that no mark is left.
"""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from tapetum.core.arrays import Real, distinct
from tapetum.core.atomic import make_folder, write_bytes
from tapetum.core.errors import GalleryError, MissingGalleryError, OutputError, first_line
from tapetum.core.locks import locked
from tapetum.core.postponed import postpone
from tapetum.gallery.arrow import matrix_of, table_schema, to_arrow
from tapetum.gallery.exact import VectorBlocks
from tapetum.gallery.filters import Among, Coded, Filter, rows_passing
from tapetum.gallery.indices import (
    Measurement,
    drop_indices,
    fingerprint,
    has_index,
    index_ids,
    index_vectors,
    measure_index,
    read_measurement,
    search_index,
)
from tapetum.gallery.schema import FIELDS, REALS, TEXTS, WHOLES, Hit, ModelInfo, Row, flatten, unflatten
from tapetum.gallery.snapshot import FILE, MOST_ROWS, Snapshot, name_version, read_snapshot, write_snapshot
from tapetum.gallery.sql import render_sql
from tapetum.gallery.store import (
    RECALL_AT,
    RECALL_QUERIES,
    Store,
    check_model,
    chunks,
    near,
    read_about,
    write_about,
)

TABLE = "rows"
# LanceDB imports what talks to a namespace service, which a folder does not have: half of the time that its import
# takes (1.7 of 3.2 CPU seconds, LanceDB 0.40). It needs a few types of that; the clients come when they are asked for.
NAMESPACE_CLIENT = "lance_namespace_urllib3_client"
IDS_AT_ONCE = 5_000  # in one question to the table
ROWS_AT_ONCE = 20_000  # read and written again when a deletion cleans a data file
READ_ATTEMPTS = 8  # a reader whose version was cleaned away under it starts again with the newest
STORAGE = "2.1"  # version of LanceDB's files: newer ones take milliseconds for a few rows of a column of equal values
WRITE_FAILED = "cannot be written to; nothing of this batch was stored"
T = TypeVar("T")


class LanceStore(Store):
    """See the module and `Store`; opened by `open_folder`."""

    def __init__(self, folder: Path, info: ModelInfo, approximate_above: int) -> None:
        super().__init__(str(folder), info, folder, approximate_above)
        self._folder = folder
        self._guard = threading.RLock()  # of the fields below and of the table that readers look at
        self._matrix = VectorBlocks(folder / "exact", info.dimension)
        self._seen = -1  # version of the table that the fields below describe
        self._stamps = np.empty(0, dtype=np.int64)
        self._row_ids = np.empty(0, dtype=np.int64)
        self._columns: dict[str, NDArray[np.float64] | Coded] = {}
        self._next_stamp = 0  # stamps are nanoseconds of the clock, counted on within a batch
        self._ready = False  # the matrix is at the version seen
        self._kept: tuple[str | None, Snapshot | None] = None, None  # the newest snapshot, and of which version
        self._shown: Snapshot | None = None  # what the fields above describe, where it is no version of the table
        if self._snapshot() is None:
            self._open()

    @cached_property
    def _tables(self) -> tuple[Any, Any]:
        try:
            database = connect(self._folder)
            return database.open_table(TABLE), database.open_table(TABLE)
        except Exception as error:
            raise GalleryError(
                f"{self._folder}: its table cannot be opened ({first_line(error)}); restore a backup"
            ) from None

    @property
    def _table(self) -> Any:
        """Stays at the version that a reader looks at."""
        return self._tables[0]

    @property
    def _written(self) -> Any:
        """For the writer: each write moves it on."""
        return self._tables[1]

    def _open(self) -> None:
        """From now on the table answers, and no snapshot."""
        _ = self._tables

    def _snapshot(self) -> Snapshot | None:
        """The rows as a writer left them, where nobody has written since and the table is not open yet."""
        if "_tables" in vars(self) or (version := name_version(self._path(""))) is None:
            return None
        if version != self._kept[0]:
            self._kept = version, read_snapshot(self._folder / "exact", version)
        return self._kept[1]

    def close(self) -> None:
        """Let go of the vectors in memory."""
        with self._guard:
            self._matrix = VectorBlocks(self._folder / "exact", self.info.dimension)
            self._seen, self._kept, self._shown = -1, (None, None), None

    def _upsert(self, rows: Sequence[Row], vectors: NDArray[np.float32], *, known: bool) -> None:
        columns = flatten(rows)
        first = max(time.time_ns(), self._next_stamp)
        self._next_stamp = first + len(rows)
        columns["stamp"] = list(range(first, self._next_stamp))
        if known:
            self._merge(to_arrow(columns, vectors))
            return
        with self._failing(WRITE_FAILED):  # merging looks at every id once more
            self._written.checkout_latest()
            self._written.add(to_arrow(columns, vectors))

    def _merge(self, batch: Any) -> None:
        with self._failing(WRITE_FAILED):
            self._written.checkout_latest()
            index_ids(self._written, 4 * self.info.dimension)
            merge = self._written.merge_insert("id").when_matched_update_all().when_not_matched_insert_all()
            merge.execute(batch)

    def _delete(self, ids: Sequence[str]) -> None:
        (self._folder / "exact" / FILE).unlink(missing_ok=True)  # it tells of rows that go
        with self._failing("the deletion did not finish; the next writer does it"):
            self._written.checkout_latest()
            for some in chunks(ids, IDS_AT_ONCE):
                self._written.delete(render_sql(Among("id", tuple(some))))
            self._written.delete("id = ''")  # the newest version stays, and it quotes what was deleted last
            drop_indices(self._folder, self._written)
            index_ids(self._written)
            self._clean()
        self._write_matrix()

    def _compact(self) -> float | None:
        with self._failing("cannot be compacted; nothing is lost"):
            self._written.checkout_latest()
            if self._count(None) <= self.approximate_above:
                drop_indices(self._folder, self._written, "vector")
            index_ids(self._written)
            self._clean()
        self._write_matrix()
        return self._build_index() if self._count(None) > self.approximate_above else None

    def _clean(self) -> None:
        """Make the table one version without deletion marks: then no data file holds a dead row."""
        for left in self._path("").rglob(".tmp*"):  # by a killed writer, with vectors in it; LanceDB never removes them
            left.unlink(missing_ok=True)
        for attempt in range(5):
            time.sleep(0.002 * (attempt + 1))  # versions older than a millisecond go; zero would print a warning
            self._written.optimize(cleanup_older_than=timedelta(milliseconds=1), delete_unverified=True)
            marks = self._path("_deletions").glob("*") if self._path("_deletions").is_dir() else ()
            fragments = sorted({int(path.name.split("-")[0]) for path in marks})
            if fragments:  # files with few dead rows, which optimising leaves alone: move their living rows elsewhere
                self._move_rows(fragments)
            elif len(list(self._path("_versions").glob("*.manifest"))) == 1:
                return
        raise GalleryError(f"{self.where}: deleted rows could not be cleaned from its files; compact it again")

    def _move_rows(self, fragments: list[int]) -> None:
        table = self._written.search().select(["_rowaddr"]).with_row_id(True).to_arrow()
        inside = np.isin(table["_rowaddr"].to_numpy() >> 32, fragments)
        for some in chunks(table["_rowid"].to_numpy()[inside].tolist(), ROWS_AT_ONCE):
            self._merge(take(self._written, some))  # whose rows move; the others keep their numbers

    def _search(
        self, queries: Real, k: int, condition: Filter | None, exact: bool | None
    ) -> tuple[list[tuple[Hit, ...]], float | None]:
        def answer() -> tuple[list[tuple[Hit, ...]], float | None]:
            self._look()
            passing = None if condition is None else rows_passing(condition, self._column)
            share = len(self._stamps) if passing is None else int(passing.sum())
            measured = self._measured() if condition is None and exact is not True else None
            if measured is not None and (exact is False or share > self.approximate_above):
                return search_index(self._table, queries, k, measured.probes, measured.refine), measured.recall
            self._load()
            values, rows = self._matrix.search(queries, min(k, max(share, 1)), passing)
            return self._hits(values, rows), None

        return self._reading(answer)

    def _hits(self, values: NDArray[np.float32], rows: NDArray[np.int64]) -> list[tuple[Hit, ...]]:
        if rows.size == 0:
            return [()] * len(rows)
        positions = distinct(rows)
        if self._shown is not None:
            by_stamp = dict(zip(self._stamps[positions].tolist(), self._shown.rows(positions), strict=True))
        else:
            table = self._take(positions, [*TEXTS, *WHOLES, *REALS, "stamp"])
            by_stamp = {values["stamp"]: unflatten(values) for values in table.to_pylist()}
        stamps = self._stamps[rows]
        return [
            tuple(
                Hit(by_stamp[stamp], similarity, rank)
                for rank, (stamp, similarity) in enumerate(zip(row, line, strict=True), start=1)
            )
            for row, line in zip(stamps.tolist(), values.tolist(), strict=True)
        ]

    def _fetch(self, ids: Sequence[str]) -> tuple[list[Row], NDArray[np.float32]]:
        def answer() -> tuple[list[Row], NDArray[np.float32]]:
            if self._snapshot() is not None:
                self._look()
                if (kept := self._shown) is not None:  # nobody has opened the table meanwhile, to write
                    self._load()
                    places = kept.find(Among("id", tuple(ids)))
                    return kept.rows(places), self._matrix.take(places)
            self._table.checkout_latest()
            rows: list[Row] = []
            vectors = [np.empty((0, self.info.dimension), dtype=np.float32)]
            for some in chunks(ids, IDS_AT_ONCE):
                question = self._table.search().where(render_sql(Among("id", tuple(some)))).select(["id"])
                numbers = question.with_row_id(True).to_arrow()["_rowid"].to_pylist()
                if not numbers:
                    continue
                table = take(self._table, numbers)
                rows += [unflatten(values) for values in table.drop_columns("vector").to_pylist()]
                vectors.append(matrix_of(table, self.info.dimension))
            return rows, np.concatenate(vectors)

        return self._reading(answer)

    def _fetch_rows(self, ids: Sequence[str]) -> list[Row]:
        return [row for some in chunks(ids, IDS_AT_ONCE) for row in self._find(Among("id", tuple(some)))]

    def _find(self, condition: Filter | None) -> list[Row]:
        def answer() -> list[Row]:
            if (kept := self._snapshot()) is not None:
                return kept.rows(kept.find(condition))
            self._table.checkout_latest()
            question = self._table.search().select([*TEXTS, *WHOLES, *REALS])
            if condition is not None:
                question = question.where(render_sql(condition))
            return [unflatten(values) for values in question.to_arrow().to_pylist()]

        return self._reading(answer)

    def _read_columns(self, names: Sequence[str], condition: Filter | None) -> dict[str, list[Any]]:
        def answer() -> dict[str, list[Any]]:
            if (kept := self._snapshot()) is not None:
                places = kept.find(condition)
                return {name: kept.values(name, places) for name in names}
            self._table.checkout_latest()
            question = self._table.search().select(list(names))
            if condition is not None:
                question = question.where(render_sql(condition))
            table = question.to_arrow()
            return {name: table[name].to_pylist() for name in names}

        return self._reading(answer)

    def _count(self, condition: Filter | None) -> int:
        def answer() -> int:
            if (kept := self._snapshot()) is not None:
                return len(kept.find(condition))
            self._table.checkout_latest()
            return int(self._table.count_rows(None if condition is None else render_sql(condition)))

        return self._reading(answer)

    def _count_values(self, field: str, condition: Filter | None) -> dict[str, int]:
        def answer() -> dict[str, int]:
            self._look()
            column = cast(Coded, self._column(field))  # a field of text
            codes = column.codes if condition is None else column.codes[rows_passing(condition, self._column)]
            counts = np.bincount(codes, minlength=len(column.names)).tolist()
            return {name: count for name, count in zip(column.names, counts, strict=True) if count}

        return self._reading(answer)

    def _recall(self) -> float | None:
        def answer() -> float | None:
            measured = self._measured()
            return None if measured is None else measured.recall

        return self._reading(answer)

    def _look(self) -> None:
        """See the newest version of the table."""
        if (kept := self._snapshot()) is not None:
            if kept is not self._shown:
                self._stamps, self._columns, self._ready = kept.stamps, {}, False
                self._seen, self._shown = -1, kept
            return
        self._table.checkout_latest()
        if self._table.version != self._seen:
            self._seen, self._shown = -1, None
            table = self._table.search().select(["stamp"]).with_row_id(True).to_arrow()
            self._stamps = table["stamp"].to_numpy().astype(np.int64)
            self._row_ids = table["_rowid"].to_numpy().astype(np.int64)
            self._columns, self._ready = {}, False
            self._seen = self._table.version

    def _load(self) -> None:
        """Bring the vectors to the version seen."""
        if not self._ready:
            self._matrix.refresh(self._stamps, self._read_vectors)
            self._ready = True

    def _read_vectors(self, positions: NDArray[np.int64]) -> NDArray[np.float32]:
        if self._shown is not None:
            self._open()
            raise LookupError("not found: blocks of the version that was seen")
        table = self._take(positions, ["stamp", "vector"])
        order = np.argsort(table["stamp"].to_numpy())
        vectors = matrix_of(table, self.info.dimension)[order]
        back = np.empty(len(positions), dtype=np.int64)
        back[np.argsort(self._stamps[positions])] = np.arange(len(positions))
        return vectors[back]

    def _take(self, positions: NDArray[np.int64], columns: list[str]) -> Any:
        table = take(self._table, self._row_ids[positions].tolist(), columns)
        if table.num_rows != len(positions):
            raise LookupError("not found: rows of a version that was cleaned away")
        return table

    def _column(self, field: str) -> NDArray[np.float64] | Coded:
        if self._shown is not None:
            return self._shown.column(field)
        if field not in self._columns:
            table = self._table.search().select([field, "stamp"]).to_arrow()
            if not np.array_equal(table["stamp"].to_numpy(), self._stamps):
                raise LookupError("not found: the version that was seen")
            if FIELDS[field] == "text":
                dictionary = table[field].combine_chunks().dictionary_encode()
                self._columns[field] = Coded(dictionary.indices.to_numpy(), tuple(dictionary.dictionary.to_pylist()))
            else:
                self._columns[field] = table[field].to_numpy().astype(np.float64)
        return self._columns[field]

    def _write_matrix(self) -> None:
        def answer() -> None:
            self._look()
            self._load()

        with self._guard:
            self.close()  # blocks that were whole when they were first read are compared with their digests again
            self._reading(answer)
            self._matrix.write()
            version = name_version(self._path(""))
            if version is not None and len(self._stamps) <= MOST_ROWS:
                table = self._table.search().select([*TEXTS, *WHOLES, *REALS, "stamp"]).to_arrow()
                columns = {name: table[name].to_pylist() for name in table.column_names}
                write_snapshot(self._folder / "exact", version, columns)

    def _path(self, name: str) -> Path:
        return self._folder / f"{TABLE}.lance" / name

    def _measured(self) -> Measurement | None:
        """What the approximate index finds; None where there is none."""
        measured = read_measurement(self._folder)
        return measured if measured is not None and has_index(self._table) else None

    def _build_index(self) -> float:
        measured = self._measured()
        if measured is not None and measured.stamps == fingerprint(self._stamps):
            return measured.recall
        with self._failing("the approximate index cannot be built; exact search works as before"):
            drop_indices(self._folder, self._written, "vector")
            index_vectors(self._written)
            self._clean()
        self._write_matrix()
        with self._guard:
            positions = np.unique(np.linspace(0, len(self._stamps) - 1, RECALL_QUERIES).astype(np.int64))
            queries = near(self._read_vectors(positions))
            right = self._hits(*self._matrix.search(queries, RECALL_AT, None))
            with self._failing("the approximate index cannot be searched; exact search works as before"):
                measured = measure_index(self._folder, self._table, queries, right, fingerprint(self._stamps))
        return measured.recall

    def _reading(self, answer: Callable[[], T]) -> T:
        """Read one version; a writer may clean it away meanwhile, then the newest is read instead."""
        with self._guard:
            for attempt in range(READ_ATTEMPTS):
                try:
                    return answer()
                except (OSError, RuntimeError, ValueError, LookupError) as error:
                    self._seen = -1
                    if attempt == READ_ATTEMPTS - 1 or not _vanished(error):
                        raise GalleryError(
                            f"{self.where}: cannot be read ({first_line(error)}); check its disk or restore a backup"
                        ) from error
                    time.sleep(0.01 * 2**attempt)
        raise AssertionError

    @contextlib.contextmanager
    def _failing(self, consequence: str) -> Iterator[None]:
        try:
            yield
        except (OSError, RuntimeError, ValueError) as error:
            raise OutputError(
                f"{self.where}: {consequence} ({first_line(error)}); free space and check the folder"
            ) from error


def open_folder(folder: Path, create: ModelInfo | None, approximate_above: int) -> LanceStore:
    """A gallery in a folder; see `opening.open_gallery`."""
    about = folder / "gallery.json"
    if not about.is_file():
        if create is None:
            raise MissingGalleryError(
                f"{folder}: no gallery is there; make one with: tapetum index SOURCE --gallery {folder}"
            )
        check_model(create, str(folder))
        make_folder(folder)
        with locked(folder / "writer.lock", f"{folder}: another process is writing to this gallery"):
            if not about.is_file():
                try:
                    connect(folder).create_table(
                        TABLE,
                        schema=table_schema(create.dimension),
                        mode="overwrite",
                        storage_options={"new_table_data_storage_version": STORAGE},
                    )
                except (OSError, RuntimeError, ValueError) as error:
                    raise OutputError(
                        f"{folder}: the gallery cannot be made ({first_line(error)}); choose another folder"
                    ) from error
                write_bytes(about, write_about(create).encode())  # last: now it is a gallery
    try:
        info = read_about(about.read_bytes(), str(folder))
    except OSError as error:
        raise GalleryError(f"{about}: cannot be read ({error.strerror}); allow it") from None
    store = LanceStore(folder, info, approximate_above)
    if create is not None:
        store.expect(create)
    return store


def take(table: Any, row_ids: Sequence[int], columns: Sequence[str] | None = None) -> Any:
    """Rows of a table by their numbers, as Arrow; of all columns where none are named.

    Never ask LanceDB for vectors by a condition: beyond 2 GiB of them its reader waits for itself, for ever.
    """
    question = table.take_row_ids(list(row_ids))
    return (question if columns is None else question.select(list(columns))).to_arrow()


def connect(folder: Path) -> Any:
    """A LanceDB connection that keeps to itself."""
    os.environ.setdefault("LANCEDB_LOG", "error")  # read at import: otherwise lines of advice on the terminal
    postpone(NAMESPACE_CLIENT)
    import lancedb

    return lancedb.connect(str(folder))


def _vanished(error: Exception) -> bool:
    text = str(error).lower()
    return "not found" in text or "no such file" in text or "notfound" in text
