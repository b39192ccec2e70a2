"""Dense contrast: a place of one picture against all places of another picture of the same person."""

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

ENTRIES = 2**25  # similarities of two places that are alive at a time: 128 MiB of float32
COLDEST = 0.03  # temperature below which float32 loses the smallest weights


def contrast_places(maps: Tensor, parts: Tensor, pairs: tuple[Tensor, Tensor], *, temperature: float) -> Tensor:
    """How little of a place's likeness goes to places of its own part in the other picture of a pair.

    With unit vectors u of a place p of one picture and v of a place q of the other, e(p, q) = exp(u.v / temperature):
    -log(sum of e(p, q) over q of p's part / sum of e(p, q) over all q), the mean over the places of either picture of
    all pairs that are of a part which the other picture shows, too; 0 where there are none.

    Only some pairs are compared at a time, and what they are compared by is computed again for the gradient, so that
    memory does not grow with their number.

    Args:
        maps: (B, C, h, w) of pictures in any order.
        parts: (B, h, w) int64 part of each place, from 1; 0 is background.
        pairs: (R,) and (R,) int64 rows of pictures.
        temperature: `COLDEST` or warmer.
    Source: Sun et al., "Not All Pixels Are Matched: Dense Contrastive Learning for Cross-Modality Person
        Re-Identification", ACM MM 2022.
    """
    places = functional.normalize(maps.flatten(2), dim=1)
    kinds = functional.one_hot(parts.flatten(1)).to(places.dtype)
    chunk = max(1, ENTRIES // places.shape[2] ** 2)
    total, count = maps.sum() * 0, maps.new_zeros(())
    for first, second in zip(*(torch.split(rows, chunk) for rows in pairs), strict=True):
        terms, counted = checkpoint(
            _contrast_pairs, places, kinds, first, second, temperature, use_reentrant=False, preserve_rng_state=False
        )
        total, count = total + terms, count + counted
    return total / count.clamp(min=1)


def _contrast_pairs(
    places: Tensor, kinds: Tensor, first: Tensor, second: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """The sum of some pairs' terms, and how many these are."""
    shift = places.new_tensor(-1 / temperature).expand(1, 1, 1)  # the largest weight is 1; it cancels
    weights = torch.baddbmm(shift, places[first].mT, places[second], alpha=1 / temperature).exp()  # (r, N, N)
    own = torch.cat([kinds[first], kinds[second]])  # (2 r, N, parts)
    towards = torch.cat([weights @ kinds[second], weights.mT @ kinds[first]])
    matched = (towards * own).sum(2)
    counted = (matched > 0) & (own[..., 0] == 0)
    shares = torch.where(counted, matched / towards.sum(2), 1.0)
    return -shares.log().sum(), counted.sum()
