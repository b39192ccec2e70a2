import random
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch

import golden_files
from tapetum.core.protocol import Protocol
from tapetum.core.types import EmbeddingSet, Modality
from tapetum.evaluation.metrics import Evaluation, evaluate
from tapetum.evaluation.rerank import RerankOptions
from tapetum.evaluation.trials import draw_trial, evaluate_trials, order_rows

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
    for trial in range(10):
        found = draw_trial(rows[:, 1], rows[:, 0], file_names(case, rows), rules, trial)
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
