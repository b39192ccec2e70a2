"""Anybody's pictures in a plain folder.

Three layouts, looked for in this order; people have names of any kind, and after the camera everything is free:

1. ``train/ query/ gallery/`` (any of them) with files such as ``0007_c2_anything.jpg``;
2. the same folders with a folder for each person and files such as ``c2_anything.jpg``, or ``2_anything.jpg`` where the
   person is a number;
3. a folder for each person and such files directly in the root: no roles, every record says "train".

Numbers are pids as they stand. Any other name (``P0004``, ``anna``, a number of 22 digits) gets a pid made of the name,
and stays beside it in ``Record.person``. The names of Market-1501, DukeMTMC-reID and MSMT17 fit as well.
"""

import os
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tapetum.core.errors import DataError
from tapetum.core.types import Modality, Record
from tapetum.data.layout import (
    PID_AND_CAMERA,
    Counts,
    find_base,
    is_number,
    is_picture,
    number_people,
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
ANYBODYS = True  # equal numbers under another root are other people
PUBLISHED: dict[str, Counts] = {}
LAYOUTS = (
    "train/, query/ or gallery/ with files such as 0007_c2_anything.jpg",
    "train/, query/ or gallery/ with a folder for each person (0007/c2_anything.jpg)",
    "a folder for each person (0007/c2_anything.jpg)",
)
SPLITS = ("train", "query", "gallery")
NAMED = re.compile(r"(.+?)_(?:cam|c)(\d+)(?:s\d+)?(?=[_.-])", re.IGNORECASE)  # anna_c2_..., P0004_cam1-...
MSMT17 = re.compile(r"(\d{4})_\d{3}_(\d{2})_\d{4}(?:morning|noon|afternoon)_")  # person_picture_camera_time
CAMERA = re.compile(r"(?:(-1|\d+)_)?(?:cam|c)(\d+)", re.IGNORECASE)  # within a person's folder
NUMBER = re.compile(r"(\d+)_")
TWO_NUMBERS = re.compile(r"\d+(?:[_-]\d+)+")  # e.g. LTCC's person and clothes: whichever is the person?
NOT_PEOPLE = frozenset({"__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found"})
_DEEPEST = 8

_Found = tuple[Path, str, int, str]  # path, person, camera, split


def read_records(root: Path, *, failures: list[Path] | None = None) -> list[Record]:
    """Records of train, query, gallery, each sorted by file name."""
    base = find_base(root, dataset=NAME, names=(), obtain=OBTAIN)
    splits = [split for split in SPLITS if (base / split).is_dir()]
    misfits: list[Path] = []
    if splits:
        members = [each for split in splits for each in _read_split(base / split, split, misfits)]
    elif any(depth == 1 and (pictures or is_number(folder.name)) for depth, folder, pictures in _walk(base)):
        members = _read_split(base, "train", misfits)
    else:
        raise wrong_layout(base, dataset=NAME, layouts=LAYOUTS)
    if misfits and failures is None:
        folders = sorted({str(path.parent.relative_to(base)) for path in misfits})
        listing = ", ".join(folders[:8]) + (f" and {len(folders) - 8} more" if len(folders) > 8 else "")
        raise DataError(
            f"{NAME}: the names of {len(misfits)} pictures give no identity and camera (expected like 0001_c3_a.jpg, "
            f"or in a person's folder c3_a.jpg or 3_a.jpg), first {misfits[0]}, in {listing} of {base}; "
            f"rename or remove them ('tapetum data check' lists all of them)"
        )
    if failures is not None:
        failures += misfits
    pids = number_people((person for _, person, _, _ in members), dataset=NAME)
    records = [
        Record(
            path, pids[person], camid, Modality.VISIBLE, split, "" if pids[person] < 0 or is_number(person) else person
        )
        for path, person, camid, split in members
    ]
    require_pictures(records, base, dataset=NAME, failures=failures)
    return records


def read_left_out(root: Path) -> list[Path]:
    """Pictures beside ``train``, ``query`` and ``gallery``, which nobody reads."""
    splits = {root / split for split in SPLITS if (root / split).is_dir()}
    if not splits:
        return []
    return [path for _, _, pictures in _walk(root, without=splits) for path in pictures]


def _walk(
    folder: Path, depth: int = 0, without: frozenset[Path] | set[Path] = frozenset()
) -> Iterator[tuple[int, Path, list[Path]]]:
    """(depth, folder, its pictures by name) of a folder and what is in it, sorted; links are followed, to a depth."""
    pictures, folders = [], []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir():
                    if not entry.name.startswith(".") and entry.name not in NOT_PEOPLE:
                        folders.append(folder / entry.name)
                elif is_picture(Path(entry.name)):
                    pictures.append(folder / entry.name)
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error.strerror}); correct its permissions or remove it") from None
    yield depth, folder, sorted(pictures)
    for child in sorted(folders) if depth < _DEEPEST else ():
        if child not in without:
            yield from _walk(child, depth + 1)


def _read_split(folder: Path, split: str, misfits: list[Path]) -> list[_Found]:
    """Flat names first, then folders of people; what fits neither becomes a misfit."""
    members: list[_Found] = []
    numbered: dict[Path, bool] = {}  # camera by a bare number, and whether it repeats the folder's name
    for depth, place, pictures in _walk(folder):
        person = unicodedata.normalize("NFC", place.name)
        for path in pictures:
            name = unicodedata.normalize("NFC", path.name)
            facts = (_parse_flat(name) if depth == 0 else _parse_within(name, person)) if depth < 2 else None
            if facts is None and depth == 1 and is_number(person) and (match := NUMBER.match(name)):
                facts = person, int(match[1])
                numbered[path] = match[1] == person
            if facts is None:
                misfits.append(path)
            else:
                members.append((path, *facts, split))
    if len({path.parent for path in numbered}) > 1 and all(numbered.values()):  # 0001/0001_a.jpg: that is no camera
        misfits += numbered
        members = [each for each in members if each[0] not in numbered]
    return members


def _parse_flat(name: str) -> tuple[str, int] | None:
    """(person, camera) of a file beside others of other people."""
    match = PID_AND_CAMERA.match(name) or MSMT17.match(name) or NAMED.match(name)
    if match is None or TWO_NUMBERS.fullmatch(match[1]):
        return None
    return match[1], int(match[2])


def _parse_within(name: str, person: str) -> tuple[str, int] | None:
    """(person, camera) of a file in a person's folder, whose name may stand before the camera."""
    match = MSMT17.match(name)
    if match and match[1] == person:
        return person, int(match[2])
    rest = name.removeprefix(person).removeprefix("_")  # 0001_c2_..., and MARS's 0001C2T...
    match = CAMERA.match(rest) or CAMERA.match(name)
    if match is None or (match[1] is not None and person != "-1" and not is_number(person)):
        return None  # a folder such as bounding_box_train, whose files name the people, is nobody
    return person, int(match[2])


def picture_path(split: str, pid: int, camid: int, index: int, modality: Modality = Modality.VISIBLE) -> Path:
    """Where the first layout keeps a picture, relative to the root."""
    visible_only(modality, dataset=NAME)
    person = "-1" if pid < 0 else f"{pid:04d}"
    return Path(split) / f"{person}_c{camid}_{index:06d}.jpg"


def write_miniature(root: Path, rng: np.random.Generator) -> None:
    """Two training and three testing people under two cameras, in the first layout."""
    for pid, camid, index in np.ndindex(5, 2, 3):
        split = "train" if pid < 2 else ("query" if index == 0 else "gallery")
        write_sample_picture(root / picture_path(split, pid, camid + 1, index), rng)
