from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch.nn import functional

import golden_files
from tapetum.core.vectors import (
    euclidean,
    first_equal,
    normalise,
    one_thread,
    similarity_blocks,
    smallest,
    squared_euclidean,
    tile_rows,
)

GOLDEN = golden_files.load("distances")
A, B = (torch.from_numpy(GOLDEN[f"features/in/{name}"]) for name in "ab")


def test_distances_equal_the_published_functions() -> None:
    out = {name: GOLDEN[f"features/out/{name}"] for name in ("squared_euclidean", "cosine", "euclidean")}
    np.testing.assert_allclose(squared_euclidean(A, B).numpy(), out["squared_euclidean"], rtol=1e-5)
    np.testing.assert_allclose((1 - normalise(A) @ normalise(B).T).numpy(), out["cosine"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(euclidean(A, B).numpy(), out["euclidean"], atol=1e-4)


def test_distance_to_itself_is_zero_with_a_finite_gradient() -> None:
    points = A.clone().requires_grad_()
    euclidean(points, points).diagonal().sum().backward()
    assert points.grad is not None
    assert points.grad.isfinite().all()
    assert (squared_euclidean(A, A) >= 0).all()


def test_zero_vectors_stay_zero_when_normalised() -> None:
    rows = torch.stack([torch.zeros(4), torch.tensor([3.0, 0, 4, 0])])
    torch.testing.assert_close(normalise(rows), torch.tensor([[0.0, 0, 0, 0], [0.6, 0, 0.8, 0]]))


def test_blocks_are_the_same_bit_for_bit_for_every_chunk_size() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = (functional.normalize(torch.randn(rows, 96, generator=generator)) for rows in (1301, 700))
    whole = torch.cat([block.clone() for _, block in similarity_blocks(a, b, 10_000)])
    torch.testing.assert_close(whole, a @ b.T)
    for chunk_size in (None, 1, 512, 700, 1024):
        rows, blocks = zip(*((rows, block.clone()) for rows, block in similarity_blocks(a, b, chunk_size)), strict=True)
        assert torch.equal(torch.cat(blocks), whole)
        assert torch.equal(torch.cat(rows), torch.arange(1301))
        assert all(len(some) == len(block) for some, block in zip(rows, blocks, strict=True))


def test_rows_that_equal_an_earlier_one_are_found_whatever_holds_them_apart() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(-1, 2, (300, 4), generator=generator).float() * torch.tensor([0.5, -1.0, 1e-30, 3.0])
    expected = [next(j for j in range(300) if torch.equal(rows[j], row)) for row in rows]
    assert first_equal(rows).tolist() == expected, "with zeros of both signs"
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        wide = torch.cat([rows.to(dtype) * 4, torch.zeros(300, 30, dtype=dtype)], dim=1)
        wide[:, :4] *= wide[:, :4] != 1e-30  # too small for some of them
        theirs = [next(j for j in range(300) if torch.equal(wide[j], row)) for row in wide]
        assert first_equal(wide).tolist() == theirs
    one_hot = torch.eye(700)  # equal in all sampled columns
    assert torch.equal(first_equal(one_hot), torch.arange(700))
    damaged = torch.full((5, 3), torch.nan)
    assert torch.equal(first_equal(damaged), torch.arange(5)), "NaN equals nothing, and does not loop"
    assert first_equal(rows[:0]).shape == (0,)
    assert first_equal(torch.zeros(4, 0)).tolist() == [0, 0, 0, 0]


def test_tiles_shrink_with_a_wide_gallery() -> None:
    assert tile_rows(100_000) == 512
    assert tile_rows(10_000_000) * 10_000_000 * 4 <= 2**28
    assert tile_rows(10**9) == 1


@pytest.mark.parametrize("k", [0, 1, 5, 40])
def test_smallest_equals_a_stable_sort(k: int) -> None:
    values = torch.from_numpy(np.random.default_rng(0).integers(0, 6, (30, 40)).astype(np.float32))
    values[3] = torch.inf
    found, columns = smallest(values, k)
    expected = values.sort(dim=1, stable=True)
    assert torch.equal(columns, expected.indices[:, :k])
    assert torch.equal(found, expected.values[:, :k])
    assert smallest(values[:0], k)[1].shape == (0, k)


def test_one_thread_is_the_callers_alone_however_uses_overlap() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with ThreadPoolExecutor(1) as early, ThreadPoolExecutor(1) as late:
            first, second = one_thread(), one_thread()
            early.submit(first.__enter__).result()
            late.submit(second.__enter__).result()
            inside = [worker.submit(torch.get_num_threads).result() for worker in (early, late)]
            with ThreadPoolExecutor(1) as new:
                begun_meanwhile = new.submit(torch.get_num_threads).result()
            early.submit(first.__exit__, None, None, None).result()
            late.submit(second.__exit__, None, None, None).result()
            after = [worker.submit(torch.get_num_threads).result() for worker in (early, late)]
        with ThreadPoolExecutor(1) as new:
            begun_after = new.submit(torch.get_num_threads).result()
        assert (inside, begun_meanwhile, after, begun_after) == ([1, 1], 2, [2, 2], 2)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
