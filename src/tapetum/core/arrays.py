"""Vectors as NumPy arrays, which galleries and searches in them compute with; `core.vectors` has those of tensors.

PyTorch takes longer to be imported than a search takes, and neither a gallery nor an exported model needs it.
"""

from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

Real = NDArray[np.float32]
Whole = NDArray[np.int64]
Rows = TypeVar("Rows", Real, "Tensor")


def to_array(vectors: "NDArray[Any] | Tensor") -> Real:
    """Vectors as float32 in the processor's memory; an array or a tensor that is so already is not copied."""
    if not isinstance(vectors, np.ndarray):
        vectors = vectors.detach().cpu().float().numpy()
    return np.asarray(vectors, dtype=np.float32)


def distinct(numbers: Whole) -> Whole:
    """Each number once, ascending; `np.unique` would import NumPy's masked arrays, which takes longer."""
    ordered: Whole = np.sort(numbers, axis=None)
    fresh = np.concatenate([np.ones(min(1, len(ordered)), dtype=np.bool_), ordered[1:] != ordered[:-1]])
    return np.asarray(ordered[fresh])


def lengths(vectors: NDArray[Any]) -> NDArray[Any]:
    """L2 norms of the rows of (N, D), each a function of its row alone."""
    norms: NDArray[Any] = np.linalg.norm(vectors, axis=1)
    return norms


def unit_rows(vectors: Real) -> Real:
    """Rows of (N, D) scaled to unit L2 norm; a row of zeros stays zero."""
    unit: Real = vectors / np.maximum(lengths(vectors), np.float32(1e-12))[:, None]
    return unit


def paired_products(a: Rows, b: Rows) -> Rows:
    """The inner product of each row of one matrix with the same row of the other, (N,).

    Each is a function of its two rows alone: numbers are multiplied one by one and added by halves, in an order that no
    library, thread, shape or instruction set has a say in. So arrays and tensors have the same, bit for bit.
    """
    products = a * b
    width = products.shape[1]
    while width > 1:
        half = width // 2
        products[:, :half] += products[:, width - half : width]
        width -= half
    sums: Rows = products[:, 0] if width else products.sum(1)
    return sums
