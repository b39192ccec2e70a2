import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

import golden_files
from tapetum.core.errors import ProtocolError
from tapetum.core.protocol import Protocol
from tapetum.core.types import EmbeddingSet, Modality
from tapetum.evaluation.metrics import Evaluation, average_precision, evaluate, evaluate_distances
from tapetum.evaluation.rerank import RerankOptions, rerank

MARKET = golden_files.load("metrics_market")
CROSS = golden_files.load("metrics_cross_modality")
STEP = Protocol("step", ignored_pids=(), max_rank=20)
TRAPEZOID = Protocol("trapezoid", ap="trapezoid", unmatched="count", ties="larger_index_first", max_rank=20)
CROSS_RULES = {
    "sysu": Protocol("sysu", ignored_pids=(), junk="none", junk_camera_pairs=((3, 2),), cmc="identities", max_rank=20),
    "llcm": Protocol("llcm", ignored_pids=(), cmc="identities", max_rank=20),
    "regdb": Protocol("regdb", ignored_pids=(), junk="none", max_rank=20),
}
NO_MATCH = [case for case in golden_files.list_cases("metrics_cross_modality", "no_valid_query") if "no_match" in case]
Sides = tuple[EmbeddingSet, EmbeddingSet]


def run(arrays: np.lib.npyio.NpzFile, case: str, protocol: Protocol) -> Evaluation:
    inputs = [arrays[f"{case}/in/{name}"] for name in ("dist", "q_pid", "g_pid", "q_cam", "g_cam")]
    return evaluate_distances(*inputs, protocol)


def assert_agrees(found: Evaluation, arrays: np.lib.npyio.NpzFile, prefix: str) -> None:
    """AP within 1e-9; the published CMC is kept in single precision."""
    cmc = arrays[f"{prefix}cmc"]
    assert found.metrics.cmc.shape == cmc.shape
    np.testing.assert_allclose(found.metrics.cmc.numpy(), cmc, atol=1e-6)
    assert found.metrics.mean_ap == pytest.approx(float(arrays[f"{prefix}mAP"]), abs=1e-9)
    if f"{prefix}per_query_ap" in arrays.files:
        ours = torch.where(found.matched, found.per_query_ap, -1.0)
        np.testing.assert_allclose(ours.numpy(), arrays[f"{prefix}per_query_ap"], atol=1e-9)


@pytest.mark.parametrize("case", golden_files.list_cases("metrics_market", "rect_cmc"))
def test_market_rules_with_the_step_rule_equal_torchreid(case: str) -> None:
    found = run(MARKET, case, STEP)
    assert_agrees(found, MARKET, f"{case}/out/rect_")
    assert found.metrics.num_queries == int(MARKET[f"{case}/out/n_valid"])


@pytest.mark.parametrize("case", golden_files.list_cases("metrics_market", "trap_cmc"))
def test_market_rules_with_the_trapezoid_equal_the_idf_release(case: str) -> None:
    found = run(MARKET, case, TRAPEZOID)
    assert_agrees(found, MARKET, f"{case}/out/trap_")
    assert found.metrics.num_queries == len(found.matched)
    assert int(found.matched.sum()) == int(MARKET[f"{case}/out/n_valid"])


@pytest.mark.parametrize("case", golden_files.list_cases("metrics_cross_modality", "cmc"))
def test_cross_modality_rules_equal_the_deen_release(case: str) -> None:
    found = run(CROSS, case, CROSS_RULES[case.split("_")[0]])
    assert_agrees(found, CROSS, f"{case}/out/")
    assert found.metrics.mean_inp == pytest.approx(float(CROSS[f"{case}/out/mINP"]), abs=1e-9)
    if f"{case}/out/per_query_inp" in CROSS.files:
        ours = torch.where(found.matched, found.per_query_inp, -1.0)
        np.testing.assert_allclose(ours.numpy(), CROSS[f"{case}/out/per_query_inp"], atol=1e-9)
        first = torch.where(found.per_query_first_rank > 20, 0, found.per_query_first_rank)
        np.testing.assert_array_equal(first.numpy(), CROSS[f"{case}/out/per_query_first_rank"])


@pytest.mark.parametrize("case", NO_MATCH)
def test_no_query_with_a_match_is_refused_where_the_published_code_refuses(case: str) -> None:
    with pytest.raises(ProtocolError, match="none of 1 queries has a match"):
        run(CROSS, case, CROSS_RULES[case.split("_")[0]])


def test_only_the_own_camera_is_refused_by_step_and_zero_by_trapezoid() -> None:
    case = "market_single_query_only_same_camera"
    with pytest.raises(ProtocolError, match="none of 1 queries"):
        run(MARKET, case, STEP)
    found = run(MARKET, case, TRAPEZOID)
    assert found.metrics.mean_ap == 0
    assert found.metrics.num_queries == 1
    assert found.per_query_first_rank.tolist() == [-1]


@pytest.mark.parametrize(
    ("ranks", "step", "trapezoid"),
    [([1], 1, 1), ([2], 0.5, 0.25), ([1, 3, 6], 0.7222, 0.6778), ([4, 10], 0.225, 0.1403)],
)
def test_average_precision_of_the_fact_sheets_examples(ranks: list[int], step: float, trapezoid: float) -> None:
    rank = torch.tensor([ranks])
    valid = torch.ones_like(rank, dtype=torch.bool)
    assert float(average_precision(rank, valid, "step")) == pytest.approx(step, abs=5e-5)
    assert float(average_precision(rank, valid, "trapezoid")) == pytest.approx(trapezoid, abs=5e-5)


def test_query_without_match_is_dropped_and_counted(make_set: Callable[..., EmbeddingSet]) -> None:
    query = make_set([1, 2, 3], [1, 1, 1], noise=0.0)
    gallery = make_set([1, 2, 2], [2, 2, 3], noise=0.0)
    dropped = evaluate(query, gallery, Protocol("drop")).metrics
    counted = evaluate(query, gallery, Protocol("count", unmatched="count")).metrics
    assert (dropped.num_queries, dropped.num_dropped, dropped.rank(1), dropped.mean_ap) == (2, 1, 1.0, 1.0)
    assert (counted.num_queries, counted.num_dropped) == (3, 0)
    assert counted.rank(1) == pytest.approx(2 / 3)
    assert counted.mean_ap == pytest.approx(2 / 3)


def test_ignored_pids_and_own_camera_leave_the_ranking() -> None:
    distances = torch.tensor([[0.1, 0.2, 0.3, 0.4, 0.5]])
    ids = torch.tensor([7]), torch.tensor([-1, 7, 3, 7, 7]), torch.tensor([1]), torch.tensor([2, 1, 2, 2, 3])
    found = evaluate_distances(distances, *ids, Protocol("junk"))
    assert found.num_ranked.tolist() == [3]  # without the -1 and the own camera
    assert found.num_matches.tolist() == [2]
    assert found.per_query_first_rank.tolist() == [2]
    assert found.metrics.mean_ap == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert found.metrics.mean_inp == pytest.approx(2 / 3)
    assert len(found.metrics.cmc) == 4


def test_ties_follow_the_protocol_in_float32_and_float64() -> None:
    ids = torch.tensor([1]), torch.tensor([2, 1, 3]), torch.tensor([1]), torch.tensor([2, 2, 2])
    for dtype in (torch.float16, torch.float32, torch.float64):
        equal = torch.tensor([[0.0, -0.0, 0.0]], dtype=dtype)
        for ties in ("smaller_index_first", "larger_index_first"):
            found = evaluate_distances(equal, *ids, Protocol("ties", ties=ties))
            assert found.per_query_first_rank.tolist() == [2]
        last = evaluate_distances(equal[:, [0, 2, 1]], *ids[:1], ids[1][[0, 2, 1]], *ids[2:], Protocol("ties"))
        assert last.per_query_first_rank.tolist() == [3]


def test_float64_distances_are_not_rounded_to_float32() -> None:
    distances = torch.tensor([[1.0 + 1e-12, 1.0]], dtype=torch.float64)
    ids = torch.tensor([1]), torch.tensor([2, 1]), torch.tensor([1]), torch.tensor([2, 2])
    assert evaluate_distances(distances, *ids, Protocol("exact")).metrics.rank(1) == 1
    assert evaluate_distances(distances.float(), *ids, Protocol("tied")).metrics.rank(1) == 0


@pytest.mark.parametrize("cmc", ["pictures", "identities"])
@pytest.mark.parametrize("reranking", [None, RerankOptions(k1=6, k2=3)])
def test_the_chunk_size_changes_nothing(searched: Sides, cmc: str, reranking: RerankOptions | None) -> None:
    query, gallery = searched
    query = query.select(torch.arange(80).repeat(14)[:1111])  # three tiles, the last one short
    protocol = Protocol("chunks", cmc=cmc)
    whole = evaluate(query, gallery, protocol, rerank=reranking, chunk_size=10_000)
    for chunk_size in (1, 100, 512, 600, 1024):
        part = evaluate(query, gallery, protocol, rerank=reranking, chunk_size=chunk_size)
        assert torch.equal(part.per_query_ap, whole.per_query_ap)
        assert torch.equal(part.per_query_inp, whole.per_query_inp)
        assert torch.equal(part.per_query_first_rank, whole.per_query_first_rank)
        assert torch.equal(part.metrics.cmc, whole.metrics.cmc)


def test_distances_in_chunks_give_the_same_and_stay_as_they_were(searched: Sides) -> None:
    query, gallery = searched
    distances = 1 - query.vectors @ gallery.vectors.T
    before = distances.clone()
    ids = query.pids, gallery.pids, query.camids, gallery.camids
    results = [evaluate_distances(distances, *ids, Protocol("p"), chunk_size=size) for size in (1, 7, 80, 500)]
    assert all(torch.equal(result.per_query_ap, results[0].per_query_ap) for result in results)
    assert torch.equal(distances, before)


def test_embeddings_and_their_distances_agree(searched: Sides) -> None:
    query, gallery = searched
    by_vectors = evaluate(query, gallery, Protocol("p"))
    distances = -(query.vectors @ gallery.vectors.T)
    by_distances = evaluate_distances(distances, query.pids, gallery.pids, query.camids, gallery.camids, Protocol("p"))
    torch.testing.assert_close(by_vectors.per_query_ap, by_distances.per_query_ap)
    assert 0.1 < by_vectors.metrics.mean_ap < 0.9


def test_reranked_evaluation_counts_the_reranked_distances(searched: Sides) -> None:
    query, gallery = searched
    options = RerankOptions(k1=8, k2=3)
    found = evaluate(query, gallery, Protocol("p"), rerank=options)
    distances = rerank(query.vectors, gallery.vectors, options)
    expected = evaluate_distances(distances, query.pids, gallery.pids, query.camids, gallery.camids, Protocol("p"))
    assert torch.equal(found.per_query_ap, expected.per_query_ap)
    assert found.metrics.mean_ap > evaluate(query, gallery, Protocol("p")).metrics.mean_ap


def test_one_modality_a_side_is_evaluated_alone(make_set: Callable[..., EmbeddingSet]) -> None:
    query = make_set([1, 2, 1, 2], [1, 1, 3, 3], noise=0.0, modalities=[0, 0, 1, 1])
    gallery = make_set([1, 2, 1, 2], [2, 2, 4, 4], noise=0.0, modalities=[0, 0, 1, 1])
    protocol = Protocol("ir", query_modality=Modality.INFRARED, gallery_modality=Modality.VISIBLE)
    found = evaluate(query, gallery, protocol)
    assert found.query_rows.tolist() == [2, 3]
    assert found.num_ranked.tolist() == [2, 2]
    with pytest.raises(ProtocolError, match="there is no query"):
        evaluate(query.select(torch.tensor([0, 1])), gallery, protocol)


def test_concatenated_branches_give_the_sum_of_their_similarities() -> None:
    """DEEN's six matrices are one product of concatenated vectors."""
    inputs = {name: torch.from_numpy(CROSS[f"deen_fusion/in/{name}"]) for name in ("q_pool", "q_bn", "g_pool", "g_bn")}
    for output, pool, bn in (("sim_sum", 1.0, 1.0), ("sim_01", 0.1, 0.9)):
        query, gallery = (
            torch.cat([*(pool**0.5 * inputs[f"{side}_pool"]), *(bn**0.5 * inputs[f"{side}_bn"])], dim=1)
            for side in "qg"
        )
        np.testing.assert_allclose((query @ gallery.T).numpy(), CROSS[f"deen_fusion/out/{output}"], atol=1e-9)


def test_both_rules_are_kept_and_the_protocol_picks_one(searched: Sides) -> None:
    query, gallery = searched
    found = evaluate(query, gallery, Protocol("p", ap="trapezoid"))
    assert torch.equal(found.per_query_ap, found.per_query_ap_trapezoid)
    assert torch.equal(found.ap_by("step"), found.per_query_ap_step)
    assert (found.per_query_ap_trapezoid <= found.per_query_ap_step + 1e-12).all()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_damaged_embeddings_are_an_error_that_says_so(searched: Sides, value: float) -> None:
    query, gallery = searched
    vectors = gallery.vectors.clone()
    vectors[5, 3] = value
    with pytest.raises(ProtocolError, match="NaN or infinite; the embeddings are damaged"):
        evaluate(query, replace(gallery, vectors=vectors), Protocol("p"))


def test_sides_that_do_not_fit_are_named(searched: Sides) -> None:
    query, gallery = searched
    with pytest.raises(ProtocolError, match="24 numbers, gallery vectors 8"):
        evaluate(query, replace(gallery, vectors=gallery.vectors[:, :8]), Protocol("p"))
    with pytest.raises(ProtocolError, match=r"distances are \(80, 3\)"):
        evaluate_distances(torch.zeros(80, 3), query.pids, gallery.pids, query.camids, gallery.camids, Protocol("p"))
    with pytest.raises(ProtocolError, match="nothing is left of a gallery of 2 entries"):
        evaluate_distances(
            torch.zeros(1, 2), torch.tensor([1]), torch.tensor([-1, -1]), torch.tensor([1]), torch.ones(2), STEP_MINUS
        )


STEP_MINUS = replace(STEP, ignored_pids=(-1,))


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak memory in the unit that Linux gives")
def test_memory_is_bounded_by_a_block_and_not_by_the_matrix() -> None:
    program = """
import resource, torch
from pathlib import Path
from tapetum.core.protocol import Protocol
from tapetum.core.types import EmbeddingSet
from tapetum.evaluation.metrics import evaluate
torch.set_num_threads(1)
vectors = torch.nn.functional.normalize(torch.randn(7000, 16))
rows = torch.arange(7000)
people = EmbeddingSet(vectors, (Path("x"),) * 7000, rows // 4, rows % 4, 0 * rows)
evaluate(people.select(rows[:600]), people, Protocol("p"))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
evaluate(people, people, Protocol("p"))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 80  # MiB; the matrix would take 187


def ranks_of(distances: torch.Tensor | np.ndarray, ties: str = "smaller_index_first") -> list[int]:
    """The rank of the first of three gallery entries, for each line of distances."""
    count = len(distances)
    ids = np.ones(count, dtype=np.int64), np.array([1, 2, 3]), np.zeros(count, dtype=np.int64), np.array([1, 1, 1])
    return evaluate_distances(distances, *ids, Protocol("types", ties=ties)).per_query_first_rank.tolist()


LARGEST = {"f2": 2**11, "f4": 2**24, "f8": 2**53}  # up to which a float of so many bytes tells whole numbers apart


@pytest.mark.parametrize("kind", ["i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", ">f4", ">i8", "?"])
def test_distances_of_any_type_are_counted_without_rounding(kind: str) -> None:
    top = 1 if kind == "?" else LARGEST.get(kind.lstrip(">")) or np.iinfo(kind).max - 1
    lines = [[top, top - 1, top], [top - 1, top, top - 1], [top, top, 0], [0, 0, 1]]
    if np.dtype(kind).kind in "if" and kind != "?":
        lines.append([-1, -2, 1])
    distances = np.array(lines, dtype=kind)
    expected = [2, 1, 2, 1, 2][: len(lines)]
    assert ranks_of(distances) == expected
    assert ranks_of(distances, "larger_index_first") == [3, 2, 3, 2, 2][: len(lines)]
    distances.setflags(write=False)
    assert ranks_of(distances[::-1, ::-1][::-1, ::-1]) == expected, "a view that nobody may write to"
    if not kind.startswith(">"):
        assert ranks_of(torch.from_numpy(distances.copy())) == expected


def test_distances_of_sixteen_bits_of_another_kind_are_counted_as_they_are() -> None:
    assert ranks_of(torch.tensor([[256.0, 255.0, 256.0], [-0.0, 0.0, -1.0]], dtype=torch.bfloat16)) == [2, 2]


@pytest.mark.parametrize("kind", [np.complex64, np.longdouble, object, "U3"])
def test_distances_of_no_real_type_are_named(kind: type | str) -> None:
    with pytest.raises(ProtocolError, match=r"distances are .*; give float64 or whole numbers"):
        ranks_of(np.array([[1, 2, 3]], dtype=kind))
    with pytest.raises(ProtocolError, match=r"distances are torch\.complex64"):
        ranks_of(torch.ones(1, 3, dtype=torch.complex64))


def test_a_match_at_the_end_of_the_whole_numbers_cannot_be_told_from_junk() -> None:
    with pytest.raises(ProtocolError, match="NaN or infinite"):
        ranks_of(np.array([[2**63 - 1, 2, 3]]))
    assert ranks_of(np.array([[2**63 - 2, 2, 2**63 - 1]])) == [2]


@pytest.mark.parametrize("kind", ["i8", "u8", "i4", "u1", "f8", "f4"])
def test_junk_and_ignored_pids_are_the_same_for_every_type_of_numbers(kind: str) -> None:
    distances = np.array([[0, 1, 2, 3]], dtype="i4")
    pids, camids = np.array([7, 5, 7, 7]), np.array([1, 2, 2, 3])
    rules = Protocol("types", ignored_pids=(5, -1))
    found = evaluate_distances(
        distances, np.array([7], kind), pids.astype(kind), np.array([1], kind), camids.astype(kind), rules
    )
    assert found.per_query_first_rank.tolist() == [1]
    assert found.num_ranked.tolist() == [2]


def test_people_with_long_numbers_are_told_apart_and_rounded_ones_are_refused() -> None:
    distances, cameras = np.array([[0.0, 1.0]]), (np.array([1]), np.array([2, 2]))
    far = 2**62
    ids = np.array([far + 1]), np.array([far, far + 1])
    assert evaluate_distances(distances, *ids, *cameras, Protocol("p")).per_query_first_rank.tolist() == [2]
    unsigned = tuple(side.astype("u8") for side in ids)
    assert evaluate_distances(distances, *unsigned, *cameras, Protocol("p")).per_query_first_rank.tolist() == [2]
    for wrong in (
        ids[1].astype("f8"),
        np.array([2**24, 2**24 + 1], "f4"),
        np.array([0.5, 1]),
        np.array([2**63, 1], "u8"),
    ):
        with pytest.raises(ProtocolError, match=r"gallery pids are .*, and not all of them whole; give int64"):
            evaluate_distances(distances, ids[0], wrong, *cameras, Protocol("p"))
