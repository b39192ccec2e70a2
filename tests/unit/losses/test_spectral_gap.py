import pytest
import torch

from tapetum.losses.spectral_gap import spectral_gap


def slow(matrix: torch.Tensor, starts: torch.Tensor, iterations: int) -> float:
    """From the formula, with the product and the unit matrix written out."""
    product = matrix @ matrix.T

    def eigenvalue(a, x):
        for _ in range(iterations):
            x = a @ x
        return (x @ a @ x) / (x @ x)

    largest = eigenvalue(product, starts[0])
    smallest = eigenvalue(product - largest * torch.eye(len(product), dtype=product.dtype), starts[1]) + largest
    return float(largest - smallest)


@pytest.mark.parametrize("iterations", [1, 4])
@pytest.mark.parametrize("shape", [(3, 5, 4), (2, 3, 4, 9), (5, 2)])
def test_the_gap_equals_a_slow_loop_over_matrices(rng, shape: tuple[int, ...], iterations: int) -> None:
    matrices = torch.randn(shape, generator=rng, dtype=torch.float64)
    starts = torch.randn(2, shape[-2], generator=rng, dtype=torch.float64)
    found = spectral_gap(matrices, starts, iterations=iterations)
    expected = [slow(matrix, starts, iterations) for matrix in matrices.reshape(-1, *shape[-2:])]
    assert found.shape == shape[:-2]
    assert found.flatten().tolist() == pytest.approx(expected, rel=1e-9)


def test_with_many_iterations_it_is_the_difference_of_the_extreme_eigenvalues(rng) -> None:
    matrices = torch.randn(4, 5, 30, generator=rng, dtype=torch.float64)
    starts = torch.randn(2, 5, generator=rng, dtype=torch.float64)
    values = torch.linalg.eigvalsh(matrices @ matrices.mT)
    exact = values[:, -1] - values[:, 0]
    torch.testing.assert_close(spectral_gap(matrices, starts, iterations=400), exact, rtol=1e-6, atol=0)
    assert (spectral_gap(matrices, starts) < exact).all(), "one iteration sees less of it"


def test_its_gradient_is_that_of_its_values(rng) -> None:
    matrices = torch.randn(2, 3, 4, generator=rng, dtype=torch.float64, requires_grad=True)
    starts = torch.randn(2, 3, generator=rng, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda given: spectral_gap(given, starts, iterations=2), matrices)


def test_orthogonal_rows_of_one_length_and_zeros_cost_nothing_and_give_finite_gradients(rng) -> None:
    orthogonal, _ = torch.linalg.qr(torch.randn(6, 4, generator=rng, dtype=torch.float64))
    exact = 2 * torch.eye(4, 6, dtype=torch.float64)
    matrices = torch.stack([3 * orthogonal.T, torch.zeros(4, 6, dtype=torch.float64), exact]).requires_grad_()
    gaps = spectral_gap(matrices, torch.randn(2, 4, generator=rng, dtype=torch.float64))
    gaps.sum().backward()
    torch.testing.assert_close(gaps, torch.zeros(3, dtype=torch.float64), rtol=0, atol=1e-9)
    assert torch.isfinite(matrices.grad).all()
    assert matrices.grad.abs().max() < 100
    assert not matrices.grad[1].any()
