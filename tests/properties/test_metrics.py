"""What must hold of any ranking whatever."""

from dataclasses import fields
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tapetum.core.errors import ProtocolError
from tapetum.core.protocol import Protocol
from tapetum.evaluation import ranking
from tapetum.evaluation.metrics import Evaluation, average_precision, evaluate_distances

Case = tuple[NDArray[Any], ...]  # distances, query pids, gallery pids, query camids, gallery camids
quick = settings(max_examples=60)


@st.composite
def searches(draw: st.DrawFn, *, ties: bool) -> Case:
    """A small search; without ties every distance is unlike the others."""
    num_queries, num_gallery = draw(st.integers(1, 6)), draw(st.integers(1, 25))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    people, cameras = draw(st.integers(1, 5)), draw(st.integers(1, 4))
    if ties:
        distances = rng.integers(-3, 4, (num_queries, num_gallery)).astype(draw(st.sampled_from(["f4", "f8"])))
    else:
        distances = rng.permuted(np.tile(np.arange(num_gallery) / 7, (num_queries, 1)), axis=1)
    pids = rng.integers(1, people + 1, num_queries), rng.integers(-1, people + 1, num_gallery)
    camids = rng.integers(1, cameras + 1, num_queries), rng.integers(1, cameras + 1, num_gallery)
    return distances, *pids, *camids


protocols = st.builds(
    Protocol,
    st.just("any"),
    junk=st.sampled_from(["same_pid_same_camid", "none"]),
    junk_camera_pairs=st.sampled_from([(), ((3, 2),), ((1, 1), (2, 3))]),
    cmc=st.sampled_from(["pictures", "identities"]),
    ap=st.sampled_from(["step", "trapezoid"]),
    unmatched=st.just("count"),
    ties=st.sampled_from(["smaller_index_first", "larger_index_first"]),
    max_rank=st.integers(1, 30),
)


def run(case: Case, protocol: Protocol, chunk_size: int = 100) -> Evaluation | None:
    """The evaluation; None where the draw left nothing of the gallery."""
    if (case[2] == -1).all():
        with pytest.raises(ProtocolError, match="nothing is left of a gallery"):
            evaluate_distances(*case, protocol, chunk_size=chunk_size)
        return None
    return evaluate_distances(*case, protocol, chunk_size=chunk_size)


def slow(case: Case, protocol: Protocol) -> list[tuple[float, float, int]]:
    """AP, INP and first rank of each query, written from the definition: one entry after another."""
    distances, query_pids, gallery_pids, query_camids, gallery_camids = case
    results = []
    for row, pid, camid in zip(distances, query_pids, query_camids, strict=True):
        sign = 1 if protocol.ties == "smaller_index_first" else -1
        order = sorted(range(len(row)), key=lambda column, row=row, sign=sign: (row[column], sign * column))
        ranking = []
        for column in order:
            theirs, camera = gallery_pids[column], gallery_camids[column]
            same = protocol.junk == "same_pid_same_camid" and theirs == pid and camera == camid
            if theirs != -1 and not same and (camid, camera) not in protocol.junk_camera_pairs:
                ranking.append(theirs)
        ranks = [rank for rank, theirs in enumerate(ranking, start=1) if theirs == pid]
        if not ranks:
            results.append((0.0, 0.0, -1))
            continue
        total = 0.0
        for found, rank in enumerate(ranks, start=1):
            precision = found / rank
            if protocol.ap == "trapezoid":
                precision = (precision + ((found - 1) / (rank - 1) if rank > 1 else 1.0)) / 2
            total += precision
        first = ranks[0] if protocol.cmc == "pictures" else list(dict.fromkeys(ranking)).index(pid) + 1
        results.append((total / len(ranks), len(ranks) / ranks[-1], first))
    return results


@quick
@given(searches(ties=True), protocols)
def test_every_number_equals_a_slow_loop_written_from_the_definition(case: Case, protocol: Protocol) -> None:
    found = run(case, protocol)
    if found is None:
        return
    expected = slow(case, protocol)
    np.testing.assert_allclose(found.per_query_ap.numpy(), [ap for ap, _, _ in expected], atol=1e-12)
    np.testing.assert_allclose(found.per_query_inp.numpy(), [inp for _, inp, _ in expected], atol=1e-12)
    firsts = [first for _, _, first in expected]
    assert found.per_query_first_rank.tolist() == firsts
    for k, value in enumerate(found.metrics.cmc.tolist(), start=1):
        assert abs(value - np.mean([0 < first <= k for first in firsts])) < 1e-12


def answer(case: Case, protocol: Protocol, **lengths: int) -> Evaluation | str:
    """The evaluation, or what it complains of, where rows of another length are long."""
    with mock.patch.multiple(ranking, **lengths):
        try:
            return evaluate_distances(*case, protocol)
        except ProtocolError as error:
            return str(error)


@quick
@given(
    searches(ties=True),
    protocols,
    st.sampled_from([(0, 0), (0, 3), (0, 100), (8, 3)]),
    st.sampled_from([None, np.nan, np.inf, int]),
    st.data(),
)
def test_a_row_cut_behind_its_farthest_match_gives_what_sorting_the_whole_row_gives(
    case: Case, protocol: Protocol, lengths: tuple[int, int], odd: Any, data: st.DataObject
) -> None:
    distances = case[0]
    if odd is int:
        distances = distances.astype(np.int64)
    elif odd is not None:
        distances[tuple(data.draw(st.integers(0, size - 1)) for size in distances.shape)] = odd
    case = (distances, *case[1:])
    long_row, few_matches = lengths
    whole = answer(case, protocol, LONG_ROW=10**9)
    cut = answer(case, protocol, LONG_ROW=long_row, FEW_MATCHES=few_matches)
    if isinstance(whole, str) or isinstance(cut, str):
        assert whole == cut
        return
    for name in (field.name for field in fields(Evaluation) if field.name != "metrics"):
        assert torch.equal(getattr(whole, name), getattr(cut, name)), name
    assert torch.equal(whole.metrics.cmc, cut.metrics.cmc)


@quick
@given(searches(ties=True), protocols, st.integers(1, 8))
def test_the_chunk_size_is_not_seen_in_the_result(case: Case, protocol: Protocol, chunk_size: int) -> None:
    whole, parts = run(case, protocol), run(case, protocol, chunk_size)
    if whole is not None and parts is not None:
        assert torch.equal(whole.per_query_ap, parts.per_query_ap)
        assert torch.equal(whole.per_query_first_rank, parts.per_query_first_rank)
        assert torch.equal(whole.metrics.cmc, parts.metrics.cmc)


@quick
@given(searches(ties=False), protocols, st.integers(0, 2**32 - 1))
def test_the_order_of_the_gallery_does_not_matter_without_ties(case: Case, protocol: Protocol, seed: int) -> None:
    distances, query_pids, gallery_pids, query_camids, gallery_camids = case
    order = np.random.default_rng(seed).permutation(len(gallery_pids))
    mixed = distances[:, order], query_pids, gallery_pids[order], query_camids, gallery_camids[order]
    one, other = run(case, protocol), run(mixed, protocol)
    if one is not None and other is not None:
        assert torch.equal(one.per_query_ap, other.per_query_ap)
        assert torch.equal(one.per_query_inp, other.per_query_inp)
        assert torch.equal(one.per_query_first_rank, other.per_query_first_rank)


@quick
@given(searches(ties=True), protocols)
def test_numbers_are_fractions_and_the_curve_never_falls(case: Case, protocol: Protocol) -> None:
    found = run(case, protocol)
    if found is None:
        return
    metrics = found.metrics
    assert 0 <= metrics.mean_inp <= 1
    assert 0 <= metrics.mean_ap <= 1
    assert (found.per_query_ap_trapezoid <= found.per_query_ap_step + 1e-12).all()
    assert (metrics.cmc.diff() >= 0).all()
    assert float(metrics.cmc[-1]) <= float(found.matched.double().mean()) + 1e-12


@quick
@given(st.sets(st.integers(1, 40), min_size=1, max_size=12), st.data(), st.sampled_from(["step", "trapezoid"]))
def test_a_hit_moved_up_never_lowers_average_precision(ranks: set[int], data: st.DataObject, rule: Any) -> None:
    free = sorted(set(range(1, max(ranks) + 1)) - ranks)
    if not free:
        return
    better = data.draw(st.sampled_from(free))
    moved = data.draw(st.sampled_from([rank for rank in sorted(ranks) if rank > better]))

    def score(places: set[int]) -> float:
        row = torch.tensor([sorted(places)])
        return float(average_precision(row, torch.ones_like(row, dtype=torch.bool), rule))

    assert score(ranks - {moved} | {better}) >= score(ranks) - 1e-12
