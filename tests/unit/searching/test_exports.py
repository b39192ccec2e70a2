"""Sightings, answers and results in the formats of other programs: everything there, nothing half-written."""

import csv
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from pyarrow import parquet

from gallery_rows import MODEL, some_rows, some_vectors
from tapetum.core.errors import DataError, GalleryError, OutputError
from tapetum.core.types import Modality
from tapetum.footage.clock import format_time
from tapetum.gallery.opening import open_gallery
from tapetum.gallery.store import Store
from tapetum.searching import exports
from tapetum.searching.case import build_case
from tapetum.searching.exports import (
    COLUMNS,
    THUMBNAIL,
    export_answers,
    export_fiftyone,
    export_projector,
    export_sightings,
)
from tapetum.searching.find import find
from tapetum.searching.query import Query
from tapetum.searching.question import FindOptions

COUNT = 7


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    folder = tmp_path_factory.mktemp("galleries") / "night"
    with open_gallery(folder, create=MODEL) as opened:
        (folder / "crops").mkdir()
        rows = []
        for number, row in enumerate(some_rows(COUNT)):
            crop = f"crops/{row.sighting.id}.jpg"
            picture = np.full((80, 40, 3), (0, 0, 30 * number), np.uint8)  # red, in the order of OpenCV
            (folder / crop).write_bytes(cv2.imencode(".jpg", picture)[1].tobytes())
            seen = replace(row.sighting, crop=crop, source='a "quote", a comma.mp4')
            rows.append(replace(row, sighting=seen))
        opened.upsert(rows[::-1], some_vectors(COUNT).flip(0))
        yield opened


def test_every_field_of_every_sighting_is_in_the_csv_by_time(store: Store, tmp_path: Path) -> None:
    assert export_sightings(store, tmp_path / "new" / "sightings.csv") == COUNT
    with (tmp_path / "new" / "sightings.csv").open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert list(lines[0]) == list(COLUMNS)
    for line, row in zip(lines, store.find(), strict=True):
        seen = row.sighting
        assert (line["id"], line["source"], line["crop"]) == (seen.id, seen.source, seen.crop)
        assert (line["time"], float(line["seconds"])) == (format_time(seen.time), seen.time)
        assert [int(line[name]) for name in ("left", "top", "width", "height")] == list(seen.box)
        assert (line["modality"], line["model"]) == (seen.modality.name.lower(), MODEL.id)


def test_no_text_of_a_csv_is_a_formula_to_a_spreadsheet_and_parquet_holds_it_as_it_was(tmp_path: Path) -> None:
    names = [
        "=HYPERLINK(1).mp4",
        "+1.mp4",
        "-1.mp4",
        "@x.mp4",
        "'=1.mp4",
        "'s night.mp4",
        "a=1.mp4",
    ]
    rows = [
        replace(row, sighting=replace(row.sighting, source=name))
        for row, name in zip(some_rows(len(names)), names, strict=True)
    ]
    with open_gallery(tmp_path / "night", create=MODEL) as store:
        store.upsert(rows, some_vectors(len(names)))
        export_sightings(store, tmp_path / "s.csv")
        export_sightings(store, tmp_path / "s.parquet")
    with (tmp_path / "s.csv").open(newline="", encoding="utf-8") as file:
        told = [line["source"] for line in csv.DictReader(file)]
    assert told == [f"'{name}" for name in names[:5]] + names[5:]
    assert parquet.read_table(tmp_path / "s.parquet")["source"].to_pylist() == names


def test_answers_in_a_csv_keep_their_numbers_and_query_labels_are_no_formulas(store: Store, tmp_path: Path) -> None:
    query = Query(-np.asarray(some_vectors(1)), (Modality.VISIBLE,), ("\t=1+1.jpg",))
    findings = find(store, [query], FindOptions(k=COUNT), None)
    export_answers(build_case(store, [query], findings, FindOptions(k=COUNT)).content, tmp_path / "a.csv", "a.json")
    with (tmp_path / "a.csv").open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert {line["query"] for line in lines} == {"'\t=1+1.jpg"}
    assert min(float(line["similarity"]) for line in lines) < 0


def test_a_parquet_holds_kinds_and_embeddings_of_the_rows_that_pass_chunk_by_chunk(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exports, "CHUNK", 2)
    assert export_sightings(store, tmp_path / "s.parquet", "camera == 'c1'", embeddings=True) == 3
    table = parquet.read_table(tmp_path / "s.parquet")
    rows = store.find("camera == 'c1'")
    assert table["id"].to_pylist() == [row.sighting.id for row in rows]
    assert [str(table.schema.field(name).type) for name in ("seconds", "frame", "remark")] == [
        "double",
        "int64",
        "string",
    ]
    vectors = np.asarray(store.fetch(table["id"].to_pylist()).vectors)
    np.testing.assert_array_equal(np.array(table["embedding"].to_pylist(), np.float32), vectors)


@pytest.mark.parametrize("name", ["sightings.xlsx", "sightings"])
def test_another_ending_is_refused_before_anything_is_written(store: Store, tmp_path: Path, name: str) -> None:
    with pytest.raises(OutputError, match=r"a table is Parquet or CSV; give a name that ends in .parquet or .csv"):
        export_sightings(store, tmp_path / name)
    with pytest.raises(OutputError, match="embeddings do not fit a CSV"):
        export_sightings(store, tmp_path / "s.csv", embeddings=True)
    assert not list(tmp_path.iterdir())


def test_a_table_that_breaks_off_leaves_the_old_one(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "s.csv").write_text("before")
    monkeypatch.setattr(exports, "_sighting_cells", lambda row, said: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        export_sightings(store, tmp_path / "s.csv")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["before"]


def test_what_holds_no_answers_is_refused(tmp_path: Path) -> None:
    for content in ({}, {"searches": [{"answers": [{"rows": [{}]}]}]}, {"searches": 3}):
        with pytest.raises(DataError, match=r"a\.json: holds no answers of a search .* `tapetum search --json`"):
            export_answers(content, tmp_path / "a.csv", "a.json")
    assert not list(tmp_path.iterdir())


def test_tensorboards_projector_reads_vectors_facts_and_pictures(store: Store, tmp_path: Path) -> None:
    google = pytest.importorskip("google.protobuf.text_format", reason="tensorboard brings protobuf")
    from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig

    assert export_projector(store, tmp_path) == COUNT
    config = google.Parse((tmp_path / "projector_config.pbtxt").read_text(), ProjectorConfig()).embeddings[0]
    rows = store.find()
    vectors = np.loadtxt(tmp_path / config.tensor_path, delimiter="\t")
    np.testing.assert_allclose(vectors, np.asarray(store.fetch([row.sighting.id for row in rows]).vectors), atol=1e-6)
    lines = [line.split("\t") for line in (tmp_path / config.metadata_path).read_text().splitlines()]
    assert lines[0] == list(COLUMNS)
    assert [line[0] for line in lines[1:]] == [row.sighting.id for row in rows]
    assert lines[1][1] == 'a "quote", a comma.mp4'
    sprite = cv2.imread(str(tmp_path / config.sprite.image_path))
    assert list(config.sprite.single_image_dim) == [THUMBNAIL, THUMBNAIL]
    assert sprite.shape == (3 * THUMBNAIL, 3 * THUMBNAIL, 3)  # the smallest square that holds seven
    middles = sprite[THUMBNAIL // 2 :: THUMBNAIL, THUMBNAIL // 2 :: THUMBNAIL, 2].ravel()
    np.testing.assert_allclose(middles[:COUNT], [30 * number for number in range(COUNT)], atol=3)
    assert not middles[COUNT:].any()
    assert not sprite[THUMBNAIL // 2, 2].any()  # beside the crop, which is twice as high as wide


def test_the_projector_is_given_no_more_than_it_shows(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(GalleryError, match="0 rows pass; a browser's projector shows 1 to 16384: choose by --filter"):
        export_projector(store, tmp_path / "p", "camera == 'other'")
    monkeypatch.setattr(exports, "MOST_PROJECTED", 6)
    with pytest.raises(GalleryError, match="7 rows pass; a browser's projector shows 1 to 6"):
        export_projector(store, tmp_path / "p")
    assert not list(tmp_path.iterdir())


def test_fiftyone_gets_every_sighting_with_its_picture_and_embedding(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "night"
    assert export_fiftyone(store, folder, "camera == 'c1'") == 3
    rows = store.find("camera == 'c1'")
    samples = json.loads((folder / "samples.json").read_text())["samples"]
    fields = json.loads((folder / "metadata.json").read_text())["sample_fields"]
    assert [sample["sighting"] for sample in samples] == [row.sighting.id for row in rows]
    for sample, row in zip(samples, rows, strict=True):
        assert set(sample) - {"tags"} == set(fields)
        assert (folder / sample["filepath"]).read_bytes() == (Path(store.where) / row.sighting.crop).read_bytes()
    vectors = np.asarray(store.fetch([row.sighting.id for row in rows]).vectors)
    np.testing.assert_array_equal(np.array([sample["embedding"] for sample in samples], np.float32), vectors)
    assert fields["embedding"] == "fiftyone.core.fields.VectorField"
    assert "id" not in fields
    with pytest.raises(GalleryError, match="no row passes"):
        export_fiftyone(store, tmp_path / "other", "camera == 'other'")
    assert not (tmp_path / "other").exists()


def test_exporting_for_fiftyone_again_leaves_no_picture_of_who_is_not_exported_any_more(
    store: Store, tmp_path: Path
) -> None:
    folder = tmp_path / "night"
    export_fiftyone(store, folder)
    interrupted, foreign = folder / "data" / f"{'0f' * 12}.jpg", folder / "data" / "notes.jpg"
    for path in (interrupted, foreign):
        path.write_bytes(b"a picture")
    assert export_fiftyone(store, folder, "camera == 'c1'") == 3
    ids = {row.sighting.id for row in store.find("camera == 'c1'")}
    assert {path.name for path in (folder / "data").iterdir()} == {f"{each}.jpg" for each in ids} | {"notes.jpg"}
    with pytest.raises(GalleryError, match=r"no row passes; .*delete .*night, which shows who was there before"):
        export_fiftyone(store, folder, "camera == 'other'")
