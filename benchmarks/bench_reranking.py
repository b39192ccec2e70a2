"""k-reciprocal re-ranking of 1000 queries in a gallery of 5000, against torchreid 0.2.5."""

from typing import Any

import numpy as np
import torch

from benchmarks.bench_evaluation import build_sets
from benchmarks.measure import PeerMissingError, alternate, build_row, load_peer, once
from tapetum.evaluation.rerank import rerank, rerank_distances


def run() -> list[dict[str, Any]]:
    query, gallery = build_sets(1000, 5000, 512, people=300)
    a, b = query.vectors, gallery.vectors

    def distances(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        return (2 - 2 * one @ other.T).clamp(min=0).sqrt()

    matrices = distances(a, b), distances(a, a), distances(b, b)
    ours = alternate(
        {"matrices": lambda: rerank_distances(*matrices), "vectors": lambda: rerank(a, b)},
        rounds=5,
    )
    names = {
        "matrices": "re-ranking 1000 x 5000 from distances, against torchreid",
        "vectors": "re-ranking 1000 x 5000 from vectors, against torchreid given the distances",
    }
    try:
        peer = load_peer("torchreid==0.2.5", "torchreid/reid/utils/rerank.py")
    except PeerMissingError as error:
        return [build_row(name, ours[key], None, "s", note=str(error)) for key, name in names.items()]
    theirs, expected = once(lambda: peer.re_ranking(*(matrix.numpy() for matrix in matrices)))
    found = {"matrices": rerank_distances(*matrices), "vectors": rerank(a, b)}
    return [
        build_row(
            name,
            ours[key],
            theirs,
            "s",
            target=5 if key == "matrices" else None,
            note=f"largest difference of the results {np.abs(found[key].numpy() - expected).max():.1e}",
        )
        for key, name in names.items()
    ]
