"""Our own layout: any number of visible and near-infrared cameras, for scenes larger than a published data set.

A folder for each person, and names such as ``0012_c034_vis_00.jpg``. A camera's number stands for a place: what hangs
there in both modalities shares it, and the pictures of a person at the query's place are junk in either. People of the
test are numbered above those of the training.
"""

import re
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
    parse_records,
    require_modalities,
    require_pictures,
    require_split,
    write_sample_picture,
    wrong_layout,
)

NAME = "city"
OBTAIN = "it is generated: tapetum data generate FOLDER --layout city"
SPLITS = ("train", "test")
MOST = 999  # cameras
CAMERAS = {modality: tuple(range(1, MOST + 1)) for modality in Modality}
_SHORT = {Modality.VISIBLE: "vis", Modality.INFRARED: "nir"}


def _protocol(name: str, query: Modality, gallery: Modality) -> Protocol:
    return Protocol(f"city_{name}", query_modality=query, gallery_modality=gallery, source="ours")


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        mixed_protocol(NAME),
        _protocol("vis_to_vis", Modality.VISIBLE, Modality.VISIBLE),
        _protocol("nir_to_vis", Modality.INFRARED, Modality.VISIBLE),
        _protocol("vis_to_nir", Modality.VISIBLE, Modality.INFRARED),
        _protocol("nir_to_nir", Modality.INFRARED, Modality.INFRARED),
    )
}
DEFAULT_PROTOCOL = "city_mixed"
PUBLISHED: dict[str, Counts] = {}
LAYOUTS = ("train/ and test/ with a folder for each person (0012/0012_c034_vis_00.jpg, 0012/0012_c034_nir_00.jpg)",)
NAMES = {modality: re.compile(rf"(\d+)_c(\d+)_{short}_") for modality, short in _SHORT.items()}


def read_records(root: Path, *, failures: list[Path] | None = None) -> list[Record]:
    """Records of train and test, each sorted by path."""
    base = find_base(root, dataset=NAME, names=(NAME,), obtain=OBTAIN)
    folders = [split for split in SPLITS if (base / split).is_dir()]  # a scene may have nobody to train on
    if "test" not in folders:
        raise wrong_layout(base, dataset=NAME, layouts=LAYOUTS)
    records: list[Record] = []
    for split in folders:
        files = list_pictures_by_folder(base / split)
        infrared = [path for path in files if NAMES[Modality.INFRARED].match(path.name)]
        others = sorted(set(files) - set(infrared))  # one with neither word is complained of as a visible one
        for modality, some in ((Modality.VISIBLE, others), (Modality.INFRARED, infrared)):
            records += parse_records(
                some,
                split=split,
                dataset=NAME,
                failures=failures,
                pattern=NAMES[modality],
                modality=modality,
                like=f"0012_c034_{_SHORT[modality]}_00.jpg",
            )
    records.sort(key=lambda record: (SPLITS.index(record.split), record.path))
    require_pictures(records, base, dataset=NAME, failures=failures)
    require_modalities(records, base, dataset=NAME)
    return records


def picture_path(split: str, pid: int, camid: int, index: int, modality: Modality = Modality.VISIBLE) -> Path:
    """Where this layout keeps a picture, relative to the root.

    Raises:
        DataError: there is no such split, or no such camera.
    """
    require_split(split, SPLITS, dataset=NAME)
    if camid not in CAMERAS[Modality(modality)]:
        raise DataError(f"{NAME}: has {modality.name.lower()} cameras 1 to {MOST}, not {camid}; choose among them")
    return Path(split) / f"{pid:04d}" / f"{pid:04d}_c{camid:03d}_{_SHORT[Modality(modality)]}_{index:02d}.jpg"


def scene_defaults(cameras: int | None = None) -> dict[str, Any]:
    """Settings of a night scene in this layout: people pass a few of many places; a near-infrared camera at each.

    Args:
        cameras: number of places; None takes 24.
    """
    places = 24 if cameras is None else cameras
    return {
        "num_train_people": 200,
        "num_test_people": 100,
        "cameras": places,
        "cameras_per_person": min(4, places),
        "pictures_per_camera": 2,
        "paired_cameras": tuple(range(1, places + 1)),
        "infrared_band": "near",
        "infrared_likeness": 0.6,
    }


def write_miniature(root: Path, rng: np.random.Generator) -> None:
    """Two training and three testing people at two places, in both modalities."""
    for pid, camid, modality, index in np.ndindex(5, 2, 2, 2):
        split = "train" if pid < 2 else "test"
        write_sample_picture(root / picture_path(split, pid + 1, camid + 1, index, Modality(modality)), rng)
