"""What the dataset files share: published counts, finding a root, listing pictures, parsing names into records."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from tapetum.core.errors import DataError
from tapetum.core.protocol import Protocol
from tapetum.core.types import Modality, Record

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})
PID_AND_CAMERA = re.compile(r"(-1|\d+)_c(\d+)")  # 0001_c3_..., -1_c3_..., 0001_c3s1_...


@dataclass(frozen=True)
class Counts:
    """Size of one split.

    Attributes:
        pictures: number of picture files.
        ids: number of identities; None where the source does not say.
    """

    pictures: int
    ids: int | None = None


def visible_protocol(
    name: str, *, ap: Literal["step", "trapezoid"], source: str, ignored_pids: tuple[int, ...] = (-1,)
) -> Protocol:
    """The two ways in which visible-light datasets are evaluated; both leave out the query's person under its camera.

    Args:
        name: the protocol's name.
        ap: "trapezoid": Market-1501's toolkit, layumi, IDF (every query counts, ties keep the larger index first);
            "step": torchreid, BoT, AGW, TransReID (queries without a match are dropped, the smaller index first).
        source: where the rules were read.
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

    Args:
        root: what the user gave.
        dataset: the dataset's name, for the error.
        names: names which the dataset's folder is known by, in any case.
        obtain: one sentence on how to get the dataset.
    Raises:
        DataError: `root` is missing, or is a file.
    """
    if not root.is_dir():
        state = "is a file, not a folder" if root.exists() else "does not exist"
        raise DataError(f"{dataset}: root {root} {state}; {obtain}")
    inside = [child for child in sorted(root.iterdir()) if child.name.lower() in names and child.is_dir()]
    return inside[0] if inside else root


def wrong_layout(root: Path, *, dataset: str, layouts: Sequence[str]) -> DataError:
    """The error for a root in which no known layout was found.

    Args:
        root: where it was looked for.
        dataset: the dataset's name.
        layouts: one line a layout.
    """
    found = sorted(child.name for child in root.iterdir())[:8]
    listing = ", ".join(found) if found else "nothing"
    return DataError(f"{dataset}: no known layout in {root}; looked for {' or for '.join(layouts)}; found {listing}")


def list_pictures(folder: Path) -> list[Path]:
    """Picture files directly in `folder`, sorted by name; other files (Thumbs.db, readme.txt) do not count.

    Args:
        folder: an existing folder.
    """
    return sorted(
        path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
    )


def list_pictures_by_folder(folder: Path) -> list[Path]:
    """Picture files one level below `folder`, sorted by folder and name.

    Args:
        folder: an existing folder that holds one folder a person.
    """
    return [path for child in sorted(folder.iterdir()) if child.is_dir() for path in list_pictures(child)]


def parse_records(
    files: Iterable[Path],
    *,
    split: str,
    dataset: str,
    failures: list[Path] | None = None,
    pattern: re.Pattern[str] = PID_AND_CAMERA,
    modality: Modality = Modality.VISIBLE,
) -> list[Record]:
    """Records of the files whose names begin with `pattern` (group 1: pid, group 2: camid), in the files' order.

    Args:
        files: picture files.
        split: what the records say.
        dataset: the dataset's name, for the error.
        failures: where given, files whose names cannot be parsed are added to it and left out.
        pattern: matched at the start of the name.
        modality: what the records say.
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
                f"{dataset}: the name of {path} gives no identity and camera (expected like 0001_c3_000025.jpg); "
                f"rename or remove the file ('tapetum data check' lists all of them)"
            )
        else:
            failures.append(path)
    return records


def require_pictures(records: Sequence[Record], root: Path, *, dataset: str, failures: list[Path] | None) -> None:
    """Refuse a layout whose folders are there but empty.

    Args:
        records: what was read.
        root: where it was read.
        dataset: the dataset's name.
        failures: as for `parse_records`; with a list given, names that failed count as pictures.
    Raises:
        DataError: there is no picture.
    """
    if not records and not failures:
        raise DataError(
            f"{dataset}: no picture in {root} (0 files ending in {', '.join(sorted(SUFFIXES))}); "
            f"unpack the dataset there or correct the root"
        )


def visible_only(modality: Modality, *, dataset: str) -> None:
    """Refuse an infrared picture in the layout of a visible-light dataset.

    Args:
        modality: of the picture to be placed.
        dataset: the dataset's name.
    Raises:
        DataError: the modality is not visible.
    """
    if modality != Modality.VISIBLE:
        raise DataError(f"{dataset}: its layout holds visible pictures only, not {Modality(modality).name.lower()}")


def write_sample_picture(path: Path, rng: np.random.Generator, *, size: tuple[int, int] = (64, 32)) -> None:
    """A small blotchy JPEG, for miniatures.

    Args:
        path: where; folders are made.
        rng: colours come from it.
        size: (height, width) in pixels.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    blotches: NDArray[np.uint8] = rng.integers(0, 90, (8, 4, 3), dtype=np.uint8)
    picture = cv2.resize(blotches, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)
    path.write_bytes(cv2.imencode(".jpg", picture)[1].tobytes())
