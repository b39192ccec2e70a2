from pathlib import Path

import numpy as np
import pytest

from tapetum.core.errors import DataError
from tapetum.data.datasets import folder
from tapetum.data.layout import write_sample_picture

RNG = np.random.default_rng(0)


def write(root: Path, *names: str) -> Path:
    for name in names:
        write_sample_picture(root / name, RNG)
    return root


def facts(root: Path) -> list[tuple[str, int, int]]:
    return [(record.split, record.pid, record.camid) for record in folder.read_records(root)]


def test_flat_names_under_roles(tmp_path: Path) -> None:
    write(tmp_path, "query/0007_c2_a.jpg", "gallery/0007_c3.png", "gallery/-1_c3_b.JPG", "gallery/12_c10_x.webp")
    assert facts(tmp_path) == [("query", 7, 2), ("gallery", -1, 3), ("gallery", 7, 3), ("gallery", 12, 10)]


@pytest.mark.parametrize("name", ["c2_a.jpg", "2_a.jpg", "cam2_a.jpg", "0007_c2_a.jpg"])
def test_a_folder_for_each_person_under_roles(tmp_path: Path, name: str) -> None:
    write(tmp_path, f"train/0007/{name}", f"gallery/0009/{name}")
    assert facts(tmp_path) == [("train", 7, 2), ("gallery", 9, 2)]


def test_people_directly_in_the_root_have_no_role(tmp_path: Path) -> None:
    write(tmp_path, "1/3_a.jpg", "2/4_a.jpg")
    assert facts(tmp_path) == [("train", 1, 3), ("train", 2, 4)]


def test_people_with_names_instead_of_numbers_are_a_wrong_layout(tmp_path: Path) -> None:
    write(tmp_path, "alice/c1_a.jpg")
    with pytest.raises(DataError, match=r"looked for .*0007/c2_anything\.jpg.*found alice"):
        folder.read_records(tmp_path)
