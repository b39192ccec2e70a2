"""LLCM: lists for training, a tree for testing, and every way in which one of them can be wrong."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from tapetum.core.errors import DataError
from tapetum.core.types import Modality, Record
from tapetum.data.catalog import open_dataset
from tapetum.data.check import check_dataset
from tapetum.data.datasets import llcm
from tapetum.data.layout import write_sample_picture

RNG = np.random.default_rng(0)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    llcm.write_miniature(tmp_path, RNG)
    return tmp_path


def rewrite(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_training_numbers_are_those_of_the_lists_and_testing_ones_those_of_the_folders(root: Path) -> None:
    records = llcm.read_records(root)
    assert {record.pid for record in records if record.split == "train"} == {0, 1}
    assert {record.pid for record in records if record.split == "test"} == {3, 4, 5}
    for record in records:
        assert record.modality.name[:3].lower() == ("vis" if "vis" in record.path.name else "inf")
        assert f"_c{record.camid:02d}_" in record.path.name
    rewrite(root / "idx" / "train_vis.txt", "_vis.jpg 0", "_vis.jpg 70")
    assert 70 in {record.pid for record in llcm.read_records(root)}


@pytest.mark.parametrize("folder", ["cam4", "webcam_cam7/LLCM", "cameras"])
def test_a_root_with_the_word_cam_in_its_path_changes_nothing(tmp_path: Path, folder: str) -> None:
    root = tmp_path / folder
    llcm.write_miniature(root, np.random.default_rng(0))
    parts = {(r.path.relative_to(root).as_posix(), r.pid, r.camid) for r in llcm.read_records(root)}
    llcm.write_miniature(tmp_path / "plain", np.random.default_rng(0))
    plain = llcm.read_records(tmp_path / "plain")
    assert parts == {(r.path.relative_to(tmp_path / "plain").as_posix(), r.pid, r.camid) for r in plain}


def test_the_sides_are_chosen_by_the_protocol_and_third_near_infrared_camera_does_not_test(root: Path) -> None:
    write_sample_picture(root / "test_nir" / "cam3" / "0003" / "0003_c03_s000000_f0000_nir.jpg", RNG)
    dataset = open_dataset("llcm", root)
    there = {(r.modality, r.camid) for r in dataset.records if r.split == "test"}
    assert (Modality.INFRARED, 3) in there
    query, gallery = dataset.side("query"), dataset.side("gallery")
    assert {(r.modality, r.camid) for r in query} == {(Modality.INFRARED, 1), (Modality.INFRARED, 2)}
    assert {(r.modality, r.camid) for r in gallery} == {(Modality.VISIBLE, 1), (Modality.VISIBLE, 2)}
    assert dataset.side("query", "llcm_revised_vis_to_nir") == gallery
    assert dataset.side("query", "llcm_original_vis_to_nir_released_script") == query


def test_both_readings_of_visible_to_infrared_differ_in_who_is_drawn() -> None:
    for release in ("original", "revised"):
        standard = llcm.PROTOCOLS[f"llcm_{release}_vis_to_nir"]
        released = llcm.PROTOCOLS[f"llcm_{release}_vis_to_nir_released_script"]
        assert (standard.query_modality, standard.drawn) == (Modality.VISIBLE, "gallery")
        assert (released.query_modality, released.drawn) == (Modality.INFRARED, "query")
        assert standard.trials == released.trials == 10
        assert standard.cmc == released.cmc == "identities"
        assert standard.junk == released.junk == "same_pid_same_camid"


def test_people_of_the_tree_whom_the_list_does_not_name_are_not_read(root: Path) -> None:
    (root / "idx" / "test_id.txt").write_text("3,4\n5\n")  # the second line does not count
    assert {r.pid for r in llcm.read_records(root) if r.split == "test"} == {3, 4}


def test_a_person_of_the_list_without_pictures_is_reported_by_the_check(root: Path) -> None:
    (root / "idx" / "test_id.txt").write_text("3,4,5,99\n")
    assert len(llcm.read_records(root)) == 40
    report = check_dataset("llcm", root)
    assert report.absent_people == ("test person 99",)
    assert any("named by the dataset's lists without pictures, e.g. test person 99" in line for line in report.problems)


@pytest.mark.parametrize(
    ("line", "people"), [("98,99", "2 people, none of whom has a picture in test_vis/ or test_nir/"), ("", "nobody")]
)
def test_a_list_of_people_none_of_whom_has_a_picture_is_named_and_not_the_folders(
    root: Path, line: str, people: str
) -> None:
    (root / "idx" / "test_id.txt").write_text(line + "\n")
    expected = rf"llcm: .*test_id\.txt names {people}; copy the file from the dataset again"
    with pytest.raises(DataError, match=expected):
        llcm.read_records(root)


def test_empty_folders_of_the_test_are_named(root: Path) -> None:
    for folder in ("test_vis", "test_nir"):
        shutil.rmtree(root / folder)
    with pytest.raises(DataError, match=r"llcm: no picture in test_vis/ and test_nir/ of .*; unpack them there"):
        llcm.read_records(root)


@pytest.mark.parametrize("name", ["train_vis.txt", "train_nir.txt", "test_id.txt"])
def test_a_missing_list_is_named(root: Path, name: str) -> None:
    (root / "idx" / name).unlink()
    with pytest.raises(DataError, match=rf"{name} cannot be read \(No such file or directory\)"):
        llcm.read_records(root)


@pytest.mark.parametrize(
    "line",
    ["vis/0001/a_c01_.jpg", "vis/0001/a_c01_.jpg one", "vis/0001/a.jpg -1", "/etc/hosts 1", "../other/a.jpg 1", "7"],
)
def test_a_malformed_line_is_quoted_with_its_number(root: Path, line: str) -> None:
    path = root / "idx" / "train_vis.txt"
    path.write_text("\n" + line + "\n" + path.read_text())
    with pytest.raises(DataError, match=r"line 2 of .*train_vis\.txt is '") as caught:
        llcm.read_records(root)
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


def test_people_s_numbers_that_are_none_are_quoted(root: Path) -> None:
    (root / "idx" / "test_id.txt").write_text("3, 4, five\n")
    with pytest.raises(DataError, match=r"test_id\.txt holds 'five' where a person's number is expected"):
        llcm.read_records(root)
    (root / "idx" / "test_id.txt").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(DataError, match="is no text"):
        llcm.read_records(root)


def test_absent_pictures_of_a_list_are_counted_and_the_first_is_named(root: Path) -> None:
    listed = sorted((root / "nir").rglob("*.jpg"))
    for path in listed[2:4]:
        path.unlink()
    with pytest.raises(
        DataError, match=r"2 of 8 pictures named by .*train_nir\.txt are missing, first nir/0001/.* line 3"
    ):
        llcm.read_records(root)


def test_a_picture_listed_twice_counts_once_and_with_two_numbers_not_at_all(root: Path) -> None:
    path = root / "idx" / "train_vis.txt"
    first = path.read_text().splitlines()[0]
    before = llcm.read_records(root)
    path.write_text(path.read_text() + first + "\n")
    assert llcm.read_records(root) == before
    path.write_text(path.read_text() + first.rsplit(" ", 1)[0] + " 55\n")
    with pytest.raises(DataError, match=r"the number 0 in line 1 and 55 in line 10"):
        llcm.read_records(root)


def test_a_training_picture_whose_name_gives_no_camera_is_named_or_collected(root: Path) -> None:
    write_sample_picture(root / "vis" / "0001" / "somebody.jpg", RNG)
    path = root / "idx" / "train_vis.txt"
    path.write_text(path.read_text() + "vis/0001/somebody.jpg 0\n")
    with pytest.raises(DataError, match=r"somebody\.jpg gives no camera .* line 9 of idx/train_vis\.txt"):
        llcm.read_records(root)
    failures: list[Path] = []
    assert len(llcm.read_records(root, failures=failures)) == 40
    assert [failure.name for failure in failures] == ["somebody.jpg"]


@pytest.mark.parametrize(("folder", "modality"), [("test_vis", "visible"), ("test_nir", "infrared")])
def test_a_missing_modality_in_the_test_is_named_with_what_is_there(root: Path, folder: str, modality: str) -> None:
    shutil.rmtree(root / folder)
    with pytest.raises(DataError, match=rf"no {modality} picture of split 'test' in .* \(12 "):
        llcm.read_records(root)


def test_a_missing_modality_in_training_is_named(root: Path) -> None:
    (root / "idx" / "train_nir.txt").write_text("")
    with pytest.raises(DataError, match=r"no infrared picture of split 'train' in .* \(8 visible ones\)"):
        llcm.read_records(root)


def test_people_who_train_in_one_modality_are_read_and_listed_by_the_check(root: Path) -> None:
    path = root / "idx" / "train_nir.txt"
    path.write_text("".join(line + "\n" for line in path.read_text().splitlines() if line.endswith(" 0")))
    assert len([r for r in llcm.read_records(root) if r.split == "train"]) == 12
    report = check_dataset("llcm", root)
    assert report.one_sided == ("person 1 (visible)",)
    assert any("training people in one modality only" in line for line in report.problems)


def test_the_tree_has_no_third_near_infrared_camera_to_place_a_picture_under() -> None:
    assert llcm.picture_path("train", 1, 3, 0, Modality.INFRARED).parts[0] == "nir"
    with pytest.raises(DataError, match="infrared cameras 1, 2, 4, 5, 6, 7, 8, 9, not 3"):
        llcm.picture_path("test", 1, 3, 0, Modality.INFRARED)
    with pytest.raises(DataError, match="splits train and test, not 'query'"):
        llcm.picture_path("query", 1, 1, 0)


def test_counts_are_kept_by_modality_and_uncertain_ones_are_no_problem(root: Path) -> None:
    report = check_dataset("llcm", root)
    rows = {row.split: (row.pictures, row.ids, row.cameras, row.fewest) for row in report.splits}
    assert rows["train visible"] == rows["train infrared"] == (8, 2, 2, 4)
    assert rows["test infrared"] == (12, 3, 2, 4)
    assert rows["total"] == (40, 5, 4, 8)  # two people train, three others test: numbers start anew
    assert report.problems == ["total: 40 pictures of 5 people; published 46767 of 1064"]


def test_the_lists_number_training_people_from_zero(tmp_path: Path) -> None:
    entries = [
        Record(llcm.picture_path(split, pid, 1, 0, modality), pid, 1, modality, split)
        for split, pid in (("train", 12), ("train", 7), ("test", 30))
        for modality in Modality
    ]
    written = llcm.write_index(tmp_path, entries)
    assert [path.name for path in written] == [
        "train_vis.txt",
        "train_nir.txt",
        "test_vis.txt",
        "test_nir.txt",
        "test_id.txt",
    ]
    assert [line[-2:] for line in (tmp_path / written[0]).read_text().splitlines()] == [" 0", " 1"]
    assert (tmp_path / "idx" / "test_id.txt").read_text() == "30\n"
