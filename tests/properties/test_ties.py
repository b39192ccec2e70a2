"""Equal vectors are ties: whatever the sizes, the places of the copies, the threads and the chunks."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from tapetum.core.protocol import Protocol
from tapetum.core.types import EmbeddingSet
from tapetum.core.vectors import similarity_blocks
from tapetum.evaluation.metrics import evaluate
from tapetum.evaluation.ranking import top_k
from tapetum.evaluation.rerank import RerankOptions, rerank
from tapetum.evaluation.trials import evaluate_trials
from tapetum.gallery.embedding_search import search

quick = settings(max_examples=30)
few = settings(max_examples=12)


@dataclass(frozen=True)
class Case:
    """Vectors on two sides, each of which is one of a few distinct ones: `which` says which."""

    query: Tensor
    gallery: Tensor
    query_which: Tensor
    gallery_which: Tensor
    threads: int
    chunk_size: int | None

    @contextmanager
    def threaded(self) -> Iterator[None]:
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def build_case(
    num_queries: int, num_gallery: int, dimension: int, distinct: int, threads: int, chunk_size: int | None, seed: int
) -> Case:
    generator = torch.Generator().manual_seed(seed)
    pool = functional.normalize(torch.randn(distinct, dimension, generator=generator))
    query_which = torch.randint(0, distinct, (num_queries,), generator=generator)
    gallery_which = torch.randint(0, distinct, (num_gallery,), generator=generator)
    return Case(pool[query_which], pool[gallery_which], query_which, gallery_which, threads, chunk_size)


cases = st.builds(
    build_case,
    num_queries=st.one_of(st.integers(1, 20), st.sampled_from([511, 513, 1030])),
    num_gallery=st.integers(1, 70),
    dimension=st.sampled_from([1, 3, 16, 33, 96, 512, 2048]),
    distinct=st.integers(1, 60),
    threads=st.integers(1, 2),
    chunk_size=st.sampled_from([None, 1, 600, 5000]),
    seed=st.integers(0, 2**32 - 1),
)


def similarities(case: Case, *, dtype: torch.dtype = torch.float32) -> Tensor:
    whole = torch.full((len(case.query), len(case.gallery)), torch.nan, dtype=dtype)
    for rows, block in similarity_blocks(case.query.to(dtype), case.gallery.to(dtype), case.chunk_size):
        assert whole[rows].isnan().all(), "each query once"
        whole[rows] = block
    return whole


def check_equal_where_vectors_are(matrix: Tensor, rows: Tensor, columns: Tensor) -> None:
    """Lines and columns of one vector are the same, bit for bit."""
    for lines, which in ((matrix, rows), (matrix.T, columns)):
        first = {number: place for place, number in reversed(list(enumerate(which.tolist())))}
        assert torch.equal(lines, lines[[first[number] for number in which.tolist()]])


@quick
@given(cases, st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.float16]))
@example(build_case(1, 11, 512, 1, 1, None, 0), torch.float32)  # one vector eleven times had three similarities
@example(build_case(513, 19, 2048, 1, 2, None, 0), torch.float32)
def test_equal_vectors_have_equal_similarities(case: Case, dtype: torch.dtype) -> None:
    with case.threaded():
        found = similarities(case, dtype=dtype)
    check_equal_where_vectors_are(found, case.query_which, case.gallery_which)
    tolerance = {torch.float32: 1e-5, torch.float64: 1e-5}.get(dtype, 0.05)
    expected = case.query.double() @ case.gallery.double().T
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=tolerance)


@few
@given(cases, st.integers(1, 8), st.integers(1, 5))
@example(build_case(2, 40, 96, 1, 1, None, 0), 4, 2)
def test_equal_vectors_have_equal_reranked_distances(case: Case, k1: int, k2: int) -> None:
    with case.threaded():
        found = rerank(case.query[:100], case.gallery, RerankOptions(k1=k1, k2=k2), chunk_size=case.chunk_size)
    check_equal_where_vectors_are(found, case.query_which[:100], case.gallery_which)


def as_set(vectors: Tensor, pids: Tensor, camid: int) -> EmbeddingSet:
    numbers = range(len(vectors))
    camids, modalities = torch.full_like(pids, camid), torch.zeros_like(pids)
    return EmbeddingSet(vectors, tuple(Path(f"{number:04d}.jpg") for number in numbers), pids, camids, modalities)


@quick
@given(
    copies=st.integers(1, 40),
    others=st.integers(0, 30),
    dimension=st.sampled_from([3, 33, 96, 512, 2048]),
    threads=st.integers(1, 2),
    last_first=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
@example(10, 3, 512, 1, False, 0)
@example(10, 3, 512, 1, True, 0)
def test_copies_of_one_picture_are_ranked_in_the_order_of_files(
    copies: int, others: int, dimension: int, threads: int, last_first: bool, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    one, asking = (functional.normalize(torch.randn(1, dimension, generator=generator)) for _ in range(2))
    rest = functional.normalize(torch.randn(others, dimension, generator=generator))
    order = torch.randperm(copies + others, generator=generator)
    gallery = torch.cat([one.expand(copies, -1), rest])[order]
    place = (order < copies).nonzero().squeeze(1)  # of the copies, in the order of files
    apart = (rest - one).double() @ asking[0].double()
    if len(apart) and float(apart.abs().min()) < 1e-4:
        return  # another vector is as near as the copies, but for rounding
    nearer = int((apart > 0).sum())
    # query i is for the person whose picture is the i-th copy
    pids = torch.arange(100, 100 + len(gallery))
    query = as_set(asking.expand(copies, -1).contiguous(), pids[place], 1)
    expected = torch.arange(1, copies + 1)
    expected = nearer + (expected.flip(0) if last_first else expected)
    rules = Protocol("ties", ties="larger_index_first" if last_first else "smaller_index_first")
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        drawn = Protocol("ties", ties=rules.ties, drawn="gallery", trials=2)
        searched = as_set(gallery, pids, 2)
        assert evaluate(query, searched, rules).per_query_first_rank.tolist() == expected.tolist()
        for trial in evaluate_trials(query, searched, drawn).each:
            assert trial.per_query_first_rank.tolist() == expected.tolist()
        ranked = top_k(query, searched, rules, len(gallery)).gallery_rows
        assert (
            ranked[:, nearer : nearer + copies].tolist() == [(place.flip(0) if last_first else place).tolist()] * copies
        )
        for answer in search(query.vectors, searched, len(gallery)):
            found = [int(match.path.stem) for match in answer]
            assert found[nearer : nearer + copies] == place.tolist()
    finally:
        torch.set_num_threads(before)
