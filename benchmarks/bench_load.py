"""Beside a process with two busy threads, which it starts: how much is left of training, extraction, index and serve.

Each piece of work runs in processes of its own, one for each setting of the threads. They take turns, first without the
busy process, then beside it. The ratio of a row is what is left, of 1. With as many threads as the busy process has,
a fair share is a half on two cores; asked is no less than half of that.

`OPENMP` are the settings: as `tapetum` sets them, and what the libraries do alone (GNU's OpenMP turns round 300,000
times before it sleeps), a short turn, and one thread. KMP_BLOCKTIME is for Intel's OpenMP, which no PyTorch from PyPI
uses on Linux; "passive" tells it the same. With TAPETUM_BEFORE=SRC, the `src` folder of an earlier checkout takes turns
as well.
"""

import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from benchmarks.bench_service import make_gallery, make_model
from benchmarks.load_work import WORK
from benchmarks.measure import build_row
from benchmarks.workers import ROOT, Ask, NotPreparedError, worker
from tapetum.core.threads import count_threads
from tapetum.data.generate import generate_dataset, generate_video
from tapetum.inference.export import export_run
from tapetum.inference.sessions import open_model
from tapetum.synth.scene import SceneOptions

LONG = True
OURS, ALONE = "as tapetum sets it", "as the libraries do"
OPENMP: Mapping[str, Mapping[str, str]] = {
    OURS: {},
    ALONE: {"GOMP_SPINCOUNT": "300000"},
    "short turns": {"GOMP_SPINCOUNT": "1000"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}
ROUNDS = 3
ROWS = 2000
BUSY_THREADS = 2
# Hashing releases Python's lock, so that both threads compute all the time.
BUSY = f"""
import hashlib, threading
def turn(content=bytes(1 << 22)):
    while True:
        hashlib.sha256(content).digest()
for _ in range({BUSY_THREADS}):
    threading.Thread(target=turn).start()
"""


def run(kinds: tuple[str, ...] = tuple(WORK), rounds: int = ROUNDS) -> Iterator[dict[str, Any]]:
    """Rows of each piece of work and setting."""
    with tempfile.TemporaryDirectory() as name:
        prepare(Path(name))
        for kind in kinds:
            yield from measure(kind, Path(name), rounds)


def measure(kind: str, folder: Path, rounds: int) -> Iterator[dict[str, Any]]:
    """One piece of work by each setting, in turn."""
    asks: dict[str, Ask] = {}
    left_out = ""
    with ExitStack() as stack:

        def start(settings: Mapping[str, str], source: Path = ROOT / "src") -> Ask:
            return stack.enter_context(
                worker("benchmarks.load_work", kind, str(folder), environment=settings, source=source)
            )

        for side, settings in OPENMP.items():
            asks[side] = start(settings)
        if before := os.environ.get("TAPETUM_BEFORE"):
            try:
                asks["by the commit before"] = start({}, Path(before))
            except NotPreparedError as error:  # it may not read what today's checkout wrote
                left_out = f"; the commit before is left out: {error}"
        rates: dict[tuple[str, bool], list[float]] = {(side, busy): [] for side in asks for busy in (False, True)}
        for _ in range(rounds):
            for side, ask in asks.items():
                rates[side, False].append(ask(""))
            with busy_process():
                for side, ask in asks.items():
                    rates[side, True].append(ask(""))
    middle = {key: statistics.median(each) for key, each in rates.items()}
    unit = {"index": "frames/s", "serve": "answers/s"}.get(kind, "pictures/s")
    fair = fair_share()
    for side in asks:
        alone, beside = middle[side, False], middle[side, True]
        name = f"{kind}, {side}: beside a busy process, against alone"
        if side == OURS:
            yield build_row(name, beside, alone, unit, target=fair / 2, note=f"a fair share is {fair:.2f}{left_out}")
        else:
            yield build_row(name, beside, alone, unit)
    yield build_row(f"{kind}: alone, {OURS}, against {ALONE}", middle[OURS, False], middle[ALONE, False], unit)


def fair_share() -> float:
    """What is left of all cores where each of our threads and of the busy ones gets as much."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(1.0, cores / (count_threads() + BUSY_THREADS))


def prepare(folder: Path) -> None:
    """A scene, a run and its artefact, a gallery, a video."""
    generate_dataset(folder / "scene", "synth", SceneOptions(num_train_people=12, num_test_people=6, cameras=4))
    place = make_model(folder)
    export_run(place, "openvino", folder / "artefact")
    make_gallery(folder / "gallery", place, open_model(place), ROWS)
    generate_video(folder / "video", SceneOptions(num_train_people=0, num_test_people=6, cameras=1), seconds=20)


@contextmanager
def busy_process() -> Iterator[None]:
    """Two threads that never wait."""
    process = subprocess.Popen([sys.executable, "-c", BUSY])
    try:
        yield
    finally:
        process.kill()
        process.wait()
