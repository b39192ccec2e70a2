import json
from pathlib import Path

import numpy as np

from tapetum.core.types import Modality, Record
from tapetum.data.lighting import PictureStatistics
from tapetum.data.stats import DatasetSize, compute_histograms, count_dataset, each_once

LIGHT = np.array([3.0, 25.5, 51.0, 60.0, 255.0])
HEIGHT = np.array([50.0, 100.0, 200.0, 201.0, 900.0])
STATISTICS = PictureStatistics(LIGHT, HEIGHT, HEIGHT / 2, LIGHT, LIGHT / 2, LIGHT / 4, np.arange(5.0))
RECORDS = [
    Record(Path(f"{i}.jpg"), pid, camid, split=split)
    for i, (pid, camid, split) in enumerate(
        [(1, 1, "train"), (1, 2, "train"), (2, 2, "query"), (2, 5, "gallery"), (-1, 5, "gallery")]
    )
]


def test_every_picture_is_in_one_bar_and_in_one_level() -> None:
    found = compute_histograms(RECORDS, STATISTICS)
    for name in ("light", "scale"):
        assert sum(found[name]["counts"]) == 5
        assert sum(found[name]["levels"].values()) == 5
        assert len(found[name]["edges"]) == len(found[name]["counts"]) + 1
        assert set(found[name]["bounds"]) <= set(found[name]["edges"])
    assert found["light"]["levels"] == {"low": 1, "medium": 2, "high": 2}
    assert found["scale"]["levels"] == {"small": 1, "medium": 2, "big": 2}
    assert found["colour"]["green"]["mean"] == round(float(LIGHT.mean() / 2), 3)
    assert found["noise"]["quartiles"] == [1.0, 2.0, 3.0]


def test_dark_cameras_and_splits_are_named() -> None:
    found = compute_histograms(RECORDS, STATISTICS)
    assert found["cameras"]["1"] == {"pictures": 1, "mean_lightness": 3.0}
    assert found["cameras"]["2"] == {"pictures": 2, "mean_lightness": 38.25}
    assert found["splits"]["gallery"] == {"pictures": 2, "ids": 1}


def test_numbers_are_plain_json() -> None:
    found = compute_histograms(RECORDS, STATISTICS)
    assert json.loads(json.dumps(found)) == found


def test_two_modalities_are_counted_apart_even_under_one_camera_s_number() -> None:
    seen = [(1, 1, 0, "train"), (1, 1, 1, "train"), (2, 1, 1, "train"), (7, 2, 0, "test"), (7, 1, 1, "test")]
    records = [
        Record(Path(f"{i}.jpg"), pid, camid, Modality(side), split) for i, (pid, camid, side, split) in enumerate(seen)
    ]
    found = compute_histograms(records, STATISTICS)
    assert {name: camera["pictures"] for name, camera in found["cameras"].items()} == {
        "1": 1,
        "1 infrared": 3,
        "2": 1,
    }
    assert found["splits"] == {
        "train": {"pictures": 3, "ids": 2, "one_sided": 1},
        "train visible": {"pictures": 1, "ids": 1},
        "train infrared": {"pictures": 2, "ids": 2},
        "test": {"pictures": 2, "ids": 1, "one_sided": 0},
        "test visible": {"pictures": 1, "ids": 1},
        "test infrared": {"pictures": 1, "ids": 1},
    }
    assert json.loads(json.dumps(found)) == found


def test_people_who_are_searched_for_are_counted_and_a_query_in_the_gallery_is_one_picture() -> None:
    seen = [(4, 1, "train"), (4, 2, "train"), (4, 1, "query"), (4, 1, "gallery"), (0, 1, "gallery"), (-1, 3, "gallery")]
    records = [Record(Path(split) / f"{pid}_{camid}.jpg", pid, camid, split=split) for pid, camid, split in seen]
    assert count_dataset(records) == DatasetSize(ids=1, cameras=2, pictures=5)
    assert count_dataset(records, one_person_a_number=False).ids == 2
    assert [record.split for record in each_once(records)] == ["train", "train", "query", "gallery", "gallery"]
    infrared = [*records, Record(Path("x.jpg"), 4, 1, Modality.INFRARED, "query")]
    assert count_dataset(infrared) == DatasetSize(ids=1, cameras=3, pictures=6)
