"""The vectors of a gallery as memory-mapped blocks beside its table, and exact search in them.

Every stored vector has a stamp, a number that is never given twice. A block file holds stamps and vectors; whatever
the table does not know any more is dead, whatever the blocks do not hold yet is read from the table. So no file has to
be in step with the table, and a lost or damaged one costs time, never an answer: a block has a digest of what it holds,
which is compared when its vectors are first wanted.
"""

import contextlib
import json
import secrets
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from tapetum.core.arrays import Real, Whole, distinct, paired_products
from tapetum.core.atomic import make_folder, write_with
from tapetum.core.threads import count_threads

BLOCK_ROWS = 65_536  # at most, in one file: what one deleted vector costs to write again
QUERIES_AT_ONCE = 256
HEADER_BYTES = 4096
MOST_SMALL = 8  # blocks in memory before they are joined
FIRST = 512  # rows whose similarities are sorted; of later ones only those that beat the k-th best so far
ALONE_BELOW = 8_192  # rows that one thread multiplies before another has begun
GATHERED = 1024  # rows copied out at once: they stay in the processor's cache
CACHED = 2**18  # numbers compared exactly at a time, so that they stay in the processor's cache
MOST_WAITING = (
    2**20
)  # candidates before they are compared exactly; more than a few wait only where a model tells nobody apart

Bits = NDArray[np.bool_]
Number = TypeVar("Number", np.int64, np.float32)


@dataclass(frozen=True)
class Block:
    """Some vectors, in a file or in memory.

    Attributes:
        stamps: (n,) ascending.
        vectors: (n, D) float32.
        path: the file; None in memory.
    """

    stamps: Whole
    vectors: Real
    path: Path | None


class VectorBlocks:
    """All vectors of a gallery, in blocks."""

    def __init__(self, folder: Path, dimension: int) -> None:
        self.folder = folder
        self.dimension = dimension
        self.blocks: list[Block] = []
        self.rows: list[Whole] = []  # of each block: the table's row, or -1 where it is dead
        self._spans: list[tuple[bool, int]] = []  # of each block, see _span_of

    def refresh(self, stamps: Whole, read: Callable[[Whole], Real]) -> None:
        """Take over another state of the table.

        Args:
            stamps: (N,) of the table's rows, in its order.
            read: the vectors of some rows, by their positions.
        """
        self._read_folder()
        order = np.argsort(stamps, kind="stable")
        ascending = stamps[order]
        missing = np.ones(len(stamps), dtype=np.bool_)
        blocks, rows = [], []
        for block in self.blocks:
            block_rows = _rows_of(block.stamps, ascending, order)
            block_rows[block_rows >= 0] = np.where(
                missing[block_rows[block_rows >= 0]], block_rows[block_rows >= 0], -1
            )  # each row once
            alive = block_rows[block_rows >= 0]
            if block.path is None and len(alive) == 0:
                continue
            missing[alive] = False
            blocks.append(block)
            rows.append(block_rows)
        absent = order[missing[order]]
        for start in range(0, len(absent), BLOCK_ROWS):
            positions = absent[start : start + BLOCK_ROWS]
            blocks.append(Block(stamps[positions], read(positions), None))
            rows.append(positions)
        self._take_over(zip(blocks, rows, strict=True))
        self._join_small()

    def search(self, queries: Real, k: int, passing: Bits | None) -> tuple[Real, Whole]:
        """The k most similar rows of each query among those that pass; equal ones in the order of their stamps.

        A product of matrices rounds by shape and place, so it only says which rows come into question. A similarity
        is a function of its two vectors alone (`core.arrays.paired_products`): equal vectors have equal ones, whichever
        rows and queries stand beside them.

        Args:
            queries: (Nq, D) float32 with unit norm.
            k: answers a query.
            passing: (N,) which of the table's rows may be found; None for all.
        Returns:
            (similarities, rows), both (Nq, n) with n at most k, best first.
        """
        parts = [
            self._search(queries[top : top + QUERIES_AT_ONCE], k, passing)
            for top in range(0, len(queries), QUERIES_AT_ONCE)
        ]
        if not parts:
            return np.empty((0, 0), dtype=np.float32), np.empty((0, 0), dtype=np.int64)
        return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])

    def take(self, rows: Whole) -> Real:
        """The vectors of some rows of the table, (n, D).

        Args:
            rows: (n,) each once, of those that the table has.
        """
        vectors = np.empty((len(rows), self.dimension), dtype=np.float32)
        order = np.argsort(rows)
        for block, block_rows in zip(self.blocks, self.rows, strict=True):
            inside = np.flatnonzero(np.isin(block_rows, rows))
            vectors[order[np.searchsorted(rows, block_rows[inside], sorter=order)]] = block.vectors[inside]
        return vectors

    def write(self) -> None:
        """Put every living vector into block files and remove every dead one from them; only the writer may."""
        make_folder(self.folder)
        kept: list[tuple[Block, Whole]] = []
        pool: list[tuple[Block, Whole]] = []
        for block, rows in zip(self.blocks, self.rows, strict=True):
            whole = block.path is not None and bool((rows >= 0).all())
            (kept if whole and 2 * len(rows) >= BLOCK_ROWS else pool).append((block, rows))
        is_settled = len(pool) == 1 and pool[0][0].path is not None and bool((pool[0][1] >= 0).all())
        if pool and not is_settled:
            kept += self._write_again(pool)
            for block, _ in pool:
                if block.path is not None:
                    block.path.unlink(missing_ok=True)
        elif is_settled:
            kept += pool
        self._take_over(kept)
        known = {block.path for block in self.blocks}
        for path in self.folder.iterdir():  # leavings of a run that was killed; one may hold a deleted vector
            if path not in known:
                path.unlink(missing_ok=True)

    def _join_small(self) -> None:
        """A reader beside a busy writer meets a few new rows at a time: keep them together in memory."""
        pairs = list(zip(self.blocks, self.rows, strict=True))
        small = [pair for pair in pairs if pair[0].path is None and 2 * len(pair[1]) < BLOCK_ROWS]
        if len(small) <= MOST_SMALL:
            return
        alive = [np.flatnonzero(rows >= 0) for _, rows in small]
        stamps = np.concatenate([block.stamps[some] for (block, _), some in zip(small, alive, strict=True)])
        vectors = np.concatenate([block.vectors[some] for (block, _), some in zip(small, alive, strict=True)])
        rows = np.concatenate([rows[some] for (_, rows), some in zip(small, alive, strict=True)])
        order = np.argsort(stamps, kind="stable")
        pairs = [pair for pair in pairs if pair[0].path is not None or 2 * len(pair[1]) >= BLOCK_ROWS]
        for start in range(0, len(order), BLOCK_ROWS):
            some = order[start : start + BLOCK_ROWS]
            pairs.append((Block(stamps[some], vectors[some], None), rows[some]))
        self._take_over(pairs)

    def _write_again(self, pool: list[tuple[Block, Whole]]) -> list[tuple[Block, Whole]]:
        blocks: list[tuple[Block, Whole]] = []
        stamps: list[Whole] = []
        vectors: list[Real] = []
        rows: list[Whole] = []
        waiting = 0

        def flush() -> None:
            nonlocal waiting
            while waiting >= BLOCK_ROWS or (waiting and at_end):
                all_stamps, all_vectors, all_rows = (
                    np.concatenate(stamps),
                    np.concatenate(vectors),
                    np.concatenate(rows),
                )
                order = np.argsort(all_stamps[:BLOCK_ROWS], kind="stable")
                block = write_block(self.folder, all_stamps[order], all_vectors[order])
                blocks.append((block, all_rows[order]))
                stamps[:], vectors[:], rows[:] = (
                    [all_stamps[BLOCK_ROWS:]],
                    [all_vectors[BLOCK_ROWS:]],
                    [all_rows[BLOCK_ROWS:]],
                )
                waiting = len(stamps[0])

        at_end = False
        for block, block_rows in pool:
            alive = np.flatnonzero(block_rows >= 0)
            if len(alive) == 0:
                continue
            stamps.append(block.stamps[alive])
            vectors.append(np.asarray(block.vectors[alive]))
            rows.append(block_rows[alive])
            waiting += len(alive)
            flush()
        at_end = True
        flush()
        return blocks

    def _search(self, queries: Real, k: int, passing: Bits | None) -> tuple[Real, Whole]:
        best = _Best(queries, k)
        per_row = max(4, len(queries))  # work on one row; copying it out is as much as 13 queries
        pieces: list[list[_Piece]] = []
        waiting: list[_Piece] = []
        for block, rows, span in zip(self.blocks, self.rows, self._spans, strict=True):
            allowed = _allowed(rows, span, passing)
            share = len(rows) if allowed is None else int(np.count_nonzero(allowed))
            if allowed is None or share * (per_row + 13) >= len(rows) * per_row:
                if share:
                    pieces.append([_Piece(block.vectors, rows, block.stamps, allowed)])
                continue
            rest = np.flatnonzero(allowed)
            while len(rest):
                room = GATHERED - sum(len(piece.rows) for piece in waiting)
                some, rest = rest[:room], rest[room:]
                waiting.append(_Piece(block.vectors, rows[some], block.stamps[some], None, some))
                if len(some) == room:
                    pieces.append(waiting)
                    waiting = []
        if waiting:
            pieces.append(waiting)
        for pieces_of_block, products in zip(pieces, _multiply(pieces, queries), strict=True):
            best.add(products, pieces_of_block)
        return best.finish()

    def _take_over(self, pairs: Iterable[tuple[Block, Whole]]) -> None:
        self.blocks, self.rows, self._spans = [], [], []
        for block, rows in pairs:
            self.blocks.append(block)
            self.rows.append(rows)
            self._spans.append(_span_of(rows))

    def _read_folder(self) -> None:
        paths = set(self.folder.glob("*.block")) if self.folder.is_dir() else set()
        self.blocks = [block for block in self.blocks if block.path is None or block.path in paths]
        known = {block.path for block in self.blocks}
        for path in sorted(paths - known):
            block = read_block(path, self.dimension)
            if block is not None:
                self.blocks.insert(0, block)  # files before memory: a block in both is dropped from memory


@dataclass(frozen=True)
class _Piece:
    """Some rows of a block: all, of which some may be found, or chosen ones.

    Attributes:
        vectors: (N, D) of the block.
        rows: (n,) of the table.
        stamps: (n,) of those.
        allowed: (n,) which may be found; None for all.
        chosen: (n,) rows of the block; None for all.
    """

    vectors: Real
    rows: Whole
    stamps: Whole
    allowed: Bits | None
    chosen: Whole | None = None


class _Best:
    """Which rows come into question as the k best answers of each query, and in the end which are.

    A row does whose product, rounded somehow, is no further below the k-th best than `rounding_margin`; no other can be
    among the k best.
    """

    def __init__(self, queries: Real, k: int) -> None:
        self._queries, self._k = queries, k
        self._margin = rounding_margin(queries.shape[1])
        self._count = 0  # answers of each query
        self._pieces: list[_Piece] = []
        self._offsets = [0]  # of each piece, and of the next
        self._limit: Real = np.full(len(queries), np.inf, dtype=np.float32)  # of what comes into question
        self._owners: Whole = np.empty(0, dtype=np.int64)  # of each candidate: its query, ...
        self._negated: Real = np.empty(0, dtype=np.float32)
        self._places: Whole = np.empty(0, dtype=np.int64)  # ... and its place in all pieces

    def add(self, products: Real, pieces: Sequence[_Piece]) -> None:
        """Take over what may be good enough.

        Args:
            products: (n, Nq) rounded similarities.
        """
        allowed = pieces[0].allowed
        self._count = min(
            self._k, self._count + int(np.count_nonzero(allowed) if allowed is not None else len(products))
        )
        offset = self._offsets[-1]
        self._pieces += pieces
        self._offsets += (offset + np.cumsum([len(piece.rows) for piece in pieces])).tolist()
        start, step = 0, max(FIRST, self._k)
        while start < len(products):  # growing parts: each leaves few that beat what the parts before have found
            part = slice(start, start + step)
            inside = products[part] >= -self._limit
            if allowed is not None:
                inside &= allowed[part, None]
            places = np.flatnonzero(inside)
            if len(places):
                place, query = np.divmod(places, len(self._queries))
                self._merge(query, -products[part][place, query], place + (offset + start))
            start, step = start + step, 2 * step

    def finish(self) -> tuple[Real, Whole]:
        """(similarities, rows), both (Nq, n), best first; equal ones in the order of their stamps."""
        rows = self._settle()
        shape = len(self._queries), self._count
        return np.clip(-self._negated, -1, 1).reshape(shape), rows.reshape(shape)

    def _merge(self, owners: Whole, negated: Real, places: Whole) -> None:
        owners = np.concatenate([self._owners, owners])
        negated = np.concatenate([self._negated, negated])
        places = np.concatenate([self._places, places])
        order = np.lexsort((negated, owners))
        owners, negated, places = owners[order], negated[order], places[order]
        first = np.searchsorted(owners, np.arange(len(self._queries) + 1))
        last = np.minimum(first[:-1] + self._k, len(owners)) - 1
        self._limit = np.where(np.diff(first) >= self._k, negated[last] + self._margin, np.inf).astype(np.float32)
        kept = negated <= self._limit[owners]
        self._owners, self._negated, self._places = owners[kept], negated[kept], places[kept]
        if len(self._owners) > MOST_WAITING + self._k * len(self._queries):
            self._settle()

    def _settle(self) -> Whole:
        """Compare the candidates exactly, keep the k best of each query, and give their rows."""
        rows, stamps = (np.empty(len(self._places), dtype=np.int64) for _ in range(2))
        step = max(1, CACHED // self._queries.shape[1])
        piece_of = np.searchsorted(self._offsets, self._places, side="right") - 1
        for number in distinct(piece_of).tolist():
            piece, mine = self._pieces[number], np.flatnonzero(piece_of == number)
            inside = self._places[mine] - self._offsets[number]
            rows[mine], stamps[mine] = piece.rows[inside], piece.stamps[inside]
            lines = inside if piece.chosen is None else piece.chosen[inside]
            for start in range(0, len(mine), step):
                some = mine[start : start + step]
                vectors = piece.vectors.take(lines[start : start + step], axis=0)
                self._negated[some] = -paired_products(vectors, self._queries[self._owners[some]])
        order = np.lexsort((stamps, self._negated, self._owners))
        first = np.searchsorted(self._owners[order], np.arange(len(self._queries)))
        kept = order[(first[:, None] + np.arange(self._count)).ravel()]
        self._owners, self._negated, self._places = self._owners[kept], self._negated[kept], self._places[kept]
        best_rows: Whole = rows[kept]
        return best_rows


def rounding_margin(dimension: int) -> float:
    """How far below the k-th best product the product of one of the k best rows can lie, for unit vectors in float32.

    It is twice what a product, added up in whatever order, can differ from `paired_products`: the usual bound of D
    roundings for the one and of their logarithm for the other.
    """
    return 2.1 * (dimension + 8) * 2.0**-24


def _multiply(pieces: Sequence[Sequence[_Piece]], queries: Real) -> Iterator[Real]:
    """(n, Nq) similarities to the vectors of some pieces, which are taken together."""
    if len(queries) > 1:
        yield from (_vectors(group) @ queries.T for group in pieces)
        return
    # The libraries' product with one vector takes twice as long as row by row, and their threads wait for each other
    # at every step: on a machine that is also indexing, that is most of the time.
    query = queries[0]

    def multiply(group: Sequence[_Piece]) -> Real:
        return np.asarray(np.vecdot(_vectors(group), query)[:, None])

    if sum(len(piece.rows) for group in pieces for piece in group) < ALONE_BELOW:
        yield from map(multiply, pieces)
        return
    with ThreadPoolExecutor(count_threads()) as pool:
        yield from pool.map(multiply, pieces)


def _vectors(pieces: Sequence[_Piece]) -> Real:
    """The vectors of some pieces, copied only where they lie apart."""
    if pieces[0].chosen is None:
        return pieces[0].vectors
    return _joined([piece.vectors.take(piece.chosen, axis=0) for piece in pieces if piece.chosen is not None])


def _joined(parts: Sequence[NDArray[Number]]) -> NDArray[Number]:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _span_of(rows: Whole) -> tuple[bool, int]:
    """Whether each row of a block is alive; and the first one's place where they follow each other in the table."""
    whole = bool((rows >= 0).all())
    return whole, int(rows[0]) if whole and bool((np.diff(rows) == 1).all()) else -1


def _allowed(rows: Whole, span: tuple[bool, int], passing: Bits | None) -> Bits | None:
    """Which rows of a block may be found; None for all."""
    whole, first = span
    if passing is None:
        return None if whole else rows >= 0
    if first >= 0:
        return passing[first : first + len(rows)]
    return passing[rows] if whole else passing[rows] & (rows >= 0)


def _rows_of(stamps: Whole, ascending: Whole, order: Whole) -> Whole:
    """The table's row of each stamp; -1 where the table has none."""
    if len(ascending) == 0:
        return np.full(len(stamps), -1, dtype=np.int64)
    place = np.minimum(np.searchsorted(ascending, stamps), len(ascending) - 1)
    return np.where(ascending[place] == stamps, order[place], -1)


def write_block(folder: Path, stamps: Whole, vectors: Real) -> Block:
    """A new block file, whole or not at all, mapped into memory.

    Args:
        stamps: (n,) ascending.
        vectors: (n, D).
    """
    path = folder / f"{secrets.token_hex(8)}.block"
    stamps, vectors = np.ascontiguousarray(stamps), np.ascontiguousarray(vectors)
    about = {"rows": len(stamps), "dimension": vectors.shape[1], "crc32": _digest(stamps, vectors)}
    header = json.dumps(about).encode().ljust(HEADER_BYTES)
    write_with(path, lambda file: file.writelines([header, stamps.data, vectors.data]))
    block = read_block(path, vectors.shape[1])
    return block if block is not None else Block(stamps, vectors, None)


def read_block(path: Path, dimension: int) -> Block | None:
    """A block file, mapped into memory; None where it vanished or is no whole block of this gallery."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        with path.open("rb") as file:
            header = json.loads(file.read(HEADER_BYTES))
        rows = int(header["rows"])
        if rows > 0 and header["dimension"] == dimension:
            if path.stat().st_size != HEADER_BYTES + rows * (8 + 4 * dimension):
                return None
            stamps = np.fromfile(path, dtype=np.int64, count=rows, offset=HEADER_BYTES)
            vectors: Real = np.memmap(  # "c": torch wants memory it may write to; nothing reaches the file
                path, dtype=np.float32, mode="c", offset=HEADER_BYTES + 8 * rows, shape=(rows, dimension)
            )
            return Block(stamps, vectors, path) if _digest(stamps, vectors) == header["crc32"] else None
    return None


def _digest(stamps: Whole, vectors: Real) -> int:
    """It tells damage by a disk from what was written, at the speed of reading; it is no seal against forgers."""
    return zlib.crc32(vectors.data, zlib.crc32(stamps.data))
