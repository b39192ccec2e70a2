from pathlib import Path

import numpy as np
import pytest

from tapetum.core.errors import DataError
from tapetum.data.catalog import open_dataset
from tapetum.data.datasets import market1501
from tapetum.data.layout import write_sample_picture

RNG = np.random.default_rng(0)


def test_junk_and_distractors_stay_in_the_gallery(tmp_path: Path) -> None:
    market1501.write_miniature(tmp_path, RNG)
    records = market1501.read_records(tmp_path)
    assert {-1, 0} <= {record.pid for record in records if record.split == "gallery"}
    assert {record.camid for record in records} == {1, 2}


def test_published_names_are_parsed(tmp_path: Path) -> None:
    market1501.write_miniature(tmp_path, RNG)
    write_sample_picture(tmp_path / "bounding_box_test" / "-1_c6s4_022041_03.jpg", RNG)
    write_sample_picture(tmp_path / "bounding_box_test" / "1501_c6s4_001902_01.jpg", RNG)
    found = {(record.pid, record.camid) for record in market1501.read_records(tmp_path)}
    assert {(-1, 6), (1501, 6)} <= found


def test_multi_query_pictures_are_read_when_asked_and_there(tmp_path: Path) -> None:
    market1501.write_miniature(tmp_path, RNG)
    with pytest.raises(DataError, match="gt_bbox"):
        open_dataset("market1501", tmp_path, options={"multi_query": True})
    write_sample_picture(tmp_path / market1501.picture_path("multi_query", 3, 1, 0), RNG)
    assert len(open_dataset("market1501", tmp_path, options={"multi_query": True}).split("multi_query")) == 1
    assert not open_dataset("market1501", tmp_path).split("multi_query")


@pytest.mark.parametrize("name", ["Market-1501-v15.09.15", "market1501"])
def test_root_may_be_the_folder_that_holds_the_dataset(tmp_path: Path, name: str) -> None:
    market1501.write_miniature(tmp_path / name, RNG)
    assert len(market1501.read_records(tmp_path)) == 32


def test_a_seventh_camera_has_no_place() -> None:
    assert market1501.picture_path("train", 1, 6, 0).name == "0001_c6s1_000000_00.jpg"
    for camid in (0, 7):
        with pytest.raises(DataError, match=f"has cameras 1 to 6, not {camid}"):
            market1501.picture_path("train", 1, camid, 0)
