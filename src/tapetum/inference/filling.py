"""Numbers that only fill a vector up to unit length, and whom they mislead.

A release that adds similarities compares sums of unit vectors, whose lengths differ. Methods that do the same fill each
sum up with a number for visible and one for infrared pictures (`Method.filling`): across modalities these meet a zero,
so that the product is the release's to the last digit. Two pictures of one modality would gain by them, whoever they
show. So vectors that may meet their own modality, as in a gallery, go without, and are scaled to unit length again.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn

from tapetum.core.types import EmbeddingSet
from tapetum.core.vectors import normalise

SILENT = (
    0.1  # length below which a vector has no direction but that of rounding: a picture that a network says nothing of
)


def filling_of(network: nn.Module) -> int:
    """How many numbers at the end of a method's vectors are filling."""
    return int(getattr(network, "filling", 0))


def without_filling(vectors: Tensor, filling: int) -> Tensor:
    """(N, D - filling) of unit length of (N, D); zeros where there was nothing but filling."""
    if not filling:
        return vectors
    bare = vectors[:, :-filling]
    has_direction: Tensor = bare.norm(dim=1, keepdim=True) > SILENT
    return normalise(bare) * has_direction


def drop_filling(embeddings: EmbeddingSet, filling: int) -> EmbeddingSet:
    """Embeddings of pictures that may meet their own modality."""
    return replace(embeddings, vectors=without_filling(embeddings.vectors, filling)) if filling else embeddings


def meet(query: EmbeddingSet, gallery: EmbeddingSet, filling: int) -> tuple[EmbeddingSet, EmbeddingSet, int]:
    """Both sides of a test, with filling only where every pair is of two modalities; and how much they have then."""
    if not filling or not torch.isin(query.modalities, gallery.modalities).any():
        return query, gallery, filling
    return drop_filling(query, filling), drop_filling(gallery, filling), 0
