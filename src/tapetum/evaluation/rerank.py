"""Re-ranking by k-reciprocal encoding, sparse: it keeps the few neighbours of each picture, never all pairs.

Two pictures that stand in each other's first ranks vouch for one another. Each picture is encoded by its k-reciprocal
neighbours, each weighted exp(-distance); pictures are then compared by the Jaccard distance of their encodings:

    final = (1 - lambda) * Jaccard + lambda * original / (largest original of the row)

An encoding reaches no further than the first k1 + 1 ranks of a picture and of its neighbours, so the sparse form is no
approximation: it equals the dense matrices of the published code. Rows of the final distance come a block at a time.
Pictures with equal vectors share the encoding of the first of them, so that equal vectors have equal distances.

Source: Zhong et al., "Re-ranking Person Re-identification with k-reciprocal Encoding", CVPR 2017. The paper's original
distance is the squared Euclidean; releases that start from matrices (the IDF code; torchreid given squared distances)
square once more.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from tapetum.core.arrays import paired_products
from tapetum.core.errors import ProtocolError
from tapetum.core.vectors import CACHED, first_equal, one_thread, similarity_blocks, smallest

OriginalDistance = Literal["squared_euclidean", "fourth_power"]
PIECE = 2**22  # entries of a temporary array


@dataclass(frozen=True)
class RerankOptions:
    """Settings of the k-reciprocal encoding."""

    k1: int = 20  # ranks in which two pictures must find each other
    k2: int = 6  # encodings averaged over a picture's first k2 ranks (itself included); 1 averages nothing
    lambda_value: float = 0.3  # weight of the original distance in the final one
    original: OriginalDistance = "squared_euclidean"  # as in the paper; or "fourth_power", (2 - 2s)^2: the IDF release

    def __post_init__(self) -> None:
        if self.k1 < 1 or self.k2 < 1:
            raise ProtocolError(f"re-ranking: k1={self.k1}, k2={self.k2}; both must be at least 1")
        if not 0 <= self.lambda_value <= 1:
            raise ProtocolError(f"re-ranking: lambda_value={self.lambda_value}; it must lie in 0..1")
        if self.original not in ("squared_euclidean", "fourth_power"):
            raise ProtocolError(f"re-ranking: original={self.original!r}; known: squared_euclidean, fourth_power")


@dataclass(frozen=True)
class _FromVectors:  # original distances among all N pictures, queries first
    everyone: Tensor  # (N, D) unit norm, queries first
    num_queries: int
    power: int  # of 2 - 2s
    chunk_size: int | None

    @property
    def size(self) -> int:
        return len(self.everyone)

    @property
    def first(self) -> Tensor:
        """(N,) int64 the first picture with the same vector."""
        return first_equal(self.everyone).cpu()

    def distance(self, similarity: Tensor) -> Tensor:
        """Original distances from similarities, in place."""
        squares = similarity.mul_(-2).add_(2).clamp_(min=0)
        return squares if self.power == 1 else squares.square_()

    def blocks(self) -> Iterator[tuple[Tensor, Tensor]]:
        """((n,) pictures, (n, N) their distances to all), each picture once."""
        for rows, block in similarity_blocks(self.everyone, self.everyone, self.chunk_size):
            yield rows.cpu(), self.distance(block)

    def query_blocks(self) -> Iterator[tuple[Tensor, Tensor]]:
        """((n,) queries, (n, Ng) their distances to the gallery), each query once."""
        query, gallery = self.everyone[: self.num_queries], self.everyone[self.num_queries :]
        for rows, block in similarity_blocks(query, gallery, self.chunk_size):
            yield rows.cpu(), self.distance(block)

    def at(self, rows: Tensor, columns: Tensor) -> Tensor:
        """(n,) distances of single pairs."""
        keys = torch.minimum(rows, columns) * self.size + torch.maximum(rows, columns)
        pairs, place = torch.unique(keys, return_inverse=True)  # most stand there both ways round
        products = [
            paired_products(self.everyone[some // self.size], self.everyone[some % self.size])
            for some in torch.split(pairs, max(1, CACHED // self.everyone.shape[1]))
        ]
        return self.distance(torch.cat(products))[place]


@dataclass(frozen=True)
class _FromMatrices:
    query_gallery: Tensor
    query_query: Tensor
    gallery_gallery: Tensor

    @property
    def num_queries(self) -> int:
        return len(self.query_query)

    @property
    def size(self) -> int:
        return len(self.query_query) + len(self.gallery_gallery)

    @property
    def first(self) -> Tensor:
        return torch.arange(self.size)  # equal distances do not say that two pictures are equal

    def blocks(self) -> Iterator[tuple[Tensor, Tensor]]:
        step = max(1, PIECE // self.size)
        for part in torch.split(torch.arange(self.num_queries), step):
            yield part, torch.cat([self.query_query[part], self.query_gallery[part]], dim=1).square_()
        for part in torch.split(torch.arange(len(self.gallery_gallery)), step):
            rows = torch.cat([self.query_gallery[:, part].T, self.gallery_gallery[part]], dim=1)
            yield part + self.num_queries, rows.square_()

    def query_blocks(self) -> Iterator[tuple[Tensor, Tensor]]:
        for part in torch.split(torch.arange(self.num_queries), max(1, PIECE // len(self.gallery_gallery))):
            yield part, self.query_gallery[part].square_()

    def at(self, rows: Tensor, columns: Tensor) -> Tensor:
        first, second = torch.minimum(rows, columns), torch.maximum(rows, columns)
        border = self.num_queries
        distances = torch.empty(len(rows), dtype=self.query_gallery.dtype)
        both, neither = second < border, first >= border
        mixed = ~(both | neither)
        distances[both] = self.query_query[first[both], second[both]]
        distances[mixed] = self.query_gallery[first[mixed], second[mixed] - border]
        distances[neither] = self.gallery_gallery[first[neither] - border, second[neither] - border]
        return distances.square_()


_Pictures = _FromVectors | _FromMatrices


def rerank(
    query: Tensor, gallery: Tensor, options: RerankOptions | None = None, *, chunk_size: int | None = None
) -> Tensor:
    """Re-ranked distances of all pairs, (Nq, Ng), smaller is closer, on the CPU.

    Args:
        query: (Nq, D) with unit norm, as the gallery.
        options: None takes the paper's.
        chunk_size: pictures at a time, see `core.vectors.similarity_blocks`.
    """
    return _collect(rerank_blocks(query, gallery, options, chunk_size=chunk_size), len(query), len(gallery))


def rerank_blocks(
    query: Tensor, gallery: Tensor, options: RerankOptions | None = None, *, chunk_size: int | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """The rows of `rerank`, a block at a time; a block may be overwritten by the next.

    Yields:
        (queries, block): (n,) int64 and their (n, Ng), each query once.
    """
    settings = options or RerankOptions()
    power = 1 if settings.original == "squared_euclidean" else 2
    return _final_blocks(_FromVectors(torch.cat([query, gallery]), len(query), power, chunk_size), settings)


def rerank_distances(
    query_gallery: Tensor, query_query: Tensor, gallery_gallery: Tensor, options: RerankOptions | None = None
) -> Tensor:
    """Re-ranked distances from three distance matrices, which are squared first, as the published routines do.

    Give Euclidean distances for the paper's definition; given squared ones, the original distance is a fourth power.

    Args:
        query_gallery: (Nq, Ng).
        query_query: (Nq, Nq), symmetric.
        gallery_gallery: (Ng, Ng), symmetric.
        options: None takes the paper's; `original` is not looked at.
    """
    shape = (len(query_query), len(gallery_gallery))
    if tuple(query_gallery.shape) != shape:
        raise ProtocolError(
            f"re-ranking: distances between query and gallery are {tuple(query_gallery.shape)}, expected {shape}; "
            "give (Nq, Ng), (Nq, Nq) and (Ng, Ng)"
        )
    pictures = _FromMatrices(query_gallery, query_query, gallery_gallery)
    return _collect(_final_blocks(pictures, options or RerankOptions()), *shape)


def _collect(blocks: Iterator[tuple[Tensor, Tensor]], num_queries: int, num_gallery: int) -> Tensor:
    """All blocks as one matrix, whose lines are the queries in order."""
    whole = torch.empty(0, num_gallery)
    for queries, block in blocks:
        if len(whole) == 0:
            whole = block.new_empty(num_queries, num_gallery)
        whole[queries] = block
    return whole


def _final_blocks(pictures: _Pictures, options: RerankOptions) -> Iterator[tuple[Tensor, Tensor]]:
    neighbours, farthest = _nearest(pictures, max(options.k1 + 1, options.k2))
    with one_thread():
        code = _encode(pictures, neighbours, farthest, options)
        first = pictures.first
        if (first != torch.arange(pictures.size)).any():  # lists of first ranks may end between two copies of a picture
            code = code[first.numpy()]
    queries = code[: pictures.num_queries]
    columns = code[pictures.num_queries :].tocsc()
    for asking, original in pictures.query_blocks():
        block = original.cpu()
        block /= farthest[asking].unsqueeze(1)
        block.clamp_(max=1)  # the farthest was computed beside others, and may be rounded otherwise
        block *= options.lambda_value
        overlap = _overlap(queries[asking.numpy()], columns)
        with one_thread():
            for offset, shared in overlap:  # Jaccard distance: 1 - intersection / union of two codes that sum to 1
                rows = block[offset : offset + len(shared)]
                rows += (1 - options.lambda_value) * (1 - shared / (2 - shared))
        yield asking, block


def _nearest(pictures: _Pictures, count: int) -> tuple[NDArray[np.int64], Tensor]:
    """The first ranks of every picture, itself included (N, count), and its largest distance (N,)."""
    count = min(count, pictures.size)
    columns = torch.empty(pictures.size, count, dtype=torch.int64)
    farthest: Tensor | None = None
    for rows, block in pictures.blocks():
        with one_thread():
            largest = block.amax(dim=1)
            if largest.isnan().any():
                raise ProtocolError("re-ranking: a distance is NaN; the embeddings are damaged, extract them again")
            columns[rows] = smallest(block, count)[1].cpu()
        if farthest is None:
            farthest = torch.empty(pictures.size, dtype=block.dtype)
        farthest[rows] = largest.cpu()
    assert farthest is not None  # noqa: S101  # there are pictures
    return columns.numpy(), farthest.clamp_(min=1e-12)


def _encode(
    pictures: _Pictures, neighbours: NDArray[np.int64], farthest: Tensor, options: RerankOptions
) -> sparse.csr_array:
    """Each picture as weights over its k-reciprocal neighbours, (N, N) sparse, each row sums to 1."""
    near = _reciprocal(neighbours[:, : options.k1 + 1])
    nearer = _reciprocal(neighbours[:, : round(options.k1 / 2) + 1])
    sizes = nearer.sum(axis=1)
    # a neighbour brings its own neighbours when more than two thirds of them are neighbours already
    shared = (near @ nearer).multiply(near).tocoo()  # (i, j): |nearer(j) and near(i)|; nearer is symmetric
    inside = 3 * shared.data > 2 * sizes[shared.col]
    inviting = sparse.csr_array(
        (np.ones(inside.sum(), dtype=np.int32), (shared.row[inside], shared.col[inside])), shape=near.shape
    )
    union = (near + inviting @ nearer).tocoo()
    rows, columns = torch.from_numpy(union.row).long(), torch.from_numpy(union.col).long()
    distances = (pictures.at(rows, columns).cpu() / farthest[rows]).clamp_(max=1)  # see `_final_blocks`
    weights = torch.exp(-distances).double()
    total = torch.zeros(pictures.size, dtype=torch.float64).index_add_(0, rows, weights)
    code = sparse.csr_array(((weights / total[rows]).float().numpy(), (union.row, union.col)), shape=near.shape)
    if options.k2 == 1:
        return code
    first = neighbours[:, : options.k2]
    means: sparse.csr_array = _indicator(first, np.float32(1 / first.shape[1])) @ code
    return means


def _indicator(columns: NDArray[np.int64], value: np.generic) -> sparse.csr_array:
    """Sparse (N, N) with `value` at the given columns (N, k) of each row."""
    size, count = columns.shape
    pointers = np.arange(0, size * count + 1, count)
    ascending = np.sort(columns, axis=1).ravel()
    return sparse.csr_array((np.full(size * count, value), ascending, pointers), shape=(size, size))


def _reciprocal(columns: NDArray[np.int64]) -> sparse.csr_array:
    """Sparse (N, N) with 1 where each of two pictures is among the given neighbours of the other."""
    forward = _indicator(columns, np.int32(1))
    mutual: sparse.csr_array = forward.multiply(forward.T).tocsr()
    return mutual


def _overlap(queries: sparse.csr_array, columns: sparse.csc_array) -> Iterator[tuple[int, Tensor]]:
    """(offset, (m, Ng) float32): sums of the smaller weights of two codes, for all pairs, some rows at a time.

    Args:
        queries: (n, N) codes of the queries, by row.
        columns: (Ng, N) codes of the gallery, by column.
    """
    num_gallery = columns.shape[0]
    lengths = np.diff(columns.indptr)
    pairs = lengths[queries.indices]  # gallery codes that share an entry of a query's code
    total = np.concatenate([[0], np.cumsum(pairs)])[queries.indptr]
    heaviest = int(np.diff(total).max(initial=1))
    step = max(1, min(PIECE // num_gallery, PIECE // heaviest))
    for offset in range(0, queries.shape[0], step):
        pointers = queries.indptr[offset : offset + step + 1]
        entries = slice(pointers[0], pointers[-1])
        count = pairs[entries]
        first = columns.indptr[queries.indices[entries]] - (np.cumsum(count) - count)
        position = np.arange(count.sum()) + np.repeat(first, count)
        rows = np.repeat(np.arange(len(pointers) - 1), np.diff(pointers))
        smaller = np.minimum(np.repeat(queries.data[entries], count), columns.data[position])
        cells = np.repeat(rows * num_gallery, count) + columns.indices[position]
        sums = np.bincount(cells, weights=smaller, minlength=(len(pointers) - 1) * num_gallery)
        yield offset, torch.from_numpy(sums.reshape(-1, num_gallery)).float()
