import shutil
from pathlib import Path

import numpy as np
import pytest

from tapetum.core.errors import DataError
from tapetum.data.catalog import open_dataset
from tapetum.data.datasets import night600
from tapetum.data.layout import write_sample_picture

RNG = np.random.default_rng(0)


def write_tree(root: Path, *folders: str) -> None:
    """The release's own preparation: a folder for each person, the first picture of each in val."""
    for folder in folders:
        split = {"query": "query", "gallery": "gallery"}.get(folder, "train")
        for pid in (3, 1) if split == "train" else (7, 12):
            numbers = {"val": [0], "train": [1, 2], "train_all": [0, 1, 2], "query": [0], "gallery": [0, 1]}[folder]
            for number in numbers:
                write_sample_picture(root / folder / f"{pid:04d}" / f"{pid:04d}_c{number + 1}_{number}.jpg", RNG)


def counts(records: list) -> dict[str, int]:
    return {split: sum(record.split == split for record in records) for split in {record.split for record in records}}


@pytest.mark.parametrize("folders", [("train", "val"), ("train_all",), ("train", "val", "train_all")])
def test_tree_layout_takes_every_training_picture_once(tmp_path: Path, folders: tuple[str, ...]) -> None:
    write_tree(tmp_path, *folders, "query", "gallery")
    records = night600.read_records(tmp_path)
    assert counts(records) == {"train": 6, "query": 2, "gallery": 4}
    assert [(record.pid, record.camid) for record in records[:4]] == [(1, 1), (1, 2), (1, 3), (3, 1)]


@pytest.mark.parametrize("folders", [("train", "val"), ("train_all",)])
def test_holding_the_first_picture_out_gives_the_release_s_own_split(tmp_path: Path, folders: tuple[str, ...]) -> None:
    write_tree(tmp_path, *folders, "query", "gallery")
    records = open_dataset("night600", tmp_path, options={"holdout_first": True}).records
    assert counts(list(records)) == {"train": 4, "val": 2, "query": 2, "gallery": 4}
    assert [record.path.name for record in records if record.split == "val"] == ["0001_c1_0.jpg", "0003_c1_0.jpg"]


@pytest.mark.parametrize("whole", [False, True])
def test_what_the_release_itself_held_out_is_held_out_though_it_be_no_first_name(tmp_path: Path, whole: bool) -> None:
    write_tree(tmp_path, "train", "val", *(["train_all"] if whole else []), "query", "gallery")
    held_out, other = tmp_path / "val/0001/0001_c1_0.jpg", tmp_path / "train/0001/0001_c3_2.jpg"
    other.rename(tmp_path / "val/0001" / other.name)
    held_out.rename(tmp_path / "train/0001" / held_out.name)
    records = night600.read_records(tmp_path, holdout_first=True)
    assert [record.path.name for record in records if record.split == "val"] == ["0001_c3_2.jpg", "0003_c1_0.jpg"]
    assert counts(records)["train"] == 4


def test_holding_out_works_in_the_flat_layout_too(tmp_path: Path) -> None:
    night600.write_miniature(tmp_path, RNG)
    records = night600.read_records(tmp_path, holdout_first=True)
    assert counts(records) == {"train": 10, "val": 2, "query": 6, "gallery": 19}


@pytest.mark.parametrize("name", ["Night600", "night600"])
def test_root_may_be_the_dataset_or_the_folder_that_holds_it(tmp_path: Path, name: str) -> None:
    night600.write_miniature(tmp_path / name, RNG)
    assert night600.read_records(tmp_path) == night600.read_records(tmp_path / name)


def test_queries_stay_in_the_gallery_as_published(tmp_path: Path) -> None:
    night600.write_miniature(tmp_path, RNG)
    records = night600.read_records(tmp_path)
    gallery = {record.path.name for record in records if record.split == "gallery"}
    assert {record.path.name for record in records if record.split == "query"} <= gallery


def test_junk_is_read_as_minus_one_and_ignored_by_the_protocol(tmp_path: Path) -> None:
    night600.write_miniature(tmp_path, RNG)
    assert -1 in {record.pid for record in night600.read_records(tmp_path)}
    assert all(protocol.ignored_pids == (-1,) for protocol in night600.PROTOCOLS.values())


def test_protocols_are_those_of_the_release_and_of_the_other_code_bases() -> None:
    usual, step = night600.PROTOCOLS["night600"], night600.PROTOCOLS["night600_step"]
    assert (usual.ap, usual.unmatched, usual.ties, usual.junk) == (
        "trapezoid",
        "count",
        "larger_index_first",
        "same_pid_same_camid",
    )
    assert (step.ap, step.unmatched, step.ties) == ("step", "drop", "smaller_index_first")


def test_a_scene_with_nobody_to_train_on_is_read(tmp_path: Path) -> None:
    night600.write_miniature(tmp_path, RNG)
    shutil.rmtree(tmp_path / "bounding_box_train")
    assert {record.split for record in night600.read_records(tmp_path)} == {"query", "gallery"}


def test_layout_without_queries_is_a_wrong_layout(tmp_path: Path) -> None:
    night600.write_miniature(tmp_path, RNG)
    (tmp_path / "query_3").rename(tmp_path / "questions")
    with pytest.raises(DataError, match=r"looked for .*query_3.* or for .*query/"):
        night600.read_records(tmp_path)
