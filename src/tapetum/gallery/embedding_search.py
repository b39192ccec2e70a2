"""Exact search in a set of embeddings, with memory bounded by a block of rows."""

from torch import Tensor

from tapetum.core.errors import ProtocolError
from tapetum.core.types import EmbeddingSet, Match
from tapetum.core.vectors import normalise, similarity_blocks, smallest


def search(vectors: Tensor, gallery: EmbeddingSet, k: int = 10, *, chunk_size: int | None = None) -> list[list[Match]]:
    """The k gallery pictures most similar to each vector; equal similarities come in the gallery's order.

    Args:
        vectors: (Nq, D), scaled to unit norm here.
        k: answers a query; fewer where the gallery is smaller.
        chunk_size: queries at a time; the answers do not depend on it.
    Returns:
        One list a query, best answer first.
    Raises:
        ProtocolError: dimensions differ, k is below 1 or a vector holds NaN or infinity.
    """
    if vectors.ndim != 2 or vectors.shape[1] != gallery.vectors.shape[1]:
        raise ProtocolError(
            f"search: vectors are {tuple(vectors.shape)}, the gallery's {tuple(gallery.vectors.shape)}; "
            "extract both with the same checkpoint"
        )
    if k < 1:
        raise ProtocolError(f"search: k={k}; ask for at least one answer")
    if not (vectors.isfinite().all() and gallery.vectors.isfinite().all()):
        raise ProtocolError("search: a vector holds NaN or infinity; extract it again")
    answers: list[list[Match]] = [[] for _ in range(len(vectors))]
    queries = normalise(vectors.to(gallery.vectors))
    pids, camids = gallery.pids.tolist(), gallery.camids.tolist()
    for asking, block in similarity_blocks(queries, gallery.vectors, chunk_size):
        distances, columns = smallest(block.neg_(), min(k, len(gallery)))
        similarities = (-distances).clamp(-1, 1)
        for query, rows, values in zip(asking.tolist(), columns.tolist(), similarities.tolist(), strict=True):
            answers[query] = [
                Match(path=gallery.paths[row], pid=pids[row], camid=camids[row], similarity=value, rank=rank)
                for rank, (row, value) in enumerate(zip(rows, values, strict=True), start=1)
            ]
    return answers
