"""SYSU-MM01: 491 people under four visible and two infrared cameras (Wu et al., ICCV 2017).

Source: the AGW and DEEN releases. Training people are those of ``exp/train_id.txt`` and ``exp/val_id.txt``, testing
people those of ``exp/test_id.txt``; of each file the first line counts. Hi-CMD's release trains without
``exp/val_id.txt``. Cameras 1, 2, 4, 5 see visible light, 3 and 6
infrared. Cameras 2 and 3 stand in one place, so for a query of camera 3 nothing of camera 2 is ranked. Published
galleries are drawn ten times: by the dataset's own ``exp/rand_perm_cam.mat`` where it is there. AGW and DEEN draw
theirs by a seed instead.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tapetum.core.errors import DataError, RecipeError
from tapetum.core.protocol import Protocol, mixed_protocol
from tapetum.core.types import Modality, Record
from tapetum.data.layout import (
    Counts,
    find_base,
    list_pictures_by_folder,
    nobody_shown,
    read_numbers,
    require_modalities,
    require_pictures,
    require_split,
    write_numbers,
    write_sample_picture,
    wrong_layout,
)

NAME = "sysu_mm01"
OBTAIN = "SYSU-MM01 is sent by its authors after a signed agreement (github.com/wuancong/SYSU-MM01); give its folder"
SPLITS = ("train", "test")
CAMERAS = {Modality.VISIBLE: (1, 2, 4, 5), Modality.INFRARED: (3, 6)}
PERMUTATIONS = "rand_perm_cam"
DRAWN_BY = ("file", "seed")
_SHOTS = {"single": 1, "multi": 10}
PROTOCOLS = {
    f"sysu_{search}_{kind}": Protocol(
        f"sysu_{search}_{kind}",
        query_modality=Modality.INFRARED,
        gallery_modality=Modality.VISIBLE,
        query_camids=CAMERAS[Modality.INFRARED],
        gallery_camids=camids,
        junk="none",
        junk_camera_pairs=((3, 2),),
        cmc="identities",
        trials=10,
        drawn="gallery",
        shots=shots,
        source="DEEN release, eval_metrics.py and data_manager.py"
        + (": every infrared query, one picture of a person under a camera" if shots == 1 else "; CM-NAS: ten shots"),
    )
    for search, camids in (("all", CAMERAS[Modality.VISIBLE]), ("indoor", (1, 2)))
    for kind, shots in _SHOTS.items()
} | {"sysu_mixed": mixed_protocol("sysu")}
DEFAULT_PROTOCOL = "sysu_all_single"
PUBLISHED = {
    "train": Counts(34167, 395),
    "train visible": Counts(22258, 395),
    "train infrared": Counts(11909, 395),
    "test": Counts(10578, 96),
    "test visible": Counts(6775, 96),  # what is left of the total
    "test infrared": Counts(3803, 96),
    "total": Counts(44745, 491),
}
PUBLISHED_BY = "people"  # the reading option that chooses of these counts
PUBLISHED_SUBSETS = {
    "train_val": PUBLISHED,
    "train": PUBLISHED  # as Hi-CMD's page has it
    | {
        "train": Counts(30211, 296),
        "train visible": Counts(20284, 296),
        "train infrared": Counts(9927, 296),
        "total": Counts(40789, 392),
    },
}
LAYOUTS = ("cam1/ to cam6/ with a folder for each person (cam1/0001/0001.jpg), and exp/ with train_id.txt and others",)
_MAX_BYTES = 64 * 2**20
_FILES = {"train_val": ("train_id.txt", "val_id.txt"), "train": ("train_id.txt",)}  # of those who train
_TESTED = ("test_id.txt",)


def read_records(root: Path, *, people: str = "train_val", failures: list[Path] | None = None) -> list[Record]:
    """Records of train and test, each sorted by path; the pid is the folder's number.

    Args:
        people: who trains: "train_val" those of both files, "train" those of ``exp/train_id.txt`` alone. The testing
            people are the same.
    Raises:
        RecipeError: `people` is neither.
    """
    base = _find_base(root)
    divided = read_people(base, people=people)
    split_of = {pid: split for split, pids in divided.items() for pid in pids}
    records: dict[str, list[Record]] = {split: [] for split in SPLITS}
    seen = False  # a picture, be it of people whom no file names
    for modality, camids in CAMERAS.items():
        for camid in camids:
            folder = base / f"cam{camid}"
            for path in list_pictures_by_folder(folder) if folder.is_dir() else ():
                seen, person = True, path.parent.name
                split = split_of.get(int(person)) if person.isdecimal() else None
                if split is None:  # the dataset has folders of people whom it does not use
                    continue
                if path.stem.isdecimal():
                    records[split].append(Record(path, int(person), camid, modality, split))
                elif failures is None:
                    raise DataError(
                        f"{NAME}: the name of {path} is no number (expected like cam1/0001/0001.jpg); "
                        f"rename or remove the file ('tapetum data check' lists all of them)"
                    )
                else:
                    failures.append(path)
    for split, group in records.items():
        group.sort(key=lambda record: record.path)
        if seen and not group and not failures:
            files = [base / "exp" / name for name in (_FILES[people] if split == "train" else _TESTED)]
            raise nobody_shown(files, len(divided[split]), folders="cam1/ to cam6/", dataset=NAME)
    everything = [record for group in records.values() for record in group]
    require_pictures(everything, base, dataset=NAME, failures=failures)
    require_modalities(everything, base, dataset=NAME)
    return everything


def read_people(root: Path, *, people: str = "train_val") -> dict[str, list[int]]:
    """The people whom the dataset's own files name: split -> pids.

    Args:
        people: as `read_records` has it.
    Raises:
        DataError: a file is missing or malformed, or somebody is in training and testing.
        RecipeError: `people` is neither.
    """
    if people not in _FILES:
        raise RecipeError(f"{NAME}: people is {people!r}; it must be {' or '.join(_FILES)}")
    folder = _find_base(root) / "exp"
    divided = {
        split: sorted({pid for name in names for pid in read_numbers(folder / name, dataset=NAME)})
        for split, names in (("train", _FILES[people]), ("test", _TESTED))
    }
    both = set(divided["train"]) & set(divided["test"])
    if both:
        raise DataError(f"{NAME}: {folder} has person {min(both)} in training and in testing; copy its files again")
    return divided


def read_permutations(
    root: Path, *, permutations: str = "file"
) -> tuple[dict[tuple[int, int], NDArray[np.int64]], str] | None:
    """The order in which the dataset wants galleries drawn, from ``exp/rand_perm_cam.mat``.

    Args:
        permutations: "file" reads it where it is there; "seed" leaves it aside, as the releases of AGW and DEEN do.
    Returns:
        ((camid, pid) -> (trials, n) file numbers counted from 1, the file's name); None where there is no such file, or
        it is left aside.
    Raises:
        DataError: the file is damaged or holds something else.
        RecipeError: `permutations` is neither.
    """
    if permutations not in DRAWN_BY:
        raise RecipeError(f"{NAME}: permutations is {permutations!r}; it must be {' or '.join(DRAWN_BY)}")
    if permutations == "seed":
        return None
    path = _find_base(root) / "exp" / f"{PERMUTATIONS}.mat"
    if not path.is_file():
        return None
    remedy = "copy it from the dataset again, or set data.options.permutations to seed to draw galleries without it"
    if path.stat().st_size > _MAX_BYTES:
        raise DataError(f"{NAME}: {path} is larger than {_MAX_BYTES // 2**20} MiB; {remedy}")
    from scipy.io import loadmat  # here: the only place that needs it

    try:
        cells = loadmat(path, variable_names=[PERMUTATIONS])[PERMUTATIONS]
        tables = {
            (camera + 1, person + 1): np.atleast_2d(np.asarray(table))
            for camera in range(len(cells))
            for person, table in enumerate(np.atleast_1d(cells[camera][0].squeeze()))
            if np.asarray(table).size
        }
    except Exception as error:  # the library raises whatever a damaged file leads it into
        raise DataError(f"{NAME}: {path} cannot be read ({type(error).__name__}: {error}); {remedy}") from None
    for (camid, pid), table in tables.items():
        numeric = table.ndim == 2 and table.dtype.kind in "iuf"
        if not numeric or bool((table < 1).any()) or bool((table != np.floor(table)).any()):
            raise DataError(f"{NAME}: {path} has no file numbers for camera {camid}, person {pid}; {remedy}")
    if not tables:
        raise DataError(f"{NAME}: {path} names nobody; {remedy}")
    return {key: table.astype(np.int64) for key, table in tables.items()}, path.name


def _find_base(root: Path) -> Path:
    base = find_base(root, dataset=NAME, names=("sysu-mm01", "sysu_mm01", "sysu"), obtain=OBTAIN)
    if not (base / "exp").is_dir() or not any((base / f"cam{camid}").is_dir() for camid in range(1, 7)):
        raise wrong_layout(base, dataset=NAME, layouts=LAYOUTS)
    return base


def picture_path(split: str, pid: int, camid: int, index: int, modality: Modality = Modality.VISIBLE) -> Path:
    """Where this layout keeps a picture, relative to the root; files in ``exp`` say to which split a person belongs.

    Raises:
        DataError: there is no such split or camera.
    """
    require_split(split, SPLITS, dataset=NAME)
    if camid not in CAMERAS[Modality(modality)]:
        known = " and ".join(map(str, CAMERAS[Modality.INFRARED]))
        raise DataError(
            f"{NAME}: of its six cameras {known} see infrared, so there is no {modality.name.lower()} camera {camid}; "
            f"set infrared_cameras to {list(CAMERAS[Modality.INFRARED])} and cameras to 6"
        )
    return Path(f"cam{camid}") / f"{pid:04d}" / f"{index + 1:04d}.jpg"


def write_index(root: Path, entries: Sequence[Record]) -> list[Path]:
    """Write the files that say who trains and who tests; a fourth of the training people stands in ``val_id.txt``."""
    people = {split: sorted({entry.pid for entry in entries if entry.split == split}) for split in SPLITS}
    cut = len(people["train"]) - len(people["train"]) // 4
    files = {
        "train_id.txt": people["train"][:cut],
        "val_id.txt": people["train"][cut:],
        "test_id.txt": people["test"],
    }
    for name, pids in files.items():
        write_numbers(root / "exp" / name, pids)
    return [Path("exp") / name for name in files]


def scene_defaults(cameras: int | None = None) -> dict[str, Any]:
    """Settings of a night scene in this layout: six cameras, of which the third and the sixth see near-infrared."""
    count = 6 if cameras is None else cameras
    return {
        "num_train_people": 90,
        "num_test_people": 60,
        "cameras": count,
        "pictures_per_camera": 3,
        "infrared_cameras": tuple(camid for camid in CAMERAS[Modality.INFRARED] if camid <= count),
        "infrared_band": "near",
        "infrared_likeness": 0.6,  # clothes keep some of their contrasts
        "light_scale": 2.0,  # evening rather than night: SYSU-MM01 is no dataset of low light
    }


def write_miniature(root: Path, rng: np.random.Generator) -> None:
    """Four training and three testing people under cameras 1, 2, 3 and 6."""
    modality_of = {camid: modality for modality, camids in CAMERAS.items() for camid in camids}
    entries = []
    for pid, place, index in np.ndindex(7, 4, 2):
        camid = (1, 2, 3, 6)[place]
        split = "train" if pid < 4 else "test"
        path = picture_path(split, pid + 1, camid, index, modality_of[camid])
        write_sample_picture(root / path, rng)
        entries.append(Record(path, pid + 1, camid, modality_of[camid], split))
    write_index(root, entries)
