"""Reconstruction: what the decoder gives back of what the encoder was given."""

from typing import Literal

from torch import Tensor

from tapetum.losses._precision import at_least_float32


def reconstruction(decoded: Tensor, target: Tensor, *, reduction: Literal["mean", "sum"] = "mean") -> Tensor:
    """Squared error; the target is not detached, so that it too is drawn towards what can be reconstructed.

    Args:
        decoded: (B, D).
        target: (B, D).
        reduction: "mean" over all elements (released code), or "sum" over the elements and mean over the batch (the
            paper's squared norm; D times larger).
    Returns:
        () at least float32.
    Source: IDF release, loss of the bottleneck fusion model.
    """
    errors = (at_least_float32(decoded) - at_least_float32(target)).square()
    return errors.mean() if reduction == "mean" else errors.sum(1).mean()
