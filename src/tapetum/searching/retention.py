"""Erasing sightings with everything that belongs to them, at request or when they are too old.

Of a sighting a gallery holds row, vector and crop, and its folder a line in the list of its source. All of them go.
What stays is a digest of its id in ``erased.txt``, and of a loose picture one of its content, because its id is another
under another file name: nobody can tell from them who or what was seen, and indexing the same footage again knows by
them what must not come back. ``retention.json`` says for how many days a gallery keeps anything.
"""

import hashlib
import json
import math
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tapetum.core.atomic import write_bytes
from tapetum.core.errors import GalleryError, OutputError
from tapetum.footage.lists import drop_unfinished, forget_refusals, strike_sightings
from tapetum.gallery.filters import Compare, Filter, as_filter
from tapetum.gallery.schema import SHARDS
from tapetum.gallery.store import SECONDS_A_DAY, Store
from tapetum.searching.strangers import forget_strangers, has_strangers, write_strangers

ERASED = "erased.txt"
KEPT = "retention.json"
TOO_OLD = "older than this gallery keeps"  # why a sighting is not even stored
_PICTURE = "picture-"  # before the digest of a picture's content in `ERASED`
_ID = re.compile(rb'"id": "([^"]+)"')  # in a line about a sighting


@dataclass(frozen=True)
class Erasure:
    """What was removed, for an audit log."""

    ids: tuple[str, ...] = ()  # of the rows, by time
    lines: int = 0  # taken out of the lists of their sources
    unfinished: int = 0  # crops without a row that killed runs had left

    def __len__(self) -> int:
        return len(self.ids)


def erase(store: Store, filter: str | Filter) -> Erasure:  # noqa: A002
    """Remove sightings for good: rows, vectors, crops, and their lines in the lists of footage.

    Args:
        filter: which; there is no way to say "all" by leaving it out.
    Raises:
        FilterError: the filter is wrong; nothing is removed.
        OutputError: another writer, or a file cannot be written or removed; repeat the call then.
    """
    rows = as_filter(filter)
    if rows is None:
        raise GalleryError(f"{store.where}: erasing needs a filter; name the rows to remove")
    with store.writing():
        found = store.columns(["time", "id", "crop"], rows)
        ids = tuple(name for _, name in sorted(zip(found["time"], found["id"], strict=True)))
        lines = unfinished = 0
        if store.folder is not None:
            if ids:
                _remember(store.folder, ids, _loose_crops(found["id"], found["crop"]))
                forget_strangers(store.folder)
                _drop_shards(store.folder, ids)
                lines = strike_sightings(store.folder, frozenset(ids))
            unfinished = drop_unfinished(store.folder, frozenset(store.columns(["crop"])["crop"]))
        if ids:
            store.delete(rows)
        if not has_strangers(store):  # also behind an erasure that was killed: searches look what strangers say
            write_strangers(store)
    return Erasure(ids, lines, unfinished)


def apply_retention(store: Store, now: float | None = None) -> Erasure:
    """Erase what is older than the gallery keeps; nothing where it keeps everything.

    Args:
        now: seconds since 1970-01-01 UTC; None takes the clock.
    Raises:
        OutputError: as for `erase`.
    """
    days = read_keep_days(store)
    if days is None:
        return Erasure()
    return erase(store, Compare("time", "<", oldest_kept(days, now)))


def oldest_kept(days: float, now: float | None = None) -> float:
    """From when on sightings are kept, seconds since 1970-01-01 UTC."""
    return (time.time() if now is None else now) - days * SECONDS_A_DAY


def read_keep_days(store: Store) -> float | None:
    """For how many days a gallery keeps what it saw; None for ever.

    Raises:
        GalleryError: the note is damaged.
    """
    if store.folder is None:
        return None
    path = store.folder / KEPT
    try:
        days = json.loads(path.read_bytes())["keep_days"]
        return None if days is None else float(days)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise GalleryError(
            f"{path}: cannot be read ({error}); say again how long to keep: tapetum gallery keep"
        ) from None


def write_keep_days(store: Store, days: float | None) -> None:
    """Decide for how many days a gallery keeps what it saw.

    Where it keeps longer than before, footage of which something was too old is read again by the next indexing.

    Args:
        days: above 0; None for ever.
    Raises:
        GalleryError: days out of range, or the gallery has no folder to write it down in.
        OutputError: another writer, or the disk is full.
    """
    if days is not None:
        check_days(days, store.where)
    if store.folder is None:
        raise GalleryError(f"{store.where}: has no folder to write retention down in; name one with --folder")
    with store.writing():
        try:
            before = read_keep_days(store)
        except GalleryError:  # damaged; it is written anew here
            before = 0.0
        if before is not None and (days is None or days > before):
            forget_refusals(store.folder, TOO_OLD)
        write_bytes(store.folder / KEPT, json.dumps({"keep_days": days}).encode())


def check_days(days: float, place: str) -> None:
    """Refuse a number of days for which nothing can be kept.

    Args:
        place: for the message.
    Raises:
        GalleryError: not above 0, or no number.
    """
    if not (days > 0 and math.isfinite(days)):
        raise GalleryError(f"{place}: keep {days} days; want more than 0")


def digest_id(name: str) -> str:
    """What is kept of an erased sighting's id."""
    return hashlib.sha256(f"erased {name}".encode()).hexdigest()[:32]


def digest_picture(content: bytes) -> str:
    """What is kept of an erased loose picture's content."""
    return hashlib.sha256(b"erased picture " + content).hexdigest()[:32]


def read_erased(folder: Path) -> set[str]:
    """Digests of the id of every sighting that was erased from a gallery.

    Raises:
        GalleryError: the file cannot be read.
    """
    return {line for line in _read_lines(folder) if not line.startswith(_PICTURE)}


def read_erased_pictures(folder: Path) -> set[str]:
    """Digests of the content of every loose picture that was erased from a gallery.

    Raises:
        GalleryError: the file cannot be read.
    """
    return {line.removeprefix(_PICTURE) for line in _read_lines(folder) if line.startswith(_PICTURE)}


def _read_lines(folder: Path) -> set[str]:
    try:
        return set((folder / ERASED).read_text(encoding="ascii").split())
    except FileNotFoundError:
        return set()
    except (OSError, ValueError) as error:
        raise GalleryError(
            f"{folder / ERASED}: cannot be read ({error}), and without it erased sightings could come back; "
            "restore it from a backup"
        ) from None


def _drop_shards(folder: Path, ids: Iterable[str]) -> None:
    """Finished shards of an unfinished job (`indexing.shards`) that hold somebody; the job makes them anew."""
    names = {name.encode() for name in ids}
    for path in sorted(folder.glob(f"{SHARDS}/*/*")):
        try:
            if path.is_file() and not names.isdisjoint(_ID.findall(path.read_bytes())):
                path.unlink()
        except FileNotFoundError:  # its job has ended
            continue
        except OSError as error:
            raise OutputError(f"{path}: cannot be removed ({error.strerror}); allow it and repeat the call") from None


def _loose_crops(ids: Iterable[str], crops: Iterable[str]) -> list[str]:
    """Crops that are loose pictures: each is named by its own id."""
    return [crop for name, crop in zip(ids, crops, strict=True) if Path(crop).stem == name]


def _remember(folder: Path, ids: Iterable[str], pictures: Iterable[str]) -> None:
    digests = _read_lines(folder) | {digest_id(name) for name in ids}
    for picture in pictures:
        try:
            digests.add(_PICTURE + digest_picture((folder / picture).read_bytes()))
        except FileNotFoundError:  # a call that was cut short has removed it
            continue
        except OSError as error:
            raise OutputError(
                f"{folder / picture}: cannot be read ({error.strerror}), so that it could come back under another "
                "name; nothing was erased: allow it, or remove it"
            ) from None
    write_bytes(folder / ERASED, "".join(f"{digest}\n" for digest in sorted(digests)).encode())
