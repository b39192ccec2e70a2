import numpy as np
import pytest
import torch
from torch.nn import functional

import golden_files
from tapetum.core.errors import ProtocolError
from tapetum.evaluation.rerank import RerankOptions, rerank, rerank_blocks, rerank_distances

GOLDEN = golden_files.load("reranking")
CASES = [tuple(name.split("/out/")) for name in GOLDEN.files if "/out/" in name]


def golden_sides() -> tuple[torch.Tensor, torch.Tensor]:
    query, gallery = (torch.from_numpy(GOLDEN[f"k20_6_03/in/{side}"]).float() for side in ("query", "gallery"))
    return query, gallery


def golden_options(case: str, output: str) -> RerankOptions:
    return RerankOptions(
        k1=int(GOLDEN[f"{case}/cfg/k1"]),
        k2=int(GOLDEN[f"{case}/cfg/k2"]),
        lambda_value=float(GOLDEN[f"{case}/cfg/lam"]),
        original="squared_euclidean" if output == "from_euclidean" else "fourth_power",
    )


@pytest.mark.parametrize(("case", "output"), CASES)
def test_reranked_vectors_equal_the_published_routines(case: str, output: str) -> None:
    found = rerank(*golden_sides(), golden_options(case, output))
    np.testing.assert_allclose(found.numpy(), GOLDEN[f"{case}/out/{output}"], atol=1e-5)


@pytest.mark.parametrize(("case", "output"), CASES)
def test_reranked_matrices_equal_the_published_routines(case: str, output: str) -> None:
    query, gallery = golden_sides()

    def distances(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        squared = (2 - 2 * a @ b.T).clamp(min=0)
        return squared.sqrt() if output == "from_euclidean" else squared

    matrices = distances(query, gallery), distances(query, query), distances(gallery, gallery)
    found = rerank_distances(*matrices, golden_options(case, output))
    np.testing.assert_allclose(found.numpy(), GOLDEN[f"{case}/out/{output}"], atol=1e-5)


def slow_rerank(vectors: np.ndarray, num_queries: int, options: RerankOptions) -> np.ndarray:
    """The definition, one picture after another, with full matrices of float64."""
    original = np.maximum(2 - 2 * vectors @ vectors.T, 0)
    original = original / original.max(axis=1, keepdims=True)
    size = len(vectors)
    ranks = [sorted(range(size), key=lambda j, i=i: (original[i, j], j)) for i in range(size)]

    def mutual(i: int, k: int) -> set[int]:
        return {j for j in ranks[i][: k + 1] if i in ranks[j][: k + 1]}

    codes = np.zeros((size, size))
    for i in range(size):
        members = mutual(i, options.k1)
        for j in mutual(i, options.k1):
            theirs = mutual(j, round(options.k1 / 2))
            if len(theirs & mutual(i, options.k1)) > 2 / 3 * len(theirs):
                members |= theirs
        for j in members:
            codes[i, j] = np.exp(-original[i, j])
        codes[i] /= codes[i].sum()
    codes = np.stack([codes[ranks[i][: options.k2]].mean(axis=0) for i in range(size)])
    shared = np.minimum(codes[:num_queries, None], codes[None, num_queries:]).sum(axis=2)
    jaccard = 1 - shared / (2 - shared)
    return (1 - options.lambda_value) * jaccard + options.lambda_value * original[:num_queries, num_queries:]


@pytest.mark.parametrize(
    "options",
    [
        RerankOptions(k1=5, k2=2),
        RerankOptions(k1=7, k2=1, lambda_value=0),
        RerankOptions(k1=3, k2=6),  # more averaged than mutual
        RerankOptions(k1=200, k2=4),  # the neighbours cover the whole set
    ],
)
def test_sparse_codes_equal_the_dense_definition(options: RerankOptions) -> None:
    generator = torch.Generator().manual_seed(3)
    centres = torch.randn(6, 12, generator=generator)
    labels = torch.randint(0, 6, (50,), generator=generator)
    vectors = functional.normalize(centres[labels] + 0.7 * torch.randn(50, 12, generator=generator)).double()
    found = rerank(vectors[:15], vectors[15:], options)
    np.testing.assert_allclose(found.numpy(), slow_rerank(vectors.numpy(), 15, options), atol=1e-6)


def test_many_copies_of_one_picture_leave_no_hole() -> None:
    vectors = functional.normalize(torch.ones(40, 8))
    found = rerank(vectors[:10], vectors[10:], RerankOptions(k1=4, k2=2))
    assert found.isfinite().all()
    assert ((found >= 0) & (found <= 1 + 1e-6)).all()


def test_pictures_that_are_all_the_same_have_finite_distances() -> None:
    # their largest distance is rounding noise, which another way to compute it need not repeat
    for seed in range(20):
        one = functional.normalize(torch.randn(1, 33, generator=torch.Generator().manual_seed(seed)))
        for copies in (1, 3):
            found = rerank(one, one.repeat(copies, 1), RerankOptions(k1=4, k2=2))
            assert found.min() == found.max()
            assert 0 <= float(found.max()) <= 1


def test_blocks_do_not_depend_on_the_chunk_size() -> None:
    query, gallery = golden_sides()
    query = query.repeat(20, 1)[:1100] + 0.001 * torch.randn(1100, 32, generator=torch.Generator().manual_seed(0))
    query = functional.normalize(query)
    options = RerankOptions(k1=6, k2=3)
    whole = rerank(query, gallery, options, chunk_size=5000)
    for chunk_size in (1, 512, 700):
        blocks = [block.clone() for _, block in rerank_blocks(query, gallery, options, chunk_size=chunk_size)]
        assert torch.equal(torch.cat(blocks), whole)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k1": 0}, "k1=0"),
        ({"lambda_value": 1.5}, "lambda_value=1.5; it must lie in 0..1"),
        ({"original": "cosine"}, "known: squared_euclidean, fourth_power"),
    ],
)
def test_settings_out_of_range_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(ProtocolError, match=message):
        RerankOptions(**options)


def test_damaged_vectors_and_wrong_shapes_are_errors() -> None:
    query, gallery = golden_sides()
    gallery[3, 1] = torch.nan
    with pytest.raises(ProtocolError, match="a distance is NaN"):
        rerank(query, gallery)
    with pytest.raises(ProtocolError, match=r"are \(60, 3\), expected \(60, 300\)"):
        rerank_distances(torch.zeros(60, 3), torch.zeros(60, 60), torch.zeros(300, 300))
