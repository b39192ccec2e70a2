"""How far earlier runs read videos that may have grown since: the finished part is read once, never twice.

A recorder's file is often read while it is being written, or while it is being copied. A later run knows it again by
the packets of its video stream, which stay as they are when the container's head is written anew at the end, and goes
on after the last frame that was read before. Beside the lists of sightings lies, for each beginning of a video and the
settings it was read with, ``BEGINNING.reading.json``.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import av

from tapetum.core.atomic import make_folder, write_bytes
from tapetum.data.video import OPEN_OPTIONS, video_streams
from tapetum.footage.frames import Extent
from tapetum.footage.lists import LISTS, list_path
from tapetum.footage.sources import Source

_BEGINNING = 16  # packets by which a video is known again; fewer are no video to go on with


@dataclass(frozen=True)
class Reading:
    """What one run, or several that went on from each other, read of a video."""

    name: str  # of the source, as the operator named it
    content: str  # names the file as the first of these runs saw it, and so the ids of its sightings
    keys: tuple[str, ...] = ()  # of the lists that hold what was found
    packets: int = 0  # whole ones that were read; 0 while the first run has not come to the end
    digest: str = ""  # of these
    seconds: float = -1.0  # of the last frame, since the source began

    def extended(self, key: str, extent: Extent) -> "Reading":
        """This reading and what another run read after it."""
        return replace(
            self,
            keys=tuple(dict.fromkeys([*self.keys, key])),
            packets=extent.packets,
            digest=extent.digest,
            seconds=max(self.seconds, extent.seconds),
        )


class Readings:
    """The readings of videos that begin like a source and were read with the same settings.

    Args:
        settings: names everything but the content that decides its sightings.
    """

    def __init__(self, out: Path, source: Source, settings: str) -> None:
        self._out, self._source = out, source
        beginning = list(islice(_packets(source), _BEGINNING))
        digest = hashlib.sha256(b"".join([settings.encode(), *beginning])).hexdigest()[:20]
        self._path = out / LISTS / f"{digest}.reading.json" if len(beginning) == _BEGINNING else None
        self._known = _read(self._path) if self._path is not None else []

    def find(self) -> Reading | None:
        """The reading that this source goes on from: all it read is in the source, and its lists are still there.

        One that never came to its end goes on under its own name, so that what it stored is not stored again.
        """
        finished = [each for each in self._known if each.packets and self._has_lists(each)]
        for reading in sorted(finished, key=lambda each: -each.packets):
            if _digest(self._source, reading.packets) == reading.digest:
                return reading
        name = self._source.name
        unfinished = (each for each in self._known if each not in finished and each.name == name)
        return next((Reading(name, each.content) for each in unfinished), None)

    def keys_before(self, key: str) -> list[str]:
        """Of the lists with what was found in this video before one list of it was begun."""
        holding = next((each.keys[: each.keys.index(key)] for each in self._known if key in each.keys), None)
        if holding is None:  # its reading did not come to the end
            reading = self.find()
            holding = () if reading is None else reading.keys
        return [each for each in holding if list_path(self._out, each).is_file()]

    def write(self, reading: Reading) -> None:
        """Put a reading in the place of what was known under the same content.

        Raises:
            OutputError: the folder cannot be written.
        """
        if self._path is None:
            return
        self._known = [each for each in self._known if each.content != reading.content] + [reading]
        make_folder(self._path.parent)
        write_bytes(self._path, json.dumps([asdict(each) for each in self._known], indent=1).encode())

    def _has_lists(self, reading: Reading) -> bool:
        return all(list_path(self._out, key).is_file() for key in reading.keys)


def _read(path: Path) -> list[Reading]:
    try:
        return [Reading(**{**each, "keys": tuple(each["keys"])}) for each in json.loads(path.read_text("utf-8"))]
    except (OSError, ValueError, TypeError, KeyError):  # missing or damaged: the source is read from its beginning
        return []


def _packets(source: Source) -> Iterator[bytes]:
    try:
        with av.open(str(source.path), options=OPEN_OPTIONS, metadata_errors="replace") as container:
            streams: list[Any] = video_streams(container)[source.stream :]
            for packet in container.demux(streams[0]) if streams else ():
                if packet.size:
                    yield bytes(packet)
    except (av.error.FFmpegError, OSError, ValueError):
        return  # what is wrong with it is named when it is decoded


def _digest(source: Source, count: int) -> str:
    digest = hashlib.sha256()
    for packet in islice(_packets(source), count):
        digest.update(packet)
    return digest.hexdigest()
