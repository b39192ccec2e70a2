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


def people(root: Path) -> list[tuple[str, str, int]]:
    return [(record.split, record.person or str(record.pid), record.camid) for record in folder.read_records(root)]


@pytest.mark.parametrize(
    "person",
    ["P0004", "0003 (2)", "anna", "Jürgen Groß", "王小明", "иван_петров", "2026112021000000000001", "7b", "p.7"],
)
def test_people_may_have_any_name_in_either_layout(tmp_path: Path, person: str) -> None:
    write(tmp_path, f"query/{person}_c1_a.jpg", f"gallery/{person}/c2_a.jpg", f"gallery/{person}/{person}_cam2_b.jpg")
    assert people(tmp_path) == [("query", person, 1), ("gallery", person, 2), ("gallery", person, 2)]
    assert len({record.pid for record in folder.read_records(tmp_path)}) == 1


def test_people_with_names_may_lie_directly_in_the_root(tmp_path: Path) -> None:
    write(tmp_path, "alice/c1_a.jpg", "bob/cam2_a.jpg", "12/c1_a.jpg")
    assert people(tmp_path) == [("train", "12", 1), ("train", "alice", 1), ("train", "bob", 2)]


def test_the_pid_of_a_name_depends_on_nothing_else_and_fits_every_whole_number(tmp_path: Path) -> None:
    alone = folder.read_records(write(tmp_path / "a", "train/anna_c1_a.jpg"))[0].pid
    among = folder.read_records(
        write(tmp_path / "b", "train/aaron/c1_a.jpg", "train/anna/c1_a.jpg", "train/7/c1_a.jpg")
    )
    assert [record.pid for record in among if record.person == "anna"] == [alone]
    assert 2**52 <= alone < 2**53
    assert alone == int(float(alone))


def test_one_name_in_the_two_ways_of_writing_an_accent_is_one_person(tmp_path: Path) -> None:
    write(tmp_path, "query/Ren\u00e9_c1_a.jpg", "gallery/Rene\u0301/c2_a.jpg")
    assert people(tmp_path) == [("query", "Ren\u00e9", 1), ("gallery", "Ren\u00e9", 2)]


@pytest.mark.parametrize(("one", "other"), [("7", "007"), ("12", "0012"), ("3", "\u0663")])
def test_two_spellings_of_one_number_are_refused(tmp_path: Path, one: str, other: str) -> None:
    write(tmp_path, f"query/{one}_c1_a.jpg", f"gallery/{other}/c2_a.jpg")
    for failures in (None, []):
        with pytest.raises(DataError, match=rf"the people '{one}' and '{other}'|the people '{other}' and '{one}'"):
            folder.read_records(tmp_path, failures=failures)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("0001_c2_f0046182.jpg", ("1", 2)),  # DukeMTMC-reID
        ("0001_c1s1_000151_01.jpg", ("1", 1)),  # Market-1501
        ("-1_c3s1_000151_01.jpg", ("-1", 3)),
        ("0000_000_01_0303morning_0008_0.jpg", ("0", 1)),  # MSMT17
        ("0012_cam4_7.png", ("12", 4)),
        ("anna-c2.jpg", None),
        ("001_1_c2_015833.png", None),  # LTCC: person and clothes
        ("1_001_1_01.png", None),  # CUHK03: a pair of cameras, person, camera, picture
        ("photo_c4d_render.png", None),
        ("A_cropped_rgb001.jpg", None),
    ],
)
def test_schemes_of_names_that_circulate_are_read_rightly_or_named(
    tmp_path: Path, name: str, expected: tuple[str, int] | None
) -> None:
    write(tmp_path, f"train/{name}")
    failures: list[Path] = []
    found = [(r.person or str(r.pid), r.camid) for r in folder.read_records(tmp_path, failures=failures)]
    assert found == ([] if expected is None else [expected])
    assert failures == ([] if expected else [tmp_path / "train" / name])
    if expected is None:
        with pytest.raises(
            DataError, match=r"the names of 1 pictures give no identity and camera .*first .*in train of"
        ):
            folder.read_records(tmp_path)


@pytest.mark.parametrize(
    ("name", "camid"),
    [
        ("0012C3T0001F001.jpg", 3),  # MARS
        ("0012_C4_F0001.jpg", 4),  # DukeMTMC-VideoReID
        ("0012_004_05_0303noon_0008_0.jpg", 5),  # MSMT17
    ],
)
def test_schemes_of_names_within_folders_of_people_are_read_rightly(tmp_path: Path, name: str, camid: int) -> None:
    assert facts(write(tmp_path, f"train/0012/{name}")) == [("train", 12, camid)]


def test_a_number_that_repeats_the_persons_is_no_camera(tmp_path: Path) -> None:
    write(tmp_path, "train/0001/0001_a.jpg", "train/0002/0002_a.jpg", "train/0002/0002_b.jpg")
    failures: list[Path] = []
    assert folder.read_records(tmp_path, failures=failures) == []
    assert [path.name for path in failures] == ["0001_a.jpg", "0002_a.jpg", "0002_b.jpg"]
    write(tmp_path, "train/0003/2_a.jpg")  # elsewhere such a number is the camera, as documented
    assert len(folder.read_records(tmp_path)) == 4


def test_a_bare_number_is_a_camera_only_in_a_folder_that_is_a_number(tmp_path: Path) -> None:
    write(tmp_path, "train/7/2_a.jpg", "train/all of them/0001_a.jpg", "train/all of them/0002_a.jpg")
    failures: list[Path] = []
    assert [record.camid for record in folder.read_records(tmp_path, failures=failures)] == [2]
    assert [path.parent.name for path in failures] == ["all of them"] * 2


def test_folders_that_hold_many_people_are_no_person(tmp_path: Path) -> None:
    write(tmp_path, "bounding_box_train/0001_c1s1_000151_01.jpg", "bounding_box_test/0002_c1s1_000151_01.jpg")
    with pytest.raises(DataError, match=r"the names of 2 pictures .* in bounding_box_test, bounding_box_train of"):
        folder.read_records(tmp_path)


def test_every_picture_on_the_disk_is_read_or_named(tmp_path: Path) -> None:
    write(
        tmp_path,
        *("train/0001/c1_a.jpg", "train/anna/c1_a.jpg", "train/anna/holiday.jpg", "train/0001/deeper/c1_a.jpg"),
        *("train/nothing.jpg", "val/0009/c1_a.jpg", "cover.jpg", "train/.hidden/c1_a.jpg"),
    )
    failures: list[Path] = []
    records = folder.read_records(tmp_path, failures=failures)
    left_out = folder.read_left_out(tmp_path)
    assert [path.name for path in left_out] == ["cover.jpg", "c1_a.jpg"]
    on_disk = {path for path in tmp_path.rglob("*.jpg") if ".hidden" not in path.parts}
    assert {record.path for record in records} | set(failures) | set(left_out) == on_disk
    assert len(records) + len(failures) + len(left_out) == len(on_disk)
    with pytest.raises(DataError, match=r"the names of 3 pictures .* in train, train/0001/deeper, train/anna of"):
        folder.read_records(tmp_path)
