"""The vectors of a gallery as memory-mapped blocks beside its table, and exact search in them.

Every stored vector has a stamp, a number that is never given twice. A block file holds stamps and vectors; whatever
the table does not know any more is dead, whatever the blocks do not hold yet is read from the table. So no file has to
be in step with the table, and a lost or damaged one costs time, never an answer.
"""

import contextlib
import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tapetum.core.atomic import make_folder, write_with
from tapetum.core.vectors import smallest

BLOCK_ROWS = 65_536  # at most, in one file: what one deleted vector costs to write again
QUERIES_AT_ONCE = 256
HEADER_BYTES = 4096
MOST_SMALL = 8  # blocks in memory before they are joined
GATHER_BELOW = 0.25  # share of a block's rows under which copying them out beats multiplying all

Bits = NDArray[np.bool_]
Whole = NDArray[np.int64]
Real = NDArray[np.float32]


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
        self.blocks, self.rows = blocks, rows
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
        parts = [self._search(queries[top : top + QUERIES_AT_ONCE], k, passing) for top in range(0, len(queries), 256)]
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
        self.blocks, self.rows = [block for block, _ in kept], [rows for _, rows in kept]
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
        self.blocks, self.rows = [block for block, _ in pairs], [rows for _, rows in pairs]

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
        values = torch.empty(len(queries), 0)
        found = torch.empty(len(queries), 0, dtype=torch.int64)
        stamps = torch.empty(len(queries), 0, dtype=torch.int64)
        for block, rows in zip(self.blocks, self.rows, strict=True):
            allowed = rows >= 0
            if passing is not None:
                allowed &= passing[rows]
            share = int(allowed.sum())
            if share == 0:
                continue
            block_rows, block_stamps = torch.from_numpy(rows), torch.from_numpy(block.stamps)
            if share < GATHER_BELOW * len(rows):
                chosen = np.flatnonzero(allowed)
                block_rows, block_stamps = block_rows[chosen], block_stamps[chosen]
                products = queries @ torch.from_numpy(block.vectors[chosen]).T
            else:
                products = queries @ torch.from_numpy(block.vectors).T
                if share < len(rows):
                    products[:, torch.from_numpy(~allowed)] = -torch.inf
            distances, columns = smallest(products.neg_(), min(k, share))
            values = torch.cat([values, distances], dim=1)
            found = torch.cat([found, block_rows[columns]], dim=1)
            stamps = torch.cat([stamps, block_stamps[columns]], dim=1)
            order = stamps.argsort(dim=1)
            values, found, stamps = values.gather(1, order), found.gather(1, order), stamps.gather(1, order)
            values, order = values.sort(dim=1, stable=True)
            values, order = values[:, :k], order[:, :k]
            found, stamps = found.gather(1, order), stamps.gather(1, order)
        return values.neg().clamp_(-1, 1).numpy(), found.numpy()

    def _read_folder(self) -> None:
        paths = set(self.folder.glob("*.block")) if self.folder.is_dir() else set()
        self.blocks = [block for block in self.blocks if block.path is None or block.path in paths]
        known = {block.path for block in self.blocks}
        for path in sorted(paths - known):
            block = read_block(path, self.dimension)
            if block is not None:
                self.blocks.insert(0, block)  # files before memory: a block in both is dropped from memory


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
