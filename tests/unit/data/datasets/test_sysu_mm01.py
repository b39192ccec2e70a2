"""SYSU-MM01: who trains and who tests, six cameras, and the dataset's own order of drawing."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from tapetum.core.errors import DataError, RecipeError
from tapetum.core.types import Modality
from tapetum.data.catalog import open_dataset
from tapetum.data.check import check_dataset
from tapetum.data.datasets import sysu_mm01
from tapetum.data.layout import Counts, write_sample_picture

RNG = np.random.default_rng(0)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    sysu_mm01.write_miniature(tmp_path, RNG)
    return tmp_path


def write_permutations(
    path: Path, tables: dict[tuple[int, int], np.ndarray], cameras: int = 6, people: int = 7
) -> None:
    """The file as MATLAB has it: a cell for each camera, in it a cell for each person, in it trials x pictures."""
    outer = np.empty((cameras, 1), dtype=object)
    for camera in range(cameras):
        inner = np.empty((people, 1), dtype=object)
        for person in range(people):
            inner[person, 0] = tables.get((camera + 1, person + 1), np.zeros((0, 0)))
        outer[camera, 0] = inner
    savemat(path, {"rand_perm_cam": outer})


def test_training_people_are_those_of_two_files_and_only_the_first_line_counts(root: Path) -> None:
    exp = root / "exp"
    assert (exp / "train_id.txt").read_text() == "1,2,3\n"
    assert (exp / "val_id.txt").read_text() == "4\n"
    (exp / "test_id.txt").write_text("5, 6\n7\n")
    records = sysu_mm01.read_records(root)
    assert {r.pid for r in records if r.split == "train"} == {1, 2, 3, 4}
    assert {r.pid for r in records if r.split == "test"} == {5, 6}
    assert {(r.camid, r.modality) for r in records} == {
        (1, Modality.VISIBLE),
        (2, Modality.VISIBLE),
        (3, Modality.INFRARED),
        (6, Modality.INFRARED),
    }


def test_the_validation_people_can_be_left_out_and_the_tested_ones_stay(root: Path) -> None:
    usual, fewer = (open_dataset("sysu_mm01", root, options=options) for options in ({}, {"people": "train"}))
    assert {record.pid for record in fewer.split("train")} == {1, 2, 3}
    assert {record.pid for record in usual.split("train")} == {1, 2, 3, 4}
    assert fewer.split("test") == usual.split("test")
    assert fewer.options == {"people": "train"}
    counts = {row.split: row.published for row in check_dataset("sysu_mm01", root, options=fewer.options).splits}
    assert counts["train"] == Counts(30211, 296)
    assert counts["test"] == sysu_mm01.PUBLISHED["test"]
    with pytest.raises(RecipeError, match="people is 'val'; it must be train_val or train"):
        open_dataset("sysu_mm01", root, options={"people": "val"})


def test_a_root_with_the_word_cam_in_its_path_changes_nothing(tmp_path: Path) -> None:
    root = tmp_path / "cam5" / "0009" / "SYSU-MM01"
    sysu_mm01.write_miniature(root, RNG)
    records = sysu_mm01.read_records(root.parent)
    assert {r.camid for r in records} == {1, 2, 3, 6}
    assert {r.pid for r in records} == set(range(1, 8))


def test_every_infrared_picture_searches_and_the_search_decides_the_cameras(root: Path) -> None:
    write_sample_picture(root / "cam4" / "0005" / "0001.jpg", RNG)
    dataset = open_dataset("sysu_mm01", root)
    assert {r.camid for r in dataset.side("query")} == {3, 6}
    assert {r.camid for r in dataset.side("gallery")} == {1, 2, 4}
    assert {r.camid for r in dataset.side("gallery", "sysu_indoor_multi")} == {1, 2}
    assert dataset.side("query") == dataset.side("query", "sysu_indoor_single")
    shots = {name: rules.shots for name, rules in dataset.protocols.items() if rules.drawn}
    assert shots == {"sysu_all_single": 1, "sysu_all_multi": 10, "sysu_indoor_single": 1, "sysu_indoor_multi": 10}
    for name in shots:
        rules = dataset.protocols[name]
        assert (rules.trials, rules.drawn, rules.junk, rules.junk_camera_pairs) == (10, "gallery", "none", ((3, 2),))
        assert rules.cmc == "identities"


def test_a_query_of_camera_three_whose_person_only_camera_two_saw_has_no_match(root: Path) -> None:
    shutil.rmtree(root / "cam1" / "0006")
    report = check_dataset("sysu_mm01", root)
    assert {path.parent.parent.name for path in report.queries_without_match} == {"cam3"}
    assert {path.parent.name for path in report.queries_without_match} == {"0006"}


def test_somebody_in_training_and_testing_is_refused(root: Path) -> None:
    (root / "exp" / "test_id.txt").write_text("4,5,6\n")
    with pytest.raises(DataError, match="has person 4 in training and in testing"):
        sysu_mm01.read_records(root)


def test_malformed_and_missing_files_of_people_are_named(root: Path) -> None:
    (root / "exp" / "train_id.txt").write_text("1;2;3\n")
    with pytest.raises(DataError, match=r"train_id\.txt holds '1;2;3' where a person's number is expected"):
        sysu_mm01.read_records(root)
    (root / "exp" / "train_id.txt").unlink()
    with pytest.raises(DataError, match=r"train_id\.txt cannot be read"):
        sysu_mm01.read_records(root)


def test_a_person_without_pictures_is_reported_by_the_check_and_empty_folders_under_one_camera_are_not(
    root: Path,
) -> None:
    (root / "exp" / "test_id.txt").write_text("5,6,7,60\n")
    (root / "cam5" / "0005").mkdir(parents=True)
    (root / "cam1" / "0060").mkdir()
    report = check_dataset("sysu_mm01", root)
    assert report.absent_people == ("test person 60",)
    assert report.empty_ids == ()


@pytest.mark.parametrize(
    ("line", "people"), [("60,61", "2 people, none of whom has a picture in cam1/ to cam6/"), ("", "nobody")]
)
def test_a_file_of_people_none_of_whom_has_a_picture_is_named(root: Path, line: str, people: str) -> None:
    (root / "exp" / "test_id.txt").write_text(line + "\n")
    with pytest.raises(DataError, match=rf"sysu_mm01: .*test_id\.txt names {people}; copy the file"):
        sysu_mm01.read_records(root)


def test_both_files_of_training_people_are_named_where_none_has_a_picture(root: Path) -> None:
    for name in ("train_id.txt", "val_id.txt"):
        (root / "exp" / name).write_text("60,61\n")
    with pytest.raises(DataError, match=r"exp/train_id\.txt and val_id\.txt name 2 people, none of whom"):
        sysu_mm01.read_records(root)


def test_a_missing_modality_is_named_with_what_is_there(root: Path) -> None:
    for camid in (3, 6):
        shutil.rmtree(root / f"cam{camid}")
    with pytest.raises(DataError, match=r"no infrared picture of split 'test' in .* \(12 visible ones\)"):
        sysu_mm01.read_records(root)


def test_people_who_train_in_one_modality_are_read_and_listed_by_the_check(root: Path) -> None:
    for camid in (1, 2):
        shutil.rmtree(root / f"cam{camid}" / "0002")
    assert {r.modality for r in sysu_mm01.read_records(root) if r.pid == 2} == {Modality.INFRARED}
    assert check_dataset("sysu_mm01", root).one_sided == ("person 2 (infrared)",)


def test_the_dataset_s_own_order_of_drawing_is_read_where_it_has_one(root: Path) -> None:
    assert open_dataset("sysu_mm01", root).permutations is None
    assert open_dataset("sysu_mm01", root).permutation_file == ""
    tables = {
        (camid, pid): np.stack([RNG.permutation(4) + 1 for _ in range(10)]) for camid in (1, 2, 3) for pid in (5, 7)
    }
    write_permutations(root / "exp" / "rand_perm_cam.mat", tables)
    dataset = open_dataset("sysu_mm01", root)
    assert dataset.permutation_file == "rand_perm_cam.mat"
    assert dataset.permutations is not None
    assert set(dataset.permutations) == set(tables)
    for key, table in tables.items():
        assert dataset.permutations[key].dtype == np.int64
        np.testing.assert_array_equal(dataset.permutations[key], table)


def test_the_dataset_s_own_order_may_be_left_aside_as_the_releases_do(root: Path) -> None:
    write_permutations(root / "exp" / "rand_perm_cam.mat", {(1, 5): np.array([[2, 1]] * 10)})
    usual, released = (open_dataset("sysu_mm01", root, options={"permutations": choice}) for choice in ("file", "seed"))
    assert (usual.permutation_file, usual.options) == ("rand_perm_cam.mat", {})
    assert (released.permutations, released.permutation_file) == (None, "")
    assert released.options == {"permutations": "seed"}
    assert released.records == usual.records
    with pytest.raises(RecipeError, match="permutations is 'seeds'; it must be file or seed"):
        open_dataset("sysu_mm01", root, options={"permutations": "seeds"})


def test_a_damaged_order_of_drawing_is_an_error_and_not_left_aside(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = root / "exp" / "rand_perm_cam.mat"
    path.write_bytes(b"MATLAB 5.0 MAT-file" + bytes(300))
    with pytest.raises(DataError, match=r"rand_perm_cam\.mat cannot be read .*set data.options.permutations to seed"):
        open_dataset("sysu_mm01", root)
    savemat(path, {"something_else": np.arange(3)})
    with pytest.raises(DataError, match="cannot be read"):
        open_dataset("sysu_mm01", root)
    write_permutations(path, {(1, 5): np.array([[0, 1], [1, 0]])})
    with pytest.raises(DataError, match="has no file numbers for camera 1, person 5"):
        open_dataset("sysu_mm01", root)
    write_permutations(path, {})
    with pytest.raises(DataError, match="names nobody"):
        open_dataset("sysu_mm01", root)
    monkeypatch.setattr(sysu_mm01, "_MAX_BYTES", 100)
    with pytest.raises(DataError, match="larger than"):
        open_dataset("sysu_mm01", root)


def test_pictures_are_placed_under_cameras_of_their_modality_alone() -> None:
    assert sysu_mm01.picture_path("test", 7, 6, 2, Modality.INFRARED) == Path("cam6/0007/0003.jpg")
    for camid, modality in ((3, Modality.VISIBLE), (1, Modality.INFRARED), (7, Modality.VISIBLE)):
        with pytest.raises(DataError, match="of its six cameras 3 and 6 see infrared"):
            sysu_mm01.picture_path("test", 1, camid, 0, modality)
