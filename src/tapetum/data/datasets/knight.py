"""Knight: 937 people under three cameras at night, in three subsets of two cameras (Zhang et al., 2019).

Source: counts from the IDF paper's table; layouts and the even/odd split from a public converter (not checked against
the authors' split, which is unpublished). A subset holds the people seen by both of its cameras.
"""

import json
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from tapetum.core.errors import DataError, RecipeError, nearest_name
from tapetum.core.types import Modality, Record
from tapetum.data.layout import (
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

NAME = "knight"
OBTAIN = "Knight is sent by its authors on request; unpack it and give its folder"
PROTOCOLS = {
    "knight": visible_protocol(
        "knight", ap="trapezoid", source="IDF release, evaluate_gpu.py: trapezoidal AP, every query in the denominator"
    ),
    "knight_step": visible_protocol(
        "knight_step", ap="step", source="torchreid, BoT, AGW, TransReID: AP at each hit, queries without match dropped"
    ),
}
DEFAULT_PROTOCOL = "knight"
SUBSETS = {"c12": (1, 2), "c13": (1, 3), "c23": (2, 3)}
CAMERAS = {Modality.VISIBLE: SUBSETS["c12"]}  # that `picture_path` has a place for
PUBLISHED_BY = "subset"  # the reading option that chooses of these counts
PUBLISHED_SUBSETS = {  # the IDF paper; the three overlap
    "c12": {"total": Counts(183430, 474)},
    "c13": {"total": Counts(56889, 176)},
    "c23": {"total": Counts(153547, 639)},
}
DEFAULT_SUBSET = "c12"
PUBLISHED = PUBLISHED_SUBSETS[DEFAULT_SUBSET]
LAYOUTS = (
    "Person/ (or NightPerson/Person/) with a folder for each person (0001/cam1_000123.jpg)",
    "NightPerson_C12_MT/ (C13, C23) with bounding_box_train/, query/ and bounding_box_test/ (0001_c1_000123.jpg)",
)
CONVERTED = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}
RAW_NAME = re.compile(r"cam(\d+)")


def read_records(
    root: Path,
    *,
    subset: str = DEFAULT_SUBSET,
    split_file: Path | str | None = None,
    failures: list[Path] | None = None,
) -> list[Record]:
    """Records of one subset: train, query (the lower camera), gallery (the other), sorted by file name.

    Args:
        split_file: JSON of the form {"train": [pid, ...], "test": [pid, ...]}; None takes even pids to train on and
            odd ones to test on. For the raw layout only: the converted one is split already.
    Raises:
        DataError: a picture of the converted layout is of a camera that the subset does not have.
    """
    if subset not in SUBSETS:
        raise RecipeError(f"{NAME}: subset {subset!r} is unknown; {nearest_name(subset, SUBSETS)}")
    base = find_base(root, dataset=NAME, names=("nightperson", "knight"), obtain=OBTAIN)
    for converted in (base / f"NightPerson_C{subset[1:]}_MT", base):
        if all((converted / folder).is_dir() for folder in CONVERTED.values()):
            if split_file is not None:
                raise DataError(f"{NAME}: {converted} is split already; leave out split_file {split_file}")
            records = [
                record
                for split, folder in CONVERTED.items()
                for record in parse_records(
                    list_pictures(converted / folder), split=split, dataset=NAME, failures=failures
                )
            ]
            records = _of_subset(records, subset, failures)
            require_pictures(records, converted, dataset=NAME, failures=failures)
            return records
    if not (base / "Person").is_dir():
        raise wrong_layout(base, dataset=NAME, layouts=LAYOUTS)
    records = _read_raw(base / "Person", SUBSETS[subset], split_file, failures)
    require_pictures(records, base / "Person", dataset=NAME, failures=failures)
    return records


def _of_subset(records: list[Record], subset: str, failures: list[Path] | None) -> list[Record]:
    """Records under the cameras of a subset; others are an error, or failures where a list is given."""
    first, second = SUBSETS[subset]
    strays = [record for record in records if record.camid not in SUBSETS[subset]]
    if strays and failures is None:
        raise DataError(
            f"{NAME}: {strays[0].path} is of camera {strays[0].camid}, and subset {subset} has cameras {first} and "
            f"{second}; read another subset ({', '.join(SUBSETS)}), or remove the file ('tapetum data check' lists all "
            "of them)"
        )
    if failures is not None:
        failures += [record.path for record in strays]
    return [record for record in records if record.camid in SUBSETS[subset]]


def _read_raw(
    people: Path, cameras: tuple[int, int], split_file: Path | str | None, failures: list[Path] | None
) -> list[Record]:
    """People seen by both cameras, split by person."""
    pictures: dict[int, list[tuple[int, Path]]] = {}
    for folder in sorted(people.iterdir()):
        if not folder.is_dir():
            continue
        for path in list_pictures(folder):
            match = RAW_NAME.match(path.name)
            if match and folder.name.isdigit():
                pictures.setdefault(int(folder.name), []).append((int(match[1]), path))
            elif failures is None:
                raise DataError(
                    f"{NAME}: {path} gives no identity and camera (expected like 0001/cam1_000123.jpg); "
                    f"rename or remove the file ('tapetum data check' lists all of them)"
                )
            else:
                failures.append(path)
    both = {pid for pid, seen in pictures.items() if set(cameras) <= {camid for camid, _ in seen}}
    training, testing = _split_people(both, split_file)
    sides: dict[str, list[Record]] = {"train": [], "query": [], "gallery": []}
    for pid in sorted(both & (training | testing)):
        for camid, path in pictures[pid]:
            if camid in cameras:
                split = "train" if pid in training else ("query" if camid == min(cameras) else "gallery")
                sides[split].append(Record(path, pid, camid, Modality.VISIBLE, split))
    return [record for records in sides.values() for record in records]


def _split_people(pids: Iterable[int], split_file: Path | str | None) -> tuple[set[int], set[int]]:
    """Training and testing people: as the file says, otherwise even and odd."""
    if split_file is None:
        return {pid for pid in pids if pid % 2 == 0}, {pid for pid in pids if pid % 2 == 1}
    try:
        content = json.loads(Path(split_file).read_text(encoding="utf-8"))
        training, testing = (set(map(int, content[key])) for key in ("train", "test"))
    except OSError as error:
        raise DataError(
            f"{NAME}: split file {split_file} cannot be read ({error.strerror}); correct the path"
        ) from None
    except (ValueError, KeyError, TypeError):
        raise DataError(
            f'{NAME}: split file {split_file} is not of the form {{"train": [2, 4], "test": [1, 3]}}; correct it'
        ) from None
    if training & testing:
        raise DataError(
            f"{NAME}: split file {split_file} has person {min(training & testing)} on both sides; correct it"
        )
    return training, testing


def picture_path(split: str, pid: int, camid: int, index: int, modality: Modality = Modality.VISIBLE) -> Path:
    """Where the converted layout of the subset of cameras 1 and 2 keeps a picture, relative to the root.

    Raises:
        DataError: the subset has no such camera.
    """
    visible_only(modality, dataset=NAME)
    if camid not in CAMERAS[Modality.VISIBLE]:
        raise DataError(f"{NAME}: subset c12, which is written here, has cameras 1 and 2, not {camid}; choose these")
    return Path("NightPerson_C12_MT") / CONVERTED[split] / f"{pid:04d}_c{camid}_{index:06d}.jpg"


def write_miniature(root: Path, rng: np.random.Generator) -> None:
    """Five people under cameras 1 and 2 and one more seen by camera 1 alone, in the raw layout."""
    for pid, camid, index in np.ndindex(5, 2, 3):
        write_sample_picture(root / "Person" / f"{pid + 1:04d}" / f"cam{camid + 1}_{index:06d}.jpg", rng)
    write_sample_picture(root / "Person" / "0006" / "cam1_000000.jpg", rng)
