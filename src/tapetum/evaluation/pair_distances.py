"""How far apart the two pictures of a pair are: pairs of one person against pairs of two, counted into bins.

Every pair counts, whatever camera its pictures are from: the figure shows what a method has learnt, not what a protocol
leaves over. Only a picture with itself is no pair.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tapetum.core.errors import ProtocolError
from tapetum.core.types import EmbeddingSet
from tapetum.core.vectors import similarity_blocks

Array = NDArray[np.float64]
Counts = NDArray[np.int64]

BINS = 2000  # of cosine distance 0..2, each 0.001 wide, the width of the LLCM figure's bins
PAIRS_AT_ONCE = 2**22  # bounds the memory beside one tile of the product


@dataclass(frozen=True)
class PairDistances:
    """Histograms of the cosine distance, 1 minus the cosine, over all pairs of two sets of pictures.

    Attributes:
        edges: (BINS + 1,) ends of the bins, from 0 to 2.
        intra: (BINS,) pairs of pictures of one person.
        inter: (BINS,) pairs of pictures of two people.
        intra_mean: mean distance of the former, NaN where there is none.
        inter_mean: mean distance of the latter, NaN where there is none.
    """

    edges: Array
    intra: Counts
    inter: Counts
    intra_mean: float
    inter_mean: float

    def densities(self, width: float) -> tuple[Array, Array, Array]:
        """Both histograms in wider bins, each with an area of one.

        Args:
            width: of the new bins; a whole number of them fills 0..2.
        Returns:
            (edges, intra, inter); a histogram of no pairs is zero throughout.
        """
        merged = round(width * BINS / 2)
        if merged < 1 or BINS % merged or not math.isclose(merged * 2 / BINS, width):
            raise ValueError(f"bins {width:g} wide do not fill 0..2 in whole numbers of {2 / BINS:g}")
        found = []
        for counts in (self.intra, self.inter):
            sums = counts.reshape(-1, merged).sum(1)
            found.append(sums / max(1, int(sums.sum())) / (self.edges[merged] - self.edges[0]))
        return self.edges[::merged], found[0], found[1]

    def overlap(self, width: float = 0.01) -> float:
        """Area under both curves at once: 0 where one distance parts them, 1 where they cannot be told apart.

        Args:
            width: of the bins that are compared.
        """
        edges, intra, inter = self.densities(width)
        return float((np.minimum(intra, inter) * np.diff(edges)).sum())

    def separability(self) -> float:
        """How often a pair of one person is closer than a pair of two, both drawn by lot; equal bins count half."""
        intra, inter = self.intra / max(1, self.intra.sum()), self.inter / max(1, self.inter.sum())
        farther = inter[::-1].cumsum()[::-1] - inter
        return float((intra * (farther + inter / 2)).sum())


def compute_pair_distances(first: EmbeddingSet, second: EmbeddingSet) -> PairDistances:
    """Distances of every picture of one set to every picture of the other, counted tile by tile.

    Args:
        first: e.g. all infrared pictures of a test.
        second: e.g. all visible pictures; where both sets hold one picture, its pair with itself is left out.
    Returns:
        Both histograms; the memory in use does not grow with the number of pairs.
    Raises:
        ProtocolError: a set is empty, the vectors differ in length, or they hold NaN.
    """
    if len(first) == 0 or len(second) == 0:
        raise ProtocolError("distances want pictures on both sides; one has none, check protocol and modalities")
    if first.vectors.shape[1] != second.vectors.shape[1]:
        raise ProtocolError(
            f"one side's vectors have {first.vectors.shape[1]} numbers, the other's {second.vectors.shape[1]}; "
            "extract both with the same checkpoint"
        )
    places = {key: place for place, key in enumerate(picture_keys(second))}
    itself = torch.tensor([places.get(key, -1) for key in picture_keys(first)])
    counts = torch.zeros(2 * BINS, dtype=torch.int64)
    sums = torch.zeros(2, dtype=torch.float64)
    rows = max(1, PAIRS_AT_ONCE // len(second))
    for asking, block in similarity_blocks(first.vectors, second.vectors):
        for own, similarities in zip(torch.split(asking, rows), torch.split(block, rows), strict=True):
            distances = 1 - similarities
            if not distances.isfinite().all():
                raise ProtocolError("the embeddings hold NaN or infinity; extract them again")
            same = first.pids[own].unsqueeze(1) == second.pids
            counted, summed = _count(distances, same)
            counts += counted
            sums += summed
            twin = itself[own]
            (place,) = (twin >= 0).nonzero(as_tuple=True)
            if len(place):
                counted, summed = _count(distances[place, twin[place]], same[place, twin[place]])
                counts -= counted
                sums -= summed
    totals = counts.view(2, BINS).sum(1)
    inter_mean, intra_mean = (sums / totals).tolist()  # 0 / 0 is NaN
    inter, intra = counts.view(2, BINS).numpy()
    return PairDistances(np.linspace(0, 2, BINS + 1), intra, inter, intra_mean, inter_mean)


def picture_keys(embeddings: EmbeddingSet) -> list[tuple[int, int, int, str]]:
    """What tells the pictures of a test apart; a query of which the gallery holds a copy has the copy's key.

    Args:
        embeddings: of N pictures.
    Returns:
        N times person, camera, modality and file name.
    """
    columns = (embeddings.pids.tolist(), embeddings.camids.tolist(), embeddings.modalities.tolist())
    return list(zip(*columns, [path.name for path in embeddings.paths], strict=True))


def _count(distances: Tensor, same: Tensor) -> tuple[Tensor, Tensor]:
    """Pairs in each bin, (2 * BINS,) with those of one person last, and the two sums of their distances."""
    bins = (distances * (BINS / 2)).long().clamp_(0, BINS - 1)
    bins += BINS * same
    intra = torch.where(same, distances, 0.0).sum(dtype=torch.float64)
    total = distances.sum(dtype=torch.float64)
    return torch.bincount(bins.flatten(), minlength=2 * BINS), torch.stack([total - intra, intra])
