"""Turn a daytime dataset into a night one: the same tree and names, darker pictures.

"sensor" undoes the display gamma and takes the picture again with the night scene's camera model (light, noise, lost
colours); "gamma" is the plain power of the IDF paper's Market1501-N, which has no noise.

A picture's random numbers hang on its content and the seed, so copies (Night600's queries in the gallery) stay copies,
and the result depends neither on the order nor on the number of threads.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from tapetum.core.atomic import make_folder, write_bytes
from tapetum.core.errors import DataError, OutputError
from tapetum.core.locks import locked
from tapetum.core.pixels import encode_jpeg
from tapetum.core.seeding import numpy_generator
from tapetum.data.image_io import Picture, read_picture, write_picture
from tapetum.data.layout import SUFFIXES
from tapetum.data.threads import Progress, map_in_threads, report
from tapetum.synth.sensor import DarkenOptions, darken_picture, gamma_darken

MARKER = "darken.json"
Model = Literal["sensor", "gamma"]


@dataclass(frozen=True)
class DarkenResult:
    """What was done."""

    written: int
    existing: int  # pictures that an earlier run had darkened
    copied: int  # other files (lists, readmes), copied unchanged
    skipped: tuple[str, ...]  # one message for each picture that cannot be decoded


def darken_dataset(
    src: Path,
    dst: Path,
    *,
    model: Model = "sensor",
    gamma: float = 3.0,
    seed: int = 0,
    options: DarkenOptions | None = None,
    skip_corrupt: bool = False,
    num_workers: int = 2,
    progress: Progress | None = None,
) -> DarkenResult:
    """Darken every picture below a folder; typed again after an interruption it goes on where it stopped.

    Args:
        dst: where the night dataset goes; new, empty, or begun by the same command from the same files. Its
            ``darken.json`` names both and says whether it is complete.
        gamma: exponent of "gamma"; the paper does not state its own.
        seed: of lamp colour, fall-off, exposure and noise of "sensor".
    Raises:
        DataError: `src` is missing or holds no picture, or a picture cannot be decoded.
        OutputError: `dst` holds something else, cannot be written, or another run writes there.
    """
    source, target = src.resolve(), dst.resolve()
    if not source.is_dir():
        raise DataError(f"darken: {src} does not exist or is no folder; give the root of a dataset")
    if target == source or source in target.parents:
        raise OutputError(f"darken: {dst} lies inside {src}; choose a folder outside of it")
    files = [path for path in sorted(source.rglob("*")) if path.is_file() and not path.name.startswith(".")]
    if not any(path.suffix.lower() in SUFFIXES for path in files):
        raise DataError(f"darken: no picture in {src} (files ending in {', '.join(sorted(SUFFIXES))}); check the root")
    settings = options or DarkenOptions()
    facts: dict[str, object] = {
        "settings": {"model": model, "seed": seed, **({"gamma": gamma} if model == "gamma" else asdict(settings))},
        "source": _digest(source, files),
    }
    if not (target / MARKER).is_file() and target.is_dir() and any(target.glob("[!.]*")):
        raise OutputError(f"darken: {dst} is not empty and was not begun by darken; choose another folder")
    make_folder(target)

    def process(path: Path) -> tuple[str, str]:
        return _process(
            path, target / path.relative_to(source), _build_change(model, gamma, seed, settings), skip_corrupt
        )

    kinds = {"written": 0, "existing": 0, "copied": 0, "skipped": 0}
    messages = []
    with locked(target / ".lock", f"darken: {dst} is in use by another run"):
        _mark_begun(target, facts)
        for folder in sorted({path.parent.relative_to(source) for path in files}):
            make_folder(target / folder)
        outcomes = map_in_threads(process, files, num_workers, ahead=16)
        for kind, message in report(outcomes, len(files), progress, every=64):
            kinds[kind] += 1
            if kind == "skipped":
                messages.append(message)
        _write_marker(target, {**facts, "complete": True})
    return DarkenResult(kinds["written"], kinds["existing"], kinds["copied"], tuple(messages))


_Change = Callable[[Picture, str], tuple[Picture, int]]  # picture and content digest -> picture and JPEG quality


def _build_change(model: Model, gamma: float, seed: int, options: DarkenOptions) -> _Change:
    if model == "gamma":
        return lambda picture, _: (gamma_darken(picture, gamma), 95)
    return lambda picture, digest: (
        darken_picture(picture, options, numpy_generator(seed, "darken", digest)),
        options.sensor.jpeg_quality,
    )


def _process(path: Path, goal: Path, change: _Change, skip_corrupt: bool) -> tuple[str, str]:
    """Darken or copy one file: (kind, message)."""
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
    dark, quality = change(picture, hashlib.sha256(picture.tobytes()).hexdigest())
    if path.suffix.lower() in (".jpg", ".jpeg"):
        write_bytes(goal, encode_jpeg(dark, quality))
    else:
        write_picture(goal, dark)
    return "written", ""


def _digest(source: Path, files: Sequence[Path]) -> str:
    """Names the source by the relative names and sizes of its files, wherever it lies."""
    lines = [f"{path.relative_to(source).as_posix()}/{path.stat().st_size}" for path in files]
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()[:16]


def _mark_begun(target: Path, facts: dict[str, object]) -> None:
    """Mark the folder with source and settings; refuse one that was begun from or with others."""
    marker = target / MARKER
    if marker.is_file():
        try:
            content = json.loads(marker.read_text(encoding="utf-8"))
        except ValueError:
            content = {}
        for name, what in (("settings", "with other settings"), ("source", "from other pictures")):
            if content.get(name) != json.loads(json.dumps(facts[name])):
                raise OutputError(f"darken: {target} was begun {what} (see {MARKER}); choose another folder")
    _write_marker(target, {**facts, "complete": False})


def _write_marker(target: Path, content: dict[str, object]) -> None:
    write_bytes(target / MARKER, (json.dumps(content, indent=1, sort_keys=True) + "\n").encode())
