import random
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch

import golden_files
from tapetum.core.errors import ProtocolError
from tapetum.core.protocol import Protocol
from tapetum.core.seeding import numpy_generator
from tapetum.core.types import EmbeddingSet, Modality
from tapetum.evaluation.bootstrap import bootstrap
from tapetum.evaluation.metrics import Evaluation, evaluate
from tapetum.evaluation.rerank import RerankOptions
from tapetum.evaluation.slices import by_camera_pair, mean_precisions
from tapetum.evaluation.trials import Drawing, evaluate_trials, order_rows

DRAWS = golden_files.load("gallery_selection")
SINGLE = Protocol("drawn", cmc="identities", drawn="gallery", trials=10)


def draw_cases() -> list[object]:
    cases = [("sysu", "files", "gallery_all", (1, 2, 4, 5)), ("sysu", "files", "gallery_indoor", (1, 2))]
    cases += [("llcm", "visible_files", "gallery_visible", tuple(range(1, 10)))]
    cases += [("llcm", "infrared_files", "gallery_infrared", (1, 2, 4, 5, 6, 7, 8, 9))]
    return [pytest.param(*case, id=case[2]) for case in cases]


def read_files(case: str, files: str, cameras: tuple[int, ...]) -> np.ndarray:
    rows = DRAWS[f"{case}/in/{files}_cam_id_number"]
    rows = rows[np.isin(rows[:, 0], cameras)]
    return np.random.default_rng(0).permutation(rows)  # the order of reading must not matter


def file_names(case: str, rows: np.ndarray) -> list[str]:
    if case == "sysu":
        return [f"{number:04d}.jpg" for _, _, number in rows]
    return [f"{pid:04d}_c{camid:02d}_s{100000 + number}_f{number:04d}_x.jpg" for camid, pid, number in rows]


@pytest.mark.parametrize(("case", "files", "galleries", "cameras"), draw_cases())
def test_galleries_are_drawn_as_the_released_codes_draw_them(
    case: str, files: str, galleries: str, cameras: tuple[int, ...]
) -> None:
    rows = read_files(case, files, cameras)
    rules = replace(SINGLE, gallery_camids=cameras)
    state = random.getstate()
    drawing = Drawing(rows[:, 1], rows[:, 0], file_names(case, rows), rules)
    for trial in range(10):
        found = drawing.draw(trial)
        np.testing.assert_array_equal(rows[found], DRAWS[f"{case}/out/{galleries}_trial{trial}"])
    assert random.getstate() == state


@pytest.mark.parametrize(
    ("case", "files", "query", "cameras"),
    [
        ("sysu", "files", "query", (3, 6)),
        ("llcm", "visible_files", "query_visible", tuple(range(1, 10))),
        ("llcm", "infrared_files", "query_infrared", (1, 2, 4, 5, 6, 7, 8, 9)),
    ],
)
def test_queries_come_in_the_order_of_the_released_codes(
    case: str, files: str, query: str, cameras: tuple[int, ...]
) -> None:
    rows = read_files(case, files, cameras)
    found = order_rows(rows[:, 1], rows[:, 0], file_names(case, rows), cameras)
    key = f"{case}/out/{query}" + ("_cam_id_number" if case == "sysu" else "")
    np.testing.assert_array_equal(rows[found], DRAWS[key])


@pytest.fixture
def crossed() -> tuple[EmbeddingSet, EmbeddingSet]:
    """700 infrared queries and 500 visible pictures of 25 people under six cameras."""
    generator = torch.Generator().manual_seed(5)
    sets = []
    for modality, count in ((Modality.INFRARED, 700), (Modality.VISIBLE, 500)):
        pids = torch.randint(1, 26, (count,), generator=generator)
        centres = torch.randn(26, 24, generator=torch.Generator().manual_seed(9))
        vectors = centres[pids] + 1.5 * torch.randn(count, 24, generator=generator)
        sets.append(
            EmbeddingSet(
                vectors=torch.nn.functional.normalize(vectors),
                paths=tuple(Path(f"{index:04d}.jpg") for index in range(count)),
                pids=pids,
                camids=torch.randint(1, 7, (count,), generator=generator),
                modalities=torch.full((count,), int(modality)),
            )
        )
    return sets[0], sets[1]


RULES = {
    "sysu": Protocol(
        "sysu",
        query_modality=Modality.INFRARED,
        gallery_modality=Modality.VISIBLE,
        query_camids=(3, 6),
        gallery_camids=(1, 2, 4, 5),
        junk="none",
        junk_camera_pairs=((3, 2),),
        cmc="identities",
        trials=10,
        drawn="gallery",
    ),
    "multi": Protocol("multi", cmc="identities", trials=4, drawn="gallery", shots=3),
    "llcm": Protocol("llcm", cmc="identities", trials=10, drawn="gallery"),
    "released": Protocol("released", cmc="identities", trials=10, drawn="query"),
    "pictures": Protocol("pictures", ap="trapezoid", unmatched="count", trials=3, drawn="gallery"),
}


def assert_equal(found: Evaluation, expected: Evaluation) -> None:
    for field in fields(Evaluation):
        ours, theirs = getattr(found, field.name), getattr(expected, field.name)
        if field.name == "metrics":
            assert torch.equal(ours.cmc, theirs.cmc)
            assert replace(ours, cmc=theirs.cmc) == theirs
        else:
            assert torch.equal(ours, theirs), field.name


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("rerank", [None, RerankOptions(k1=6, k2=3)])
def test_all_trials_at_once_equal_each_trial_alone(
    crossed: tuple[EmbeddingSet, EmbeddingSet], name: str, rerank: RerankOptions | None
) -> None:
    query, gallery = crossed
    rules = RULES[name]
    found = evaluate_trials(query, gallery, rules, rerank=rerank)
    assert len(found.each) == len(found.drawn) == rules.trials
    for trial, rows in zip(found.each, found.drawn, strict=True):
        if rules.drawn == "query":
            alone = evaluate(query.select(rows), gallery, rules, rerank=rerank)
            alone = replace(alone, query_rows=rows[alone.query_rows])
        else:
            alone = evaluate(query, gallery.select(rows), rules, rerank=rerank)
        assert_equal(trial, alone)
    mean_aps = [trial.metrics.mean_ap for trial in found.each]
    assert found.metrics.mean_ap == pytest.approx(np.mean(mean_aps))
    assert found.deviations["mean_ap"] == pytest.approx(np.std(mean_aps, ddof=1))


def test_the_chunk_size_changes_no_trial(crossed: tuple[EmbeddingSet, EmbeddingSet]) -> None:
    query, gallery = crossed
    for rules in (RULES["sysu"], RULES["released"]):
        whole = evaluate_trials(query, gallery, rules, chunk_size=10_000)
        part = evaluate_trials(query, gallery, rules, chunk_size=1)
        for one, other in zip(whole.each, part.each, strict=True):
            assert_equal(one, other)


def test_pictures_that_no_trial_takes_may_be_absent(crossed: tuple[EmbeddingSet, EmbeddingSet]) -> None:
    query, gallery = crossed
    whole = evaluate_trials(query, gallery, RULES["llcm"])
    union = torch.unique(torch.cat(whole.drawn))
    assert len(union) < len(gallery)
    rows = [torch.searchsorted(union, drawn) for drawn in whole.drawn]
    part = evaluate_trials(query, gallery.select(union), RULES["llcm"], drawn=rows)
    for one, other in zip(whole.each, part.each, strict=True):
        assert_equal(one, other)


def test_a_trial_takes_one_picture_of_each_person_and_camera_and_nothing_else(
    crossed: tuple[EmbeddingSet, EmbeddingSet],
) -> None:
    query, gallery = crossed
    found = evaluate_trials(query, gallery, RULES["sysu"])
    pairs = {
        pair for pair in zip(gallery.pids.tolist(), gallery.camids.tolist(), strict=True) if pair[1] in (1, 2, 4, 5)
    }
    for rows in found.drawn:
        drawn = list(zip(gallery.pids[rows].tolist(), gallery.camids[rows].tolist(), strict=True))
        assert drawn == sorted(pairs)
    assert set(query.camids[found.each[0].query_rows].tolist()) == {3, 6}


def test_several_shots_are_a_sample_of_the_sorted_names_and_a_small_folder_is_taken_whole() -> None:
    names = [f"{number:04d}.jpg" for number in (7, 3, 9, 1, 5, 2, 8)]
    pids, camids = torch.tensor([1, 1, 1, 1, 1, 2, 2]), torch.ones(7, dtype=torch.int64)
    rules = Protocol("multi", drawn="gallery", shots=3, trials=2)
    for trial in range(2):
        found = Drawing(pids, camids, names, rules).draw(trial)
        expected = random.Random(trial).sample(["0001.jpg", "0003.jpg", "0005.jpg", "0007.jpg", "0009.jpg"], 3)
        assert [names[row] for row in found] == [*expected, "0002.jpg", "0008.jpg"]


def test_ignored_people_are_not_drawn() -> None:
    pids, camids = torch.tensor([-1, 1, 2]), torch.ones(3, dtype=torch.int64)
    assert Drawing(pids, camids, ["a", "b", "c"], RULES["llcm"]).draw(0).tolist() == [1, 2]


PERMUTED = Protocol("permuted", gallery_camids=(2, 1), drawn="gallery", trials=2, shots=2)
NAMES = [f"{number:04d}.jpg" for number in (1, 2, 3, 1, 2)]
ORDERS = {(1, 4): np.array([[3, 1, 2], [2, 3, 1]]), (2, 4): np.array([[2, 1], [1, 2]]), (1, 5): np.array([[1], [1]])}


def test_permutations_of_the_data_set_decide_where_there_are_some() -> None:
    pids, camids = torch.full((5,), 4), torch.tensor([1, 1, 1, 2, 2])
    first, second = (rows.tolist() for rows in Drawing(pids, camids, NAMES, PERMUTED, ORDERS).draw_all())
    assert first == [4, 3, 2, 0]  # camera 2 comes first: files 2 and 1, then 3 and 1 of camera 1
    assert second == [3, 4, 1, 2]


@pytest.mark.parametrize(
    ("orders", "rows", "trial", "message"),
    [
        ({(1, 4): ORDERS[1, 4]}, 5, 0, "hold no order for person 4 under camera 2, trial 1 is wanted"),
        (ORDERS, 5, 2, "hold 2 orders for person 4 under camera 2, trial 3 is wanted"),
        (ORDERS, 4, 0, "trial 1 takes picture 2 of person 4 under camera 2, which is missing"),
        (ORDERS, 3, 0, "name pictures of person 4 under camera 2, and there is none"),
    ],
)
def test_permutations_that_do_not_fit_the_pictures_are_an_error(
    orders: dict[tuple[int, int], np.ndarray], rows: int, trial: int, message: str
) -> None:
    pids, camids = torch.full((5,), 4)[:rows], torch.tensor([1, 1, 1, 2, 2])[:rows]
    with pytest.raises(ProtocolError, match=message):
        Drawing(pids, camids, NAMES[:rows], PERMUTED, orders).draw(trial)


def test_what_cannot_be_drawn_is_named(crossed: tuple[EmbeddingSet, EmbeddingSet]) -> None:
    query, gallery = crossed
    with pytest.raises(ProtocolError, match="protocol plain draws nothing"):
        evaluate_trials(query, gallery, Protocol("plain"))
    with pytest.raises(ProtocolError, match="protocol plain draws nothing; choose one with drawn galleries"):
        Drawing(gallery.pids, gallery.camids, ["x"] * 500, Protocol("plain"))
    far = replace(RULES["sysu"], gallery_camids=(11, 12))
    with pytest.raises(ProtocolError, match=r"no gallery picture to draw from; .* under the cameras \[11, 12\]"):
        evaluate_trials(query, gallery, far)
    with pytest.raises(ProtocolError, match="there is no gallery picture to draw from"):
        evaluate_trials(query, query, RULES["sysu"])
    with pytest.raises(ProtocolError, match="protocol sysu: there is no query"):
        evaluate_trials(gallery, gallery, RULES["sysu"])
    broken = replace(gallery, vectors=gallery.vectors * torch.nan)
    with pytest.raises(ProtocolError, match="NaN or infinite"):
        evaluate_trials(query, broken, RULES["llcm"])


def test_trials_have_an_interval_over_their_queries_and_slices_of_their_own(
    crossed: tuple[EmbeddingSet, EmbeddingSet],
) -> None:
    query, gallery = crossed
    for name in ("llcm", "released"):
        found = evaluate_trials(query, gallery, RULES[name])
        interval = bootstrap(found.each, rng=numpy_generator(0, "b"))["mean_ap"]
        assert interval.low < found.metrics.mean_ap < interval.high
        pairs = by_camera_pair(query, gallery, RULES[name], found.drawn)
        assert len(pairs) == 30  # six by six, without the own camera
        for camera, other in ((2, 5), (6, 1)):
            ours, theirs = query.camids == camera, gallery.camids == other
            mask = ours if name == "released" else theirs
            drawn = [mask.cumsum(0)[each[mask[each]]] - 1 for each in found.drawn]
            one = evaluate_trials(query.select(ours), gallery.select(theirs), RULES[name], drawn=drawn).metrics
            pair = pairs[f"camera {camera} to camera {other}"]
            assert torch.equal(pair.cmc, one.cmc)
            assert replace(pair, cmc=one.cmc) == one


def test_the_worst_queries_are_those_of_the_lowest_mean_over_the_trials(
    crossed: tuple[EmbeddingSet, EmbeddingSet],
) -> None:
    found = evaluate_trials(*crossed, RULES["released"])
    rows, precisions = mean_precisions(found.each)
    assert precisions.tolist() == sorted(precisions.tolist())
    row = int(rows[0])
    own = [trial.per_query_ap[trial.query_rows == row] for trial in found.each]
    assert float(precisions[0]) == pytest.approx(float(torch.cat(own).mean()))
    assert sum(len(each) for each in own) < 10  # not every trial asked it


def test_a_protocols_cameras_restrict_both_sides(crossed: tuple[EmbeddingSet, EmbeddingSet]) -> None:
    query, gallery = crossed
    rules = Protocol("cameras", query_camids=(3, 6), gallery_camids=(1, 2))
    found = evaluate(query, gallery, rules)
    alone = evaluate(
        query.select(torch.isin(query.camids, torch.tensor([3, 6]))),
        gallery.select(torch.isin(gallery.camids, torch.tensor([1, 2]))),
        replace(rules, query_camids=None, gallery_camids=None),
    )
    assert torch.equal(found.per_query_ap, alone.per_query_ap)
    assert set(query.camids[found.query_rows].tolist()) == {3, 6}
