"""What the lists of footage say of rows and of what is no row: uncertain times and cameras, and what was too dark."""

import threading
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath
from weakref import WeakKeyDictionary

from tapetum.footage.lists import Listed, Stamped, lists_stamp, read_listed_by_key
from tapetum.footage.origin import GUESSED_TIME, ORIGINS
from tapetum.gallery.filters import Among, And, Compare, Filter, Not, Or, parse_time
from tapetum.gallery.schema import Row
from tapetum.gallery.store import Store

_MOST_NAMED = 5  # cameras


def listed_sources(store: Store) -> dict[str, Listed]:
    """The finished sources of a gallery by their key; read again where a list has come or gone."""
    if store.folder is None:
        return {}
    stamp = lists_stamp(store.folder)
    with _READING:
        if store not in _READ or _READ[store][0] != stamp:
            known = _READ[store][1] if store in _READ else {}
            _READ[store] = stamp, read_listed_by_key(store.folder, known)
        return {key: listed for key, (_, listed) in _READ[store][1].items() if listed is not None}


def say_uncertain(store: Store, rows: Iterable[Row]) -> dict[str, str]:
    """Why time or camera of rows may be another: id to words, of those rows alone.

    A list counts the origins of its times and does not say which row has which: where only some are guesses, each row
    of the source is said to be perhaps one.
    """
    listed = listed_sources(store)
    said: dict[str, str] = {}
    if listed:
        of_source = {key: _say(source) for key, source in listed.items()}
        for row in rows:
            if words := of_source.get(_key_of(row), ""):
                said[row.sighting.id] = words
    return said


def dark_sources(store: Store, rows: Filter | None) -> list[Listed]:
    """Sources too dark to detect anybody whose people, had they been seen, might pass a filter."""
    return [
        source
        for source in listed_sources(store).values()
        if source.is_dark and any(_may_pass(rows, camera, source.start) for camera in cameras_of(source))
    ]


def say_dark(sources: Sequence[Listed]) -> str:
    """For people; empty where there are none."""
    if not sources:
        return ""
    cameras = ", ".join(sorted({camera for source in sources for camera in cameras_of(source)})[:_MOST_NAMED])
    count = len({source.source for source in sources})  # one that was read by several settings has several lists
    return (
        f"{count} of what was indexed, by camera {cameras}, was too dark to detect anybody: who was there is not known"
    )


def cameras_of(source: Listed) -> set[str]:
    """The cameras of a source."""
    return {fact.camera for fact in source.cameras} or {source.camera}


def _key_of(row: Row) -> str:
    """The key of the list that a row came from: a tracklet's name begins with it, and a crop's folder has it."""
    seen = row.sighting
    return seen.tracklet.rpartition("-")[0] or PurePosixPath(seen.crop).parent.name


def _say(source: Listed) -> str:
    total, guessed = sum(source.time_origins.values()), source.time_origins.get("mtime", 0)
    parts = []
    if guessed:
        whose = "a guess" if guessed == total else f"a guess for {guessed} of {total} crops of this source"
        parts.append(f"time from the {ORIGINS['mtime']}, {whose}")
    parts += [f"in doubt: {doubt}" for doubt in source.doubts if doubt != GUESSED_TIME]
    return "; ".join(parts)


def _may_pass(tree: Filter | None, camera: str, start: str | None) -> bool:
    return tree is None or _decide(tree, camera, None if start is None else parse_time(start)) is not False


def _decide(tree: Filter, camera: str, start: float | None) -> bool | None:
    """Whether what a camera recorded from a moment on passes; None where that is not known."""
    match tree:
        case Compare("camera", sign, value):
            return (camera == value) == (sign == "==")
        case Among("camera", values):
            return camera in values
        case Compare("time", "<" | "<=", value) if start is not None and isinstance(value, float) and start > value:
            return False
        case Compare("time", ">" | ">=", value) if start is not None and isinstance(value, float) and start > value:
            return True
        case Not(part):
            passes = _decide(part, camera, start)
            return None if passes is None else not passes
        case And(parts):
            decided = [_decide(part, camera, start) for part in parts]
            return False if False in decided else None if None in decided else True
        case Or(parts):
            decided = [_decide(part, camera, start) for part in parts]
            return True if True in decided else None if None in decided else False
    return None


_READING = threading.Lock()
_READ: WeakKeyDictionary[Store, tuple[int, Stamped]] = WeakKeyDictionary()  # stamp of their folder, and the lists
