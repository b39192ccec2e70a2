"""A map of embeddings in two dimensions, and the pictures that it shows."""

import torch
from numpy import float64
from numpy.typing import NDArray
from torch import Tensor

from tapetum.core.errors import ProtocolError
from tapetum.core.seeding import derive_seed
from tapetum.core.types import EmbeddingSet

PERPLEXITY = 30.0  # scikit-learn's default, which the LLCM figure uses
FEWEST = 4  # points of which a map says anything


def choose_people(
    embeddings: EmbeddingSet, *, people: int = 20, pictures: int = 30, seed: int = 0, without: tuple[int, ...] = (-1,)
) -> Tensor:
    """Some people, and some pictures of each in every modality, drawn by lot but the same every time.

    People with pictures in all of the set's modalities come into question. Which are drawn depends on the seed, the
    people and the number of their pictures, not on the vectors: every method is shown on the same pictures.

    Args:
        people: at most.
        pictures: of a person in a modality at most, each once.
        without: pids that stand for nobody.
    Returns:
        (n,) int64 rows, sorted by person, then by modality.
    Raises:
        ProtocolError: nobody has pictures in all modalities.
    """
    modalities = torch.unique(embeddings.modalities)
    known = ~torch.isin(embeddings.pids, torch.tensor(without, dtype=embeddings.pids.dtype))
    candidates = torch.unique(embeddings.pids[known])
    for modality in modalities:
        seen = embeddings.pids[embeddings.modalities == modality]
        candidates = candidates[torch.isin(candidates, seen)]
    if len(candidates) == 0:
        raise ProtocolError(
            f"a map wants people with pictures in every modality; none of the {len(embeddings)} pictures shows one"
        )
    rng = torch.Generator().manual_seed(derive_seed(seed, "map"))
    some = candidates[torch.randperm(len(candidates), generator=rng)[:people]]
    lot = torch.randperm(len(embeddings), generator=rng)
    lot = lot[torch.isin(embeddings.pids[lot], some)]
    _, group = torch.unique(torch.stack([embeddings.pids[lot], embeddings.modalities[lot]]), dim=1, return_inverse=True)
    order = group.argsort(stable=True)  # by person, then modality, each in the order of the lot
    sizes = torch.bincount(group)
    place = torch.arange(len(lot)) - (sizes.cumsum(0) - sizes)[group[order]]
    return lot[order[place < pictures]]


def compute_map(vectors: Tensor, *, seed: int = 0) -> NDArray[float64]:
    """Points of a plane whose neighbours are the vectors' neighbours (t-SNE), the same every time.

    Args:
        vectors: (N, D) of unit length.
        seed: of the optimisation, which begins at the first two principal components.
    Returns:
        (N, 2), each axis from 0 to 1.
    Raises:
        ProtocolError: fewer than four vectors, or they hold NaN.
    Source: scikit-learn's TSNE(init="pca"), as the LLCM repository calls it; beyond that, a perplexity that fits few
        points, and one thread, since sums of several would differ from run to run.
    """
    if len(vectors) < FEWEST or not vectors.isfinite().all():
        why = "the embeddings hold NaN or infinity" if len(vectors) >= FEWEST else f"there are {len(vectors)}"
        raise ProtocolError(f"a map wants at least {FEWEST} finite vectors; {why}")
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    perplexity = min(PERPLEXITY, (len(vectors) - 1) / 3)
    with threadpool_limits(1):
        tsne = TSNE(n_components=2, init="pca", perplexity=perplexity, random_state=seed)
        points: NDArray[float64] = tsne.fit_transform(vectors.cpu().float().numpy()).astype(float64)
    places: NDArray[float64] = points - points.min(0)
    places /= places.max(0).clip(min=1e-12)
    return places
