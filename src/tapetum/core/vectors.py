"""Vectors: unit length and pairwise distances, the same for losses, evaluation and search."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn import functional


def normalise(vectors: Tensor, eps: float = 1e-12) -> Tensor:
    """Rows scaled to unit L2 norm; a row of zeros stays zero.

    Args:
        vectors: (N, D).
        eps: smallest norm divided by.
    Returns:
        (N, D), same dtype.
    """
    return functional.normalize(vectors, dim=1, eps=eps)


def squared_euclidean(a: Tensor, b: Tensor) -> Tensor:
    """Squared Euclidean distances of all pairs, never below zero.

    Args:
        a: (N, D).
        b: (M, D).
    Returns:
        (N, M): |a|^2 + |b|^2 - 2 a.b in one fused product.
    """
    norms_a = a.square().sum(1, keepdim=True)
    norms_b = b.square().sum(1)
    return torch.addmm(norms_b.expand(len(a), -1), a, b.T, alpha=-2.0).add(norms_a).clamp_(min=0)


def euclidean(a: Tensor, b: Tensor, eps: float = 1e-12) -> Tensor:
    """Euclidean distances of all pairs; `eps` stands under the root so that the gradient at zero is finite.

    Args:
        a: (N, D).
        b: (M, D).
        eps: smallest squared distance before the root (the form every triplet-type loss here uses).
    """
    return squared_euclidean(a, b).clamp(min=eps).sqrt()


def tile_rows(columns: int) -> int:
    """How many rows one tile of a product with `columns` columns has: at most 512, at most 256 MiB of float32.

    Args:
        columns: number of gallery entries, Ng.
    Returns:
        A power of two in 1..512 that depends on nothing but `columns`.
    """
    rows = 512
    while rows > 1 and rows * columns * 4 > 2**28:
        rows //= 2
    return rows


def similarity_blocks(a: Tensor, b: Tensor, chunk_size: int | None = None) -> Iterator[tuple[int, Tensor]]:
    """Inner products of all pairs, some rows at a time: never more than one block is alive.

    A matrix product may round differently when its shape changes. Every product here is therefore one tile of a fixed
    grid over the rows of `a` (only the last tile is shorter), whatever `chunk_size` is: each number is the same,
    bit for bit, for every chunk size. The block is overwritten by the next one; copy what must stay.

    Args:
        a: (N, D).
        b: (M, D), on the same device.
        chunk_size: rows of `a` a block; rounded up to whole tiles. None: one tile.
    Yields:
        (start, block): block is (n, M), row i holds the products of a[start + i] with every row of `b`.
    """
    tile = tile_rows(len(b))
    chunk = max(1, -(-(chunk_size or tile) // tile)) * tile
    block = a.new_empty(min(chunk, len(a)), len(b))
    for start in range(0, len(a), chunk):
        stop = min(start + chunk, len(a))
        for top in range(start, stop, tile):
            bottom = min(top + tile, stop)
            torch.mm(a[top:bottom], b.T, out=block[top - start : bottom - start])
        yield start, block[: stop - start]


def smallest(values: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k smallest entries of each row, exactly: equal entries come in the order of their columns.

    Args:
        values: (N, M) without NaN.
        k: at most M.
    Returns:
        (values, columns), both (N, k), ascending.
    """
    if k == 0 or len(values) == 0:
        return values.new_empty(len(values), k), torch.empty(len(values), k, dtype=torch.int64, device=values.device)
    limit = values.topk(k, dim=1, largest=False, sorted=True).values[:, -1:]
    inside = values <= limit  # k or more a row: ties at the limit are all in
    row, column = inside.nonzero(as_tuple=True)  # columns ascend within a row
    order = values[row, column].argsort(stable=True)
    order = order[row[order].argsort(stable=True)]
    counts = torch.bincount(row, minlength=len(values))
    first = counts.cumsum(0) - counts
    picked = order[first.unsqueeze(1) + torch.arange(k, device=values.device)]
    columns = column[picked]
    return values.gather(1, columns), columns


@contextmanager
def one_thread() -> Iterator[None]:
    """For many short operations in a row: waking threads for each gains little, and stalls when the cores are busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
