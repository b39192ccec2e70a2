"""The vectors of a gallery as memory-mapped blocks beside its table, and exact search in them.

Every stored vector has a stamp, a number that is never given twice. A block file holds stamps and vectors; whatever
the table does not know any more is dead, whatever the blocks do not hold yet is read from the table. So no file has to
be in step with the table, and a lost or damaged one costs time, never an answer.
"""

import contextlib
import json
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tapetum.core.atomic import make_folder, write_with

BLOCK_ROWS = 65_536  # at most, in one file: what one deleted vector costs to write again
QUERIES_AT_ONCE = 256
HEADER_BYTES = 4096
MOST_SMALL = 8  # blocks in memory before they are joined
FIRST = 512  # rows whose similarities are sorted; of later ones only those that beat the k-th best so far
ALONE_BELOW = 8_192  # rows that one thread multiplies before another has begun
GATHERED = 1024  # rows copied out at once: they stay in the processor's cache

Bits = NDArray[np.bool_]
Whole = NDArray[np.int64]
Real = NDArray[np.float32]
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


class Matrix:
    """All vectors of a gallery, in blocks.

    Args:
        folder: where the block files are.
        dimension: D.
    """

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
            found = _rows_of(block.stamps, ascending, order)
            found[found >= 0] = np.where(missing[found[found >= 0]], found[found >= 0], -1)  # each row once
            alive = found[found >= 0]
            if block.path is None and len(alive) == 0:
                continue
            missing[alive] = False
            blocks.append(block)
            rows.append(found)
        absent = order[missing[order]]
        for start in range(0, len(absent), BLOCK_ROWS):
            positions = absent[start : start + BLOCK_ROWS]
            blocks.append(Block(stamps[positions], read(positions), None))
            rows.append(positions)
        self._take_over(zip(blocks, rows, strict=True))
        self._join_small()

    def search(self, queries: Tensor, k: int, passing: Bits | None) -> tuple[Real, Whole]:
        """The k most similar rows of each query among those that pass; equal ones in the order of their stamps.

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

    def write(self) -> None:
        """Put every living vector into block files and remove every dead one from them; only the writer may."""
        make_folder(self.folder)
        kept: list[tuple[Block, Whole]] = []
        pooled: list[tuple[Block, Whole]] = []
        for block, rows in zip(self.blocks, self.rows, strict=True):
            whole = block.path is not None and bool((rows >= 0).all())
            (kept if whole and 2 * len(rows) >= BLOCK_ROWS else pooled).append((block, rows))
        settled = len(pooled) == 1 and pooled[0][0].path is not None and bool((pooled[0][1] >= 0).all())
        if pooled and not settled:
            kept += self._write_again(pooled)
            for block, _ in pooled:
                if block.path is not None:
                    block.path.unlink(missing_ok=True)
        elif settled:
            kept += pooled
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

    def _write_again(self, pooled: list[tuple[Block, Whole]]) -> list[tuple[Block, Whole]]:
        written: list[tuple[Block, Whole]] = []
        stamps: list[Whole] = []
        vectors: list[Real] = []
        rows: list[Whole] = []
        waiting = 0

        def flush() -> None:
            nonlocal waiting
            while waiting >= BLOCK_ROWS or (waiting and finished):
                all_stamps, all_vectors, all_rows = (
                    np.concatenate(stamps),
                    np.concatenate(vectors),
                    np.concatenate(rows),
                )
                order = np.argsort(all_stamps[:BLOCK_ROWS], kind="stable")
                block = write_block(self.folder, all_stamps[order], all_vectors[order])
                written.append((block, all_rows[order]))
                stamps[:], vectors[:], rows[:] = (
                    [all_stamps[BLOCK_ROWS:]],
                    [all_vectors[BLOCK_ROWS:]],
                    [all_rows[BLOCK_ROWS:]],
                )
                waiting = len(stamps[0])

        finished = False
        for block, block_rows in pooled:
            alive = np.flatnonzero(block_rows >= 0)
            if len(alive) == 0:
                continue
            stamps.append(block.stamps[alive])
            vectors.append(np.asarray(block.vectors[alive]))
            rows.append(block_rows[alive])
            waiting += len(alive)
            flush()
        finished = True
        flush()
        return written

    def _search(self, queries: Tensor, k: int, passing: Bits | None) -> tuple[Real, Whole]:
        best = _Best(len(queries), k)
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
        for joined, products in zip(pieces, _multiply(pieces, queries), strict=True):
            rows, stamps = _joined([piece.rows for piece in joined]), _joined([piece.stamps for piece in joined])
            best.add(products, joined[0].allowed, rows, stamps)
        return best.similarities(), best.rows[:, : best.count]

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
    """The k best answers of each query so far, best first; equal ones in the order of their stamps.

    Args:
        queries: Nq.
        k: answers a query.
    """

    def __init__(self, queries: int, k: int) -> None:
        self.count = 0  # answers of each query
        self.rows: Whole = np.full((queries, k), -1, dtype=np.int64)
        self._negated = np.full((queries, k), np.inf, dtype=np.float32)
        self._stamps = np.full((queries, k), np.iinfo(np.int64).max)

    def similarities(self) -> Real:
        """(Nq, n) in -1..1."""
        return np.clip(-self._negated[:, : self.count], -1, 1)

    def add(self, products: Real, allowed: Bits | None, rows: Whole, stamps: Whole) -> None:
        """Take over what is good enough.

        Args:
            products: (n, Nq) similarities.
            allowed: (n,) which may be found; None for all.
            rows: (n,) of the table.
            stamps: (n,) of those.
        """
        k = self.rows.shape[1]
        self.count = min(k, self.count + (len(rows) if allowed is None else int(np.count_nonzero(allowed))))
        start, step = 0, max(FIRST, k)
        while start < len(rows):  # growing parts: each leaves few that beat what the parts before have found
            part = slice(start, start + step)
            start, step = start + step, 2 * step
            inside = products[part] >= -self._negated[:, -1]
            if allowed is not None:
                inside &= allowed[part, None]
            places = np.flatnonzero(inside)
            if len(places):
                place, query = np.divmod(places, len(self.rows))
                self._merge(-products[part][place, query], query, rows[part][place], stamps[part][place])

    def _merge(self, negated: Real, query: Whole, rows: Whole, stamps: Whole) -> None:
        queries, k = self.rows.shape
        owners = np.concatenate([np.repeat(np.arange(queries), k), query])
        negated = np.concatenate([self._negated.ravel(), negated])
        stamps = np.concatenate([self._stamps.ravel(), stamps])
        rows = np.concatenate([self.rows.ravel(), rows])
        order = np.lexsort((stamps, negated, owners))
        first = np.searchsorted(owners[order], np.arange(queries))
        kept = order[first[:, None] + np.arange(k)]
        self._negated, self._stamps, self.rows = negated[kept], stamps[kept], rows[kept]


def _multiply(pieces: Sequence[Sequence[_Piece]], queries: Tensor) -> Iterator[Real]:
    """(n, Nq) similarities to the vectors of some pieces, which are taken together."""
    if len(queries) > 1:
        yield from ((torch.from_numpy(_vectors(joined)) @ queries.T).numpy() for joined in pieces)
        return
    # The libraries' product with one vector takes twice as long as row by row, and their threads wait for each other
    # at every step: on a machine that is also indexing, that is most of the time.
    query = queries[0].numpy()

    def multiply(joined: Sequence[_Piece]) -> Real:
        return np.asarray(np.vecdot(_vectors(joined), query)[:, None])

    if sum(len(piece.rows) for joined in pieces for piece in joined) < ALONE_BELOW:
        yield from map(multiply, pieces)
        return
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        yield from pool.map(multiply, pieces)


def _vectors(joined: Sequence[_Piece]) -> Real:
    """The vectors of some pieces, copied only where they lie apart."""
    if joined[0].chosen is None:
        return joined[0].vectors
    return _joined([piece.vectors.take(piece.chosen, axis=0) for piece in joined if piece.chosen is not None])


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
        folder: where.
        stamps: (n,) ascending.
        vectors: (n, D).
    """
    path = folder / f"{secrets.token_hex(8)}.block"
    header = json.dumps({"rows": len(stamps), "dimension": vectors.shape[1]}).encode().ljust(HEADER_BYTES)
    write_with(
        path,
        lambda file: file.writelines([header, np.ascontiguousarray(stamps).data, np.ascontiguousarray(vectors).data]),
    )
    block = read_block(path, vectors.shape[1])
    return block if block is not None else Block(stamps, vectors, None)


def read_block(path: Path, dimension: int) -> Block | None:
    """A block file, mapped into memory; None where it vanished or is no whole block of this gallery.

    Args:
        path: the file.
        dimension: D.
    """
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
            return Block(stamps, vectors, path)
    return None
