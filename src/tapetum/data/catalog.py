"""Open a dataset by name, and name what is in it by a fingerprint."""

import hashlib
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tapetum.core import discovery
from tapetum.core.errors import DataError, RecipeError, nearest_name
from tapetum.core.protocol import Protocol, Side
from tapetum.core.types import Record

PACKAGE = "tapetum.data.datasets"
_BYTES_PER_END = 4096
_FILES_SAMPLED = 2048


@dataclass(frozen=True)
class Dataset:
    """An opened dataset.

    Attributes:
        permutations: (camid, pid) -> (trials, n) file numbers in the order in which the dataset itself wants galleries
            drawn, where it has such a file; None: they are drawn from the trial's number.
        division: the reading options that decide who trains and who tests, e.g. {"trial": 1}.
    """

    name: str
    root: Path
    records: tuple[Record, ...]  # every picture, train, query and gallery, in the order of reading
    protocols: dict[str, Protocol]
    default_protocol: str
    permutations: Mapping[tuple[int, int], NDArray[np.int64]] | None = None
    permutation_file: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)  # reading options other than the usual ones
    division: Mapping[str, Any] = field(default_factory=dict)
    left_out: tuple[Path, ...] = ()  # pictures under the root that lie beside the layout, and so belong to nobody
    damaged: int = 0  # pictures that are no records here, because they cannot be decoded and that was allowed

    @property
    def people(self) -> dict[int, str]:
        """Names of the people whom the dataset calls by something else than a number: pid -> name."""
        return {record.pid: record.person for record in self.records if record.person}

    def split(self, name: str) -> list[Record]:
        """Records of one split, in the order of reading.

        Args:
            name: "train", "query" or "gallery"; the sides of the default protocol where the dataset says "test".
        """
        if name in ("query", "gallery"):
            return self.side("query" if name == "query" else "gallery")
        return [record for record in self.records if record.split == name]

    def side(self, side: Side, protocol: str | None = None) -> list[Record]:
        """Records of one side of an evaluation, before anything is drawn, in the order of reading.

        Raises:
            RecipeError: the dataset has no such protocol.
        """
        rules = self.protocol(protocol)
        return [record for record in self.records if rules.admits(record, side)]

    def protocol(self, name: str | None = None) -> Protocol:
        """One protocol by name.

        Raises:
            RecipeError: the dataset has no such protocol.
        """
        key = name or self.default_protocol
        if key not in self.protocols:
            raise RecipeError(f"{self.name}: protocol {key!r} is unknown; {nearest_name(key, self.protocols)}")
        return self.protocols[key]


def load_dataset_module(name: str) -> ModuleType:
    """The file of a dataset.

    Args:
        name: e.g. "night600", or a stranger's dotted name.
    Raises:
        RecipeError: there is no such dataset; the message names the nearest one.
    """
    return discovery.load(PACKAGE, name)


def load_reader(name: str, root: Path) -> ModuleType:
    """The file that reads what lies in a folder: the dataset's own, or that of the layout which the folder is in.

    Args:
        name: of the dataset; "synth" comes in the layout of any other.
    Raises:
        DataError: the folder does not say its layout.
        RecipeError: there is no such dataset.
    """
    module = load_dataset_module(name)
    layout = module.read_layout(root) if hasattr(module, "read_layout") else name
    return module if layout == name else load_dataset_module(layout)


def open_dataset(
    name: str, root: Path, *, options: Mapping[str, Any] | None = None, failures: list[Path] | None = None
) -> Dataset:
    """Read a dataset's records and protocols; no picture is decoded.

    Args:
        options: the dataset's own reading options, e.g. {"holdout_first": True} for night600.
        failures: collects files whose names cannot be parsed, instead of an error.
    Raises:
        DataError: the root is missing, holds another layout or no picture.
        RecipeError: the dataset or an option is unknown.
    """
    module = load_reader(name, Path(root))
    settings = dict(options or {})
    check_options(module, settings, name)
    usual, drawing = _usual_options(module.read_records), _drawing_options(module)
    known = usual | drawing
    records = module.read_records(
        Path(root), failures=failures, **{option: value for option, value in settings.items() if option in usual}
    )
    own = load_dataset_module(name)
    if hasattr(own, "read_outfits") and (outfits := own.read_outfits(Path(root))):
        records = [replace(record, outfit=outfits.get(record.path, -1)) for record in records]
    orders = None
    if hasattr(module, "read_permutations"):
        orders = module.read_permutations(Path(root), **{name: settings[name] for name in drawing if name in settings})
    permutations, file = orders or (None, "")
    division = read_division(module, settings)
    return Dataset(
        name,
        Path(root),
        tuple(records),
        dict(module.PROTOCOLS),
        module.DEFAULT_PROTOCOL,
        permutations,
        file,
        options={name: settings[name] for name in settings if settings[name] != known[name] and name not in division},
        division=division,
        left_out=tuple(module.read_left_out(Path(root))) if hasattr(module, "read_left_out") else (),
    )


def check_options(module: ModuleType, options: Iterable[str], name: str) -> None:
    """Complain unless a dataset's file knows all these reading options; `name` is for the message.

    Raises:
        RecipeError: it does not know one.
    """
    known = _usual_options(module.read_records) | _drawing_options(module)
    for option in options:
        if option not in known:
            hint = nearest_name(option, known) if known else "it has no options"
            raise RecipeError(f"{name}: option {option!r} is unknown; {hint}")


def read_division(module: ModuleType, options: Mapping[str, Any]) -> dict[str, Any]:
    """The reading options that decide who trains and who tests, with their values.

    Args:
        options: those given; one that is not has its usual value.
    """
    usual = _usual_options(module.read_records)
    return {name: options.get(name, usual[name]) for name in getattr(module, "DIVIDED_BY", ())}


def numbers_anew(dataset: Dataset) -> bool:
    """Whether a dataset numbers its people anew in the test, so that equal pids are not the training's people."""
    return bool(getattr(load_reader(dataset.name, dataset.root), "PIDS_START_ANEW", False))


def _drawing_options(module: ModuleType) -> dict[str, Any]:
    """Reading options that decide how galleries are drawn, and their defaults."""
    return _usual_options(module.read_permutations) if hasattr(module, "read_permutations") else {}


def _usual_options(read: Callable[..., Any]) -> dict[str, Any]:
    """Reading options and their defaults, from the signature of a dataset's function."""
    parameters = inspect.signature(read).parameters.values()
    return {each.name: each.default for each in parameters if each.name not in ("root", "failures")}


def fingerprint(records: Iterable[Record]) -> str:
    """A name for the content of a set of pictures: the same on every machine, for every root and order.

    Every record's roles, file name and size count; of up to 2048 files, spread evenly, also the first and last 4096
    bytes, so that a renamed or re-encoded copy of a dataset gets another name.

    Raises:
        DataError: a file is missing.
    """
    lines = []
    for record in records:
        try:
            size = record.path.stat().st_size
        except OSError as error:
            raise DataError(f"{record.path}: cannot be read ({error.strerror}); correct the root") from None
        key = f"{record.split}/{record.path.name}/{record.pid}/{record.camid}/{int(record.modality)}/{size}"
        lines.append((key, record.path, size))
    lines.sort(key=lambda line: line[0])
    digest = hashlib.sha256("\n".join(key for key, _, _ in lines).encode())
    for _, path, size in lines[:: max(1, -(-len(lines) // _FILES_SAMPLED))]:
        with path.open("rb") as file:
            digest.update(file.read(_BYTES_PER_END))
            file.seek(max(_BYTES_PER_END, size - _BYTES_PER_END))
            digest.update(file.read(_BYTES_PER_END))
    return digest.hexdigest()[:16]


def order_key(records: Iterable[Record]) -> str:
    """A name for a set of pictures in a certain order, for caches that hold one row a picture.

    Raises:
        DataError: a file is missing.
    """
    rows = list(records)
    order = "\n".join(f"{record.split}/{record.path.parent.name}/{record.path.name}" for record in rows)
    return hashlib.sha256(f"{fingerprint(rows)}\n{order}".encode()).hexdigest()[:20]
