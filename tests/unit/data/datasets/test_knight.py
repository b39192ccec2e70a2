import json
from pathlib import Path

import numpy as np
import pytest

from tapetum.core.errors import DataError, RecipeError
from tapetum.core.types import Record
from tapetum.data.catalog import open_dataset
from tapetum.data.check import check_dataset
from tapetum.data.datasets import knight
from tapetum.data.layout import write_sample_picture

RNG = np.random.default_rng(0)


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """People 1 to 4 under all cameras, 5 under 1 and 2, 6 under 2 and 3."""
    for pid in range(1, 7):
        for camid in {5: (1, 2), 6: (2, 3)}.get(pid, (1, 2, 3)):
            for frame in (0, 1):
                path = tmp_path / "NightPerson" / "Person" / f"{pid:04d}" / f"cam{camid}_{frame:05d}.jpg"
                write_sample_picture(path, RNG)
    return tmp_path


def people(records: tuple[Record, ...] | list[Record], split: str) -> set[tuple[int, int]]:
    return {(record.pid, record.camid) for record in records if record.split == split}


def test_even_people_train_and_odd_ones_test_from_the_lower_camera_to_the_other(raw: Path) -> None:
    records = knight.read_records(raw)
    assert people(records, "train") == {(pid, camid) for pid in (2, 4) for camid in (1, 2)}
    assert people(records, "query") == {(1, 1), (3, 1), (5, 1)}
    assert people(records, "gallery") == {(1, 2), (3, 2), (5, 2)}
    assert len(records) == 20


def test_a_subset_holds_the_people_seen_by_both_of_its_cameras(raw: Path) -> None:
    records = open_dataset("knight", raw, options={"subset": "c23"}).records
    assert people(records, "train") == {(pid, camid) for pid in (2, 4, 6) for camid in (2, 3)}
    assert people(records, "gallery") == {(1, 3), (3, 3)}
    with pytest.raises(RecipeError, match="subset 'c14' is unknown"):
        open_dataset("knight", raw, options={"subset": "c14"})


def test_a_split_file_decides_where_there_is_one(raw: Path) -> None:
    split = raw / "split.json"
    split.write_text(json.dumps({"train": [1], "test": [2, 3]}))
    records = knight.read_records(raw, split_file=split)
    assert {pid for pid, _ in people(records, "train")} == {1}
    assert {pid for pid, _ in people(records, "query")} == {2, 3}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not of the form"),
        ('{"train": [1]}', "is not of the form"),
        ('{"train": 1, "test": 2}', "is not of the form"),
        ('{"train": [1, 2], "test": [2]}', "has person 2 on both sides"),
    ],
)
def test_a_bad_split_file_is_named(raw: Path, content: str, message: str) -> None:
    split = raw / "split.json"
    split.write_text(content)
    with pytest.raises(DataError, match=rf"split\.json {message}"):
        knight.read_records(raw, split_file=split)
    with pytest.raises(DataError, match=r"gone\.json cannot be read"):
        knight.read_records(raw, split_file=raw / "gone.json")


def test_the_converted_layout_is_read_as_it_is_split(tmp_path: Path) -> None:
    for split, pid in (("train", 1), ("query", 2), ("gallery", 2)):
        write_sample_picture(tmp_path / knight.picture_path(split, pid, 1, 0), RNG)
    records = knight.read_records(tmp_path)
    assert [(record.split, record.pid) for record in records] == [("train", 1), ("query", 2), ("gallery", 2)]
    assert knight.read_records(tmp_path / "NightPerson_C12_MT") == records
    (tmp_path / "split.json").write_text('{"train": [1], "test": [2]}')
    with pytest.raises(DataError, match="is split already"):
        knight.read_records(tmp_path, split_file=tmp_path / "split.json")


def test_a_camera_outside_the_subset_is_refused_and_a_check_lists_it(tmp_path: Path) -> None:
    folder = tmp_path / "NightPerson_C13_MT"
    for split, pid, camid in (("train", 2, 1), ("train", 2, 3), ("query", 1, 1), ("gallery", 1, 3)):
        write_sample_picture(folder / knight.CONVERTED[split] / f"{pid:04d}_c{camid}_000000.jpg", RNG)
    assert {record.camid for record in knight.read_records(tmp_path, subset="c13")} == {1, 3}
    with pytest.raises(DataError, match=r"0002_c3_000000\.jpg is of camera 3, and subset c12 has cameras 1 and 2"):
        knight.read_records(folder)
    report = check_dataset("knight", folder, options={"subset": "c12"})
    assert [path.name for path in report.name_failures] == ["0002_c3_000000.jpg", "0001_c3_000000.jpg"]
    assert {row.split: row.cameras for row in report.splits}["total"] == 1


def test_a_camera_that_the_written_subset_does_not_have_has_no_place() -> None:
    with pytest.raises(DataError, match="has cameras 1 and 2, not 3"):
        knight.picture_path("train", 1, 3, 0)
