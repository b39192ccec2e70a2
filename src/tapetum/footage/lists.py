"""The lists of sightings: one file a source, one line a sighting.

A list is written when its source has been read to the end, so its presence says that the source is finished. It begins
with a line about the source and ends with one that says how many sightings were refused and why: a list without an end
was damaged.
"""

import contextlib
import json
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tapetum.core.atomic import flush_folder, make_folder, replacing
from tapetum.core.errors import DataError, OutputError
from tapetum.core.locks import locked
from tapetum.core.sighting import Sighting
from tapetum.core.types import Modality
from tapetum.footage.clock import format_time
from tapetum.footage.origin import CameraFact, Origin

if TYPE_CHECKING:
    from tapetum.footage.sources import Source

CROPS, LISTS = "crops", "sources"  # folders below the one that crops are written to
_SIGHTING = "sighting"


def list_path(out: Path, key: str) -> Path:
    """Where the list of a source is, or will be."""
    return out / LISTS / f"{key}.jsonl"


@contextmanager
def reading_alone(out: Path, key: str, source: "Source") -> Iterator[None]:
    """Be the only run that reads a source; what a killed one began of its list goes.

    Raises:
        OutputError: another run reads it.
    """
    make_folder(out / LISTS)
    with locked(out / LISTS / f".{key}.lock", f"{source.name}: another run is reading this source"):
        for path in _begun_lists(out, key):
            _remove(path)
        yield


def is_mostly_dark(undetectable: int, frames: int) -> bool:
    """Whether so many frames are too dark to detect that nobody found there says nothing."""
    return 2 * undetectable > frames


@dataclass(frozen=True)
class ListCounts:
    """What the end of a list says of its source.

    Attributes:
        refused: why sightings were not kept -> how many.
        time_origins: what said when those that were kept were seen -> how many.
        frames: looked at.
        undetectable: frames so dark that nobody found there says nothing.
    """

    refused: Mapping[str, int] = field(default_factory=dict)
    time_origins: Mapping[Origin, int] = field(default_factory=dict)
    frames: int = 0
    undetectable: int = 0


@contextmanager
def writing_list(
    out: Path,
    key: str,
    source: "Source",
    detector: str,
    count: Callable[[], ListCounts],
) -> Iterator[Callable[[Sighting], None]]:
    """Write the list of a source, as a function that takes its sightings; it appears when the block has ended well.

    Crops of the source that it does not name are left over from a killed run, and go.

    Args:
        detector: name of what found the people.
        count: says at the end what was counted.
    Raises:
        OutputError: the folder cannot be written.
    """
    make_folder(out / LISTS)
    names: set[str] = set()
    with replacing(list_path(out, key)) as temporary:
        with temporary.open("w", encoding="utf-8") as file:

            def add(sighting: Sighting) -> None:
                names.add(Path(sighting.crop).name)
                file.write(json.dumps({_SIGHTING: asdict(sighting)}) + "\n")

            head: dict[str, Any] = {"source": source.name, "kind": source.kind, "camera": source.camera}
            if source.start is not None:
                head |= {"start": format_time(source.start), "start_origin": source.start_origin}
            cameras = [asdict(camera) for camera in source.cameras]
            head |= {"cameras": cameras, "doubts": source.doubts, "detector": detector}
            file.write(json.dumps(head) + "\n")
            yield add
            file.write(json.dumps({"end": True, **vars(count())}) + "\n")
        for crop in _flushed(out / CROPS / key):
            if crop.name not in names:
                _remove(crop)


def _flushed(crops: Path) -> list[Path]:
    """What lies in a folder of crops, whose names are on the disk before the list that names them.

    Raises:
        OutputError: the folder cannot be read.
    """
    try:
        flush_folder(crops)
        return list(crops.iterdir())
    except OSError as error:
        raise OutputError(f"{crops}: cannot be read ({error.strerror}); index the source again") from None


def read_list(path: Path) -> Iterator[Sighting]:
    """The sightings of one list; nothing where there is none.

    Raises:
        DataError: it is damaged.
    """
    if not path.is_file():
        return
    ended = False
    try:
        with path.open(encoding="utf-8") as file:
            for line in file:
                content = json.loads(line)
                ended = "end" in content
                if _SIGHTING in content:
                    yield sighting_of(content[_SIGHTING])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: cannot be read ({error}); delete it, and the source is read again") from None
    if not ended:
        raise DataError(f"{path}: ends too early; delete it, and the source is read again")


@dataclass(frozen=True)
class Listed:
    """What a list says of its source; what earlier versions did not write is empty."""

    source: str
    camera: str  # whose it is; of crops of several cameras, their folder
    start: str | None  # when it begins, as `format_time` writes it; None where each crop has its own time
    cameras: tuple[CameraFact, ...]
    time_origins: dict[Origin, int]  # what said when its sightings were seen -> how many
    doubts: tuple[str, ...]  # why a camera or a time may be another
    detector: str  # its name; empty where none was needed
    frames: int  # looked at
    undetectable: int  # frames too dark to detect anybody

    @property
    def is_dark(self) -> bool:
        """Whether nobody found there says nothing."""
        return is_mostly_dark(self.undetectable, self.frames)


def read_listed(out: Path) -> Iterator[Listed]:
    """What the lists below a folder say of their sources; a damaged one is passed over."""
    return filter(None, map(read_listed_at, _finished_lists(out)))


Stamped = dict[str, tuple[tuple[int, int], Listed | None]]  # key of a source -> its list's time and size, and the list


def read_listed_by_key(out: Path, known: Stamped) -> Stamped:
    """The same by the keys of the sources; a damaged one is None.

    Args:
        known: what an earlier call gave; only lists that are new or have changed are read.
    """
    found: Stamped = {}
    for path in _finished_lists(out):
        try:
            about = path.stat()
        except OSError:
            continue  # gone meanwhile
        stamp = about.st_mtime_ns, about.st_size
        earlier = known.get(path.stem)
        found[path.stem] = earlier if earlier and earlier[0] == stamp else (stamp, read_listed_at(path))
    return found


def lists_stamp(out: Path) -> int:
    """Another number whenever a list came, went or was written anew."""
    try:
        return (out / LISTS).stat().st_mtime_ns
    except OSError:
        return 0


def read_listed_at(path: Path) -> Listed | None:
    """What one list says of its source; None where it is damaged, which is named when its sightings are read."""
    try:
        first, last = _read_ends(path)
        return Listed(
            first["source"],
            first["camera"],
            first.get("start"),
            tuple(CameraFact(**fact) for fact in first.get("cameras", ())),
            last.get("time_origins", {}),
            tuple(first.get("doubts", ())),
            first.get("detector", ""),
            last.get("frames", 0),
            last.get("undetectable", 0),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def strike_sightings(out: Path, ids: Collection[str]) -> int:
    """Take sightings out of the lists of finished sources, which stay finished.

    A list that cannot be read goes as a whole: its source is then read again.

    Args:
        ids: of the sightings.
    Returns:
        Lines taken out.
    Raises:
        OutputError: a list cannot be written anew or removed.
    """
    struck = 0
    for path in _finished_lists(out):
        try:
            lines = sum(sighting.id in ids for sighting in read_list(path))
        except DataError:
            _remove(path)
            continue
        if not lines:
            continue
        struck += lines
        with (
            replacing(path) as temporary,
            path.open(encoding="utf-8") as old,
            temporary.open("w", encoding="utf-8") as file,
        ):
            for line in old:
                content = json.loads(line)
                if _SIGHTING not in content or content[_SIGHTING]["id"] not in ids:
                    file.write(line)
    return struck


def forget_refusals(out: Path, reason: str) -> int:
    """Let sources be read again of which something was refused for a reason that may not hold any more.

    Returns:
        Sources that will be read again.
    Raises:
        OutputError: a list cannot be removed.
    """
    count = 0
    for path in _finished_lists(out):
        with contextlib.suppress(OSError, ValueError, IndexError):  # a damaged list is named when it is read
            if reason in _read_ends(path)[1].get("refused", {}):
                _remove(path)
                count += 1
    return count


def drop_unfinished(out: Path, keep: Collection[str]) -> int:
    """Remove what killed runs left of sources that they did not finish: the next run writes it again.

    Args:
        keep: crops that stay, relative to the folder.
    Returns:
        Crops removed.
    Raises:
        OutputError: a file cannot be removed, or another run is reading such a source.
    """
    count = 0
    begun_keys = {path.name.split(".")[1] for path in _begun_lists(out, "*")}
    for lock in sorted((out / LISTS).glob(".*.lock")):
        key = lock.name.split(".")[1]
        finished = list_path(out, key).is_file()
        if finished and key not in begun_keys:
            continue
        with locked(lock, f"{out}: another run is reading a source"):
            for path in _begun_lists(out, key):
                _remove(path)
            for path in [] if finished else sorted((out / CROPS / key).glob("*")):
                if path.relative_to(out).as_posix() not in keep:
                    _remove(path)
                    count += 1
    return count


def sighting_of(fields: dict[str, Any]) -> Sighting:
    """A sighting from plain values."""
    return Sighting(**{**fields, "box": tuple(fields["box"]), "modality": Modality(fields["modality"])})


def _finished_lists(out: Path) -> list[Path]:
    return sorted(path for path in (out / LISTS).glob("*.jsonl") if not path.name.startswith("."))  # . is a begun one


def _read_ends(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """A list's first and last line; what lies between may be long and is not read."""
    with path.open("rb") as file:
        first = file.readline()
        size, length, end = path.stat().st_size, 1 << 12, b""
        while end.count(b"\n") < 2 and len(end) < size:
            file.seek(max(0, size - length))
            end, length = file.read(), 2 * length
    return json.loads(first), json.loads(end.rstrip(b"\n").rpartition(b"\n")[2])


def _begun_lists(out: Path, key: str) -> list[Path]:
    return list((out / LISTS).glob(f".{key}.jsonl.*"))


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{path}: cannot be removed ({error.strerror}); allow it and repeat the command") from None
