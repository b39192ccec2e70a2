import numpy as np
import pytest
import torch

from tapetum.core.arrays import distinct, paired_products, to_array, unit_rows
from tapetum.core.vectors import normalise


def some(count: int, dimension: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, dimension)).astype(np.float32)


def test_an_array_is_taken_as_it_is_and_a_tensor_without_its_gradient() -> None:
    array = some(3, 4)
    assert to_array(array) is array
    tensor = torch.from_numpy(array)
    assert np.shares_memory(to_array(tensor), array)
    assert np.array_equal(to_array(tensor.clone().requires_grad_()), array)
    assert to_array(tensor.double()).dtype == np.float32
    assert np.array_equal(to_array(tensor.bfloat16()), tensor.bfloat16().float().numpy())
    assert to_array(np.arange(4).reshape(2, 2)).dtype == np.float32


def test_rows_become_unit_vectors_as_those_of_tensors_do_and_zeros_stay_zeros() -> None:
    array = some(50, 67)
    array[7] = 0
    np.testing.assert_allclose(unit_rows(array), normalise(torch.from_numpy(array)).numpy(), atol=1e-7)
    assert not unit_rows(array)[7].any()
    assert unit_rows(array).dtype == np.float32
    alone = np.concatenate([unit_rows(array[row : row + 1]) for row in range(50)])
    assert np.array_equal(unit_rows(array), alone)


@pytest.mark.parametrize("shape", [(0,), (1,), (40,), (5, 8), (0, 3)])
def test_distinct_numbers_are_those_that_numpy_finds(shape: tuple[int, ...]) -> None:
    numbers = np.random.default_rng(0).integers(-6, 6, shape)
    assert distinct(numbers).tolist() == np.unique(numbers).tolist()


@pytest.mark.parametrize("dimension", [0, 1, 2, 67, 512])
def test_products_of_pairs_are_bit_for_bit_those_of_tensors(dimension: int) -> None:
    a, b = some(40, dimension), some(40, dimension, seed=1)
    expected = paired_products(torch.from_numpy(a), torch.from_numpy(b)).numpy()
    assert np.array_equal(paired_products(a, b), expected)
    assert np.array_equal(
        paired_products(a, b[:1]), paired_products(torch.from_numpy(a), torch.from_numpy(b[:1])).numpy()
    )


def test_the_product_of_two_rows_does_not_depend_on_what_stands_beside_them() -> None:
    generator = torch.Generator().manual_seed(0)
    for dimension in (1, 2, 7, 96, 2048):
        a, b = (normalise(torch.randn(50, dimension, generator=generator)) for _ in range(2))
        whole = paired_products(a, b)
        torch.testing.assert_close(whole, (a * b).sum(1))
        alone = [float(paired_products(a[row : row + 1], b[row : row + 1])) for row in range(50)]
        assert whole.tolist() == alone
    assert paired_products(torch.zeros(3, 0), torch.zeros(3, 0)).tolist() == [0, 0, 0]
