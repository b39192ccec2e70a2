"""One battery over every store of galleries, then what only one of them can promise."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from gallery_rows import (
    DIMENSION,
    MODEL,
    NIGHT,
    RUN,
    a_row,
    crop_bytes,
    files_with,
    some_rows,
    some_vectors,
    with_crops,
)
from tapetum.core.errors import FilterError, GalleryError, OutputError, TapetumError
from tapetum.core.types import Modality
from tapetum.gallery import indices, lance, milvus
from tapetum.gallery.filters import And, Coded, Compare, Not, as_filter, rows_passing
from tapetum.gallery.opening import open_gallery
from tapetum.gallery.schema import FIELDS, FORMAT, ModelInfo, Row, flatten
from tapetum.gallery.store import Store, read_about, write_about

TESTS = Path(__file__).parents[1]


@dataclass
class Place:
    """Where one test's gallery is, and how to open it."""

    kind: str
    where: str
    folder: Path  # of crops
    files: Path  # everything the store has on disk

    def open(self, create: ModelInfo | None = None, **options: int) -> Store:
        folder = self.folder if self.kind == "milvus" else None
        return open_gallery(self.where, create, folder=folder, **options)


@pytest.fixture(params=["lance", "milvus"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "lance":
        return Place("lance", str(tmp_path / "night"), tmp_path / "night", tmp_path)
    request.getfixturevalue("quick_milvus")
    return Place("milvus", f"milvus://{tmp_path}/lite.db/night", tmp_path / "crops of night", tmp_path)


@pytest.fixture
def store(place: Place) -> Iterator[Store]:
    with place.open(MODEL) as opened:
        yield opened


def ids_of(rows: list[Row] | tuple[Row, ...]) -> list[str]:
    return [row.sighting.id for row in rows]


def found_by(answer_hits: tuple) -> list[str]:  # type: ignore[type-arg]
    return [hit.row.sighting.id for hit in answer_hits]


def test_what_was_stored_comes_back_the_same(store: Store) -> None:
    rows, vectors = some_rows(60), some_vectors(60)
    odd = replace(rows[7].sighting, source="ночь 'one' \"two\" \\ three.mp4", remark="", light=0.1 + 0.2, tracklet="")
    rows[7] = replace(rows[7], sighting=odd)
    assert store.upsert(rows, vectors) == 60
    assert store.fetch(["nobody"]).rows == ()
    entries = store.fetch(["row00007", "nobody", "row00059", "row00007"])
    assert entries.rows == (rows[7], rows[59], rows[7])
    assert torch.equal(entries.vectors, vectors[[7, 59, 7]])
    assert store.find() == rows
    assert store.find("frame >= 10", limit=3) == rows[10:13]
    assert (store.count(), store.info) == (60, MODEL)


def test_an_id_is_never_read_as_a_question(store: Store) -> None:
    store.upsert(some_rows(9), some_vectors(9))
    for name in ('x" or id != "', "x' OR '1'='1", "a\\", '"]', "')", "", "row0000%", "é"):
        assert store.fetch([name, "row00001"]).rows == (a_row(1),)
        assert store.count(Compare("id", "==", name)) == 0
        assert store.delete(Compare("id", "==", name)) == 0
        with pytest.raises(GalleryError, match="want an id of 1 to 200 letters"):
            store.upsert([replace(a_row(1), sighting=replace(a_row(1).sighting, id=name))], some_vectors(1))
    assert store.count() == 9


def test_rows_with_a_known_id_are_replaced(store: Store) -> None:
    store.upsert(some_rows(20), some_vectors(20))
    changed = [replace(row, sighting=replace(row.sighting, remark="seen again")) for row in some_rows(10, 15)]
    store.upsert(changed, 3 * some_vectors(10, seed=1))
    assert store.count() == 25
    assert store.count('remark == "seen again"') == 10
    assert store.fetch(["row00014", "row00015"]).rows == (a_row(14), changed[0])
    torch.testing.assert_close(store.fetch(["row00015"]).vectors, some_vectors(10, seed=1)[:1])
    assert found_by(store.search(some_vectors(10, seed=1)[:1], 1).hits[0]) == ["row00015"]


def test_search_finds_the_most_similar_rows_in_order(store: Store) -> None:
    rows, vectors = some_rows(300), some_vectors(300)
    store.upsert(rows, vectors)
    queries = 5 * some_vectors(7, seed=1)
    answer = store.search(queries, 9)
    expected = (some_vectors(7, seed=1) @ vectors.T).topk(9)
    assert (answer.exact, answer.recall) == (True, None)
    for hits, places, values in zip(answer.hits, expected.indices.tolist(), expected.values.tolist(), strict=True):
        assert [hit.row for hit in hits] == [rows[place] for place in places]
        assert [hit.similarity for hit in hits] == pytest.approx(values, abs=1e-6)
        assert [hit.rank for hit in hits] == list(range(1, 10))
    assert store.search(queries[:0]).hits == ()


def test_copies_of_one_picture_are_equally_similar_for_every_query(store: Store) -> None:
    few, generator = some_vectors(4), torch.Generator().manual_seed(1)
    which = torch.randint(0, 4, (203,), generator=generator)
    store.upsert(some_rows(203), few[which])
    queries = some_vectors(3, seed=1)
    queries = torch.cat([queries, queries[1:2]])
    for k in (1, 30, 120):
        answers = store.search(queries, k).hits
        for query, hits in zip(queries, answers, strict=True):
            by_vector = {(int(which[hit.row.sighting.frame]), hit.similarity) for hit in hits}
            assert len(by_vector) == len({number for number, _ in by_vector}), "one similarity a vector"
            assert store.search(query[None], k).hits == (hits,), "alone as beside others"
            for number, value in by_vector:
                frames = [hit.row.sighting.frame for hit in hits if which[hit.row.sighting.frame] == number]
                assert frames == (which == number).nonzero().squeeze(1)[: len(frames)].tolist()
                assert value == pytest.approx(float(query @ few[number]), abs=1e-6)
        assert answers[1] == answers[3]


QUESTIONS = [
    'camera in ("c1", "c2") and time >= "2026-11-21T20:30Z" and modality == infrared and quality > 0.3',
    'not tracklet == "c1-3" and camera == "c1"',
    'time >= "2026-11-21T20:10Z" and time < "2026-11-21T20:20Z"',
    f"time == {NIGHT + 60 + 1 / 3!r}",
    f"time > {NIGHT + 60 + 1 / 3!r} and time <= {NIGHT + 180 + 1 / 3!r}",
    "modality != infrared or light < 20",
    "modality in (visible, infrared)",
    "quality in (0.07, 0.1)",
    "quality == 0.29",
    'remark != ""',
    'remark == "too dark to match" and (frame < 2 or frame >= 103)',
    'source not in ("night0.mp4")',
    'run == "first night" and model == "idf-1234" and runtime == "torch" and precision == "fp32"',
    'id in ("row00001", "row00002", "nobody")',
    "light == 17 or not (light > 3 and not light > 250)",
    "quality > -1 and quality < 1e10 and frame > -3",
    'camera == "c9"',
    """tracklet == "x' OR '1'='1" """,
    """tracklet == 'x" or id != "' """,
    r"""tracklet == "\\" or tracklet == "\\' OR 1=1 --" """,
    """tracklet in ("%", "_", "c1-_", "c1%", "{x}", "*") """,
]


def test_every_filter_means_the_same_in_counting_finding_searching_and_in_memory(store: Store) -> None:
    names = ["x' OR '1'='1", 'x" or id != "', "\\", "\\' OR 1=1 --", "%", "{x}", "'); DROP TABLE rows; --", "ü{}[]"]
    rows = some_rows(120)
    rows[: len(names)] = [
        replace(row, sighting=replace(row.sighting, tracklet=name)) for row, name in zip(rows, names, strict=False)
    ]
    vectors = some_vectors(120)
    store.upsert(rows, vectors)
    columns = flatten(rows)

    def column(field: str) -> "np.ndarray | Coded":
        if FIELDS[field] != "text":
            return np.array(columns[field], dtype=np.float64)
        found, codes = np.unique(np.array(columns[field], dtype=object), return_inverse=True)
        return Coded(codes.astype(np.int32), tuple(found.tolist()))

    questions = [*map(as_filter, QUESTIONS), *(Compare("tracklet", "==", name) for name in names)]
    questions += [And((Compare("camera", "!=", "c1"), Not(Compare("tracklet", "!=", names[6]))))]
    for question in questions:
        assert question is not None
        passing = rows_passing(question, column)
        right = [row for row, passes in zip(rows, passing.tolist(), strict=True) if passes]
        assert store.count(question) == len(right), question
        assert store.find(question) == right, question
        (hits,) = store.search(some_vectors(1, seed=1), 120, question).hits
        assert sorted(found_by(hits)) == sorted(ids_of(right)), question
    assert [store.count(Compare("tracklet", "==", name)) for name in names] == [1] * len(names)


def test_the_values_of_a_field_of_text_are_counted_among_the_rows_that_pass(store: Store) -> None:
    assert store.count_values("remark") == {}
    rows = some_rows(30)
    rows[:5] = [replace(row, sighting=replace(row.sighting, remark="blurred; too small")) for row in rows[:5]]
    store.upsert(rows, some_vectors(30))
    for question in (None, "frame >= 3", 'frame >= 3 and remark != ""', "frame < 0"):
        told = [row.sighting.remark for row in store.find(question)]
        assert store.count_values("remark", question) == {text: told.count(text) for text in told}, question
    assert store.count_values("remark", 'remark != ""') == {"blurred; too small": 5}
    store.delete("frame < 2")
    assert store.count_values("remark", 'remark != ""') == {"blurred; too small": 3}
    for name in ("remarks", "light", "crop"):
        with pytest.raises(FilterError, match=f"{name!r} is no field of text; (did you mean|known)"):
            store.count_values(name)


def test_a_typo_in_a_filter_is_an_error_and_deletes_nothing(store: Store) -> None:
    store.upsert(some_rows(5), some_vectors(5))
    for ask in (store.count, store.find, store.delete, lambda text: store.search(some_vectors(1), 3, text)):
        with pytest.raises(FilterError, match=r"unknown field 'camra'; did you mean camera\?"):
            ask('camra == "c1"')  # type: ignore[operator]
    with pytest.raises(GalleryError, match="delete needs a filter"):
        store.delete(None)  # type: ignore[arg-type]
    assert store.count() == 5


def test_deleting_removes_rows_vectors_and_crops_from_disk(place: Place) -> None:
    vectors = some_vectors(80)
    with place.open(MODEL) as store:
        rows = with_crops(place.folder, some_rows(80))
        for start in range(0, 80, 20):
            store.upsert(rows[start : start + 20], vectors[start : start + 20])
        store.upsert(rows[5:6], some_vectors(1, seed=5))  # the first vector of row 5 must go as well
        store.upsert(rows[21:22], some_vectors(1, seed=6))
        store.compact()
        store.search(vectors[:1], 3)
        assert files_with(place.files, vectors[7].numpy().tobytes())
        assert files_with(place.files, vectors[63].numpy().tobytes())
        assert not files_with(place.files, vectors[21].numpy().tobytes())  # replaced and compacted
        assert store.delete('frame in (5, 7, 63) or tracklet == "c1-0"') == 5
    gone = [0, 3, 5, 7, 63]
    for number in gone:
        assert not files_with(place.files, crop_bytes(f"row{number:05d}"))
        if place.kind == "lance":  # when the bytes of a vector leave its disk is Milvus's own affair
            assert not files_with(place.files, vectors[number].numpy().tobytes())
            assert not files_with(place.files, f"row{number:05d}".encode())
    if place.kind == "lance":
        assert not files_with(place.files, some_vectors(1, seed=5).numpy().tobytes())
    with place.open() as store:
        assert ids_of(store.find()) == [f"row{number:05d}" for number in range(80) if number not in gone]
        assert files_with(place.files, crop_bytes("row00001"))
        assert found_by(store.search(vectors[7:8], 80).hits[0]).count("row00007") == 0
        assert store.delete("frame == 7") == 0


def test_deleting_everything_leaves_no_name_behind(tmp_path: Path) -> None:
    with open_gallery(tmp_path / "night", MODEL) as store:
        store.upsert(some_rows(5), some_vectors(5))
        assert store.delete("frame >= 0") == 5
    assert not files_with(tmp_path, b"row0000")  # nor in what the table notes about its last deletion


def test_a_crop_that_another_row_names_stays(place: Place, store: Store) -> None:
    rows = with_crops(place.folder, some_rows(3))
    rows[1] = replace(rows[1], sighting=replace(rows[1].sighting, crop=rows[0].sighting.crop))
    store.upsert(rows, some_vectors(3))
    store.delete("frame == 0")
    assert (place.folder / rows[0].sighting.crop).is_file()
    store.delete("frame == 1")
    assert not (place.folder / rows[0].sighting.crop).exists()


def test_a_replaced_row_takes_its_old_crop_along(place: Place, store: Store) -> None:
    rows = with_crops(place.folder, some_rows(2))
    store.upsert(rows, some_vectors(2))
    (place.folder / "crops" / "new.jpg").write_bytes(b"new")
    store.upsert([replace(rows[0], sighting=replace(rows[0].sighting, crop="crops/new.jpg"))], some_vectors(1))
    assert not (place.folder / rows[0].sighting.crop).exists()
    assert (place.folder / "crops" / "new.jpg").is_file()
    assert (place.folder / rows[1].sighting.crop).is_file()


def test_crops_without_a_row_go_when_they_are_a_day_old(place: Place, store: Store) -> None:
    store.upsert(with_crops(place.folder, some_rows(2)), some_vectors(2))
    fresh, old = place.folder / "crops" / "fresh.jpg", place.folder / "crops" / "old.jpg"
    for path in (fresh, old, place.folder / "crops" / "c1" / "row00000.jpg"):
        path.write_bytes(b"picture")
        if path is not fresh:
            os.utime(path, (time.time() - 100_000,) * 2)
    store.compact()
    assert fresh.exists()
    assert not old.exists()
    assert (place.folder / "crops" / "c1" / "row00000.jpg").exists()


def test_an_interrupted_deletion_is_finished_by_the_next_writer(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = some_vectors(30)
    with place.open(MODEL) as store:
        store.upsert(with_crops(place.folder, some_rows(20)), vectors[:20])

        def stop(crops: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(store, "_unlink_crops", stop)
        with pytest.raises(KeyboardInterrupt):
            store.delete("frame < 5")
        monkeypatch.undo()
        assert (place.folder / "crops" / "c1" / "row00000.jpg").exists()
        store.upsert(with_crops(place.folder, some_rows(1, 25)), vectors[25:26])
        assert not (place.folder / "crops" / "c1" / "row00000.jpg").exists()
        assert store.count() == 16


def test_a_gallery_remembers_its_model_and_refuses_others(place: Place) -> None:
    with place.open(MODEL) as store:
        other = replace(a_row(0), run=replace(RUN, model="deen-5"))
        with pytest.raises(GalleryError, match="embedded by model 'deen-5', the gallery holds 'idf-1234'"):
            store.upsert([other], some_vectors(1))
        assert store.count() == 0
    with place.open() as store:
        assert store.info == MODEL
        with pytest.raises(GalleryError, match=r"model 'idf-1234' \(32-d\), not of 'deen-5' \(32-d\)"):
            store.expect(ModelInfo("deen-5", DIMENSION))
    with pytest.raises(GalleryError, match="holds embeddings of model 'idf-1234'"):
        place.open(ModelInfo("deen-5", DIMENSION))
    with pytest.raises(GalleryError, match=r"not of 'idf-1234' \(64-d\)"):
        place.open(ModelInfo(MODEL.id, 64))


def test_no_gallery_is_an_error_that_says_how_to_make_one(place: Place) -> None:
    with pytest.raises(GalleryError, match="no gallery is there; make one with: tapetum index"):
        place.open()


def test_rows_and_vectors_that_cannot_be_kept_are_named(place: Place, store: Store) -> None:
    def refuse(message: str, count: int = 1, **changes: object) -> None:
        rows = [replace(row, sighting=replace(row.sighting, **changes)) for row in some_rows(count)]
        with pytest.raises(GalleryError, match=message):
            store.upsert(rows, some_vectors(count))

    refuse("comes twice in one batch", 2, id="same")
    refuse("camera='c 1'; use letters", camera="c 1")
    refuse("control characters", source="a\nb")
    refuse("no valid text", source="a\udcff")
    refuse("at most 4096 fit", source="é" * 3000)
    refuse("quality=1.5", quality=1.5)
    refuse("time=nan", time=float("nan"))
    refuse("light=-1", light=-1)
    refuse("32 bits", frame=2**31)
    for crop in ("../x.jpg", "/etc/passwd", "crops/../../x", "rows.lance/x", "crops", "crops//x", "gallery.json"):
        refuse("crops lie under crops/", crop=crop)
    refuse("no crop at crops/none.jpg; write the crop before its row", crop="crops/none.jpg")
    for vectors, message in (
        (some_vectors(1, dimension=16), r"vectors are \(1, 16\), model 'idf-1234' makes \(N, 32\)"),
        (some_vectors(2), "1 rows but 2 vectors"),
        (torch.zeros(1, DIMENSION), "only zeros"),
        (torch.full((1, DIMENSION), torch.nan), "NaN"),
    ):
        with pytest.raises(GalleryError, match=message):
            store.upsert(some_rows(1), vectors)
    for k in (0, 10_001):
        with pytest.raises(GalleryError, match="ask for 1 to 10000"):
            store.search(some_vectors(1), k)
    assert store.count() == 0
    assert store.upsert([], torch.empty(0, DIMENSION)) == 0
    assert store.search(some_vectors(2), 3).hits == ((), ())
    assert store.compact() is None


def test_an_approximate_index_states_its_recall_and_honours_filters(place: Place) -> None:
    rows, vectors = some_rows(600), some_vectors(600)
    with place.open(MODEL, approximate_above=300) as store:
        store.upsert(rows, vectors)
        assert store.search(vectors[:1]).exact
        recall = store.compact()
        assert recall is not None
        assert 0.9 < recall <= 1
        answer = store.search(vectors[:20], 10)
        assert (answer.exact, answer.recall) == (False, recall)
        assert [hits[0].row for hits in answer.hits] == rows[:20]
        right = store.search(vectors[:20], 10, exact=True)
        assert (right.exact, right.recall) == (True, None)
        shared = sum(len({*found_by(a)} & {*found_by(b)}) for a, b in zip(answer.hits, right.hits, strict=True))
        assert shared > 0.9 * 200
        for hits, others in zip(answer.hits, right.hits, strict=True):
            assert hits[0].similarity == pytest.approx(others[0].similarity, abs=1e-5)
        few = store.search(vectors[:5], 10, 'camera == "c1"')  # few rows pass: all are compared
        assert few.exact
        forced = store.search(vectors[:5], 10, 'camera == "c1" and modality == infrared', exact=False)
        assert (forced.exact, forced.recall) == (place.kind == "lance", None)
        assert {(hit.row.sighting.camera, hit.row.sighting.modality) for hits in forced.hits for hit in hits} == {
            ("c1", Modality.INFRARED)
        }
        store.upsert(some_rows(1, 700), some_vectors(1, seed=9))  # after the index
        assert found_by(store.search(some_vectors(1, seed=9), 1).hits[0]) == ["row00700"]
        store.delete("frame == 3")
        assert "row00003" not in found_by(store.search(vectors[3:4], 10).hits[0])
        assert store.compact() is not None
        assert not store.search(vectors[:1]).exact
        store.delete("frame >= 200")
        assert store.compact() is None
        assert store.search(vectors[:1]).exact


def two_modalities_apart(count: int) -> tuple[list[Row], np.ndarray]:
    """Many pictures of a person, one row in five infrared, and the modalities further apart than two people are."""
    rng = np.random.default_rng(0)
    people = rng.standard_normal((count // 50, DIMENSION))
    vectors = people[rng.integers(0, len(people), count)] + 0.3 * rng.standard_normal((count, DIMENSION))
    kinds = [Modality.INFRARED if number % 5 == 0 else Modality.VISIBLE for number in range(count)]
    vectors[:, 0] += [4.5 if kind == Modality.VISIBLE else -4.5 for kind in kinds]
    rows = [
        replace(row, sighting=replace(row.sighting, modality=kind))
        for row, kind in zip(some_rows(count), kinds, strict=True)
    ]
    return rows, vectors.astype(np.float32)


def test_no_search_is_said_to_find_more_than_it_finds_with_its_filter(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indices, "EFFORTS", ((1, 5), (2, 5)))  # of two partitions: with more rows there are more
    rows, vectors = two_modalities_apart(17_000 if place.kind == "lance" else 900)
    with place.open(MODEL, approximate_above=200) as store:
        store.upsert(rows, vectors)
        store.compact()
        for kind in Modality:
            queries = vectors[[row.sighting.modality == kind for row in rows]][:: len(rows) // 300]
            for question in (
                None,
                "modality == infrared",
                "modality == visible",
                'camera in ("c1", "c2")',
                "frame > 9",
            ):
                answer, right = store.search(queries, 10, question), store.search(queries, 10, question, exact=True)
                shared = [len({*found_by(a)} & {*found_by(b)}) for a, b in zip(answer.hits, right.hits, strict=True)]
                if answer.exact:
                    assert answer.hits == right.hits, question
                elif question in (None, "modality == infrared", "modality == visible"):  # else it was not measured
                    assert answer.recall is not None
                    assert np.mean(shared) / 10 >= answer.recall - 0.1, question  # measured with other queries
        assert store.search(vectors[:2], 10).recall == store.recall() == pytest.approx(1, abs=0.02)
        unknown = store.search(vectors[:2], 10, "frame > 9")
        assert unknown.recall is None


def zero_a_vector(folder: Path, frame: int) -> None:
    """What a disk does that loses a sector: in each block the vector of this frame reads as zeros."""
    lost = some_vectors(100)[frame].numpy().tobytes()
    for path in (folder / "exact").glob("*.block"):
        path.write_bytes(path.read_bytes().replace(lost, bytes(len(lost))))


def test_a_damaged_block_changes_no_answer_and_compacting_mends_it(tmp_path: Path) -> None:
    vectors = some_vectors(100)
    with open_gallery(tmp_path, MODEL) as store:
        store.upsert(some_rows(100), vectors)
        store.compact()
        right = store.search(vectors[7:8], 3).hits
        zero_a_vector(tmp_path, 7)  # beside a store that has looked at its blocks
        store.compact()
        assert store.search(vectors[7:8], 3).hits == right
    zero_a_vector(tmp_path, 7)
    with open_gallery(tmp_path) as store:
        assert torch.equal(store.fetch(["row00007"]).vectors, vectors[7:8])
        assert store.search(vectors[7:8], 3).hits == right
        store.compact()
        assert files_with(tmp_path / "exact", vectors[7].numpy().tobytes())


@pytest.mark.slow
def test_an_index_of_ids_forgets_and_learns_with_the_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indices, "IDS_INDEXED_ABOVE", 50)

    def indexed(store: Store) -> list[str]:
        assert isinstance(store, lance.LanceStore)
        return [index.columns[0] for index in lance.connect(tmp_path).open_table(lance.TABLE).list_indices()]

    with open_gallery(tmp_path, MODEL) as store:
        store.upsert(some_rows(60), some_vectors(60))
        assert indexed(store) == []
        store.compact()
        assert indexed(store) == ["id"]
        store.upsert(some_rows(20, 50), some_vectors(20, seed=1))  # half of them known to the index
        assert ids_of(store.fetch(["row00055", "row00065", "row00099"]).rows) == ["row00055", "row00065"]
        assert torch.equal(store.fetch(["row00055"]).vectors, some_vectors(20, seed=1)[5:6])
        store.delete(Compare("id", "==", "row00007"))
        assert indexed(store) == ["id"]
        assert not files_with(tmp_path, b"row00007")
        store.compact()
        assert ids_of(store.fetch_rows(["row00006", "row00007", "row00069"])) == ["row00006", "row00069"]
        assert store.count() == 69
        store.delete("frame >= 40")
        store.compact()
        assert indexed(store) == []


@pytest.mark.parametrize("ask", [lambda store: store.delete("frame < 3"), lambda store: store.compact()])
def test_a_table_that_does_not_answer_a_writer_is_said_in_one_line(
    ask: Callable[[Store], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken:
        def checkout_latest(self) -> None:
            raise RuntimeError("the disk is gone\nand much more")

    with open_gallery(tmp_path, MODEL) as store:
        store.upsert(some_rows(5), some_vectors(5))
        monkeypatch.setattr(lance.LanceStore, "_written", Broken())
        with pytest.raises(OutputError, match=r"(deletion did not finish|cannot be compacted).*\(the disk is gone\)"):
            ask(store)


def test_a_low_recall_raises_the_effort_of_the_search_and_is_stated(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indices if place.kind == "lance" else milvus, "WANTED_RECALL", 2.0)
    with place.open(MODEL, approximate_above=300) as store:
        store.upsert(some_rows(600), some_vectors(600))
        recall = store.compact()
        answer = store.search(some_vectors(3), 10)
        assert recall is not None
        assert 0.9 < recall <= 1
        assert answer.recall == recall
        assert [hits[0].row for hits in answer.hits] == some_rows(3)


def test_readers_see_whole_states_while_one_writes(place: Place) -> None:
    """Every batch is one tracklet of ten rows: a reader must never see a part of it."""
    store = place.open(MODEL)
    errors: list[BaseException] = []
    stop = threading.Event()
    vectors = some_vectors(10)

    def read() -> None:
        reader = place.open() if place.kind == "lance" else store
        try:
            while not stop.is_set():
                seen = [row.sighting.tracklet for row in reader.find()]
                assert {seen.count(name) for name in set(seen)} <= {10}
                for hits in reader.search(vectors[:2], 5, 'camera in ("c1", "c2", "c3")').hits:
                    values = [hit.similarity for hit in hits]
                    assert values == sorted(values, reverse=True)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for batch in range(6):
        rows = [replace(row, sighting=replace(row.sighting, tracklet=f"t{batch}")) for row in some_rows(10, 10 * batch)]
        store.upsert(rows, vectors)
        if batch % 3 == 2:
            store.delete(Compare("tracklet", "==", f"t{batch - 1}"))
        if batch % 4 == 3:
            store.compact()
    stop.set()
    for thread in threads:
        thread.join()
    assert not errors, errors[0]
    assert store.count() == 40
    store.close()


def test_a_second_writer_is_refused_with_a_clear_word(place: Place) -> None:
    with place.open(MODEL) as first, place.open() as second:
        with first.writing():
            first.upsert(some_rows(3), some_vectors(3))
            for write in (
                lambda: second.upsert(some_rows(1, 5), some_vectors(1)),
                lambda: second.delete("frame == 0"),
                second.compact,
            ):
                with pytest.raises(OutputError, match=r"another process is writing to this gallery \(process \d+\)"):
                    write()
            assert second.count() == 3  # reading goes on
        assert second.upsert(some_rows(1, 5), some_vectors(1)) == 1
        assert first.count() == 4


def test_a_gallery_of_a_newer_version_is_refused() -> None:
    assert read_about(write_about(MODEL), "night") == MODEL
    with pytest.raises(
        GalleryError, match="night: a gallery of format 2, made by a newer Tapetum; this one reads up to 1"
    ):
        read_about(write_about(MODEL).replace(f'"format": {FORMAT}', f'"format": {FORMAT + 1}'), "night")
    for broken in ("", "[]", "{}", '{"format": "x"}', '{"format": 1, "model": {}}'):
        with pytest.raises(GalleryError, match="night: what the gallery says about itself is damaged"):
            read_about(broken, "night")


def test_a_folder_of_a_newer_version_or_with_a_lost_table_is_refused(tmp_path: Path) -> None:
    open_gallery(tmp_path / "night", MODEL).close()
    about = tmp_path / "night" / "gallery.json"
    text = about.read_text()
    about.write_text(text.replace(f'"format": {FORMAT}', '"format": 99'))
    with pytest.raises(GalleryError, match="made by a newer Tapetum"):
        open_gallery(tmp_path / "night")
    about.write_text(text)
    (tmp_path / "night" / "rows.lance").rename(tmp_path / "elsewhere")
    with pytest.raises(GalleryError, match="its table cannot be opened"):
        open_gallery(tmp_path / "night")
    with pytest.raises(GalleryError, match="unknown kind of gallery"):
        open_gallery("qdrant://host/night")


def test_a_gallery_that_was_killed_while_it_was_made_is_made_again(tmp_path: Path) -> None:
    open_gallery(tmp_path / "night", MODEL).close()
    (tmp_path / "night" / "gallery.json").unlink()
    with open_gallery(tmp_path / "night", MODEL) as store:
        assert store.upsert(some_rows(2), some_vectors(2)) == 2


def test_a_damaged_journal_stops_writers_and_not_readers(tmp_path: Path) -> None:
    with open_gallery(tmp_path / "night", MODEL) as store:
        store.upsert(some_rows(2), some_vectors(2))
        (tmp_path / "night" / "erasing.json").write_text("{")
        with pytest.raises(GalleryError, match="a deletion was interrupted and its journal cannot be read"):
            store.upsert(some_rows(2), some_vectors(2))
        assert store.count() == 2
        (tmp_path / "night" / "erasing.json").unlink()
        assert store.upsert(some_rows(2), some_vectors(2)) == 2


def test_opening_and_searching_print_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with open_gallery(tmp_path / "night", MODEL, approximate_above=300) as store:
        store.upsert(some_rows(400), some_vectors(400))
        store.compact()
        store.search(some_vectors(2), 3)
        store.search(some_vectors(2), 3, exact=True)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "address",
    ["milvus://host:port/name", "milvus://host:1", "milvus://host:1/a/b", "milvus://host:1/na-me", "milvus:///name"],
)
def test_an_address_that_cannot_be_one_is_an_error(address: str) -> None:
    with pytest.raises(GalleryError, match="no address; write milvus://host:port/name"):
        open_gallery(address)


def test_without_pymilvus_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pymilvus", None)
    with pytest.raises(GalleryError, match=r"need pymilvus; install it with: pip install 'tapetum\[milvus\]'"):
        open_gallery("milvus://127.0.0.1:1/night")


def test_milvus_unreachable_is_said_within_seconds_without_the_password(monkeypatch: pytest.MonkeyPatch) -> None:
    import pymilvus

    assert milvus.PATIENCE_SECONDS < 5
    monkeypatch.setattr(milvus, "PATIENCE_SECONDS", 0.3)
    patience: list[float] = []  # of each attempt
    call, client = socket.create_connection, pymilvus.MilvusClient
    monkeypatch.setattr(socket, "create_connection", lambda to, seconds: patience.append(seconds) or call(to, seconds))
    monkeypatch.setattr(
        pymilvus, "MilvusClient", lambda *to, **how: patience.append(how["timeout"]) or client(*to, **how)
    )
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        with pytest.raises(GalleryError, match=rf"milvus://127.0.0.1:{port}/night: Milvus is unreachable") as refused:
            open_gallery(f"milvus://user:secret@127.0.0.1:{port}/night")
    assert "secret" not in str(refused.value)
    with socket.create_server(("127.0.0.1", 0)) as mute:  # takes the call and says nothing
        port = mute.getsockname()[1]
        with pytest.raises(GalleryError, match="Milvus is unreachable"):
            open_gallery(f"milvus://127.0.0.1:{port}/night")
    assert patience == [0.3, 0.3, 0.3]


def test_a_server_is_shared_by_clients_and_its_end_is_said_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pymilvus import decorators

    held = socket.socket()  # it does not listen: the server shares its port, which is given to nobody else meanwhile
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    held.bind(("127.0.0.1", 0))
    port = held.getsockname()[1]
    command = [sys.executable, "-m", "milvus_lite", "server", "--data-dir", str(tmp_path / "data")]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    where = f"milvus://127.0.0.1:{port}/night"
    with (
        held,
        (tmp_path / "log").open("wb") as log,
        subprocess.Popen(command, stdout=log, stderr=log) as server,
        contextlib.ExitStack() as stack,
    ):
        stack.callback(server.kill)
        end = time.monotonic() + 60
        while True:
            try:
                first = stack.enter_context(open_gallery(where, MODEL))
                break
            except GalleryError:
                assert time.monotonic() < end, (tmp_path / "log").read_text()
                time.sleep(0.2)
        first.upsert(some_rows(30), some_vectors(30))
        second = stack.enter_context(open_gallery(where))
        assert second.find() == some_rows(30)
        assert found_by(second.search(some_vectors(4)[3:], 1, 'camera == "c1"').hits[0]) == ["row00003"]
        server.kill()
        server.wait()
        waits: list[float] = []  # between one attempt and the next
        clock = {"time": time.time, "monotonic": time.monotonic, "sleep": waits.append}
        monkeypatch.setattr(decorators, "time", SimpleNamespace(**clock))
        for ask in (
            second.count,
            second.find,
            lambda: second.search(some_vectors(1)),
            lambda: second.fetch(["row00001"]),
        ):
            with pytest.raises(GalleryError, match="Milvus did not answer"):
                ask()
        with pytest.raises(TapetumError, match="Milvus did not answer"):
            first.upsert(some_rows(1), some_vectors(1))
        assert sum(waits) < 1


@pytest.mark.usefixtures("quick_milvus")
def test_a_collection_that_is_no_gallery_is_left_alone(tmp_path: Path) -> None:
    from pymilvus import MilvusClient

    client = MilvusClient(str(tmp_path / "lite.db"))
    client.create_collection("night", dimension=8)
    with pytest.raises(GalleryError, match="a collection of that name is there and is no gallery"):
        open_gallery(f"milvus://{tmp_path}/lite.db/night", MODEL)
    assert client.has_collection("night")
    client.close()


@pytest.mark.usefixtures("quick_milvus")
def test_a_milvus_gallery_without_a_folder_keeps_no_crops(tmp_path: Path) -> None:
    with open_gallery(f"milvus://{tmp_path}/lite.db/night", MODEL) as store:
        store.upsert(some_rows(2), some_vectors(2))
        row = replace(a_row(3), sighting=replace(a_row(3).sighting, crop="crops/x.jpg"))
        with pytest.raises(GalleryError, match="open the gallery with folder="):
            store.upsert([row], some_vectors(1))
        assert store.delete("frame == 0") == 1


def start_writer(folder: Path) -> "subprocess.Popen[bytes]":
    environment = {**os.environ, "PYTHONPATH": str(TESTS), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(TESTS / "gallery_writer.py"), str(folder)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)


def check_after_kill(folder: Path, told: list[str]) -> None:
    """What the killed writer acknowledged holds, and nothing is half there."""
    vectors = some_vectors(20_000)
    stored: set[int] = set()
    doubtful: set[int] = set()
    erased: set[int] = set()
    for line in told:
        word, first, last = line.split()
        numbers = set(range(int(first), int(last)))
        if word.startswith("try"):
            doubtful |= numbers
            stored -= numbers
        elif word == "stored":
            stored |= numbers
            doubtful -= numbers
        else:
            assert word == "erased"
            erased |= numbers
            doubtful -= numbers
    for finished in (False, True):
        with open_gallery(folder) as store:
            if finished:
                store.compact()  # finishes what was interrupted
                assert not (folder / "erasing.json").exists()
            present = {row.sighting.frame for row in store.find()}
            assert stored <= present <= stored | doubtful
            entries = store.fetch([f"row{number:05d}" for number in sorted(present)])
            assert torch.equal(entries.vectors, vectors[sorted(present)])
            for row in entries.rows:
                known = with_crop_name(row.sighting.frame)
                assert row == known
                assert (folder / known.sighting.crop).read_bytes() == crop_bytes(row.sighting.id)
            if present:
                some = sorted(present)[:: max(1, len(present) // 20)]
                hits = store.search(vectors[some], 1).hits
                assert [hit[0].row.sighting.frame for hit in hits] == some
    pictures = {path.name for path in folder.glob("crops/**/*.jpg") if not path.name.startswith(".")}
    assert {f"row{number:05d}.jpg" for number in present} <= pictures
    assert pictures <= {f"row{number:05d}.jpg" for number in present | doubtful}
    content = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    for number in sorted(erased):
        assert vectors[number].numpy().tobytes() not in content


def with_crop_name(number: int) -> Row:
    row = a_row(number)
    crop = f"crops/{row.sighting.camera}/{row.sighting.id}.jpg"
    return replace(row, sighting=replace(row.sighting, crop=crop))


def read_meanwhile(folder: Path, seconds: float) -> None:
    """A reader beside the writer sees whole rows with their own vectors, at every moment."""
    end = time.monotonic() + seconds
    vectors = some_vectors(20_000)
    store: Store | None = None
    while time.monotonic() < end:
        if store is None:
            with contextlib.suppress(GalleryError):  # not made yet
                store = open_gallery(folder)
            continue
        for (hit,) in store.search(vectors[:3], 1).hits if store.count() else ():
            assert hit.row == with_crop_name(hit.row.sighting.frame)
        entries = store.fetch([row.sighting.id for row in store.find("frame < 40")])
        assert torch.equal(entries.vectors, vectors[[row.sighting.frame for row in entries.rows]])


def kill_writers(folder: Path, kills: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    delays = rng.permutation(0.5 * (np.arange(kills) + rng.uniform(size=kills)) / kills)  # one in each part of the time
    told: list[str] = []
    first = 0
    with contextlib.ExitStack() as stack:
        waiting = stack.enter_context(start_writer(folder))
        stack.callback(waiting.kill)
        for kill, delay in enumerate(delays.tolist(), start=1):
            writer = waiting
            assert writer.stdin is not None
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"ready\n"
            writer.stdin.write(f"{first}\n".encode())
            writer.stdin.flush()
            lines = [writer.stdout.readline()]  # the first batch is on its way
            assert lines[0].startswith(b"try-store")
            if kill % 2:  # however busy the machine: in every other turn something is acknowledged before the kill
                lines.append(writer.stdout.readline())
                assert lines[1].startswith(b"stored")
            read_meanwhile(folder, delay)
            writer.kill()
            lines += writer.stdout.read().splitlines(keepends=True)
            told += [line.decode() for line in lines if line.endswith(b"\n")]
            first = 12 + max(int(line.split()[2]) for line in told)
            if kill < kills:
                waiting = stack.enter_context(start_writer(folder))  # imports while this one checks, and waits
                stack.callback(waiting.kill)
            check_after_kill(folder, told)
    assert sum(line.startswith("stored") for line in told) >= kills / 2


def test_a_killed_writer_loses_nothing_it_acknowledged(tmp_path: Path) -> None:
    kill_writers(tmp_path / "night", kills=1, seed=0)


def test_what_a_killed_writer_left_half_written_goes_with_the_next_deletion(tmp_path: Path) -> None:
    vectors = some_vectors(3)
    with open_gallery(tmp_path / "night", MODEL) as store:
        store.upsert(some_rows(3), vectors)
        store.delete("frame == 0")
        for name in ("data/.tmpNvy70c", "_deletions/.tmpftNPAl", "_versions/.tmpkGtr02", "_transactions/.tmp0Ab9zz"):
            path = tmp_path / "night" / "rows.lance" / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(vectors[1].numpy().tobytes())
        store.delete("frame == 1")
        assert [row.sighting.frame for row in store.find()] == [2]
    files = [path for path in (tmp_path / "night").rglob("*") if path.is_file()]
    assert not [path for path in files if path.name.startswith(".tmp")]
    assert not [path for path in files if vectors[1].numpy().tobytes() in path.read_bytes()]


@pytest.mark.slow
def test_ten_killed_writers_lose_nothing_they_acknowledged(tmp_path: Path) -> None:
    kill_writers(tmp_path / "night", kills=10, seed=1)


@contextlib.contextmanager
def full_disk(size: int) -> Iterator[None]:
    """A limit on the size of a file stands for a full disk: the writes fail the same way."""
    resource = pytest.importorskip("resource", reason="this system limits no file's size")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_said_and_loses_nothing(tmp_path: Path) -> None:
    with open_gallery(tmp_path / "night", MODEL) as store:
        store.upsert(some_rows(10), some_vectors(10))
        with (
            full_disk(20_000),
            pytest.raises(OutputError, match="cannot be written to; nothing of this batch was stored"),
        ):
            store.upsert(some_rows(2_000, 100), some_vectors(2_000))
        assert store.find() == some_rows(10)
        assert store.upsert(some_rows(20, 100), some_vectors(20)) == 20
        store.compact()
        assert store.count() == 30


def test_a_deletion_on_a_full_disk_is_finished_when_there_is_room(tmp_path: Path) -> None:
    folder, vectors = tmp_path / "night", some_vectors(400)
    with open_gallery(folder, MODEL) as store:
        store.upsert(with_crops(folder, some_rows(400)), vectors)
        store.compact()
        with full_disk(20_000), pytest.raises(OutputError):
            store.delete("frame == 7")
        assert (folder / "erasing.json").exists()
        assert store.count("frame != 7") == 399
    with open_gallery(folder) as store:
        store.compact()
        assert store.find() == [with_crop_name(number) for number in range(400) if number != 7]
    assert not files_with(folder, vectors[7].numpy().tobytes())
    assert not files_with(folder, crop_bytes("row00007"))


def test_a_thread_that_writes_for_long_does_not_keep_others_from_searching(place: Place, store: Store) -> None:
    store.upsert(some_rows(30), some_vectors(30))
    found: list[str] = []
    with store.writing():
        store.upsert(some_rows(1, 40), some_vectors(1, seed=3))
        thread = threading.Thread(target=lambda: found.extend(found_by(store.search(some_vectors(1), 1).hits[0])))
        thread.start()
        thread.join(20)
    assert found == ["row00000"]


def test_crops_of_shards_that_wait_to_be_put_together_are_no_orphans(tmp_path: Path) -> None:
    folder = tmp_path / "night"
    with open_gallery(folder, MODEL) as store:
        store.upsert(some_rows(1), some_vectors(1))
        crop, shard = folder / "crops/cam1/waiting.jpg", folder / "shards/0123/a.shard"
        for path in (crop, shard):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"something")
        os.utime(crop, (1.7e9, 1.7e9))
        store.compact()
        assert crop.is_file()
        shutil.rmtree(folder / "shards")
        store.compact()
        assert not crop.is_file()
