"""Spectral gap: how far the rows of a matrix are from being orthogonal and of one length (ABD-Net, ICCV 2019)."""

from torch import Tensor
from torch.nn import functional


def spectral_gap(matrices: Tensor, starts: Tensor, *, iterations: int = 1) -> Tensor:
    """Largest minus smallest eigenvalue of M M^T, estimated by power iteration; zero where M M^T is a multiple of I.

    With A = M M^T, the largest is l = |M^T u|^2, u being A x scaled to unit length and x a start; the smallest is
    |M^T v|^2, where v is made likewise of A - l I. Gradients go through all of it. Products are taken from right to
    left, so that A is never formed and the cost is linear in the elements of M.

    Args:
        matrices: (..., N, K) of any values, float32 or better.
        starts: (2, N) where both iterations start, for all matrices alike.
        iterations: products with A before an eigenvalue is read off; few of them give too small a gap.
    Returns:
        (...,) gaps; of a matrix of zeros 0, with a gradient of zero.
    Source: ABD-Net's release, which takes one iteration, from random starts.
    """
    largest = _eigenvalue(matrices, starts[0], None, iterations)
    return largest - _eigenvalue(matrices, starts[1], largest, iterations)


def _eigenvalue(matrices: Tensor, start: Tensor, shift: Tensor | None, iterations: int) -> Tensor:
    vector = start[:, None].expand(*matrices.shape[:-1], 1)
    for _ in range(iterations):
        product = matrices @ (matrices.mT @ vector)
        if shift is not None:
            product = product - shift[..., None, None] * vector
        vector = functional.normalize(product, dim=-2)
    value = (matrices.mT @ vector).square().sum((-2, -1))
    if shift is None:
        return value
    # All eigenvalues are equal where nothing is left of the vector; else it has unit length, and this adds nothing.
    return value + shift * (1 - vector.square().sum((-2, -1)))
