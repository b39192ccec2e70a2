import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from tapetum.data.check import check_dataset, published_counts
from tapetum.data.datasets import folder, knight, llcm, night600
from tapetum.data.layout import Counts, write_sample_picture

RNG = np.random.default_rng(0)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder.write_miniature(tmp_path, RNG)
    return tmp_path


def test_whole_dataset_has_no_problem(root: Path) -> None:
    report = check_dataset("folder", root)
    assert report.problems == []
    assert [(row.split, row.pictures, row.ids, row.cameras) for row in report.splits] == [
        ("train", 12, 2, 2),
        ("query", 6, 3, 2),
        ("gallery", 12, 3, 2),
        ("total", 30, 5, 2),
    ]


def test_counts_are_held_against_the_published_ones(tmp_path: Path) -> None:
    night600.write_miniature(tmp_path, RNG)
    report = check_dataset("night600", tmp_path)
    assert [row.differs for row in report.splits] == [True, True, True, False]
    assert report.problems[0] == "train: 12 pictures of 2 people; published 14462 of 300"


def test_count_without_published_people_is_compared_by_pictures_alone() -> None:
    from tapetum.data.check import SplitCount

    assert not SplitCount("gallery", 5, 3, 2, Counts(5)).differs
    assert SplitCount("gallery", 6, 3, 2, Counts(5)).differs
    assert SplitCount("gallery", 5, 3, 2, Counts(5, 4)).differs


def test_subset_is_held_against_its_own_counts(tmp_path: Path) -> None:
    assert published_counts("knight", {"subset": "c13"})["total"] == Counts(56889, 176)
    knight.write_miniature(tmp_path, RNG)
    report = check_dataset("knight", tmp_path, options={"subset": "c12"})
    assert report.splits[-1].published == Counts(183430, 474)


def test_queries_that_are_in_the_gallery_are_counted_but_no_problem(tmp_path: Path) -> None:
    night600.write_miniature(tmp_path, RNG)
    report = check_dataset("night600", tmp_path)
    assert report.query_copies == 6
    assert report.duplicates == ()


def test_unparsable_names_are_all_listed(root: Path) -> None:
    for name in ("person.jpg", "12-c3.jpg"):
        write_sample_picture(root / "train" / name, RNG)
    report = check_dataset("folder", root)
    assert [path.name for path in report.name_failures] == ["12-c3.jpg", "person.jpg"]
    assert "2 names without identity and camera of this data set" in report.problems[0]


def test_unreadable_pictures_are_all_listed(root: Path) -> None:
    path = root / "train" / "0000_c1_000000.jpg"
    path.write_bytes(path.read_bytes()[:-10])
    (root / "train" / "0000_c1_000001.jpg").write_text("no picture")
    report = check_dataset("folder", root)
    assert len(report.unreadable) == 2
    assert "0000_c1_000000.jpg" in report.unreadable[0]
    assert report.problems == [f"2 unreadable pictures, e.g. {report.unreadable[0]}"]


def test_duplicates_are_found_by_content_and_mixed_people_stand_out(root: Path) -> None:
    shutil.copy(root / "train" / "0000_c1_000000.jpg", root / "train" / "0000_c2_000009.jpg")
    shutil.copy(root / "gallery" / "0003_c1_000001.jpg", root / "gallery" / "0004_c1_000077.jpg")
    report = check_dataset("folder", root)
    assert [[path.name for path in group] for group in report.duplicates] == [
        ["0000_c1_000000.jpg", "0000_c2_000009.jpg"],
        ["0003_c1_000001.jpg", "0004_c1_000077.jpg"],
    ]
    assert report.mixed_duplicates == report.duplicates[1:]


def test_people_without_pictures_are_found(tmp_path: Path) -> None:
    for pid in (1, 2):
        write_sample_picture(tmp_path / "train" / f"{pid:04d}" / "c1_0.jpg", RNG)
    (tmp_path / "train" / "0003").mkdir()
    report = check_dataset("folder", tmp_path)
    assert [path.name for path in report.empty_ids] == ["0003"]


def test_queries_without_a_match_are_found(root: Path) -> None:
    for path in (root / "gallery").glob("0004_c2_*.jpg"):
        path.unlink()
    report = check_dataset("folder", root)
    assert [path.name for path in report.queries_without_match] == ["0004_c1_000000.jpg"]


def test_progress_reaches_the_total_and_workers_change_nothing(root: Path) -> None:
    seen: list[tuple[int, int]] = []
    report = check_dataset("folder", root, num_workers=0, progress=lambda *state: seen.append(state))
    assert seen[-1] == (30, 30)
    assert report == check_dataset("folder", root, num_workers=3)


def test_a_number_from_hearsay_that_is_not_met_is_shown_but_no_problem() -> None:
    from tapetum.data.check import SplitCount

    assert not SplitCount("train", 5, 3, 2, Counts(6, 3, certain=False)).differs
    assert SplitCount("train", 5, 3, 2, Counts(6, 3)).differs


def test_a_dataset_of_one_modality_is_not_counted_by_modality(root: Path) -> None:
    report = check_dataset("folder", root)
    assert not [row.split for row in report.splits if "visible" in row.split]
    assert report.one_sided == report.absent_people == report.dark == ()
    assert [row.fewest for row in report.splits] == [6, 2, 4, 6]


def test_infrared_pictures_of_sixteen_bits_that_come_out_black_are_listed_with_the_remedy(tmp_path: Path) -> None:
    llcm.write_miniature(tmp_path, RNG)
    pictures = sorted((tmp_path / "test_nir").rglob("*.jpg"))
    for path, largest in zip(pictures, (800, 4095, 4096, 65535), strict=False):
        deep = np.linspace(0, largest, 64 * 32).astype(np.uint16).reshape(64, 32)
        path.write_bytes(cv2.imencode(".png", deep)[1].tobytes())
    report = check_dataset("llcm", tmp_path)
    assert [line.split(" ")[0] for line in report.dark] == [str(path) for path in pictures[:2]]
    assert "largest value 800; convert to 8 bits with 255 for the largest one" in report.dark[0]
    assert any("pictures of 16 bits whose values end below 4096" in line for line in report.problems)
    assert report.unreadable == ()


def test_people_with_names_are_counted_and_what_lies_beside_the_layout_is_a_problem(tmp_path: Path) -> None:
    for name in ("0003/c1_a", "0003 (2)/c1_a", "anna/c1_a", "anna - Copy/c1_a"):
        write_sample_picture(tmp_path / "train" / f"{name}.jpg", RNG)
    write_sample_picture(tmp_path / "val" / "0003" / "c1_a.jpg", RNG)
    (tmp_path / "train" / "bob").mkdir()
    report = check_dataset("folder", tmp_path)
    assert (report.splits[0].pictures, report.splits[0].ids) == (4, 4)
    assert sorted(report.people.values()) == ["0003 (2)", "anna", "anna - Copy"]
    assert report.copied_people == ("'0003 (2)' beside '0003'", "'anna - Copy' beside 'anna'")
    assert [path.name for path in report.empty_ids] == ["bob"]
    assert [path.parent.parent.name for path in report.left_out] == ["val"]
    assert [line.split(",")[0] for line in report.problems] == [
        "1 pictures beside the layout",
        "2 people named like a copy of another",
        "1 people without pictures",
    ]


def test_pictures_that_lost_data_but_not_their_end_mark_are_unreadable(
    root: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    noise = RNG.integers(0, 255, (64, 32, 3), dtype=np.uint8)
    for name, ending in (("0000_c1_000000", ".jpg"), ("0000_c1_000001", ".png")):
        content = bytearray(cv2.imencode(ending, noise)[1].tobytes())
        content[len(content) // 2 : len(content) // 2 + 40] = bytes(40)
        (root / "train" / f"{name}.jpg").write_bytes(content)
    report = check_dataset("folder", root)
    assert [message.split(": ")[0] for message in report.unreadable] == [
        str(root / "train" / f"0000_c1_00000{number}.jpg") for number in (0, 1)
    ]
    assert capfd.readouterr().err == ""
