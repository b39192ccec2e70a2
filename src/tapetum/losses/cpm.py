"""Centre-guided pair mining (CPM): expanded embeddings lie near the other modality's (DEEN, CVPR 2023)."""

from typing import Literal

import torch
from torch import Tensor

from tapetum.core.types import Modality

SMALLEST_SQUARE = 1e-12  # under the root, so that the gradient at zero is finite


def centre_pair_mining(
    features: Tensor,
    labels: Tensor,
    modalities: Tensor,
    *,
    margin: float = 0.2,
    form: Literal["code", "poster"] = "code",
    sides: Literal["mean", "sum"] = "mean",
    detach: bool = True,
) -> Tensor:
    """Hinges between identity centres, averaged over identities and summed over the expansions.

    For a modality m, the other one o, and centres c of an identity's features: the distance d = D(c_o, c_m+) between
    the other modality's centre and the expanded one should be smaller by the margin than D(c_m, c_m+) (weight 1), than
    the distance of c_m+ to the nearest expanded centre of another identity (1/2) and than the distance of c_m to the
    nearest original centre of another identity (1/2).

    Args:
        features: (G, B, D): originals, then G - 1 expansions, not normalised; rows in any order.
        labels: (B,) int64.
        modalities: (B,) int64. An identity that the batch shows in one modality only has no part in the loss.
        margin: of each hinge.
        form: "code": the three hinges; "poster": one, [d - D(c_m, c_m+) - nearest original other + margin]_+.
        sides: both modalities' parts are averaged (released code) or summed (poster).
        detach: no gradient flows into D(c_m, c_m+).
    Returns:
        Zero where no identity is there in both modalities.
    Source: DEEN release, class "CPMLoss", which cuts the batch into equal pieces by position instead of reading labels.
    """
    centres = compute_centres(features, labels, modalities)  # (G, 2, P, D)
    if centres.shape[2] == 0:
        return features.sum() * 0
    own, expanded = centres[:1], centres[1:]
    across = _distance(own.flip(1), expanded)  # (G - 1, 2, P), as all below
    within = _distance(own, expanded)
    if detach:
        within = within.detach()
    other_own = _nearest_other(own)
    if form == "poster":
        parts = (across - within - other_own + margin).clamp(min=0)
    else:
        parts = (
            (across - within + margin).clamp(min=0)
            + 0.5 * (across - _nearest_other(expanded) + margin).clamp(min=0)
            + 0.5 * (across - other_own + margin).clamp(min=0)
        )
    by_side = parts.mean(2).sum(0)  # (2,)
    return by_side.mean() if sides == "mean" else by_side.sum()


def compute_centres(features: Tensor, labels: Tensor, modalities: Tensor) -> Tensor:
    """Mean features of the P identities there in both modalities, (G, 2, P, D), identities in ascending order."""
    identities = torch.unique(labels)
    cells = (labels == identities[:, None]) & (modalities == _modalities_like(labels)[:, None, None])  # (2, P, B)
    counts = cells.sum(2)
    both = (counts > 0).all(0)
    shares = cells[:, both].to(features.dtype) / counts[:, both, None]
    return torch.einsum("mpb,gbd->gmpd", shares, features)


def _modalities_like(labels: Tensor) -> Tensor:
    return torch.arange(len(Modality), device=labels.device)


def _distance(a: Tensor, b: Tensor) -> Tensor:
    return (a - b).square().sum(-1).clamp(min=SMALLEST_SQUARE).sqrt()


def _nearest_other(centres: Tensor) -> Tensor:
    """Distance of each centre to the nearest one of its group; infinite where it is the only one."""
    norms = centres.square().sum(-1)
    squares = norms[..., :, None] + norms[..., None, :] - 2 * centres @ centres.mT
    itself = torch.eye(centres.shape[-2], dtype=torch.bool, device=centres.device)
    return squares.clamp(min=SMALLEST_SQUARE).sqrt().masked_fill(itself, torch.inf).amin(-1)
