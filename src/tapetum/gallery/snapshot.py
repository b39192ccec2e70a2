"""The rows of a gallery without their vectors, once more in one file: what a short command reads instead of the table.

LanceDB alone takes longer to be imported than most questions to a gallery take to be answered. The writer leaves this
file behind when it has put the table in order; it names the table's only manifest by its digest. A table that has been
written to since has another manifest, or several, and its snapshot is passed over, as is one that is damaged or lost.
"""

import contextlib
import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from tapetum.core.arrays import Whole
from tapetum.core.atomic import write_bytes
from tapetum.gallery.filters import Coded, Filter, rows_passing
from tapetum.gallery.schema import FIELDS, REALS, TEXTS, WHOLES, Row, unflatten

FILE = "rows.snapshot"
FORMAT = 1
MOST_ROWS = 100_000  # of more, writing them out again after each change would take longer than it saves
NUMBERS = (*WHOLES, *REALS, "stamp")


@dataclass(frozen=True)
class Snapshot:
    """All rows of one version of a table.

    Attributes:
        stamps: (N,) of the rows, as `exact.Block` has them.
        texts: of each column of text, the codes and the texts.
        numbers: of each other column, (N,).
    """

    stamps: Whole
    texts: Mapping[str, Coded]
    numbers: Mapping[str, NDArray[Any]]
    _decoded: dict[str, NDArray[np.float64]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.stamps)

    def column(self, name: str) -> NDArray[np.float64] | Coded:
        """A field, for `rows_passing`."""
        if FIELDS[name] == "text":
            return self.texts[name]
        if name not in self._decoded:
            self._decoded[name] = self.numbers[name].astype(np.float64)
        return self._decoded[name]

    def find(self, condition: Filter | None) -> Whole:
        """The places of the rows that pass."""
        return np.arange(len(self)) if condition is None else np.flatnonzero(rows_passing(condition, self.column))

    def values(self, name: str, places: Whole) -> list[Any]:
        """A column of some rows, as plain values."""
        if name in self.texts:
            column = self.texts[name]
            return [column.names[code] for code in column.codes[places].tolist()]
        plain: list[Any] = self.numbers[name][places].tolist()
        return plain

    def rows(self, places: Whole) -> list[Row]:
        """Some rows."""
        names = (*TEXTS, *WHOLES, *REALS)
        columns = (self.values(name, places) for name in names)
        return [unflatten(dict(zip(names, each, strict=True))) for each in zip(*columns, strict=True)]


def name_version(table: Path) -> str | None:
    """What names the state of a table: the digest of its manifest; None where it has none, or several.

    Args:
        table: the folder of the table.
    """
    try:
        (manifest,) = (path for path in (table / "_versions").iterdir() if path.suffix == ".manifest")
        return hashlib.sha256(manifest.name.encode() + b"\n" + manifest.read_bytes()).hexdigest()
    except (OSError, ValueError):
        return None


def write_snapshot(folder: Path, version: str, columns: Mapping[str, Sequence[Any]]) -> None:
    """Write all rows, whole or not at all.

    Args:
        folder: that of the blocks, whose writer removes what does not belong there.
        version: of `name_version`, before and after the columns were read.
        columns: name to values, "stamp" among them.
    """
    arrays: dict[str, NDArray[Any]] = {"format": np.array(FORMAT), "version": _pack([version])}
    for name in TEXTS:
        places: dict[str, int] = {}
        codes = [places.setdefault(text, len(places)) for text in columns[name]]
        arrays |= {f"{name}.codes": np.array(codes, dtype=np.int32), f"{name}.names": _pack(places)}
    for name in NUMBERS:
        kind = np.int32 if name in WHOLES else np.float64 if name in REALS else np.int64
        arrays[name] = np.array(columns[name], dtype=kind)
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    write_bytes(folder / FILE, buffer.getvalue())


def read_snapshot(folder: Path, version: str) -> Snapshot | None:
    """The rows of a version; None where there is no such file of it, or a damaged one."""
    with contextlib.suppress(OSError, ValueError, KeyError, EOFError, BadZipFile):
        with np.load(io.BytesIO((folder / FILE).read_bytes()), allow_pickle=False) as file:
            if int(file["format"]) != FORMAT or _unpack(file["version"]) != (version,):
                return None
            arrays = {name: file[name] for name in file.files}
        texts = {name: Coded(arrays[f"{name}.codes"], _unpack(arrays[f"{name}.names"])) for name in TEXTS}
        numbers = {name: arrays[name] for name in NUMBERS}
        count = len(numbers["stamp"])
        fits = all(len(column.codes) == count for column in texts.values())
        if fits and all(len(column) == count for column in numbers.values()):
            return Snapshot(numbers.pop("stamp"), texts, numbers)
    return None


def _pack(texts: Any) -> NDArray[np.uint8]:
    """Texts without control characters, as a gallery's are, in one array."""
    return np.frombuffer("\n".join(texts).encode(), dtype=np.uint8)


def _unpack(packed: NDArray[np.uint8]) -> tuple[str, ...]:
    return tuple(packed.tobytes().decode().split("\n"))
