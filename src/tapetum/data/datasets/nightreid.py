"""NightReID: 1500 people under six cameras at night, and 1096 distractors (Zhao et al., AAAI 2025).

Source: people, distractors and the total of 53,239 boxes from the readme of msm8976/NightReID; folders, names and the
counts of the default protocol from a public loader and a public method's readme. None of it could be compared with the
pictures, which are given out under an agreement only. What follows the "C" in a name is not documented.

The four protocols are four pairs of folders: 528 or 1000 people are searched for, with or without distractors in the
gallery. `subset` says which is read. All share one folder of training pictures. Of how many people those are is not
stated, nor whether the 528 are among the 1000; nobody may be searched for who also trains, which is checked.
"""

import re
from pathlib import Path

import numpy as np

from tapetum.core.errors import DataError, RecipeError, nearest_name
from tapetum.core.types import Modality, Record
from tapetum.data.layout import (
    Counts,
    find_base,
    list_pictures,
    require_pictures,
    visible_only,
    visible_protocol,
    write_sample_picture,
    wrong_layout,
)

NAME = "nightreid"
OBTAIN = (
    "NightReID is given out by its authors after a signed agreement (github.com/msm8976/NightReID); unpack it and give "
    "its folder"
)
PROTOCOLS = {
    "nightreid": visible_protocol(
        "nightreid",
        ap="step",
        source="the authors' table is of BoT, AGW, TransReID and their kin, whose codes take AP at each hit and drop "
        "queries without match; their own code was not read",
    )
}
DEFAULT_PROTOCOL = "nightreid"
TRAIN = "bounding_box_train"
SUBSETS = {  # people searched for, and whether the gallery has distractors -> folders of queries and gallery
    "528": ("query", "bounding_box_test"),
    "528_no_distractors": ("query", "bounding_box_test-528-noDistractors"),
    "1000": ("query-1000", "bounding_box_test_withDistractors"),
    "1000_no_distractors": ("query-1000", "bounding_box_test-1000-noDistractors"),
}
DEFAULT_SUBSET = "528"
_TRAINING = {"train": Counts(15514, certain=False)}
_OF_528 = _TRAINING | {"query": Counts(1394, 528, certain=False)}
PUBLISHED_BY = "subset"  # the reading option that chooses of these counts
PUBLISHED_SUBSETS = {
    "528": _OF_528 | {"gallery": Counts(26111, certain=False)},
    "528_no_distractors": _OF_528,
    "1000": _TRAINING,
    "1000_no_distractors": _TRAINING,
}
PUBLISHED = PUBLISHED_SUBSETS[DEFAULT_SUBSET]
LAYOUTS = (
    "bounding_box_train/, query/ and bounding_box_test/ (of the other subsets query-1000/, "
    "bounding_box_test-528-noDistractors/, bounding_box_test_withDistractors/ and "
    "bounding_box_test-1000-noDistractors/) with files such as 0002R1C041.jpg",
)
PLACES = ("L1", "L2", "L3", "R1", "R2", "R3")  # as names have them; the first is camera 1
CAMERAS = {Modality.VISIBLE: tuple(range(1, len(PLACES) + 1))}
FILE_NAME = re.compile(r"(\d{4})([LR][123])C")


def read_records(root: Path, *, subset: str = DEFAULT_SUBSET, failures: list[Path] | None = None) -> list[Record]:
    """Records of train, query and gallery, each sorted by file name.

    Args:
        subset: "528" or "1000" people with distractors, "528_no_distractors" or "1000_no_distractors".
    """
    if str(subset) not in SUBSETS:
        raise RecipeError(f"{NAME}: subset {subset!r} is unknown; {nearest_name(str(subset), SUBSETS)}")
    base = find_base(root, dataset=NAME, names=("nightreid",), obtain=OBTAIN)
    query, gallery = SUBSETS[str(subset)]
    folders = {"train": TRAIN, "query": query, "gallery": gallery}
    if not all((base / folder).is_dir() for folder in folders.values()):
        raise wrong_layout(base, dataset=NAME, layouts=LAYOUTS)
    records = [
        record for split, folder in folders.items() for record in _parse(list_pictures(base / folder), split, failures)
    ]
    require_pictures(records, base, dataset=NAME, failures=failures)
    both = {record.pid for record in records if record.split == "train"}
    both &= {record.pid for record in records if record.split == "query"}
    if both:
        raise DataError(
            f"{NAME}: {len(both)} people, first {min(both)}, are both in {base / TRAIN} and in {base / query}; a test "
            "would be of people who were trained on: correct the folders, or read another subset"
        )
    return records


def _parse(paths: list[Path], split: str, failures: list[Path] | None) -> list[Record]:
    records = []
    for path in paths:
        match = FILE_NAME.match(path.name)
        if match:
            records.append(Record(path, int(match[1]), PLACES.index(match[2]) + 1, Modality.VISIBLE, split))
        elif failures is None:
            raise DataError(
                f"{NAME}: the name of {path} gives no identity and camera (expected like 0002R1C041.jpg); rename or "
                "remove the file ('tapetum data check' lists all of them)"
            )
        else:
            failures.append(path)
    return records


def picture_path(split: str, pid: int, camid: int, index: int, modality: Modality = Modality.VISIBLE) -> Path:
    """Where the layout keeps a picture of the default subset, relative to the root.

    Raises:
        DataError: there is no such camera, or the number has no place in a name.
    """
    visible_only(modality, dataset=NAME)
    if camid not in CAMERAS[Modality.VISIBLE]:
        raise DataError(f"{NAME}: has cameras 1 to {len(PLACES)}, not {camid}; choose among them")
    if not 0 <= pid <= 9999:
        raise DataError(f"{NAME}: names have room for persons 0 to 9999, not for {pid}; choose among them")
    folder = dict(zip(("train", "query", "gallery"), (TRAIN, *SUBSETS[DEFAULT_SUBSET]), strict=True))[split]
    return Path(folder) / f"{pid:04d}{PLACES[camid - 1]}C{index:03d}.jpg"


def write_miniature(root: Path, rng: np.random.Generator) -> None:
    """Two training people, two of the 528 and a third of the 1000, a distractor; under two cameras; all subsets."""
    for pid, camid, index in np.ndindex(2, 2, 3):
        write_sample_picture(root / picture_path("train", pid + 1, camid + 3, index), rng)
    for pid, camid, index in np.ndindex(4, 2, 3):
        name = picture_path("query", pid + 3, camid + 3, index).name
        for subset, (query, gallery) in SUBSETS.items():
            searched = pid < (2 if subset.startswith("528") else 3)
            if index == 0 and searched:
                write_sample_picture(root / query / name, rng)
            elif searched or not subset.endswith("_no_distractors"):
                write_sample_picture(root / gallery / name, rng)
