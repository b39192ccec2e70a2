"""Vectors: unit length and pairwise distances, the same for losses, evaluation and search."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn import functional

SAMPLED = 8  # columns that tell most rows apart
CACHED = 2**18  # entries worked on at a time, so that they stay in the processor's cache
WHOLE_NUMBERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}  # by bytes


def normalise(vectors: Tensor) -> Tensor:
    """Rows of (N, D) scaled to unit L2 norm; a row of zeros stays zero."""
    return functional.normalize(vectors, dim=1)


def squared_euclidean(a: Tensor, b: Tensor) -> Tensor:
    """Squared Euclidean distances of all pairs of (N, D) and (M, D), never below zero.

    Returns:
        (N, M): |a|^2 + |b|^2 - 2 a.b in one fused product.
    """
    norms_a = a.square().sum(1, keepdim=True)
    norms_b = b.square().sum(1)
    return torch.addmm(norms_b.expand(len(a), -1), a, b.T, alpha=-2.0).add(norms_a).clamp_(min=0)


def euclidean(a: Tensor, b: Tensor, eps: float = 1e-12) -> Tensor:
    """Euclidean distances of all pairs of (N, D) and (M, D), (N, M).

    Args:
        eps: smallest squared distance before the root, so that the gradient at zero is finite (the form every
            triplet-type loss here uses).
    """
    return squared_euclidean(a, b).clamp(min=eps).sqrt()


def tile_rows(columns: int) -> int:
    """How many rows one tile of a product with Ng columns has: at most 512, at most 256 MiB of float32.

    A power of two that depends on nothing but `columns`.
    """
    rows = 512
    while rows > 1 and rows * columns * 4 > 2**28:
        rows //= 2
    return rows


def similarity_blocks(a: Tensor, b: Tensor, chunk_size: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
    """Inner products of all pairs, some rows at a time: never more than one block is alive.

    A matrix product rounds each number in a way that depends on its shape and on the place of the number in it. So
    that no answer does, every product here is one tile of a fixed grid over the distinct rows of `a` (only the last is
    shorter), and the products of rows that equal an earlier one, on either side, are copied from it: equal rows have
    equal products, bit for bit, and each number is the same for every `chunk_size`. A block is overwritten by the
    next one; copy what must stay.

    Args:
        a: (N, D).
        b: (M, D), on the same device.
        chunk_size: rows of `a` a block; rounded up to whole tiles. None: one tile.
    Yields:
        (rows, block): `rows` (n,) int64, each row of `a` once and in order but for rows that equal an earlier one,
        which follow it closely; block is (n, M), line i holds the products of a[rows[i]] with every row of `b`.
    """
    first = first_equal(a)
    firsts, owner = torch.unique(first, return_inverse=True)
    askers = owner.argsort(stable=True)  # all rows, equal ones side by side
    ends = torch.bincount(owner, minlength=len(firsts)).cumsum(0).tolist()
    source = first if a is b else first_equal(b)
    copies = (source != torch.arange(len(b), device=b.device)).nonzero().squeeze(1)
    tile = tile_rows(len(b))
    chunk = max(1, -(-(chunk_size or tile) // tile)) * tile
    block = a.new_empty(min(chunk, len(firsts)), len(b))
    for start in range(0, len(firsts), chunk):
        stop = min(start + chunk, len(firsts))
        for top in range(start, stop, tile):
            bottom = min(top + tile, stop)
            products = block[top - start : bottom - start]
            torch.mm(a[top:bottom] if len(firsts) == len(a) else a[firsts[top:bottom]], b.T, out=products)
            if len(copies):
                products[:, copies] = products[:, source[copies]]
        rows = askers[ends[start - 1] if start else 0 : ends[stop - 1]]
        if len(rows) == stop - start:
            yield rows, block[: stop - start]
        else:
            for some in torch.split(rows, chunk):
                yield some, block[owner[some] - start]


def first_equal(rows: Tensor) -> Tensor:
    """For each row the number of the first row that holds the same numbers: its own where none before it does.

    Few columns tell most rows apart, so that on vectors without copies this costs next to nothing.

    Args:
        rows: (N, D).
    """
    first = torch.arange(len(rows), device=rows.device)
    if len(rows) < 2:
        return first
    step = max(1, CACHED // max(1, rows.shape[1]))
    keys = _checksum(rows[:, :: max(1, rows.shape[1] // SAMPLED)])
    left = first[_is_shared(keys)]
    keys, sampled = keys[left], True
    while len(left):
        _, group = torch.unique(keys, return_inverse=True)
        leader = torch.full_like(left, len(rows)).scatter_reduce_(0, group, left, "amin")[group]
        pairs = zip(torch.split(left, step), torch.split(leader, step), strict=True)
        equal = torch.cat([(rows[ours] == rows[theirs]).all(1) for ours, theirs in pairs])
        equal |= left == leader  # NaN equals nothing
        first[left[equal]] = leader[equal]
        left, keys = left[~equal], keys[~equal]
        if sampled and len(left):  # from here on rows share a key by chance only
            keys, sampled = torch.cat([_checksum(rows[part]) for part in torch.split(left, step)]), False
    return first


def _checksum(rows: Tensor) -> Tensor:
    """(N,) int64, equal for equal rows."""
    generator = torch.Generator().manual_seed(0)
    weights = torch.randint(-(2**62), 2**62, (rows.shape[1],), generator=generator).to(rows.device)
    bits = (rows + 0.0).view(WHOLE_NUMBERS[rows.element_size()]).long()  # + 0.0: minus zero equals zero
    return ((bits ^ (bits >> 31)) * weights).sum(1)


def _is_shared(keys: Tensor) -> Tensor:
    """(N,) bool, another entry has the same key."""
    _, group, counts = torch.unique(keys, return_inverse=True, return_counts=True)
    shared: Tensor = counts[group] > 1
    return shared


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
    best = order[first.unsqueeze(1) + torch.arange(k, device=values.device)]
    columns = column[best]
    return values.gather(1, columns), columns


@contextmanager
def one_thread() -> Iterator[None]:
    """For many short operations in a row: waking threads for each gains little, and stalls when the cores are busy.

    It is the calling thread that has one; others keep theirs, also those that begin meanwhile.
    """
    before = torch.get_num_threads()
    if before == 1:
        yield
        return
    torch.set_num_threads(1)
    # That is also what a thread gets that begins, so a thread whose own number plays no part sets it back.
    setting = threading.Thread(target=torch.set_num_threads, args=(before,))
    setting.start()
    setting.join()
    try:
        yield
    finally:
        torch.set_num_threads(before)
