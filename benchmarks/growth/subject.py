"""What the four measurements of growth have in common: sizes, what a size needs, a row a size, panels and knees."""

import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from tapetum.core.errors import RecipeError

GIB = 2**30
DISK_KEPT = 15 * GIB  # stays free for whatever else the machine does
MEMORY_KEPT = 1 * GIB
ENOUGH = 3  # sizes before a knee is looked for
P = ParamSpec("P")
T = TypeVar("T")
Row = dict[str, Any]  # "size" and figures by name, or "size" and "left_out" with the reason


@dataclass(frozen=True)
class Knee:
    """Where growth changes: the smallest size from which on every step to the next one is as `steps` wants it.

    Attributes:
        key: of the figure that is looked at.
        steps: takes a slope on two logarithmic axes: 1 is in proportion, 2 as the square, 0 no growth.
        meaning: what begins at the knee.
        counts: which rows are looked at.
    """

    key: str
    steps: Callable[[float], bool]
    meaning: str
    counts: Callable[[Row], bool] = bool

    def find(self, rows: Sequence[Row]) -> float | None:
        """The size; None where the last step is not of that kind, too few sizes are there to say, or all are of it."""
        found, smallest = self._look(rows)
        return None if found == smallest else found

    def say(self, rows: Sequence[Row], counted: str) -> str:
        """Where it is, in words: growth that is of that kind from the smallest size on changes nowhere."""
        from tapetum.plots.growth import short_number  # with matplotlib, which no measured process needs

        found, smallest = self._look(rows)
        if found is None:
            return "not reached"
        return f"{'from the smallest size on,' if found == smallest else 'at'} {short_number(found)} {counted}"

    def _look(self, rows: Sequence[Row]) -> tuple[float | None, float | None]:
        """The smallest size from which on steps are of that kind, and the smallest of all."""
        there = [row for row in rows if row.get(self.key) and self.counts(row)]
        if len(there) < ENOUGH:
            return None, None
        sizes, values = (np.log([row[key] for row in there]) for key in ("size", self.key))
        found = None
        for place in range(len(there) - 2, -1, -1):
            if not self.steps(float((values[place + 1] - values[place]) / (sizes[place + 1] - sizes[place]))):
                break
            found = float(there[place]["size"])
        return found, float(there[0]["size"])


@dataclass(frozen=True)
class Panel:
    """A panel of the figure.

    Attributes:
        lines: label -> key of the row's figure.
    """

    title: str
    lines: Mapping[str, str]
    knee: Knee | None = None

    def values(self, rows: Sequence[Row]) -> dict[str, NDArray[np.float64]]:
        """Label -> (N,) figures, NaN where a row has none; zero has no place on a logarithmic axis."""
        return {label: np.array([row.get(key) or np.nan for row in rows]) for label, key in self.lines.items()}


@dataclass(frozen=True)
class Needs:
    """Bytes that a size takes at most."""

    memory: int
    disk: int = 0

    def refuse(self, folder: Path) -> str:
        """Why this machine has no room for it; empty where it has.

        Args:
            folder: there, on the disk that is written to.
        """
        free, memory = shutil.disk_usage(folder).free, available_memory()
        if self.disk + DISK_KEPT > free:
            return f"needs {self.disk / GIB:.0f} GiB of disk and {free / GIB:.0f} are free, of which 15 are kept"
        if memory is not None and self.memory + MEMORY_KEPT > memory:
            return f"needs {self.memory / GIB:.1f} GiB of memory and {memory / GIB:.1f} are available"
        return ""


@dataclass(frozen=True)
class Subject:
    """One of the four.

    Attributes:
        counted: what a size counts.
        sizes: without `--sizes`.
        settings: rows of other settings do not belong into one file.
        needs: of a size.
        measure: (size, an empty folder) -> figures.
        panels: of the figure.
        beyond: what to do beyond the knee.
    """

    counted: str
    sizes: tuple[int, ...]
    needs: Callable[[int], Needs]
    measure: Callable[[int, Path], Row]
    panels: tuple[Panel, ...]
    beyond: str
    settings: dict[str, Any] = field(default_factory=dict)


def parse_size(text: str) -> int:
    """A size as people write it: 300, 10k, 1M.

    Raises:
        RecipeError: it is no such number.
    """
    found = re.fullmatch(r"(\d+)([kM]?)", text.strip())
    size = int(found[1]) * {"": 1, "k": 1_000, "M": 1_000_000}[found[2]] if found else 0
    if size < 1:
        raise RecipeError(f"--sizes: {text!r} is no size; write whole numbers above 0 such as 300, 10k or 1M")
    return size


def in_child(function: Callable[P, T], *given: P.args, **named: P.kwargs) -> T:
    """A function's answer out of a fresh process, so that its memory is its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *given, **named).result()


def available_memory() -> int | None:
    """Bytes that programs may still take; None where nobody says it."""
    information = Path("/proc/meminfo")
    found = re.search(r"MemAvailable:\s*(\d+) kB", information.read_text()) if information.is_file() else None
    return 1024 * int(found[1]) if found else None


def processor_times() -> tuple[float, float]:
    """(working, all) seconds of all processors since the machine began; zeros where nobody counts them."""
    counts = Path("/proc/stat")
    if not counts.is_file():
        return 0.0, 0.0
    ticks = [int(word) for word in counts.read_text().splitlines()[0].split()[1:9]]  # user ... iowait at 4 ... steal
    total = sum(ticks) / os.sysconf("SC_CLK_TCK")
    return total - (ticks[3] + ticks[4]) / os.sysconf("SC_CLK_TCK"), total
