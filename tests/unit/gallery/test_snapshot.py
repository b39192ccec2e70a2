"""The rows beside the blocks: what is read from them is what the table says, or they are passed over."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gallery_rows import MODEL, a_row, some_rows, some_vectors
from tapetum.gallery import lance, snapshot
from tapetum.gallery.filters import as_filter, rows_passing
from tapetum.gallery.lance import LanceStore
from tapetum.gallery.opening import open_gallery
from tapetum.gallery.schema import FIELDS, Row, flatten
from tapetum.gallery.snapshot import Snapshot, name_version, read_snapshot, write_snapshot
from tapetum.gallery.store import Store

COUNT = 60
FILTERS = (None, 'camera == "c1"', "quality > 0.2 and modality == infrared", 'not id == "row00003"', 'remark != ""')


def odd_rows() -> list[Row]:
    rows = some_rows(COUNT)
    sighting = replace(
        rows[7].sighting, source="ночь 'one' \"two\" \\ three.mp4", remark="", light=0.1 + 0.2, tracklet=""
    )
    rows[7] = replace(rows[7], sighting=sighting)
    return rows


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A gallery that was put in order."""
    with open_gallery(tmp_path / "night", MODEL) as store:
        store.upsert(odd_rows(), some_vectors(COUNT))
        store.delete('id == "row00011"')
        store.compact()
    return tmp_path / "night"


def by_snapshot(store: Store) -> bool:
    assert isinstance(store, LanceStore)
    return "_tables" not in vars(store)


def columns_of(rows: list[Row]) -> dict[str, list[object]]:
    return flatten(rows) | {"stamp": list(range(100, 100 + len(rows)))}


def test_rows_read_back_are_those_written_in_any_selection(tmp_path: Path) -> None:
    rows = odd_rows()
    write_snapshot(tmp_path, "v1", columns_of(rows))
    kept = read_snapshot(tmp_path, "v1")
    assert kept is not None
    assert kept.stamps.tolist() == list(range(100, 100 + COUNT))
    assert kept.rows(np.arange(COUNT)) == rows
    for text in FILTERS:
        condition = as_filter(text)
        passing = np.ones(COUNT, bool) if condition is None else rows_passing(condition, kept.column)
        assert kept.find(condition).tolist() == np.flatnonzero(passing).tolist()
        assert kept.rows(kept.find(condition)) == [row for row, inside in zip(rows, passing, strict=True) if inside]


def test_a_snapshot_of_another_version_damaged_or_lost_is_none(tmp_path: Path) -> None:
    assert read_snapshot(tmp_path, "v1") is None
    write_snapshot(tmp_path, "v1", columns_of(some_rows(5)))
    assert read_snapshot(tmp_path, "v2") is None
    path = tmp_path / snapshot.FILE
    whole = path.read_bytes()
    for damaged in (b"", whole[:100], whole[: len(whole) // 2], whole.replace(b"row00003", b"row00009")):
        path.write_bytes(damaged)
        assert read_snapshot(tmp_path, "v1") is None
    path.write_bytes(whole)
    assert isinstance(read_snapshot(tmp_path, "v1"), Snapshot)


def test_an_empty_gallery_has_a_snapshot_without_rows(tmp_path: Path) -> None:
    write_snapshot(tmp_path, "v1", columns_of([]))
    kept = read_snapshot(tmp_path, "v1")
    assert kept is not None
    assert (len(kept), kept.rows(kept.find(None)), kept.find(as_filter('camera == "c1"')).tolist()) == (0, [], [])


def test_a_table_has_a_name_while_it_has_one_manifest(folder: Path) -> None:
    versions = folder / "rows.lance" / "_versions"
    name = name_version(folder / "rows.lance")
    assert name is not None
    (manifest,) = versions.glob("*.manifest")
    shutil.copy(manifest, versions / "1.manifest")
    assert name_version(folder / "rows.lance") is None
    manifest.unlink()
    assert name_version(folder / "rows.lance") not in (None, name)
    assert name_version(folder / "no table") is None


def test_questions_are_answered_without_the_table_as_the_table_answers_them(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask(store: Store) -> list[object]:
        told: list[object] = []
        for text in FILTERS:
            hits = store.search(some_vectors(4, seed=3), 7, text).hits
            names = [row.sighting.id for row in store.find(text)]
            entries = store.fetch([*reversed(names), "row00011", "unknown"])
            columns = store.columns([*FIELDS, "crop"], text)
            order = np.argsort(columns["id"], kind="stable")
            told += [
                hits,
                names,
                entries.rows,
                entries.matrix.tolist(),
                {name: [values[place] for place in order] for name, values in columns.items()},
                store.count(text),
                sorted(store.fetch_rows(names), key=lambda row: row.sighting.id),
            ]
        return told

    with open_gallery(folder) as store:
        quick = ask(store)
        assert by_snapshot(store)
    monkeypatch.setattr(lance, "name_version", lambda table: None)
    with open_gallery(folder) as store:
        assert not by_snapshot(store)
        assert ask(store) == quick


def test_what_another_writer_adds_is_seen_at_once(folder: Path) -> None:
    with open_gallery(folder) as reader:
        assert reader.count() == COUNT - 1
        before = reader.search(some_vectors(1, seed=9), 1).hits[0][0].row
        assert by_snapshot(reader)
        with open_gallery(folder) as writer:
            writer.upsert([a_row(500)], some_vectors(1, seed=9))
        assert reader.fetch(["row00500"]).rows == (a_row(500),)
        assert reader.count() == COUNT
        assert reader.search(some_vectors(1, seed=9), 1).hits[0][0].row == a_row(500) != before
        assert not by_snapshot(reader)
    with open_gallery(folder) as anew:
        assert not by_snapshot(anew)  # until somebody puts the table in order
        anew.compact()
    with open_gallery(folder) as anew:
        assert (anew.count(), by_snapshot(anew)) == (COUNT, True)


def test_vectors_that_the_blocks_have_lost_come_from_the_table(folder: Path) -> None:
    for block in (folder / "exact").glob("*.block"):
        block.unlink()
    with open_gallery(folder) as store:
        (hit,) = store.search(some_vectors(COUNT)[20:21], 1).hits[0]
        assert hit.row == a_row(20)
        assert np.array_equal(store.fetch(["row00020"]).matrix, some_vectors(COUNT)[20:21].numpy())
        assert not by_snapshot(store)


def test_a_deletion_that_is_killed_on_the_way_leaves_no_snapshot_of_what_goes(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class KilledError(BaseException):
        pass

    def kill(self: LanceStore) -> None:
        raise KilledError

    with monkeypatch.context() as patched, open_gallery(folder) as store:
        patched.setattr(LanceStore, "_clean", kill)
        with pytest.raises(KilledError):
            store.delete('id == "row00012"')
    assert not (folder / "exact" / snapshot.FILE).exists()
    with open_gallery(folder) as store:
        store.compact()
    assert b"row00012" not in (folder / "exact" / snapshot.FILE).read_bytes()


def test_a_large_gallery_has_none(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lance, "MOST_ROWS", COUNT - 2)
    with open_gallery(folder) as store:
        store.compact()
    assert not (folder / "exact" / snapshot.FILE).exists()
    with open_gallery(folder) as store:
        assert (store.count(), by_snapshot(store)) == (COUNT - 1, False)
