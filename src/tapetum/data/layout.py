"""What the dataset files share: published counts, finding a root, listing pictures, parsing names into records."""

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from tapetum.core.atomic import make_folder, write_bytes
from tapetum.core.errors import DataError
from tapetum.core.protocol import Protocol
from tapetum.core.types import Modality, Record

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})
PID_AND_CAMERA = re.compile(r"(-1|\d+)_c(\d+)")  # 0001_c3_..., -1_c3_..., 0001_c3s1_...


_MOST_DIGITS = 18  # of a pid, which is stored in 64 bits
_NAMED = 2**52  # pids of names lie from here to 2**53, where float64 and JSON still hold each whole number


@dataclass(frozen=True)
class Counts:
    """Size of one split."""

    pictures: int
    ids: int | None = None  # number of identities; None where the source does not say
    certain: bool = True  # False where the number is from hearsay: a dataset that differs is not thereby wrong


@dataclass(frozen=True)
class ListedPicture:
    """One line of a list such as LLCM's ``idx/train_vis.txt``."""

    path: Path
    label: int  # the number beside it
    line: int  # where it stands, counted from 1


def visible_protocol(
    name: str, *, ap: Literal["step", "trapezoid"], source: str, ignored_pids: tuple[int, ...] = (-1,)
) -> Protocol:
    """The two ways in which visible-light datasets are evaluated; both leave out the query's person under its camera.

    Args:
        ap: "trapezoid": Market-1501's toolkit, layumi, IDF (every query counts, ties keep the larger index first);
            "step": torchreid, BoT, AGW, TransReID (queries without a match are dropped, the smaller index first).
        ignored_pids: gallery pids taken out of every ranking.
    """
    if ap == "trapezoid":
        return Protocol(
            name, ap="trapezoid", unmatched="count", ties="larger_index_first", ignored_pids=ignored_pids, source=source
        )
    return Protocol(
        name, ap="step", unmatched="drop", ties="smaller_index_first", ignored_pids=ignored_pids, source=source
    )


def find_base(root: Path, *, dataset: str, names: Sequence[str], obtain: str) -> Path:
    """The dataset's own folder: the one of a known name inside `root`, otherwise `root`.

    Raises:
        DataError: `root` is missing, or is a file.
    """
    if not root.is_dir():
        state = "is a file, not a folder" if root.exists() else "does not exist"
        raise DataError(f"{dataset}: root {root} {state}; {obtain}")
    inside = [child for child in sorted(root.iterdir()) if child.name.lower() in names and child.is_dir()]
    return inside[0] if inside else root


def wrong_layout(root: Path, *, dataset: str, layouts: Sequence[str]) -> DataError:
    """The error for a root in which no known layout was found."""
    children = sorted(child.name for child in root.iterdir())[:8]
    listing = ", ".join(children) if children else "nothing"
    return DataError(f"{dataset}: no known layout in {root}; looked for {' or for '.join(layouts)}; found {listing}")


def list_pictures(folder: Path) -> list[Path]:
    """Picture files directly in `folder`, sorted by name; other files (Thumbs.db, readme.txt) do not count."""
    return sorted(path for path in list_folder(folder) if is_picture(path))


def is_picture(path: Path) -> bool:
    """Whether a file counts as a picture, by its name."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def list_folder(folder: Path) -> list[Path]:
    """What lies directly in `folder`, in no order.

    Raises:
        DataError: it cannot be read.
    """
    try:
        return list(folder.iterdir())
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error.strerror}); correct its permissions or remove it") from None


def list_pictures_by_folder(folder: Path) -> list[Path]:
    """Picture files one level below `folder`, sorted by folder and name."""
    return [path for child in sorted(folder.iterdir()) if child.is_dir() for path in list_pictures(child)]


def parse_records(
    files: Iterable[Path],
    *,
    split: str,
    dataset: str,
    failures: list[Path] | None = None,
    pattern: re.Pattern[str] = PID_AND_CAMERA,
    modality: Modality = Modality.VISIBLE,
    like: str = "0001_c3_000025.jpg",
) -> list[Record]:
    """Records of the files whose names begin with `pattern` (group 1: pid, group 2: camid), in the files' order.

    Args:
        failures: where given, files whose names cannot be parsed are added to it and left out.
        like: a name of this layout, for the message.
    Raises:
        DataError: a name cannot be parsed and no list of failures was given.
    """
    records = []
    for path in files:
        match = pattern.match(path.name)
        if match:
            records.append(Record(path, int(match[1]), int(match[2]), modality, split))
        elif failures is None:
            raise DataError(
                f"{dataset}: the name of {path} gives no identity and camera (expected like {like}); "
                f"rename or remove the file ('tapetum data check' lists all of them)"
            )
        else:
            failures.append(path)
    return records


def number_people(names: Iterable[str], *, dataset: str) -> dict[str, int]:
    """A pid for each name of a person: numbers are their own, "-1" is junk, and any other name makes one by itself.

    The pid of a name depends on nothing else: people who are added later change nobody's, and weights still know whom
    they were trained on. Numbers of more than 18 digits are names.

    Args:
        names: as the dataset writes them, in Unicode's composed form.
    Raises:
        DataError: two names would be one pid, as "7" and "007".
    """
    pids: dict[str, int] = {}
    name_of: dict[int, str] = {}
    for name in sorted(set(names)):
        if name == "-1" or is_number(name):
            pid = int(name)
        else:
            digest = hashlib.sha256(unicodedata.normalize("NFC", name).encode()).digest()
            pid = _NAMED + int.from_bytes(digest[:8]) % _NAMED
        other = name_of.setdefault(pid, name)
        if other != name:
            raise DataError(
                f"{dataset}: the people {other!r} and {name!r} would both be number {pid}; write the name in one way "
                "if they are one person, or give one of them another name"
            )
        pids[name] = pid
    return pids


def is_number(name: str) -> bool:
    """Whether a person's name is a number that can be the pid."""
    return name.isdecimal() and len(name) <= _MOST_DIGITS


def require_pictures(records: Sequence[Record], root: Path, *, dataset: str, failures: list[Path] | None) -> None:
    """Refuse a layout whose folders are there but empty.

    Args:
        failures: as for `parse_records`; with a list given, names that failed count as pictures.
    Raises:
        DataError: there is no picture.
    """
    if not records and not failures:
        raise DataError(
            f"{dataset}: no picture in {root} (0 files ending in {', '.join(sorted(SUFFIXES))}); "
            f"unpack the dataset there or correct the root"
        )


def nobody_shown(files: Sequence[Path], people: int, *, folders: str, dataset: str) -> DataError:
    """The error for files of people none of whom has a picture, although others may."""
    names = " and ".join([str(files[0]), *(file.name for file in files[1:])])
    verb, it = ("names", "the file") if len(files) == 1 else ("name", "the files")
    who = f"{people} people, none of whom has a picture in {folders}" if people else "nobody"
    return DataError(f"{dataset}: {names} {verb} {who}; copy {it} from the dataset again, or unpack their pictures")


def read_numbers(path: Path, *, dataset: str) -> list[int]:
    """The numbers of a file whose first line holds them, separated by commas; the rest of the file is not read.

    Raises:
        DataError: the file is missing, or holds something else.
    """
    first = (_read_lines(path, dataset=dataset) or [""])[0]
    pieces = [piece.strip() for piece in first.split(",")]
    wrong = [piece for piece in pieces if piece and not piece.isdecimal()]
    if wrong:
        raise DataError(
            f"{dataset}: {path} holds {wrong[0][:40]!r} where a person's number is expected; "
            "its first line must be like 1,2,5; copy the file from the dataset again"
        )
    return sorted({int(piece) for piece in pieces if piece})


def read_list(base: Path, name: str, *, dataset: str) -> list[ListedPicture]:
    """The pictures that a list names, one a line: path from the dataset's folder, blank, number. Sorted by path.

    A line that stands twice counts once.

    Raises:
        DataError: the list is missing, a line is malformed, or pictures that it names are absent.
    """
    place = base / name
    entries: dict[Path, ListedPicture] = {}
    absent: list[ListedPicture] = []
    for number, line in enumerate(_read_lines(place, dataset=dataset), start=1):
        if not line.strip():
            continue
        words = line.rsplit(maxsplit=1)
        relative = Path(words[0].strip())
        if len(words) != 2 or not words[1].isdecimal() or relative.is_absolute() or ".." in relative.parts:
            raise DataError(
                f"{dataset}: line {number} of {place} is {line.strip()[:80]!r}, expected a path inside the dataset, "
                "a blank and a number; copy the file from the dataset again"
            )
        entry = ListedPicture(base / relative, int(words[1]), number)
        known = entries.setdefault(entry.path, entry)
        if known.label != entry.label:
            raise DataError(
                f"{dataset}: {place} gives {relative} the number {known.label} in line {known.line} and {entry.label} "
                f"in line {number}; copy the file from the dataset again"
            )
        if known is entry and not entry.path.is_file():
            absent.append(entry)
    if absent:
        first = absent[0]
        count = "no picture" if len(absent) == len(entries) else f"{len(absent)} of {len(entries)} pictures"
        verb = "is there" if len(absent) == len(entries) else "are missing"
        raise DataError(
            f"{dataset}: {count} named by {place} {verb}, first {first.path.relative_to(base)} in line {first.line}; "
            "unpack the dataset in full"
        )
    return [entries[path] for path in sorted(entries)]


def _read_lines(path: Path, *, dataset: str) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise DataError(
            f"{dataset}: {path} cannot be read ({error.strerror}); it comes with the dataset, copy it from there"
        ) from None
    except UnicodeDecodeError:
        raise DataError(f"{dataset}: {path} is no text; copy it from the dataset again") from None


def write_list(path: Path, entries: Iterable[tuple[Path, int]]) -> None:
    """Write a list as `read_list` reads it."""
    make_folder(path.parent)
    write_bytes(path, "".join(f"{picture.as_posix()} {number}\n" for picture, number in entries).encode())


def write_numbers(path: Path, numbers: Iterable[int]) -> None:
    """Write people's numbers as `read_numbers` reads them."""
    make_folder(path.parent)
    write_bytes(path, (",".join(map(str, numbers)) + "\n").encode())


def require_modalities(records: Sequence[Record], root: Path, *, dataset: str) -> None:
    """Refuse a visible-infrared dataset of which one side is missing.

    Raises:
        DataError: a split has no picture of one modality.
    """
    counts = Counter((record.split, record.modality) for record in records)
    for split in sorted({record.split for record in records}):
        for modality in Modality:
            if not counts[split, modality]:
                other = Modality(1 - modality)
                raise DataError(
                    f"{dataset}: no {modality.name.lower()} picture of split {split!r} in {root} "
                    f"({counts[split, other]} {other.name.lower()} ones); unpack both modalities there"
                )


def visible_only(modality: Modality, *, dataset: str) -> None:
    """Refuse an infrared picture in the layout of a visible-light dataset.

    Raises:
        DataError: the modality is not visible.
    """
    if modality != Modality.VISIBLE:
        raise DataError(f"{dataset}: its layout holds visible pictures only, not {Modality(modality).name.lower()}")


def require_split(split: str, splits: Sequence[str], *, dataset: str) -> None:
    """Refuse a split that a layout does not have.

    Raises:
        DataError: the layout has no such split.
    """
    if split not in splits:
        raise DataError(f"{dataset}: its layout has the splits {' and '.join(splits)}, not {split!r}; choose one")


def write_sample_picture(path: Path, rng: np.random.Generator, *, size: tuple[int, int] = (64, 32)) -> None:
    """A small blotchy JPEG, for miniatures."""
    path.parent.mkdir(parents=True, exist_ok=True)
    blotches: NDArray[np.uint8] = rng.integers(0, 90, (8, 4, 3), dtype=np.uint8)
    picture = cv2.resize(blotches, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)
    path.write_bytes(cv2.imencode(".jpg", picture)[1].tobytes())
