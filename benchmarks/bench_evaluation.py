"""Evaluation at the size of Market-1501: 3368 queries, 19732 gallery pictures, 2048 numbers a picture.

Peers: the bare float32 matrix product with NumPy's sort of each row, the least that any full ranking does; torchreid's
compiled evaluation, where somebody has built it from its repository (the registry package lacks it); and the Python
evaluation that torchreid falls back to. NumPy's sort is several times slower on some CPUs than on others, so the time
of that sort alone stands beside ours, and so does our evaluator with every row sorted whole. On vectors that tell
people apart badly most of a row is nearer than a query's farthest match, and less can be left out: such ones are
measured too.
"""

import importlib.util
import json
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch.nn import functional

from benchmarks.measure import PEERS, PeerMissingError, alternate, build_row, load_peer, once
from tapetum.core.protocol import Protocol
from tapetum.core.types import EmbeddingSet
from tapetum.evaluation import ranking
from tapetum.evaluation.metrics import Evaluation, evaluate, evaluate_distances

PROTOCOL = Protocol("market1501_step")
NUM_QUERIES, NUM_GALLERY, DIMENSION = 3368, 19732, 2048
POOR_DIMENSION = 256  # in which the same people are told apart badly
COMPILED = PEERS / "rank_cylib"  # torchreid/metrics/rank_cylib, built there by `python setup.py build_ext --inplace`
LARGE, LARGE_DIMENSION, LARGE_GIB = 100_000, 512, 4


def build_sets(
    num_queries: int, num_gallery: int, dimension: int, people: int = 750
) -> tuple[EmbeddingSet, EmbeddingSet]:
    """Noisy people; a seventh of the gallery are strangers (pid 0)."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(people + 1, dimension, generator=generator)
    sets = []
    for count, lowest in ((num_queries, 1), (num_gallery, 0)):
        pids = torch.randint(1, people + 1, (count,), generator=generator)
        strangers = torch.rand(count, generator=generator) < (1 - lowest) / 7
        pids = torch.where(strangers, 0, pids)
        vectors = torch.randn(count, dimension, generator=generator)
        vectors += 0.3 * torch.where(strangers, 0.0, 1.0)[:, None] * centres[pids]
        sets.append(
            EmbeddingSet(
                vectors=functional.normalize(vectors, out=vectors),
                paths=(Path("picture.jpg"),) * count,
                pids=pids,
                camids=torch.randint(1, 7, (count,), generator=generator),
                modalities=torch.zeros(count, dtype=torch.int64),
            )
        )
    return sets[0], sets[1]


def run() -> Iterator[dict[str, Any]]:
    query, gallery = build_sets(NUM_QUERIES, NUM_GALLERY, DIMENSION)
    yield measure_vectors(query, gallery)
    yield from measure_distances(query, gallery, "")
    del query, gallery
    yield from measure_distances(*build_sets(NUM_QUERIES, NUM_GALLERY, POOR_DIMENSION), ", people told apart badly")
    yield measure_large()


def measure_vectors(query: EmbeddingSet, gallery: EmbeddingSet) -> dict[str, Any]:
    a, b = query.vectors.numpy(), gallery.vectors.numpy()
    sides = {"ours": lambda: evaluate(query, gallery, PROTOCOL), "peer": lambda: np.sort(a @ b.T, axis=1)}
    seconds = alternate(sides, rounds=7)
    name = "evaluation: vectors to all metrics, against product + row sort"
    return build_row(name, seconds["ours"], seconds["peer"], "s", target=1 / 1.5)


def measure_distances(query: EmbeddingSet, gallery: EmbeddingSet, which: str) -> Iterator[dict[str, Any]]:
    distances = 1 - query.vectors @ gallery.vectors.T
    ids = query.pids, gallery.pids, query.camids, gallery.camids
    arrays = [distances.numpy(), *(side.numpy() for side in ids)]
    our_ap = evaluate_distances(distances, *ids, PROTOCOL).metrics.mean_ap
    name = f"evaluation: distances to all metrics{which}, against"

    def ours() -> Evaluation:
        return evaluate_distances(distances, *ids, PROTOCOL)

    seconds = alternate({"ours": ours, "peer": lambda: np.sort(arrays[0], axis=1)}, rounds=5)
    yield build_row(f"{name} NumPy's sort of each row", seconds["ours"], seconds["peer"], "s")
    yield measure_cutting(ours, name)
    try:
        evaluate_compiled = load_compiled()
    except PeerMissingError as error:
        yield build_row(f"{name} torchreid (compiled)", seconds["ours"], None, "s", target=4, note=str(error))
    else:
        sides = {"ours": ours, "peer": lambda: evaluate_compiled(*arrays, 50)}
        seconds = alternate(sides, rounds=3)
        note = f"mAP {our_ap:.6f}, theirs, summed in float32, {evaluate_compiled(*arrays, 50)[1]:.6f}"
        yield build_row(f"{name} torchreid (compiled)", seconds["ours"], seconds["peer"], "s", target=4, note=note)
    if which:
        return  # Python's loops take as long on these
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it mentions its missing compiled part
            peer = load_peer("torchreid==0.2.5", "torchreid/reid/metrics/rank.py")
    except PeerMissingError as error:
        yield build_row(f"{name} torchreid (Python)", seconds["ours"], None, "s", target=50, note=str(error))
        return
    theirs, (_, mean_ap) = once(lambda: peer.evaluate_rank(*arrays, max_rank=50, use_cython=False))
    note = f"mAP {our_ap:.9f}, theirs {mean_ap:.9f}"
    yield build_row(f"{name} torchreid (Python)", seconds["ours"], theirs, "s", target=50, note=note)


def measure_cutting(ours: Callable[[], Evaluation], name: str) -> dict[str, Any]:
    """Our evaluator against itself with every row sorted whole: what cutting gains on this CPU, or costs."""

    def sorting() -> Evaluation:
        with patch.object(ranking, "LONG_ROW", sys.maxsize):
            return ours()

    if sorting().metrics.mean_ap != ours().metrics.mean_ap:
        raise AssertionError("cut rows and whole ones give different mAP")
    seconds = alternate({"ours": ours, "peer": sorting}, rounds=5)
    return build_row(f"{name} ours with every row sorted whole", seconds["ours"], seconds["peer"], "s")


def load_compiled() -> Callable[..., Any]:
    """torchreid's compiled evaluation.

    Raises:
        PeerMissingError: nobody has put it there.
    """
    found = sorted(COMPILED.glob("rank_cy*.so"))
    spec = importlib.util.spec_from_file_location("rank_cy", found[0]) if found else None
    if spec is None or spec.loader is None:
        raise PeerMissingError(
            f"no rank_cy*.so in {COMPILED}: build torchreid/metrics/rank_cylib of its repository and copy that there"
        )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    evaluate_compiled: Callable[..., Any] = module.evaluate_cy
    return evaluate_compiled


def measure_large() -> dict[str, Any]:
    """Peak memory of a whole process that evaluates 100k x 100k; the matrix alone would take 37 GiB."""
    done = subprocess.run([sys.executable, "-m", __name__], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    note = f"{found['seconds']:.0f} s; the peer is the memory allowed"
    name = f"evaluation: peak memory of {LARGE} x {LARGE} x {LARGE_DIMENSION}"
    return build_row(name, found["gib"], LARGE_GIB, "GiB", target=1, note=note)


def evaluate_large() -> None:
    import resource

    query, gallery = build_sets(LARGE, LARGE, LARGE_DIMENSION, people=20_000)
    seconds, _ = once(lambda: evaluate(query, gallery, PROTOCOL))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # KiB on Linux
    print(json.dumps({"seconds": seconds, "gib": peak}))


if __name__ == "__main__":
    evaluate_large()
