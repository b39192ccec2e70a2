"""Anybody's pictures in a plain folder.

Three layouts, looked for in this order; names begin with numbers, everything after them is free:

1. ``train/ query/ gallery/`` (any of them) with files such as ``0007_c2_anything.jpg``;
2. the same folders with a folder for each person and files such as ``c2_anything.jpg`` or ``2_anything.jpg``;
3. a folder for each person and such files directly in the root: no roles, every record says "train".
"""

import re
from pathlib import Path

import numpy as np

from tapetum.core.errors import DataError
from tapetum.core.types import Modality, Record
from tapetum.data.layout import (
    PID_AND_CAMERA,
    Counts,
    find_base,
    list_pictures,
    parse_records,
    require_pictures,
    visible_only,
    visible_protocol,
    write_sample_picture,
    wrong_layout,
)

NAME = "folder"
OBTAIN = "give a folder of person crops"
PROTOCOLS = {
    "folder": visible_protocol(
        "folder", ap="step", source="torchreid, BoT, AGW, TransReID: AP at each hit, queries without match dropped"
    ),
    "folder_trapezoid": visible_protocol(
        "folder_trapezoid",
        ap="trapezoid",
        source="Market-1501 toolkit, layumi, IDF: trapezoidal AP, every query counts",
    ),
}
DEFAULT_PROTOCOL = "folder"
PUBLISHED: dict[str, Counts] = {}
LAYOUTS = (
    "train/, query/ or gallery/ with files such as 0007_c2_anything.jpg",
    "train/, query/ or gallery/ with a folder for each person (0007/c2_anything.jpg)",
    "a folder for each person (0007/c2_anything.jpg)",
)
SPLITS = ("train", "query", "gallery")
PERSON_FOLDER = re.compile(r"-1|\d+")
CAMERA = re.compile(r"(?:(?:-1|\d+)_)?(?:cam|c)(\d+)|(\d+)_")


def read_records(root: Path, *, failures: list[Path] | None = None) -> list[Record]:
    """Records of train, query, gallery, each sorted by file name.

    Args:
        root: the folder.
        failures: collects files whose names cannot be parsed, instead of an error.
    """
    base = find_base(root, dataset=NAME, names=(), obtain=OBTAIN)
    splits = [split for split in SPLITS if (base / split).is_dir()]
    if splits:
        records = [record for split in splits for record in _read_split(base / split, split, failures)]
    elif _person_folders(base):
        records = _read_split(base, "train", failures)
    else:
        raise wrong_layout(base, dataset=NAME, layouts=LAYOUTS)
    require_pictures(records, base, dataset=NAME, failures=failures)
    return records


def _person_folders(folder: Path) -> list[Path]:
    return [child for child in sorted(folder.iterdir()) if child.is_dir() and PERSON_FOLDER.fullmatch(child.name)]


def _read_split(folder: Path, split: str, failures: list[Path] | None) -> list[Record]:
    """Flat names first, then folders of people."""
    records = parse_records(list_pictures(folder), split=split, dataset=NAME, failures=failures, pattern=PID_AND_CAMERA)
    for child in _person_folders(folder):
        for path in list_pictures(child):
            match = CAMERA.match(path.name)
            if match:
                records.append(Record(path, int(child.name), int(match[1] or match[2]), Modality.VISIBLE, split))
            elif failures is None:
                raise DataError(
                    f"{NAME}: the name of {path} gives no camera (expected like c2_anything.jpg or 2_anything.jpg); "
                    f"rename or remove the file ('tapetum data check' lists all of them)"
                )
            else:
                failures.append(path)
    return records


def picture_path(split: str, pid: int, camid: int, index: int, modality: Modality = Modality.VISIBLE) -> Path:
    """Where the first layout keeps a picture, relative to the root.

    Args:
        split: "train", "query" or "gallery".
        pid: identity, -1 for junk.
        camid: camera.
        index: number of the picture under this person, camera and split.
        modality: must be visible.
    """
    visible_only(modality, dataset=NAME)
    person = "-1" if pid < 0 else f"{pid:04d}"
    return Path(split) / f"{person}_c{camid}_{index:06d}.jpg"


def write_miniature(root: Path, rng: np.random.Generator) -> None:
    """Two training and three testing people under two cameras, in the first layout.

    Args:
        root: an empty folder.
        rng: colours of the pictures.
    """
    for pid, camid, index in np.ndindex(5, 2, 3):
        split = "train" if pid < 2 else ("query" if index == 0 else "gallery")
        write_sample_picture(root / picture_path(split, pid, camid + 1, index), rng)
