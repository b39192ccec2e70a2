"""How cost grows: `python -m benchmarks.growth evaluation|gallery|index|service [--sizes 1k,10k] [--out FILE]`.

Prints a row as it goes, writes `docs/results/growth_<what>.json` and draws `docs/_static/growth_<what>.svg` after each
size. Typed again it goes on: a size that is in the file is not measured again, unless other programs took more than a
tenth of the processors before it and take less now; `--again` measures all sizes that are asked for.
"""

import argparse
import importlib
import json
import shutil
import sys
import time
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.__main__ import describe_machine
from benchmarks.growth.subject import Row, Subject, parse_size, processor_times
from benchmarks.workers import wait_as_the_program
from tapetum.core.atomic import make_folder, write_bytes
from tapetum.core.errors import RecipeError, TapetumError
from tapetum.core.threads import count_threads

RESULTS, FIGURES, WORK = Path("docs/results"), Path("docs/_static"), Path("runs/growth")
QUIET = 0.1  # share of the processors that others may take
WATCHED_SECONDS = 3.0
SUBJECTS = ("evaluation", "gallery", "index", "service")  # imported when asked for: each process has few of them


def main(words: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=__doc__)
    parser.add_argument("what", choices=SUBJECTS)
    parser.add_argument("--sizes", help="such as 1k,10k,1M; default: all")
    parser.add_argument("--out", type=Path, help="JSON; the figure lies beside it; default: in docs")
    parser.add_argument("--again", action="store_true", help="measure what is in the file once more")
    parser.add_argument("--seconds", type=float, help="of each camera's footage (index), of asking (service)")
    parser.add_argument("--detector", help="of tapetum index (index)")
    given = parser.parse_args(words)
    options = {name: getattr(given, name) for name in ("seconds", "detector") if getattr(given, name) is not None}
    try:
        subject = build_subject(given.what, options)
        sizes = [parse_size(text) for text in given.sizes.split(",")] if given.sizes else list(subject.sizes)
        path = given.out or RESULTS / f"growth_{given.what}.json"
        picture = path.with_suffix(".svg") if given.out else FIGURES / f"growth_{given.what}.svg"
        measure_all(given.what, subject, sizes, path, picture, again=given.again)
    except TapetumError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def build_subject(what: str, options: dict[str, Any]) -> Subject:
    """The subject with the options that it has.

    Raises:
        RecipeError: it has another.
    """
    known = {"index": ("seconds", "detector"), "service": ("seconds",)}.get(what, ())
    for name in options:
        if name not in known:
            raise RecipeError(f"{what}: --{name} is no option of it; leave it out")
    if options.get("seconds", 1) <= 0:
        raise RecipeError(f"{what}: --seconds {options['seconds']} is no time; write more than 0")
    subject: Subject = importlib.import_module(f"benchmarks.growth.{what}").build(**options)
    return replace(subject, settings=subject.settings | {"threads": count_threads()})


def measure_all(what: str, subject: Subject, sizes: Sequence[int], path: Path, picture: Path, *, again: bool) -> None:
    """Measure what is missing, and write after each size."""
    rows = {} if again and not is_same(read(path), subject) else read_rows(path, subject)
    work = WORK / what
    make_folder(work)
    print(f"{describe_machine()}; {subject.settings}")
    for size in sorted(sizes):
        others = share_of_others()
        if not again and is_settled(rows.get(size), others):
            print(f"{size:>10,} {subject.counted}: is in {path}")
            continue
        rows[size] = {"size": size, "others": round(others, 2)} | measure_one(subject, size, work)
        print(f"{size:>10,} {subject.counted}: {tell(rows[size])}", flush=True)
        write(what, subject, [rows[each] for each in sorted(rows)], path, picture)
    write(what, subject, [rows[each] for each in sorted(rows)], path, picture)  # knees by today's rule, if nothing else
    for panel in subject.panels:
        if panel.knee:
            where = panel.knee.say([rows[each] for each in sorted(rows)], subject.counted)
            print(f"{panel.title}: knee {where} ({panel.knee.meaning})")
    print(f"beyond: {subject.beyond}")


def measure_one(subject: Subject, size: int, work: Path) -> Row:
    """The figures, or why there are none."""
    if reason := subject.needs(size).refuse(work):
        return {"left_out": reason}
    folder = work / "now"
    shutil.rmtree(folder, ignore_errors=True)
    make_folder(folder)
    begun = time.perf_counter()
    try:
        found = subject.measure(size, folder)
    except BrokenProcessPool:
        return {"left_out": "the process was ended from outside, most likely because the memory was full"}
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    found["took_seconds"] = time.perf_counter() - begun
    return {key: float(f"{value:.4g}") if isinstance(value, float) else value for key, value in found.items()}


def is_settled(row: Row | None, others: float) -> bool:
    """Whether a size need not be measured (again)."""
    return row is not None and "left_out" not in row and (row["others"] <= QUIET or others > QUIET)


def share_of_others() -> float:
    """Of all processors' time, while this process waits."""
    before = processor_times()
    time.sleep(WATCHED_SECONDS)
    working, total = (now - then for now, then in zip(processor_times(), before, strict=True))
    return working / total if total else 0.0


def read(path: Path) -> dict[str, Any]:
    """The file; empty where there is none.

    Raises:
        RecipeError: it cannot be read.
    """
    try:
        return dict(json.loads(path.read_bytes())) if path.is_file() else {}
    except ValueError:
        raise RecipeError(f"{path}: is no JSON of this command; remove it, or name another with --out") from None


def is_same(content: dict[str, Any], subject: Subject) -> bool:
    """Whether rows of this machine and these settings are in it."""
    return (content.get("machine"), content.get("settings")) == (describe_machine(), subject.settings)


def read_rows(path: Path, subject: Subject) -> dict[int, Row]:
    """Size -> row.

    Raises:
        RecipeError: another machine's, or of other settings.
    """
    content = read(path)
    if content and not is_same(content, subject):
        raise RecipeError(
            f"{path}: was measured on {content.get('machine')!r} with {content.get('settings')}, this is "
            f"{describe_machine()!r} with {subject.settings}; name another file with --out, or replace it with --again"
        )
    return {row["size"]: row for row in content.get("rows", ())}


def write(what: str, subject: Subject, rows: list[Row], path: Path, picture: Path) -> None:
    """The file and its figure."""
    from tapetum.plots.growth import GrowthPanel, describe_growth, draw_growth
    from tapetum.plots.style import figure_bytes

    there = [row for row in rows if "left_out" not in row]
    knees = {panel.title: size for panel in subject.panels if panel.knee and (size := panel.knee.find(there))}
    content: dict[str, Any] = {
        "command": f"python -m benchmarks.growth {what}",
        "machine": describe_machine(),
        "settings": subject.settings,
        "knees": knees,
    }
    if there:
        sizes = np.array([row["size"] for row in there], dtype=np.float64)
        panels = [GrowthPanel(panel.title, panel.values(there), knees.get(panel.title)) for panel in subject.panels]
        busy = sum(row["others"] > QUIET for row in there)
        note = f"{busy} of {len(there)} sizes on a busy machine" if busy else ""
        make_folder(picture.parent)
        figure = draw_growth(sizes, panels, counted=subject.counted, note=note)
        write_bytes(picture, figure_bytes(figure, ".svg"))
        content["figure"] = describe_growth(sizes, panels, counted=subject.counted, note=note)
    make_folder(path.parent)
    write_bytes(path, (json.dumps(content | {"rows": rows}, indent=1) + "\n").encode())


def tell(row: Row) -> str:
    """One line."""
    return ", ".join(
        f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in row.items()
    )


if __name__ == "__main__":
    wait_as_the_program()
    sys.exit(main())
