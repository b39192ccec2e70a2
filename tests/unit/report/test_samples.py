"""Which people and pictures a sheet of samples shows."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from tapetum.core.errors import DataError
from tapetum.data.datasets import llcm, market1501, regdb
from tapetum.report.samples import collect_samples
from tapetum.runs.sources import NamedRoot, label_roots, parse_named_root


def write_market(root: Path) -> NamedRoot:
    """Eight people, the later the brighter, under three cameras; the last is not seen by the third."""
    for pid, camid, index in np.ndindex(8, 3, 2):
        split = "train" if pid < 4 else ("query" if index == 0 else "gallery")
        if (pid, camid) == (7, 2):
            continue
        path = root / market1501.picture_path(split, pid + 1, camid + 1, index)
        path.parent.mkdir(exist_ok=True, parents=True)
        cv2.imwrite(str(path), np.full((8, 4, 3), 20 * pid + 5 * camid, np.uint8))
    for pid in (-1, 0):
        cv2.imwrite(str(root / market1501.picture_path("gallery", pid, 1, 0)), np.full((8, 4, 3), 250, np.uint8))
    return NamedRoot("market1501", root)


def test_rows_are_people_from_dark_to_bright_and_columns_cameras(tmp_path: Path) -> None:
    (sheet,) = collect_samples([write_market(tmp_path)], people=3)
    assert sheet.title == "market1501"
    assert sheet.cameras == ["camera 1", "camera 2", "camera 3"]
    means = [np.nanmean(row) for row in sheet.lightness]
    assert means == sorted(means)
    numbers = [int(name.removeprefix("person ")) for name in sheet.people]
    assert len(set(numbers)) == 3
    for pid, pictures, lightness in zip(numbers, sheet.pictures, sheet.lightness, strict=True):
        for camid, (picture, light) in enumerate(zip(pictures, lightness, strict=True)):
            assert picture is not None
            assert light == pytest.approx(20 * (pid - 1) + 5 * camid, abs=1)


def test_nobody_s_picture_is_shown_and_a_camera_that_saw_nothing_of_a_person_stays_empty(tmp_path: Path) -> None:
    (sheet,) = collect_samples([write_market(tmp_path)], people=20)
    assert sorted(sheet.people) == [f"person {pid}" for pid in range(1, 9)]
    last = sheet.people.index("person 8")
    assert sheet.pictures[last][2] is None
    assert np.isnan(sheet.lightness[last][2])


def test_the_draw_is_the_same_for_one_seed_and_changes_with_it(tmp_path: Path) -> None:
    source = write_market(tmp_path)
    drawn = [[sheet.people for sheet in collect_samples([source], people=1, seed=seed)] for seed in (0, 0, 1, 2, 3, 4)]
    assert drawn[0] == drawn[1]
    assert len({str(each) for each in drawn}) > 1


def test_visible_and_infrared_cameras_share_the_columns(tmp_path: Path) -> None:
    sources = []
    for module in (llcm, regdb):
        (tmp_path / module.NAME).mkdir()
        module.write_miniature(tmp_path / module.NAME, np.random.default_rng(0))
        sources.append(NamedRoot(module.NAME, tmp_path / module.NAME))
    across, single = collect_samples(sources, people=2, cameras=4)
    kinds = ["infrared" in camera for camera in across.cameras]
    assert kinds == sorted(kinds)
    assert sum(kinds) == 2
    assert single.cameras == ["camera 1", "camera 2 infrared"]
    assert all(picture is not None for row in single.pictures for picture in row)


def test_a_dataset_of_nobody_is_refused(tmp_path: Path) -> None:
    folders = ("bounding_box_train", "query", "bounding_box_test")
    for folder in folders:
        (tmp_path / folder).mkdir()
    cv2.imwrite(str(tmp_path / market1501.picture_path("gallery", 0, 1, 0)), np.zeros((8, 4, 3), np.uint8))
    with pytest.raises(DataError, match="market1501: nobody in it trains or is searched for"):
        collect_samples([NamedRoot("market1501", tmp_path)])


def test_a_dataset_is_named_with_its_folder_and_its_reading_options() -> None:
    one = parse_named_root("knight=/data/Kn,ight,subset=c13")
    assert (one.name, one.root, one.options) == ("knight", Path("/data/Kn,ight"), {"subset": "c13"})
    assert parse_named_root("regdb=/r,trial=3").options == {"trial": 3}
    assert parse_named_root("synth").root is None
    other = parse_named_root("knight=/data/Knight,subset=c12")
    assert label_roots([one, other]) == ["knight (subset=c13)", "knight (subset=c12)"]
    twins = [parse_named_root("market1501=/a/day"), parse_named_root("market1501=/a/night")]
    assert label_roots(twins) == ["market1501 (day)", "market1501 (night)"]
