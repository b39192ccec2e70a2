"""How far apart the two pictures of a pair are: pairs of one person against pairs of two, counted into bins.

Every pair counts, whatever camera its pictures are from: the figure shows what a method has learnt, not what a protocol
leaves over. Only a picture with itself is no pair.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch

from tapetum.core.errors import ProtocolError
from tapetum.core.types import EmbeddingSet, Record
from tapetum.evaluation.thresholds import Array, Counts
from tapetum.evaluation.verification import Comparison, check_vectors, pair_tiles

BINS = 2000  # of cosine distance 0..2, each 0.001 wide, the width of the LLCM figure's bins


@dataclass(frozen=True)
class PairDistances:
    """Histograms of the cosine distance, 1 minus the cosine, over all pairs of two sets of pictures."""

    edges: Array  # (BINS + 1,) ends of the bins, from 0 to 2
    intra: Counts  # (BINS,) pairs of pictures of one person
    inter: Counts  # (BINS,) pairs of pictures of two people
    intra_mean: float  # distance, NaN where there is no pair
    inter_mean: float

    def densities(self, width: float) -> tuple[Array, Array, Array]:
        """(edges, intra, inter) in bins of which a whole number fills 0..2; each histogram has an area of one."""
        bins_each = round(width * BINS / 2)
        if bins_each < 1 or BINS % bins_each or not math.isclose(bins_each * 2 / BINS, width):
            raise ValueError(f"bins {width:g} wide do not fill 0..2 in whole numbers of {2 / BINS:g}")
        sums = [counts.reshape(-1, bins_each).sum(1) for counts in (self.intra, self.inter)]
        intra, inter = (each / max(1, int(each.sum())) / (self.edges[bins_each] - self.edges[0]) for each in sums)
        return self.edges[::bins_each], intra, inter

    def overlap(self, width: float = 0.01) -> float:
        """Area under both curves at once: 0 where one distance parts them, 1 where they cannot be told apart."""
        edges, intra, inter = self.densities(width)
        return float((np.minimum(intra, inter) * np.diff(edges)).sum())

    def separability(self) -> float:
        """How often a pair of one person is closer than a pair of two, both drawn by lot; equal bins count half."""
        intra, inter = self.intra / max(1, self.intra.sum()), self.inter / max(1, self.inter.sum())
        farther = inter[::-1].cumsum()[::-1] - inter
        return float((intra * (farther + inter / 2)).sum())


def compute_pair_distances(first: EmbeddingSet, second: EmbeddingSet) -> PairDistances:
    """Distances of every picture of one set to every picture of the other but itself.

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
    for side in (first, second):
        check_vectors(side)
    places = {key: place for place, key in enumerate(picture_keys(second))}
    itself = torch.tensor([places.get(key, -1) for key in picture_keys(first)])
    counts = torch.zeros(2, BINS, dtype=torch.int64)
    sums = torch.zeros(2, dtype=torch.float64)
    for tile in pair_tiles(Comparison("", first, second, junk=False)):
        (own_rows,) = (itself[tile.rows] >= 0).nonzero(as_tuple=True)
        tile.same[own_rows, itself[tile.rows[own_rows]]] = False
        distances = 1 - tile.similarities
        counts += tile.count((distances * (BINS / 2)).long().clamp_(0, BINS - 1), BINS)
        between = distances.mul_(tile.different).sum(dtype=torch.float64)
        within = (1 - tile.similarities[tile.same]).sum(dtype=torch.float64)
        sums += torch.stack([between, within])
    inter_mean, intra_mean = (sums / counts.sum(1)).tolist()  # 0 / 0 is NaN
    inter, intra = counts.numpy()
    return PairDistances(np.linspace(0, 2, BINS + 1), intra, inter, intra_mean, inter_mean)


def record_key(record: Record) -> tuple[int, int, int, str]:
    """Person, camera, modality and file name: what tells a test picture, whatever folder it lies in."""
    return record.pid, record.camid, int(record.modality), record.path.name


def picture_keys(embeddings: EmbeddingSet) -> list[tuple[int, int, int, str]]:
    """`record_key` of each picture: a query of which the gallery holds a copy has the copy's key."""
    columns = (embeddings.pids.tolist(), embeddings.camids.tolist(), embeddings.modalities.tolist())
    return list(zip(*columns, [path.name for path in embeddings.paths], strict=True))
