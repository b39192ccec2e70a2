"""Vectors: unit length and pairwise distances, the same for losses, evaluation and search."""

import torch
from torch import Tensor
from torch.nn import functional


def normalise(vectors: Tensor, eps: float = 1e-12) -> Tensor:
    """Rows scaled to unit L2 norm; a row of zeros stays zero.

    Args:
        vectors: (N, D).
        eps: smallest norm divided by.
    Returns:
        (N, D), same dtype.
    """
    return functional.normalize(vectors, dim=1, eps=eps)


def squared_euclidean(a: Tensor, b: Tensor) -> Tensor:
    """Squared Euclidean distances of all pairs, never below zero.

    Args:
        a: (N, D).
        b: (M, D).
    Returns:
        (N, M): |a|^2 + |b|^2 - 2 a.b in one fused product.
    """
    norms_a = a.square().sum(1, keepdim=True)
    norms_b = b.square().sum(1)
    return torch.addmm(norms_b.expand(len(a), -1), a, b.T, alpha=-2.0).add(norms_a).clamp_(min=0)


def euclidean(a: Tensor, b: Tensor, eps: float = 1e-12) -> Tensor:
    """Euclidean distances of all pairs; `eps` stands under the root so that the gradient at zero is finite.

    Args:
        a: (N, D).
        b: (M, D).
        eps: smallest squared distance before the root (the form every triplet-type loss here uses).
    """
    return squared_euclidean(a, b).clamp(min=eps).sqrt()


def cosine_similarity(a: Tensor, b: Tensor) -> Tensor:
    """Cosine similarities of all pairs, (N, M).

    Args:
        a: (N, D).
        b: (M, D).
    """
    return normalise(a) @ normalise(b).T
