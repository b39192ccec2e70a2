"""What people seen at one moment by one camera say of a calibration."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gallery_rows import MODEL, NIGHT, a_row, some_vectors
from tapetum.core.types import Modality
from tapetum.evaluation.calibration import Calibration, PairCalibration
from tapetum.evaluation.thresholds import Tail
from tapetum.gallery.opening import open_gallery
from tapetum.gallery.schema import Row
from tapetum.gallery.store import Store
from tapetum.searching import strangers as module
from tapetum.searching.find import Findings, find
from tapetum.searching.query import Query
from tapetum.searching.question import FindOptions
from tapetum.searching.retention import erase
from tapetum.searching.strangers import (
    FILE,
    ROWS,
    Strangers,
    has_strangers,
    measure_strangers,
    read_strangers,
    write_strangers,
)

VISIBLE, INFRARED = Modality.VISIBLE, Modality.INFRARED
PAIR = "visible-visible"


def walk(
    number: int,
    tracklet: str,
    first: float,
    last: float,
    modality: Modality = VISIBLE,
    camera: str = "yard",
    frame: int = 7,
) -> list[Row]:
    """The two rows of a tracklet, at its ends."""
    about = {"tracklet": tracklet, "camera": camera, "modality": modality, "frame": frame}
    return [
        replace(a_row(number), sighting=replace(a_row(number).sighting, id=f"r{number}-{end}", time=time, **about))
        for end, time in enumerate((NIGHT + first, NIGHT + last))
    ]


def fill(store: Store, walks: Sequence[Sequence[Row]], vectors: np.ndarray) -> None:
    """One vector a walk."""
    store.upsert([row for rows in walks for row in rows], np.repeat(vectors, 2, axis=0))


def test_tracklets_of_one_recording_that_overlap_are_strangers_and_no_others(tmp_path: Path) -> None:
    walks = [
        walk(0, "ab-000", 0, 10),
        walk(1, "ab-001", 10, 20),  # begins as the first ends: both were there
        walk(2, "ab-002", 21, 30),  # alone
        walk(3, "cd-000", 5, 15),  # of another recording: another detector may have found the first again
        walk(4, "ab-003", 22, 25, INFRARED),
        walk(5, "ab-002", 24, 26, INFRARED),  # the camera switched: the same person
        walk(6, "", 0, 30),
        walk(7, "ab-004", 0, 10, camera="gate"),  # of a folder of two cameras: the same person may be at both
        walk(8, "ef-000", 0, 0, frame=0),  # loose crops: two of one second may show one person
        walk(9, "ef-001", 0, 0, frame=0),
    ]
    vectors = np.asarray(some_vectors(len(walks)))
    with open_gallery(tmp_path / "night", create=MODEL) as store:
        fill(store, walks, vectors)
        found = measure_strangers(store).similarities
        write_strangers(store)
        assert read_strangers(store.folder) == Strangers(found)
    products = vectors @ vectors.T
    assert found == {
        PAIR: (pytest.approx(products[0, 1], abs=1e-3),),
        "visible-infrared": (pytest.approx(products[2, 4], abs=1e-3),),
        "infrared-infrared": (pytest.approx(products[4, 5], abs=1e-3),),
    }


def test_the_pairs_are_those_of_a_slow_loop_and_of_many_some_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    starts = np.random.default_rng(0).integers(0, 50, 60).astype(float)
    times = np.stack([starts, starts + np.random.default_rng(1).integers(0, 9, 60)], 1)
    slow = {
        frozenset((one, other))
        for one in range(60)
        for other in range(one)
        if times[one, 0] <= times[other, 1] and times[other, 0] <= times[one, 1]
    }
    pairs = module._overlaps(times)
    assert len(pairs) == len(slow) < module.MOST_PAIRS
    assert set(map(frozenset, pairs)) == slow
    monkeypatch.setattr(module, "MOST_PAIRS", 20)
    some = module._overlaps(times)
    assert len(set(map(frozenset, some))) == 20
    assert set(map(frozenset, some)) < slow


def test_who_is_erased_says_nothing_any_more_and_the_others_still_do(tmp_path: Path) -> None:
    walks = [walk(0, "ab-000", 0, 10), walk(1, "ab-001", 5, 9), walk(2, "ab-002", 0, 10)]
    vectors = np.asarray(some_vectors(3))
    with open_gallery(tmp_path / "night", create=MODEL) as store:
        fill(store, walks, vectors)
        write_strangers(store)
        assert len(read_strangers(store.folder).similarities[PAIR]) == 3
        erase(store, 'tracklet == "ab-001"')
        (left,) = json.loads((tmp_path / "night" / FILE).read_text())[PAIR]
        assert left == pytest.approx(vectors[0] @ vectors[2], abs=1e-3)


def test_an_erasure_killed_before_it_measured_anew_leaves_no_number_of_the_erased(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(_: Store) -> None:
        raise KeyboardInterrupt

    with open_gallery(tmp_path / "night", create=MODEL) as store:
        fill(store, [walk(0, "ab-000", 0, 10), walk(1, "ab-001", 5, 9)], np.asarray(some_vectors(2)))
        write_strangers(store)
        with monkeypatch.context() as patch:
            patch.setattr("tapetum.searching.retention.write_strangers", killed)
            with pytest.raises(KeyboardInterrupt):
                erase(store, 'tracklet == "ab-001"')
        assert not has_strangers(store)
        assert erase(store, 'tracklet == "ab-001"').ids == ()
        assert has_strangers(store)


def calibrated(rate: float) -> Calibration:
    tail = Tail(rates=(rate, 1.0), thresholds=(0.5, -1.0))
    fitted = PairCalibration((-1.0, 1.0), (0.01, 0.99), tail, {100: tail}, {"people": 300})
    return Calibration({}, {}, "p", 0, 0.5, "isotonic", (rate,), {PAIR: fitted})


def search(folder: Path, strangers: dict[str, list[float]] | None, rate: float = 0.01) -> Findings:
    with open_gallery(folder, create=MODEL) as store:
        fill(store, [walk(0, "ab-000", 0, 10)], np.asarray(some_vectors(1)))
        if strangers is not None:
            (folder / FILE).write_text(json.dumps({ROWS: store.count(), **strangers}))
        query = Query(some_vectors(1), (VISIBLE,), ("picture",))
        return find(store, [query], FindOptions(), calibrated(rate))[0]


def test_a_calibration_that_strangers_contradict_calls_nobody_a_match(tmp_path: Path) -> None:
    findings = search(tmp_path / "night", {PAIR: [0.2, 0.4, 0.55, 0.6, 0.7]})
    assert findings.verdict == (
        "no answer can be called a match: of 5 pairs of tracklets that one camera saw at one moment, and so of two "
        "people, 3 are as alike as a match must be (visible-visible, from 0.5000), where the calibration promised 1 % "
        "at most; it does not hold here: calibrate with people of your own, or go by the order"
    )
    (answer,) = findings.found
    assert (findings.matches, answer.accepted, answer.probability) == (None, None, None)
    assert answer.similarity == pytest.approx(1.0, abs=1e-3)


def crowd(store: Store) -> Query:
    """Twelve people who look alike and were there together, one who came later, and a picture like the twelve."""
    look = np.asarray(some_vectors(1))
    alike = look + 0.1 * np.asarray(some_vectors(12, seed=1))
    walks = [walk(number, f"ab-{number:03d}", 0, 10) for number in range(12)] + [walk(99, "zz-000", 500, 510)]
    fill(store, walks, np.concatenate([alike, np.asarray(some_vectors(1, seed=2))]))
    return Query(look, (VISIBLE,), ("picture",))


def test_a_contradicted_calibration_stays_contradicted_when_somebody_else_is_erased(tmp_path: Path) -> None:
    with open_gallery(tmp_path / "night", create=MODEL) as store:
        query = crowd(store)
        write_strangers(store)
        for expected in (66, 66, 55):
            (findings,) = find(store, [query], FindOptions(), calibrated(0.01))
            assert findings.matches is None
            assert f"of {expected} pairs of tracklets" in findings.verdict
            erase(store, 'tracklet == "zz-000"' if store.count() == 26 else 'tracklet == "ab-003"')


def test_a_gallery_where_nothing_was_measured_is_measured_by_the_search(tmp_path: Path) -> None:
    with open_gallery(tmp_path / "night", create=MODEL) as store:
        query = crowd(store)
        for damaged in (False, True):
            if damaged:
                (tmp_path / "night" / FILE).write_text("[")
            (findings,) = find(store, [query], FindOptions(), calibrated(0.01))
            assert findings.matches is None
            assert "66 are as alike as a match must be" in findings.verdict


def test_while_nothing_is_kept_it_is_measured_again_only_where_rows_have_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = []
    measure = module.measure_strangers
    monkeypatch.setattr(module, "measure_strangers", lambda store: counts.append(store.count()) or measure(store))
    with open_gallery(tmp_path / "night", create=MODEL) as store:
        query = crowd(store)
        for _ in range(3):
            find(store, [query], FindOptions(), calibrated(0.01))
        store.upsert([a_row(900)], some_vectors(1))
        find(store, [query], FindOptions(), calibrated(0.01))
    assert len(counts) == 2
    assert counts[1] == counts[0] + 1


def test_what_was_measured_before_many_rows_came_does_not_count(tmp_path: Path) -> None:
    with open_gallery(tmp_path / "night", create=MODEL) as store:
        write_strangers(store)  # of an empty gallery, as before an indexing that is killed or goes on
        query = crowd(store)
        (findings,) = find(store, [query], FindOptions(), calibrated(0.01))
        assert findings.matches is None
        assert "66 are as alike as a match must be" in findings.verdict


def test_whom_one_camera_saw_at_one_moment_are_never_one_person(tmp_path: Path) -> None:
    look = np.asarray(some_vectors(1))
    walks = [
        walk(0, "ab-000", 0, 10),
        walk(1, "ab-001", 5, 9),  # beside the first
        walk(2, "ab-002", 20, 30),  # later
        walk(3, "cd-000", 0, 10, camera="gate"),  # another camera: may be anybody
        walk(4, "ef-000", 0, 0, frame=0),  # loose crops of one moment
        walk(5, "ef-001", 0, 0, frame=0),
        walk(6, "ab-000", 10, 15, INFRARED),  # the first walk, when its camera had switched
    ]
    with open_gallery(tmp_path / "night", create=MODEL) as store:
        fill(store, walks, np.repeat(look, len(walks), axis=0))
        (store.folder / FILE).write_text(json.dumps({ROWS: store.count(), PAIR: [0.1, 0.2]}))
        query = Query(look, (VISIBLE,), ("picture",))
        (findings,) = find(store, [query], FindOptions(group="identity", k=10), calibrated(0.01))
    groups = [{row.sighting.tracklet for row in answer.rows} for answer in findings.found]
    assert not [group for group in groups if {"ab-000", "ab-001"} <= group]
    assert sorted(map(len, groups)) == [1, 5]
    assert "identities are an estimate" in findings.verdict


def test_where_strangers_contradict_the_calibration_nobody_is_joined(tmp_path: Path) -> None:
    with open_gallery(tmp_path / "night", create=MODEL) as store:
        query = crowd(store)
        (findings,) = find(store, [query], FindOptions(group="identity", k=20), calibrated(0.01))
    assert len(findings.found) == 13
    assert "tracklets are not joined to people: of 66 pairs of tracklets that one camera saw at one moment" in (
        findings.verdict
    )
    assert "identities are an estimate" not in findings.verdict


def test_a_gallery_without_a_folder_says_that_nothing_was_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_gallery(tmp_path / "night", create=MODEL) as store:
        query = crowd(store)
        monkeypatch.setattr(store, "folder", None)
        (findings,) = find(store, [query], FindOptions(), calibrated(0.01))
        assert findings.matches == 12
        assert findings.verdict.endswith(
            "; whether the calibration holds in this gallery was not checked: it has no folder"
        )


def test_who_is_deleted_while_strangers_are_measured_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_gallery(tmp_path / "night", create=MODEL) as store:
        crowd(store)
        columns = store.columns(["tracklet", "modality", "time", "camera", "frame"])
        store.delete('tracklet == "ab-003"')
        with monkeypatch.context() as patch:
            patch.setattr(
                store,
                "columns",
                lambda names, rows=None: columns if rows is None else type(store).columns(store, names, rows),
            )
            assert len(measure_strangers(store).similarities[PAIR]) == 55


@pytest.mark.parametrize(
    "strangers",
    [
        None,  # nothing was measured
        {},
        {PAIR: [0.1] * 400},  # none is alike
        {PAIR: [0.1] * 390 + [0.6] * 10},  # 2.5 %: too many for the promise, not for twice as much
        {PAIR: [0.1] * 9 + [0.6]},  # one of ten happens
        {"infrared-infrared": [0.9] * 9},  # of another pair of modalities
        {PAIR: "no list"},  # damaged
    ],
)
def test_what_may_happen_by_chance_contradicts_nothing(
    tmp_path: Path, strangers: dict[str, list[float]] | None
) -> None:
    findings = search(tmp_path / "night", strangers)
    assert (findings.matches, findings.found[0].accepted) == (1, True)


def test_the_chance_is_the_binomials() -> None:
    assert module._chance(1, 3, 0.1) == pytest.approx(1 - 0.9**3)
    assert module._chance(3, 3, 0.2) == pytest.approx(0.008)
    assert module._chance(0, 500, 0.5) == pytest.approx(1.0)
    assert math.isfinite(module._chance(250, 500, 0.5))


def test_what_was_measured_of_fewer_rows_is_no_measurement_of_these(tmp_path: Path) -> None:
    """As where a run was killed after its rows were stored and before it measured."""
    walks = [walk(0, "ab-000", 0, 10), walk(1, "ab-001", 5, 9), walk(2, "ab-002", 0, 10)]
    vectors = np.asarray(some_vectors(3))
    with open_gallery(tmp_path / "night", create=MODEL) as store:
        fill(store, walks[:2], vectors[:2])
        write_strangers(store)
        assert has_strangers(store)
        fill(store, walks[2:], vectors[2:])
        assert not has_strangers(store)
        write_strangers(store)
        assert has_strangers(store)
        assert len(read_strangers(store.folder).similarities[PAIR]) == 3
        (tmp_path / "night" / FILE).write_text(json.dumps({PAIR: [0.5]}))  # of a version that counted no rows
        assert not has_strangers(store)
        assert read_strangers(store.folder) == Strangers({PAIR: (0.5,)})
