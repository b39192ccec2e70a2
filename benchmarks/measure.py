"""Timing two sides in turn, so that a busy minute of the machine strikes both alike; peers only a benchmark needs."""

import importlib.util
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

PEERS = Path("runs") / "bench-peers"


class PeerMissingError(Exception):
    """A peer could not be installed; the row then has no ratio, and says so."""


def alternate(functions: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each function, called in turn after one unmeasured round."""
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for turn in range(rounds + 1):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def once(function: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of one call, and what it returned."""
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


def build_row(
    name: str, ours: float | None, peer: float | None, unit: str, *, target: float | None = None, note: str = ""
) -> dict[str, Any]:
    """One line of the table.

    Args:
        name: what is measured, and against what.
        ours: our figure; None where nothing could be measured, and the note says why.
        peer: theirs; None where the peer is absent.
        unit: "pictures/s" and the like, of which more is better; or "s" or "GiB", of which less is.
        target: the ratio asked for.
        note: what a reader must know.
    Returns:
        The row; `ratio` is how many times as good as the peer we are.
    """
    less_is_better = not unit.endswith("/s")
    ratio = None if ours is None or peer is None else peer / ours if less_is_better else ours / peer
    return {"name": name, "ours": ours, "peer": peer, "ratio": ratio, "unit": unit, "target": target, "note": note}


def load_peer(requirement: str, file: str) -> ModuleType:
    """One module file of a published package, installed without its dependencies below `runs/bench-peers`.

    Args:
        requirement: e.g. "torchreid==0.2.5".
        file: path inside the installed folder, e.g. "torchreid/reid/metrics/rank.py".
    Raises:
        PeerMissingError: it is not there and cannot be installed (no network, say).
    """
    folder = PEERS / requirement.replace("==", "-")
    if not (folder / file).is_file():
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder), requirement]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode or not (folder / file).is_file():
            reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise PeerMissingError(f"{requirement} cannot be installed into {folder} ({reason})")
    spec = importlib.util.spec_from_file_location(f"peer_{Path(file).stem}", folder / file)
    if spec is None or spec.loader is None:
        raise PeerMissingError(f"{folder / file} cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
