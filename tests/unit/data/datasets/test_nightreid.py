from pathlib import Path

import numpy as np
import pytest

from tapetum.core.errors import DataError, RecipeError
from tapetum.data.catalog import open_dataset
from tapetum.data.check import published_counts
from tapetum.data.datasets import nightreid
from tapetum.data.layout import Counts, write_sample_picture


@pytest.fixture
def root(tmp_path: Path) -> Path:
    nightreid.write_miniature(tmp_path, np.random.default_rng(0))
    return tmp_path


def test_a_name_gives_person_and_one_of_six_cameras(root: Path) -> None:
    write_sample_picture(root / "query" / "0003R1C041.jpg", np.random.default_rng(1))
    found = {(each.path.name, each.pid, each.camid) for each in nightreid.read_records(root)}
    assert ("0003R1C041.jpg", 3, 4) in found
    assert ("0001L3C000.jpg", 1, 3) in found


@pytest.mark.parametrize(
    ("subset", "searched", "gallery"),
    [
        ("528", {3, 4}, {3, 4, 5, 6}),
        ("528_no_distractors", {3, 4}, {3, 4}),
        ("1000", {3, 4, 5}, {3, 4, 5, 6}),
        ("1000_no_distractors", {3, 4, 5}, {3, 4, 5}),
    ],
)
def test_the_four_protocols_are_four_pairs_of_folders(
    root: Path, subset: str, searched: set[int], gallery: set[int]
) -> None:
    dataset = open_dataset("nightreid", root, options={"subset": subset})
    assert {record.pid for record in dataset.split("train")} == {1, 2}
    assert {record.pid for record in dataset.side("query")} == searched
    assert {record.pid for record in dataset.side("gallery")} == gallery
    assert published_counts("nightreid", {"subset": subset})["train"] == Counts(15514, certain=False)


def test_a_subset_written_as_a_number_is_that_subset_and_an_unknown_one_is_refused(root: Path) -> None:
    as_number = open_dataset("nightreid", root, options={"subset": 1000})
    assert as_number.records == open_dataset("nightreid", root, options={"subset": "1000"}).records
    assert published_counts("nightreid", {"subset": 1000}) == published_counts("nightreid", {"subset": "1000"})
    with pytest.raises(RecipeError, match="did you mean 1000_no_distractors"):
        nightreid.read_records(root, subset="1000_no_distractor")


def test_people_who_train_are_never_searched_for(root: Path) -> None:
    write_sample_picture(root / "query-1000" / "0002L1C000.jpg", np.random.default_rng(1))
    assert nightreid.read_records(root)
    with pytest.raises(DataError, match="1 people, first 2, are both in"):
        nightreid.read_records(root, subset="1000")


def test_a_subset_without_its_folders_names_the_layout(root: Path) -> None:
    (root / "query-1000").rename(root / "elsewhere")
    with pytest.raises(DataError, match="query-1000/"):
        nightreid.read_records(root, subset="1000")


def test_what_has_no_place_in_the_layout_is_refused() -> None:
    with pytest.raises(DataError, match="has cameras 1 to 6, not 7"):
        nightreid.picture_path("train", 1, 7, 0)
    with pytest.raises(DataError, match="not for -1"):
        nightreid.picture_path("gallery", -1, 1, 0)
