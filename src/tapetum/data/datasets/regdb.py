"""RegDB: 412 people, ten visible and ten thermal pictures of each (Nguyen et al., Sensors 2017).

Source: the DEEN release for lists and rules. Ten lists each divide the people anew into 206 for training and 206 for
testing: a trial is a training of its own, and published numbers are means over ten of them. The numbers in a list
count its people from 0, so a number in training and the same number in testing are two people. There are two cameras,
one of each modality, and so no junk.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tapetum.core.errors import DataError, RecipeError
from tapetum.core.protocol import Protocol, mixed_protocol
from tapetum.core.seeding import numpy_generator
from tapetum.core.types import Modality, Record
from tapetum.data.layout import (
    Counts,
    find_base,
    read_list,
    require_modalities,
    require_pictures,
    require_split,
    write_list,
    write_sample_picture,
    wrong_layout,
)

NAME = "regdb"
OBTAIN = "RegDB is sent by the laboratory that made it (Dongguk University) after a signed agreement; give its folder"
SPLITS = ("train", "test")
CAMERAS = {Modality.VISIBLE: (1,), Modality.INFRARED: (2,)}
PIDS_START_ANEW = True  # equal numbers in training and testing are different people
DIVIDED_BY = ("trial",)  # other trials test people whom this one trains on
TRIALS = 10
_SOURCE = "DEEN release, eval_metrics.py: every picture of the other modality, CMC over pictures; a trial is a split"
PROTOCOLS = {
    "regdb_vis_to_ir": Protocol(
        "regdb_vis_to_ir",
        query_modality=Modality.VISIBLE,
        gallery_modality=Modality.INFRARED,
        junk="none",
        source=_SOURCE,
    ),
    "regdb_ir_to_vis": Protocol(
        "regdb_ir_to_vis",
        query_modality=Modality.INFRARED,
        gallery_modality=Modality.VISIBLE,
        junk="none",
        source=_SOURCE,
    ),
} | {"regdb_mixed": mixed_protocol("regdb")}
DEFAULT_PROTOCOL = "regdb_vis_to_ir"
PUBLISHED = {
    **{f"{split} {side}": Counts(2060, 206) for split in SPLITS for side in ("visible", "infrared")},
    **{split: Counts(4120, 206) for split in SPLITS},
    "total": Counts(8240, 412),
}
LAYOUTS = (
    "idx/ with train_visible_1.txt, train_thermal_1.txt, test_visible_1.txt, test_thermal_1.txt (to 10) "
    "and the pictures that they name (Visible/ and Thermal/)",
)
_FOLDERS = {Modality.VISIBLE: "Visible", Modality.INFRARED: "Thermal"}


def read_records(root: Path, *, trial: int = 1, failures: list[Path] | None = None) -> list[Record]:
    """Records of one trial: train and test, each sorted by path; the pid is the list's number.

    Raises:
        RecipeError: there is no such trial.
    """
    if isinstance(trial, bool) or not isinstance(trial, int) or not 1 <= trial <= TRIALS:
        raise RecipeError(f"{NAME}: trial is {trial!r}; it must be a whole number from 1 to {TRIALS}")
    base = find_base(root, dataset=NAME, names=("regdb",), obtain=OBTAIN)
    if not (base / "idx").is_dir():
        raise wrong_layout(base, dataset=NAME, layouts=LAYOUTS)
    records = []
    for split in SPLITS:
        pictures = [
            Record(entry.path, entry.label, CAMERAS[modality][0], modality, split)
            for modality, folder in _FOLDERS.items()
            for entry in read_list(base, f"idx/{split}_{folder.lower()}_{trial}.txt", dataset=NAME)
        ]
        require_pictures(pictures, base, dataset=NAME, failures=failures)
        records += sorted(pictures, key=lambda record: record.path)
    require_modalities(records, base, dataset=NAME)
    return records


def picture_path(split: str, pid: int, camid: int, index: int, modality: Modality = Modality.VISIBLE) -> Path:
    """Where this layout keeps a picture, relative to the root; the lists say to which split it belongs.

    Raises:
        DataError: there is no such split or camera.
    """
    require_split(split, SPLITS, dataset=NAME)
    if camid not in CAMERAS[Modality(modality)]:
        raise DataError(
            f"{NAME}: camera 1 is visible and camera 2 infrared, there is no {modality.name.lower()} camera {camid}; "
            "choose two cameras of which the second sees infrared"
        )
    folder = _FOLDERS[Modality(modality)]
    return Path(folder) / str(pid) / f"{pid}_{folder[0].lower()}_{index:05d}.jpg"


def write_index(root: Path, entries: Sequence[Record]) -> list[Path]:
    """Write the lists of all ten trials.

    The first divides the people as the entries say; each other one draws as many people for training anew.
    """
    people = sorted({entry.pid for entry in entries})
    training = {entry.pid for entry in entries if entry.split == "train"}
    paths = []
    for trial in range(1, TRIALS + 1):
        if trial > 1:
            order = numpy_generator(trial, NAME, "trial").permutation(people)
            training = set(order[: len(training)].tolist())
        for split in SPLITS:
            pids = [pid for pid in people if (pid in training) == (split == "train")]
            numbers = {pid: number for number, pid in enumerate(pids)}
            for modality, folder in _FOLDERS.items():
                pictures = [e for e in entries if e.modality == modality and e.pid in numbers]
                paths.append(Path("idx") / f"{split}_{folder.lower()}_{trial}.txt")
                write_list(root / paths[-1], sorted((e.path, numbers[e.pid]) for e in pictures))
    return paths


def scene_defaults(cameras: int | None = None) -> dict[str, Any]:
    """Settings of a night scene in this layout: a visible and a thermal camera, ten pictures from each."""
    return {
        "num_train_people": 80,
        "num_test_people": 80,
        "cameras": 2 if cameras is None else cameras,
        "pictures_per_camera": 10,
        "infrared_cameras": (2,),
        "infrared_band": "thermal",
        "light_scale": 4.0,  # dusk: the visible pictures of RegDB are none of low light
    }


def write_miniature(root: Path, rng: np.random.Generator) -> None:
    """Two training and two testing people with three pictures in each modality, and the lists of ten trials."""
    entries = []
    for pid, modality, index in np.ndindex(4, 2, 3):
        camid = CAMERAS[Modality(modality)][0]
        path = picture_path("train", pid + 1, camid, index, Modality(modality))
        write_sample_picture(root / path, rng)
        entries.append(Record(path, pid + 1, camid, Modality(modality), "train" if pid < 2 else "test"))
    write_index(root, entries)
