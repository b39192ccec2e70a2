"""Run every short benchmark, or those whose name holds one of the given words: `python -m benchmarks evaluation idf`.

A benchmark is a file `bench_<name>.py` with a function `run()` that gives rows (`measure.build_row`), one by one or
as a list. One that says `TAKES_FILES` is given the words that are files, such as clips; one that says `TAKES_NAMES` the
names behind `--only`, with which the others do not run. One that says `LONG` takes more than some five minutes and runs
when its whole name is given; the word `long` stands for all of those. The table is printed as it grows and written to
`runs/bench.json`, which keeps rows of other names. Two words more run what writes files of its own: `growth`, how
cost grows, into `runs/growth_*.json`, hours; `device`, training at published size on a GPU.
"""

import argparse
import importlib
import json
import os
import pkgutil
import platform
import sys
import time
import traceback
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

import benchmarks
from benchmarks.workers import wait_as_the_program
from tapetum.core.atomic import make_folder, write_bytes
from tapetum.core.processor import describe_processor

RESULT = Path("runs") / "bench.json"
ALL_LONG = "long"
APART = ("growth", "device")  # words for what is no benchmark with rows


def list_benchmarks(words: Sequence[str] = ()) -> list[str]:
    """Names of those that the words pick; all short ones without words."""
    names = list_all()
    long = [name for name in names if is_long(name)]
    others = [word for word in words if word != ALL_LONG]
    short = [name for name in names if name not in long and (not words or any(word in name for word in others))]
    return sorted([*short, *(name for name in long if name in words or ALL_LONG in words)])


def list_all() -> list[str]:
    found = (module.name for module in pkgutil.iter_modules(benchmarks.__path__))
    return sorted(name.removeprefix("bench_") for name in found if name.startswith("bench_"))


def is_long(name: str) -> bool:
    """Whether the file says `LONG = True`; read, not imported, so that `--help` answers at once."""
    return "LONG = True" in Path(__file__).with_name(f"bench_{name}.py").read_text(encoding="utf-8").splitlines()


def describe_machine() -> str:
    """What the figures were measured on."""
    import torch  # not before the threads know how to wait

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    python = platform.python_version()
    return (
        f"{describe_processor()}, {cores} cores, Python {python}, PyTorch {torch.__version__}, NumPy {np.__version__}"
    )


def print_row(row: dict[str, Any]) -> None:
    """One line of the table."""
    figures = [f"{row[key]:10.4g}" if row.get(key) is not None else f"{'-':>10}" for key in ("ours", "peer")]
    ratio = f"{row['ratio']:8.2f}x" if row.get("ratio") is not None else f"{'-':>9}"
    target = row.get("target")
    verdict = ""
    if target is not None and row.get("ratio") is not None:
        verdict = f"  asked {target:.3g}x: {'reached' if row['ratio'] >= target else 'MISSED'}"
    print(f"{row['name']:<66} {figures[0]} {figures[1]} {row['unit']:<9} {ratio}{verdict}", flush=True)
    if row.get("note"):
        print(f"    {row['note']}", flush=True)


def save(rows: list[dict[str, Any]], *, kept: list[dict[str, Any]]) -> None:
    """Write the rows measured so far, and older ones of other names, whole or not at all."""
    make_folder(RESULT.parent)
    names = {row["name"] for row in rows}
    everything = [row for row in kept if row["name"] not in names] + rows
    write_bytes(RESULT, (json.dumps(everything, indent=2) + "\n").encode())


def load(name: str) -> ModuleType:
    return importlib.import_module(f"benchmarks.bench_{name}")


def start(benchmark: ModuleType, files: list[Path], only: list[str]) -> Iterable[dict[str, Any]]:
    """Its rows."""
    if getattr(benchmark, "TAKES_FILES", False):
        rows = benchmark.run(files)
    elif getattr(benchmark, "TAKES_NAMES", False):
        rows = benchmark.run(only)
    else:
        rows = benchmark.run()
    found: Iterable[dict[str, Any]] = rows
    return found


def run_apart(word: str) -> int:
    """Run what prints and writes by itself; the exit status."""
    if word == "device":
        status: int = importlib.import_module("benchmarks.device").main([])
        return status
    growth = importlib.import_module("benchmarks.growth.__main__")
    return max(growth.main([what, "--out", str(RESULT.parent / f"growth_{what}.json")]) for what in growth.SUBJECTS)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print, write; the exit status is 1 if a benchmark broke."""
    listed = f"benchmarks: {', '.join(list_benchmarks())}. Long ones: {', '.join(filter(is_long, list_all()))}."
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        epilog=listed,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("words", nargs="*", help="parts of benchmarks' names, long, growth, device, or files for them")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="e.g. a method; repeatable")
    wanted = parser.parse_args(arguments)
    files = [Path(word) for word in wanted.words if Path(word).is_file()]
    words = [word for word in wanted.words if not Path(word).is_file()]
    apart = [word for word in APART if word in words and not wanted.only]
    picking = [word for word in words if word not in APART]
    names = list_benchmarks(picking) if picking or not words else []
    if not names and not apart and not wanted.only:
        print(f"no benchmark is called like {' or '.join(words)}; there are: {', '.join(list_all())}")
        return 2
    if wanted.only and not words:
        print("--only needs the name of a benchmark beside it: methods")
        return 2
    if wanted.only:
        names = [name for name in names if getattr(load(name), "TAKES_NAMES", False)]
    if not names and not apart:
        print(f"{' or '.join(words)}: takes no --only; leave it out, or name the benchmark methods")
        return 2
    broken = measure_all(names, files, wanted.only) if names else []
    for word in apart:
        try:
            broken += [word] * bool(run_apart(word))
        except Exception:
            traceback.print_exc()
            broken.append(word)
    if broken:
        print(f"broken: {', '.join(broken)}")
    return 1 if broken else 0


def measure_all(names: Sequence[str], files: list[Path], only: list[str]) -> list[str]:
    """Print and write the rows of benchmarks; the names of those that broke."""
    machine = describe_machine()
    kept = json.loads(RESULT.read_text()) if RESULT.is_file() else []
    rows: list[dict[str, Any]] = []
    broken = []
    print(machine)
    print(f"{'':<66} {'ours':>10} {'peer':>10} {'unit':<9} {'times as good':>9}")
    for name in names:
        begun = time.perf_counter()
        try:
            for row in start(load(name), files, only):
                row["machine"] = machine
                rows.append(row)
                print_row(row)
                save(rows, kept=kept)
        except Exception:
            traceback.print_exc()
            broken.append(name)
        print(f"    ({name}: {time.perf_counter() - begun:.0f} s)", flush=True)
    print(f"written to {RESULT}" if rows else "nothing was measured")
    return broken


if __name__ == "__main__":
    wait_as_the_program()
    sys.exit(main())
