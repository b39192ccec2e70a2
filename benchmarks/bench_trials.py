"""Ten trials with drawn galleries at the size of SYSU-MM01 (all-search, one picture) and LLCM (NIR to VIS).

Peer: the procedure of the released codes, written plainly: for each trial one matrix product, one argsort of the
matrix, and a Python loop over the queries that removes junk, walks the ranked identities and averages the precision
rank by rank. Most of its time goes into that last step, which is Python's alone; a second row, without a target, is
against the same loop with the precisions of a query divided by NumPy at once. All sides begin with the same embeddings
and the same draws, and must find the same numbers.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from benchmarks.measure import alternate, build_row
from tapetum.core.protocol import Protocol
from tapetum.core.types import EmbeddingSet, Modality
from tapetum.evaluation.trials import Drawing, Trials, evaluate_trials

DIMENSION = 2048
ROUNDED = 5e-5  # products of other shapes round differently: a few of many thousand rankings swap two neighbours
SYSU = Protocol(
    "sysu_all_single",
    query_modality=Modality.INFRARED,
    gallery_modality=Modality.VISIBLE,
    query_camids=(3, 6),
    gallery_camids=(1, 2, 4, 5),
    junk="none",
    junk_camera_pairs=((3, 2),),
    cmc="identities",
    trials=10,
    drawn="gallery",
)
LLCM = Protocol(
    "llcm_original_nir_to_vis",
    query_modality=Modality.INFRARED,
    gallery_modality=Modality.VISIBLE,
    query_camids=(1, 2, 4, 5, 6, 7, 8, 9),
    gallery_camids=(1, 2, 3, 4, 5, 6, 7, 8, 9),
    cmc="identities",
    trials=10,
    drawn="gallery",
)


@dataclass(frozen=True)
class Size:
    """How many pictures a data set tests with.

    Attributes:
        queries, gallery: pictures; the latter of all trials together.
        people: identities.
        drawn: entries of one trial's gallery, that is, pairs of a person and a camera.
    """

    queries: int
    gallery: int
    people: int
    drawn: int


def build_sets(size: Size, protocol: Protocol) -> tuple[EmbeddingSet, EmbeddingSet]:
    """Noisy people; each is seen under some of the cameras, with about the same number of pictures under each."""
    rng = np.random.default_rng(0)
    cameras = protocol.gallery_camids or ()
    pairs = np.array([(pid, camid) for pid in range(1, size.people + 1) for camid in cameras])
    seen = np.zeros(len(pairs), dtype=bool)
    seen[:: len(cameras)] = True  # everybody at least once
    seen[rng.choice(np.flatnonzero(~seen), size.drawn - size.people, replace=False)] = True
    pairs = pairs[seen]
    visible = pairs[np.r_[np.arange(len(pairs)), rng.integers(0, len(pairs), size.gallery - len(pairs))]]
    asking = np.stack(
        [rng.integers(1, size.people + 1, size.queries), rng.choice(protocol.query_camids or (), size.queries)], axis=1
    )
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(size.people + 1, DIMENSION, generator=generator)
    sets = []
    for modality, rows in ((Modality.INFRARED, asking), (Modality.VISIBLE, visible)):
        pids = torch.from_numpy(rows[:, 0].copy())
        vectors = torch.randn(len(rows), DIMENSION, generator=generator) + 0.25 * centres[pids]
        sets.append(
            EmbeddingSet(
                vectors=functional.normalize(vectors, out=vectors),
                paths=tuple(Path(f"{number:05d}.jpg") for number in range(len(rows))),
                pids=pids,
                camids=torch.from_numpy(rows[:, 1].copy()),
                modalities=torch.full((len(rows),), int(modality)),
            )
        )
    return sets[0], sets[1]


@dataclass(frozen=True)
class Plain:
    """Means over the trials of the plain procedure."""

    cmc: NDArray[np.float64]
    mean_ap: float
    mean_inp: float


def evaluate_plainly(
    query: EmbeddingSet,
    gallery: EmbeddingSet,
    protocol: Protocol,
    draws: Sequence[NDArray[np.int64]],
    *,
    ranks: int = 20,
    kind: Literal["stable"] | None = None,
    at_once: bool = False,
) -> Plain:
    """The released codes' way, trial by trial and query by query; `at_once` divides a query's precisions by NumPy."""
    queries, entries = query.vectors.numpy(), gallery.vectors.numpy()
    query_pids, query_camids = query.pids.numpy(), query.camids.numpy()
    curves, precisions, penalties = [], [], []
    for rows in draws:
        pids, camids = gallery.pids.numpy()[rows], gallery.camids.numpy()[rows]
        order = np.argsort(-np.matmul(queries, entries[rows].T), axis=1, kind=kind)
        curve, average_precision, inverse_penalty = np.zeros(ranks), [], []
        for number, ranked in enumerate(order):
            pid, camid = query_pids[number], query_camids[number]
            removed = np.zeros(len(ranked), dtype=bool)
            if protocol.junk == "same_pid_same_camid":
                removed |= (pids[ranked] == pid) & (camids[ranked] == camid)
            for ours, theirs in protocol.junk_camera_pairs:
                removed |= (camid == ours) & (camids[ranked] == theirs)
            answers = pids[ranked[~removed]]
            if not np.any(answers == pid):
                continue
            first = np.unique(answers, return_index=True)[1]
            identities = np.array([answers[place] for place in sorted(first)])
            found = np.cumsum(identities == pid)
            found[found > 1] = 1
            curve[: min(ranks, len(found))] += found[:ranks]
            hits = answers == pid
            count = np.cumsum(hits)
            if at_once:
                precision = count / np.arange(1.0, len(count) + 1.0)
            else:
                precision = np.asarray([right / (place + 1.0) for place, right in enumerate(count)])
            average_precision.append(np.sum(precision * hits) / np.sum(hits))
            inverse_penalty.append(count[-1] / (np.max(np.where(hits)) + 1.0))
        curves.append(curve / len(average_precision))
        precisions.append(np.mean(average_precision))
        penalties.append(np.mean(inverse_penalty))
    return Plain(np.mean(curves, axis=0), float(np.mean(precisions)), float(np.mean(penalties)))


def run() -> Iterator[dict[str, Any]]:
    yield from measure("SYSU-MM01", Size(3803, 6775, 96, 301), SYSU, rounds=3)
    yield from measure("LLCM", Size(7166, 8680, 351, 1755), LLCM, rounds=1)  # a round of the peer takes minutes


def measure(name: str, size: Size, protocol: Protocol, rounds: int) -> Iterator[dict[str, Any]]:
    query, gallery = build_sets(size, protocol)
    names = [path.name for path in gallery.paths]
    draws = [rows.numpy() for rows in Drawing(gallery.pids, gallery.camids, names, protocol).draw_all()]
    results: dict[str, Any] = {}

    def ours() -> None:
        results["ours"] = evaluate_trials(query, gallery, protocol)

    def plain() -> None:
        results["plain"] = evaluate_plainly(query, gallery, protocol, draws)

    def at_once() -> None:
        results["at once"] = evaluate_plainly(query, gallery, protocol, draws, at_once=True)

    seconds = alternate({"ours": ours, "plain": plain, "at once": at_once}, rounds=rounds)
    check_exactly(query, gallery, protocol)
    title = f"trials: ten of {name}'s size, vectors to all metrics, against the plain procedure"
    for peer, target, words in (("plain", 20, ""), ("at once", None, " with NumPy's division")):
        check(results["ours"], results[peer], tolerance=ROUNDED)
        note = (
            f"{size.queries} queries, {size.drawn} of {size.gallery} pictures a trial, {DIMENSION} numbers each; "
            f"mAP {results['ours'].metrics.mean_ap:.7f}, theirs {results[peer].mean_ap:.7f}"
        )
        yield build_row(title + words, seconds["ours"], seconds[peer], "s", target=target, note=note)


def check(found: Trials, plain: Plain, tolerance: float = 1e-9) -> None:
    """Both sides find the same numbers."""
    cmc = found.metrics.cmc[: len(plain.cmc)].numpy()
    np.testing.assert_allclose(cmc, plain.cmc[: len(cmc)], rtol=0, atol=tolerance)
    np.testing.assert_allclose(found.metrics.mean_ap, plain.mean_ap, rtol=0, atol=tolerance)
    np.testing.assert_allclose(found.metrics.mean_inp, plain.mean_inp, rtol=0, atol=tolerance)


def check_exactly(query: EmbeddingSet, gallery: EmbeddingSet, protocol: Protocol) -> None:
    """The same on vectors of whole numbers, whose products no order of summation rounds; equal ones stay in order."""
    some = query.select(torch.arange(0, len(query), 40))
    some, entries = (replace(side, vectors=(side.vectors * 2000).round()) for side in (some, gallery))
    names = [path.name for path in gallery.paths]
    draws = [rows.numpy() for rows in Drawing(gallery.pids, gallery.camids, names, protocol).draw_all()]
    check(evaluate_trials(some, entries, protocol), evaluate_plainly(some, entries, protocol, draws, kind="stable"))
