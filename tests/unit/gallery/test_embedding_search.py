from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from tapetum.core.errors import ProtocolError
from tapetum.core.types import EmbeddingSet, Match
from tapetum.gallery.embedding_search import search


@pytest.fixture
def gallery() -> EmbeddingSet:
    vectors = functional.normalize(torch.randn(300, 16, generator=torch.Generator().manual_seed(0)))
    return EmbeddingSet(
        vectors=vectors,
        paths=tuple(Path(f"{row}.jpg") for row in range(300)),
        pids=torch.arange(300) // 3,
        camids=torch.arange(300) % 3,
        modalities=torch.zeros(300, dtype=torch.int64),
    )


def test_search_finds_the_most_similar_pictures_in_order(gallery: EmbeddingSet) -> None:
    queries = torch.randn(20, 16, generator=torch.Generator().manual_seed(1))  # of any length
    answers = search(queries, gallery, 7)
    expected = (functional.normalize(queries) @ gallery.vectors.T).sort(dim=1, descending=True)
    for answer, rows, values in zip(answers, expected.indices.tolist(), expected.values.tolist(), strict=True):
        assert [match.path for match in answer] == [gallery.paths[row] for row in rows[:7]]
        assert [match.rank for match in answer] == list(range(1, 8))
        assert [match.similarity for match in answer] == pytest.approx(values[:7], abs=1e-6)
        assert [(match.pid, match.camid) for match in answer] == [(row // 3, row % 3) for row in rows[:7]]


def test_a_picture_of_the_gallery_finds_itself_with_similarity_one(gallery: EmbeddingSet) -> None:
    first = search(gallery.vectors[5:6], gallery, 1)[0][0]
    assert first == Match(path=Path("5.jpg"), pid=1, camid=2, similarity=pytest.approx(1, abs=1e-6), rank=1)
    assert first.similarity <= 1


def test_answers_do_not_depend_on_the_chunk_size(gallery: EmbeddingSet) -> None:
    queries = torch.randn(1200, 16, generator=torch.Generator().manual_seed(1))
    assert search(queries, gallery, 3, chunk_size=1) == search(queries, gallery, 3, chunk_size=5000)


def test_equal_similarities_come_in_the_gallerys_order(gallery: EmbeddingSet) -> None:
    axes = torch.eye(16)  # products of these are exact
    same = replace(gallery, vectors=axes[torch.arange(300) % 2])
    assert [match.path.name for match in search(axes[1:2], same, 3)[0]] == ["1.jpg", "3.jpg", "5.jpg"]


def test_a_small_gallery_gives_fewer_answers(gallery: EmbeddingSet) -> None:
    assert len(search(gallery.vectors[:1], gallery.select(torch.arange(4)), 10)[0]) == 4


def test_queries_that_cannot_be_searched_are_errors(gallery: EmbeddingSet) -> None:
    with pytest.raises(ProtocolError, match=r"vectors are \(2, 8\), the gallery's \(300, 16\)"):
        search(torch.zeros(2, 8), gallery)
    with pytest.raises(ProtocolError, match="k=0"):
        search(gallery.vectors, gallery, 0)
    with pytest.raises(ProtocolError, match="NaN or infinity"):
        search(torch.full((1, 16), torch.nan), gallery)
