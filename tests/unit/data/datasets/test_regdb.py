"""RegDB: ten trials, two cameras, and lists that say everything."""

from pathlib import Path

import numpy as np
import pytest

from tapetum.core.errors import DataError, RecipeError
from tapetum.core.types import Modality
from tapetum.data.catalog import open_dataset
from tapetum.data.check import check_dataset
from tapetum.data.datasets import regdb


@pytest.fixture
def root(tmp_path: Path) -> Path:
    regdb.write_miniature(tmp_path, np.random.default_rng(0))
    return tmp_path


def people(root: Path, trial: int, split: str) -> set[str]:
    return {r.path.parent.name for r in regdb.read_records(root, trial=trial) if r.split == split}


def test_a_trial_divides_the_people_and_others_divide_them_anew(root: Path) -> None:
    assert people(root, 1, "train") == {"1", "2"}
    divisions = set()
    for trial in range(1, 11):
        training, testing = people(root, trial, "train"), people(root, trial, "test")
        assert len(training) == len(testing) == 2
        assert training | testing == {"1", "2", "3", "4"}
        divisions.add(frozenset(training))
    assert len(divisions) > 1


def test_camera_one_is_visible_and_camera_two_thermal_whatever_the_root_is_called(tmp_path: Path) -> None:
    root = tmp_path / "cam2_Thermal" / "RegDB"
    regdb.write_miniature(root, np.random.default_rng(0))
    for record in regdb.read_records(root.parent):
        thermal = record.path.relative_to(root).parts[0] == "Thermal"
        assert (record.camid, record.modality) == ((2, Modality.INFRARED) if thermal else (1, Modality.VISIBLE))


@pytest.mark.parametrize("trial", [0, 11, -1, 1.0, "2", True, None])
def test_a_trial_outside_one_to_ten_is_refused_with_the_range(root: Path, trial: object) -> None:
    with pytest.raises(RecipeError, match=r"trial is .*; it must be a whole number from 1 to 10"):
        open_dataset("regdb", root, options={"trial": trial})


def test_every_picture_of_the_other_modality_is_ranked_and_pictures_are_counted(root: Path) -> None:
    dataset = open_dataset("regdb", root, options={"trial": 3})
    for name, query in (("regdb_vis_to_ir", Modality.VISIBLE), ("regdb_ir_to_vis", Modality.INFRARED)):
        rules = dataset.protocol(name)
        assert (rules.junk, rules.cmc, rules.trials, rules.drawn) == ("none", "pictures", 1, None)
        assert {r.modality for r in dataset.side("query", name)} == {query}
        assert {r.modality for r in dataset.side("gallery", name)} == {Modality(1 - query)}
        assert len(dataset.side("query", name)) == len(dataset.side("gallery", name)) == 6


def test_numbers_of_training_and_testing_people_start_anew(root: Path) -> None:
    records = regdb.read_records(root)
    assert {r.pid for r in records if r.split == "train"} == {r.pid for r in records if r.split == "test"} == {0, 1}
    report = check_dataset("regdb", root)
    assert report.splits[-1].ids == 4
    assert report.duplicates == ()
    assert report.queries_without_match == ()


def test_a_missing_modality_is_named(root: Path) -> None:
    (root / "idx" / "test_thermal_1.txt").write_text("\n")
    with pytest.raises(DataError, match=r"no infrared picture of split 'test' in .* \(6 visible ones\)"):
        regdb.read_records(root)
    assert len(regdb.read_records(root, trial=2)) == 24


def test_the_lists_of_a_trial_that_is_not_there_are_named(root: Path) -> None:
    (root / "idx" / "train_thermal_7.txt").unlink()
    with pytest.raises(DataError, match=r"train_thermal_7\.txt cannot be read"):
        regdb.read_records(root, trial=7)


def test_absent_pictures_are_counted_and_malformed_lines_quoted(root: Path) -> None:
    (root / "Visible" / "3" / "3_v_00001.jpg").unlink()
    with pytest.raises(
        DataError, match=r"1 of 6 pictures .*test_visible_1\.txt are missing, first Visible/3/3_v_00001"
    ):
        regdb.read_records(root)
    path = root / "idx" / "train_visible_1.txt"
    path.write_text("Visible/1/1_v_00000.jpg\t0\nVisible/1/1_v_00001.jpg;0\n")
    with pytest.raises(DataError, match=r"line 2 of .*train_visible_1\.txt is 'Visible/1/1_v_00001\.jpg;0'"):
        regdb.read_records(root)


def test_only_the_second_camera_sees_infrared() -> None:
    for camid, modality in ((2, Modality.VISIBLE), (1, Modality.INFRARED), (3, Modality.INFRARED)):
        with pytest.raises(DataError, match="camera 1 is visible and camera 2 infrared"):
            regdb.picture_path("train", 1, camid, 0, modality)
