import json
from pathlib import Path

import numpy as np
import pytest
import torch

from gallery_rows import some_vectors
from tapetum.core.arrays import paired_products
from tapetum.gallery import exact
from tapetum.gallery.exact import HEADER_BYTES, VectorBlocks, read_block, rounding_margin, write_block


class Table:
    """Stands for the table that a matrix follows: stamps and vectors, and how many it was asked for."""

    def __init__(self, count: int, dimension: int = 16) -> None:
        self.stamps = np.random.default_rng(0).permutation(count * 7)[:count].astype(np.int64)
        self.vectors = some_vectors(count, dimension=dimension).numpy()
        self.read = 0

    def give(self, rows: np.ndarray) -> np.ndarray:
        self.read += len(rows)
        return self.vectors[rows]

    def keep(self, rows: np.ndarray) -> None:
        self.stamps, self.vectors = self.stamps[rows], self.vectors[rows]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact, "BLOCK_ROWS", 50)


def check_search(matrix: VectorBlocks, table: Table, passing: np.ndarray | None = None, k: int = 7) -> None:
    queries = some_vectors(9, seed=1, dimension=16)
    values, rows = matrix.search(queries.numpy(), k, passing)
    products = queries @ torch.from_numpy(table.vectors).T
    if passing is not None:
        products[:, torch.from_numpy(~passing)] = -2
    expected = products.topk(min(k, len(table.stamps) if passing is None else int(passing.sum())))
    assert rows.tolist() == expected.indices.tolist()
    np.testing.assert_allclose(values, expected.values.numpy(), atol=1e-6)


def test_search_in_blocks_equals_search_in_one_matrix(tmp_path: Path) -> None:
    table, matrix = Table(333), VectorBlocks(tmp_path / "exact", 16)
    matrix.refresh(table.stamps, table.give)
    for passing in (None, np.arange(333) % 2 == 0, np.arange(333) % 29 == 0, np.arange(333) < 3):
        check_search(matrix, table, passing)


def test_one_query_is_answered_as_many_are_by_one_thread_or_several(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exact, "GATHERED", 7)
    table, matrix = Table(333), VectorBlocks(tmp_path / "exact", 16)
    matrix.refresh(table.stamps, table.give)
    queries = some_vectors(9, seed=1, dimension=16)
    for passing in (None, np.arange(333) % 2 == 0, np.arange(333) % 29 == 0, np.arange(333) < 3):
        values, rows = matrix.search(queries.numpy(), 7, passing)
        for alone in (0, 1000):
            monkeypatch.setattr(exact, "ALONE_BELOW", alone)
            for query in range(9):
                found = matrix.search(queries[query : query + 1].numpy(), 7, passing)
                assert found[1][0].tolist() == rows[query].tolist()
                np.testing.assert_allclose(found[0][0], values[query], atol=1e-6)


def test_written_blocks_are_mapped_and_not_read_from_the_table_again(tmp_path: Path) -> None:
    table, matrix = Table(120), VectorBlocks(tmp_path / "exact", 16)
    matrix.refresh(table.stamps, table.give)
    matrix.write()
    check_search(matrix, table)
    assert sorted(len(block.stamps) for block in matrix.blocks) == [20, 50, 50]
    other = VectorBlocks(tmp_path / "exact", 16)
    other.refresh(table.stamps, table.give)
    check_search(other, table)
    assert table.read == 120
    assert all(isinstance(block.vectors, np.memmap) for block in other.blocks)


def test_a_deleted_vector_leaves_answers_at_once_and_the_files_with_the_next_write(tmp_path: Path) -> None:
    table, matrix = Table(120), VectorBlocks(tmp_path / "exact", 16)
    matrix.refresh(table.stamps, table.give)
    matrix.write()
    gone = table.vectors[60].tobytes()
    untouched = {path for path in tmp_path.rglob("*.block") if gone not in path.read_bytes()}
    assert len(untouched) == 2
    table.keep(np.delete(np.arange(120), 60))
    matrix.refresh(table.stamps, table.give)
    check_search(matrix, table)
    matrix.write()
    check_search(matrix, table)
    assert not [path for path in tmp_path.rglob("*.block") if gone in path.read_bytes()]
    assert len(untouched & set(tmp_path.rglob("*.block"))) >= 1  # full blocks without it stay as they were
    assert table.read == 120


def test_rows_that_came_after_the_files_are_kept_in_memory_until_the_next_write(tmp_path: Path) -> None:
    table, matrix = Table(130), VectorBlocks(tmp_path / "exact", 16)
    whole = Table(130)
    table.keep(np.arange(70))
    matrix.refresh(table.stamps, table.give)
    matrix.write()
    other = VectorBlocks(tmp_path / "exact", 16)
    other.refresh(whole.stamps, whole.give)
    assert whole.read == 60
    check_search(other, whole)
    other.write()
    assert sum(len(block.stamps) for block in other.blocks) == 130
    matrix.refresh(whole.stamps, whole.give)
    assert whole.read == 60  # found the files of the other
    check_search(matrix, whole)


def test_damaged_doubled_and_foreign_files_cost_time_but_no_answer(tmp_path: Path) -> None:
    table, matrix = Table(100), VectorBlocks(tmp_path / "exact", 16)
    matrix.refresh(table.stamps, table.give)
    matrix.write()
    first, second = sorted(tmp_path.rglob("*.block"))
    first.write_bytes(first.read_bytes()[:-1])
    order = np.argsort(table.stamps)[:30]
    write_block(tmp_path / "exact", table.stamps[order], table.vectors[order])  # in another block as well
    (tmp_path / "exact" / "notes.block").write_text("{}")
    (tmp_path / "exact" / "empty.block").write_text("")
    other = VectorBlocks(tmp_path / "exact", 16)
    other.refresh(table.stamps, table.give)
    check_search(other, table)
    other.write()
    check_search(other, table)
    again = VectorBlocks(tmp_path / "exact", 16)
    again.refresh(table.stamps, lambda rows: pytest.fail("everything is in files"))
    check_search(again, table)
    assert read_block(second, 17) is None


@pytest.mark.parametrize("place", [HEADER_BYTES, HEADER_BYTES + 50 * 8 + 7 * 64, -1])  # a stamp, a vector, the end
def test_a_block_in_which_one_byte_has_changed_is_read_from_the_table(tmp_path: Path, place: int) -> None:
    table, matrix = Table(50), VectorBlocks(tmp_path / "exact", 16)
    matrix.refresh(table.stamps, table.give)
    matrix.write()
    (path,) = tmp_path.rglob("*.block")
    content = bytearray(path.read_bytes())
    content[place] ^= 0x40
    path.write_bytes(content)
    other = VectorBlocks(tmp_path / "exact", 16)
    other.refresh(table.stamps, table.give)
    assert table.read == 100
    check_search(other, table)
    other.write()
    assert path not in set(tmp_path.rglob("*.block"))
    again = VectorBlocks(tmp_path / "exact", 16)
    again.refresh(table.stamps, lambda rows: pytest.fail("everything is in files"))
    check_search(again, table)


def test_a_block_without_a_digest_is_read_from_the_table(tmp_path: Path) -> None:
    table, matrix = Table(50), VectorBlocks(tmp_path / "exact", 16)
    matrix.refresh(table.stamps, table.give)
    matrix.write()
    (path,) = tmp_path.rglob("*.block")
    header = json.dumps({"rows": 50, "dimension": 16}).encode().ljust(HEADER_BYTES)
    path.write_bytes(header + path.read_bytes()[HEADER_BYTES:])
    assert read_block(path, 16) is None


def test_equal_similarities_come_in_the_order_of_their_stamps(tmp_path: Path) -> None:
    table, matrix = Table(120), VectorBlocks(tmp_path / "exact", 16)
    table.vectors = np.eye(16, dtype=np.float32)[np.arange(120) % 2]
    matrix.refresh(table.stamps, table.give)
    _, rows = matrix.search(np.eye(1, 16, dtype=np.float32), 20, None)
    even = np.arange(0, 120, 2)
    assert rows[0].tolist() == even[np.argsort(table.stamps[even])][:20].tolist()


def exactly(
    queries: torch.Tensor, table: Table, k: int, passing: np.ndarray | None
) -> tuple[list[list[float]], list[list[int]]]:
    """By the definition: every pair by itself, then a stable sort."""
    rows = np.arange(len(table.stamps)) if passing is None else np.flatnonzero(passing)
    rows = rows[np.argsort(table.stamps[rows])]
    values, found = [], []
    for query in queries:
        similarities = paired_products(query.expand(len(rows), -1), torch.from_numpy(table.vectors[rows]))
        order = similarities.sort(descending=True, stable=True)
        values.append(order.values[:k].clamp(-1, 1).tolist())
        found.append(rows[order.indices[:k].numpy()].tolist())
    return values, found


@pytest.mark.parametrize("dimension", [16, 67, 512])
@pytest.mark.parametrize("distinct", [1, 3, 40, 333])
@pytest.mark.parametrize("waiting", [exact.MOST_WAITING, 5])
def test_equal_vectors_are_equally_similar_in_any_block_beside_any_query(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dimension: int, distinct: int, waiting: int
) -> None:
    monkeypatch.setattr(exact, "MOST_WAITING", waiting)
    monkeypatch.setattr(exact, "GATHERED", 7)
    monkeypatch.setattr(exact, "FIRST", 32)
    monkeypatch.setattr(exact, "QUERIES_AT_ONCE", 5)
    table, matrix = Table(333, dimension), VectorBlocks(tmp_path / "exact", dimension)
    table.vectors = table.vectors[np.random.default_rng(1).integers(0, distinct, 333)]
    matrix.refresh(table.stamps, table.give)
    queries = some_vectors(11, seed=1, dimension=dimension)
    queries[7], queries[10] = queries[2], torch.from_numpy(table.vectors[4])
    for passing in (None, np.arange(333) % 2 == 0, np.arange(333) % 29 == 0):
        for k in (1, 7, 60):
            expected = exactly(queries, table, k, passing)
            values, rows = matrix.search(queries.numpy(), k, passing)
            assert (values.tolist(), rows.tolist()) == expected
            alone = matrix.search(queries[2:3].numpy(), k, passing)
            assert (alone[0].tolist(), alone[1].tolist()) == (expected[0][2:3], expected[1][2:3])


def test_rows_nearer_to_each_other_than_a_product_is_rounded_come_in_their_true_order(tmp_path: Path) -> None:
    table, matrix = Table(333, 512), VectorBlocks(tmp_path / "exact", 512)
    noise = np.random.default_rng(2).standard_normal((333, 512)).astype(np.float32)
    table.vectors = table.vectors[:1] + np.float32(1e-8) * noise
    matrix.refresh(table.stamps, table.give)
    queries = some_vectors(3, seed=1, dimension=512)
    values, rows = matrix.search(queries.numpy(), 20, None)
    assert (values.tolist(), rows.tolist()) == exactly(queries, table, 20, None)


def test_the_margin_holds_twice_what_an_unlucky_order_of_additions_loses() -> None:
    products = np.full(2048, 0.99 * 2.0**-25)  # each is lost where it is added to a sum of a half or more
    products[0] = 1 - products[1:].sum()
    vector = np.sqrt(products).astype(np.float32)[None]
    one_by_one = np.cumsum(vector * vector, axis=1, dtype=np.float32)[0, -1]
    lost = float(paired_products(vector, vector)[0]) - float(one_by_one)
    assert lost == pytest.approx(2047 * 0.99 * 2.0**-25, rel=0.01)
    assert rounding_margin(2048) >= 2 * lost


def test_vectors_are_taken_from_whichever_block_holds_them_in_the_order_asked_for(tmp_path: Path) -> None:
    table, matrix = Table(333), VectorBlocks(tmp_path / "exact", 16)
    matrix.refresh(table.stamps, table.give)
    rows = np.random.default_rng(3).permutation(333)[:120]
    assert np.array_equal(matrix.take(rows), table.vectors[rows])
    assert matrix.take(rows[:0]).shape == (0, 16)


def test_an_empty_table_has_no_answers(tmp_path: Path) -> None:
    table, matrix = Table(3), VectorBlocks(tmp_path / "exact", 16)
    table.keep(np.arange(0))
    matrix.refresh(table.stamps, table.give)
    matrix.write()
    assert matrix.search(np.eye(2, 16, dtype=np.float32), 5, None)[1].shape == (2, 0)


def test_a_few_new_rows_at_a_time_are_joined_in_memory(tmp_path: Path) -> None:
    whole, matrix = Table(130), VectorBlocks(tmp_path / "exact", 16)
    for count in range(2, 132, 2):
        table = Table(130)
        table.keep(np.arange(count))
        matrix.refresh(table.stamps, table.give)
        assert table.read == 2
    assert len(matrix.blocks) <= 12
    check_search(matrix, whole)
    assert whole.read == 0
