"""LLCM: 1,064 people under nine visible and nine near-infrared cameras in low light (Zhang and Wang, CVPR 2023).

Source: the DEEN release for lists, folders and rules; public loaders for the names of the files. Training pictures are
named by lists whose numbers count the training people from 0; testing pictures lie in a tree whose folders are people.
So a number in training and the same number in testing are two people. A camera's number is shared by both modalities,
and the pictures of a person under a camera of the query's number are junk in either modality.

Two things go by two names each. The authors corrected their pictures and ask to cite the table of the revision: the
release ("original", "revised") is part of a protocol's name, as files do not tell it. And the released test script
turns visible-to-infrared round: infrared pictures drawn one by one search among all visible ones.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tapetum.core.errors import DataError
from tapetum.core.protocol import Protocol, mixed_protocol
from tapetum.core.types import Modality, Record
from tapetum.data.layout import (
    Counts,
    find_base,
    list_pictures_by_folder,
    nobody_shown,
    read_list,
    read_numbers,
    require_modalities,
    require_pictures,
    require_split,
    write_list,
    write_numbers,
    write_sample_picture,
    wrong_layout,
)

NAME = "llcm"
OBTAIN = "LLCM is sent by its authors after a signed agreement (github.com/ZYK100/LLCM); unpack it and give its folder"
SPLITS = ("train", "test")
CAMERAS = {Modality.VISIBLE: tuple(range(1, 10)), Modality.INFRARED: (1, 2, 4, 5, 6, 7, 8, 9)}  # of the test
PIDS_START_ANEW = True  # equal numbers in training and testing are different people
RELEASES = ("original", "revised")


def _protocol(name: str, query: Modality, drawn: str) -> Protocol:
    gallery = Modality(1 - query)
    return Protocol(
        name,
        query_modality=query,
        gallery_modality=gallery,
        query_camids=CAMERAS[query],
        gallery_camids=CAMERAS[gallery],
        cmc="identities",
        trials=10,
        drawn="query" if drawn == "query" else "gallery",
        source="DEEN release, eval_metrics.py and "
        + ("test.py: its [2, 1] branch transposes the matrix" if drawn == "query" else "data_manager.py"),
    )


PROTOCOLS = {
    name: _protocol(name, query, drawn)
    for release in RELEASES
    for name, query, drawn in (
        (f"llcm_{release}_nir_to_vis", Modality.INFRARED, "gallery"),
        (f"llcm_{release}_vis_to_nir", Modality.VISIBLE, "gallery"),
        (f"llcm_{release}_vis_to_nir_released_script", Modality.INFRARED, "query"),
    )
} | {"llcm_mixed": mixed_protocol("llcm")}
DEFAULT_PROTOCOL = "llcm_revised_nir_to_vis"
PUBLISHED = {  # the poster gives the total and the people; the parts are a third party's, and add up to it
    "train": Counts(30921, 713, certain=False),
    "train visible": Counts(16946, 713, certain=False),
    "train infrared": Counts(13975, 713, certain=False),
    "test": Counts(15846, 351, certain=False),
    "test visible": Counts(8680, 351, certain=False),
    "test infrared": Counts(7166, 351, certain=False),
    "total": Counts(46767, 1064),
}
LAYOUTS = (
    "idx/ (train_vis.txt, train_nir.txt, test_id.txt) with test_vis/ and test_nir/ (cam1/0012/ and so on), "
    "and the pictures that the lists name (vis/0001/0001_c01_s185535_f7010_vis.jpg)",
)
TRAINING_NAME = re.compile(r"(\d+)_c(\d+)_")
CAMERA_FOLDER = re.compile(r"cam(\d+)")
_SHORT = {Modality.VISIBLE: "vis", Modality.INFRARED: "nir"}


def read_records(root: Path, *, failures: list[Path] | None = None) -> list[Record]:
    """Records of train and test, each sorted by path; the pid is the list's number, or the folder's in the test."""
    base = _find_base(root)
    training: list[Record] = []
    for modality, short in _SHORT.items():
        for entry in read_list(base, f"idx/train_{short}.txt", dataset=NAME):
            match = TRAINING_NAME.match(entry.path.name)
            if match:
                training.append(Record(entry.path, entry.label, int(match[2]), modality, "train"))
            elif failures is None:
                raise DataError(
                    f"{NAME}: the name of {entry.path} gives no camera (expected like 0001_c01_s185535_f7010_vis.jpg); "
                    f"correct line {entry.line} of idx/train_{short}.txt ('tapetum data check' lists all of them)"
                )
            else:
                failures.append(entry.path)
    people = set(read_people(base)["test"])
    tree = [
        Record(path, int(path.parent.name), camid, modality, "test")
        for modality, short in _SHORT.items()
        for camid, folder in _camera_folders(base / f"test_{short}")
        for path in list_pictures_by_folder(folder)
        if path.parent.name.isdecimal()
    ]
    testing = [record for record in tree if record.pid in people]
    records = sorted(training, key=lambda record: record.path) + sorted(testing, key=lambda record: record.path)
    require_pictures(records, base, dataset=NAME, failures=failures)
    require_modalities(records, base, dataset=NAME)
    if tree and not testing:
        file = base / "idx" / "test_id.txt"
        raise nobody_shown([file], len(people), folders="test_vis/ or test_nir/", dataset=NAME)
    if not testing:
        raise DataError(f"{NAME}: no picture in test_vis/ and test_nir/ of {base}; unpack them there")
    return records


def read_people(root: Path) -> dict[str, list[int]]:
    """The people whom the dataset's own file names: "test" -> pids."""
    return {"test": read_numbers(_find_base(root) / "idx" / "test_id.txt", dataset=NAME)}


def _find_base(root: Path) -> Path:
    base = find_base(root, dataset=NAME, names=("llcm",), obtain=OBTAIN)
    if not (base / "idx").is_dir():
        raise wrong_layout(base, dataset=NAME, layouts=LAYOUTS)
    return base


def _camera_folders(folder: Path) -> list[tuple[int, Path]]:
    """(camera, folder) of ``cam1`` and so on; nothing where the folder is missing."""
    if not folder.is_dir():
        return []
    matches = ((CAMERA_FOLDER.fullmatch(child.name), child) for child in sorted(folder.iterdir()) if child.is_dir())
    return [(int(match[1]), child) for match, child in matches if match]


def picture_path(split: str, pid: int, camid: int, index: int, modality: Modality = Modality.VISIBLE) -> Path:
    """Where this layout keeps a picture, relative to the root.

    Raises:
        DataError: there is no such split, or the test has no such camera.
    """
    require_split(split, SPLITS, dataset=NAME)
    short = _SHORT[Modality(modality)]
    name = f"{pid:04d}_c{camid:02d}_s000000_f{index:04d}_{short}.jpg"
    if split == "train":
        return Path(short) / f"{pid:04d}" / name
    if camid not in CAMERAS[Modality(modality)]:
        known = ", ".join(map(str, CAMERAS[Modality(modality)]))
        raise DataError(f"{NAME}: its test has {modality.name.lower()} cameras {known}, not {camid}; choose among them")
    return Path(f"test_{short}") / f"cam{camid}" / f"{pid:04d}" / name


def write_index(root: Path, entries: Sequence[Record]) -> list[Path]:
    """Write the lists of a dataset whose pictures are there."""
    paths = []
    for split in SPLITS:
        members = [entry for entry in entries if entry.split == split]
        numbers = {pid: number for number, pid in enumerate(sorted({entry.pid for entry in members}))}
        for modality, short in _SHORT.items():
            pictures = sorted((entry.path, numbers[entry.pid]) for entry in members if entry.modality == modality)
            paths.append(Path("idx") / f"{split}_{short}.txt")
            write_list(root / paths[-1], pictures)
    paths.append(Path("idx") / "test_id.txt")
    write_numbers(root / paths[-1], sorted({entry.pid for entry in entries if entry.split == "test"}))
    return paths


def scene_defaults(cameras: int | None = None) -> dict[str, Any]:
    """Settings of a night scene in this layout: at every place a visible and a near-infrared camera of one number.

    Args:
        cameras: number of places; None takes four. The third has no near-infrared camera, as in the test of LLCM.
    """
    places = 4 if cameras is None else cameras
    return {
        "num_train_people": 80,
        "num_test_people": 60,
        "cameras": places,
        "pictures_per_camera": 3,
        "paired_cameras": tuple(camid for camid in range(1, places + 1) if camid in CAMERAS[Modality.INFRARED]),
        "infrared_band": "near",
        "infrared_likeness": 0.6,  # clothes keep some of their contrasts
    }


def write_miniature(root: Path, rng: np.random.Generator) -> None:
    """Two training and three testing people under two cameras of both modalities."""
    entries = []
    for pid, camid, modality, index in np.ndindex(5, 2, 2, 2):
        split = "train" if pid < 2 else "test"
        path = picture_path(split, pid + 1, camid + 1, index, Modality(modality))
        write_sample_picture(root / path, rng)
        entries.append(Record(path, pid + 1, camid + 1, Modality(modality), split))
    write_index(root, entries)
