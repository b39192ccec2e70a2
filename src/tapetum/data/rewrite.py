"""Another data set of the same tree and names: each picture changed, every other file copied.

The result depends neither on the order nor on the number of threads, and typed again after an interruption it goes on.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tapetum.core.atomic import make_folder, write_bytes
from tapetum.core.errors import DataError, OutputError
from tapetum.core.locks import locked
from tapetum.core.pixels import encode_jpeg
from tapetum.data.image_io import Picture, read_picture, write_picture
from tapetum.data.layout import SUFFIXES
from tapetum.data.threads import Progress, map_in_threads, report

JPEG_QUALITY = 95
Change = Callable[[Picture], tuple[Picture, int]]  # -> picture and JPEG quality


@dataclass(frozen=True)
class RewriteResult:
    """What was done."""

    written: int
    existing: int  # pictures that an earlier run had written
    copied: int  # other files (lists, readmes), copied unchanged
    skipped: tuple[str, ...]  # one message for each picture that cannot be decoded


def rewrite_dataset(
    src: Path,
    dst: Path,
    change: Change,
    *,
    verb: str,
    settings: Mapping[str, Any],
    skip_corrupt: bool = False,
    num_workers: int = 2,
    progress: Progress | None = None,
) -> RewriteResult:
    """Write every picture below a folder changed into another folder.

    Args:
        dst: new, empty, or begun by the same command from the same files. Its ``VERB.json`` names both and says whether
            it is complete.
        change: of a picture alone, so that copies of one (Night600's queries in the gallery) stay copies.
        verb: what is done, e.g. "darken".
        settings: plain values; equal ones make equal pictures.
    Raises:
        DataError: `src` is missing or holds no picture, or a picture cannot be decoded.
        OutputError: `dst` holds something else, cannot be written, or another run writes there.
    """
    source, target = src.resolve(), dst.resolve()
    if not source.is_dir():
        raise DataError(f"{verb}: {src} does not exist or is no folder; give the root of a dataset")
    if target == source or source in target.parents:
        raise OutputError(f"{verb}: {dst} lies inside {src}; choose a folder outside of it")
    files = [path for path in sorted(source.rglob("*")) if path.is_file() and not path.name.startswith(".")]
    if not any(path.suffix.lower() in SUFFIXES for path in files):
        raise DataError(f"{verb}: no picture in {src} (files ending in {', '.join(sorted(SUFFIXES))}); check the root")
    facts: dict[str, object] = {"settings": dict(settings), "source": _digest(source, files)}
    marker = target / f"{verb}.json"
    if not marker.is_file() and target.is_dir() and any(target.glob("[!.]*")):
        raise OutputError(f"{verb}: {dst} is not empty and was not begun by {verb}; choose another folder")
    make_folder(target)

    def process(path: Path) -> tuple[str, str]:
        return _process(path, target / path.relative_to(source), change, skip_corrupt)

    kinds = {"written": 0, "existing": 0, "copied": 0, "skipped": 0}
    skipped = []
    with locked(target / ".lock", f"{verb}: {dst} is in use by another run"):
        _mark_begun(marker, facts, verb)
        for folder in sorted({path.parent.relative_to(source) for path in files}):
            make_folder(target / folder)
        outcomes = map_in_threads(process, files, num_workers, ahead=16)
        for kind, message in report(outcomes, len(files), progress, every=64):
            kinds[kind] += 1
            if kind == "skipped":
                skipped.append(message)
        _write_marker(marker, {**facts, "complete": True})
    return RewriteResult(kinds["written"], kinds["existing"], kinds["copied"], tuple(skipped))


def _process(path: Path, goal: Path, change: Change, skip_corrupt: bool) -> tuple[str, str]:
    """Change or copy one file: (kind, message)."""
    is_picture = path.suffix.lower() in SUFFIXES
    if goal.exists():
        return ("existing" if is_picture else "copied"), ""
    if not is_picture:
        write_bytes(goal, path.read_bytes())
        return "copied", ""
    try:
        picture = read_picture(path)
    except DataError as error:
        if skip_corrupt:
            return "skipped", str(error)
        raise
    changed, quality = change(picture)
    if path.suffix.lower() in (".jpg", ".jpeg"):
        write_bytes(goal, encode_jpeg(changed, quality))
    else:
        write_picture(goal, changed)
    return "written", ""


def _digest(source: Path, files: Sequence[Path]) -> str:
    """Names the source by the relative names and sizes of its files, wherever it lies."""
    lines = [f"{path.relative_to(source).as_posix()}/{path.stat().st_size}" for path in files]
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()[:16]


def _mark_begun(marker: Path, facts: dict[str, object], verb: str) -> None:
    """Mark the folder with source and settings; refuse one that was begun from or with others."""
    if marker.is_file():
        try:
            before = json.loads(marker.read_text(encoding="utf-8"))
        except ValueError:
            before = {}
        for name, what in (("settings", "with other settings"), ("source", "from other pictures")):
            if before.get(name) != json.loads(json.dumps(facts[name])):
                raise OutputError(
                    f"{verb}: {marker.parent} was begun {what} (see {marker.name}); choose another folder"
                )
    _write_marker(marker, {**facts, "complete": False})


def _write_marker(marker: Path, content: dict[str, object]) -> None:
    write_bytes(marker, (json.dumps(content, indent=1, sort_keys=True) + "\n").encode())
