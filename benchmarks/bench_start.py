"""CPU seconds of short commands, which are mostly those of what they import: user and system time of the process.

With TAPETUM_BEFORE=SRC, the `src` folder of an earlier checkout, the same commands of that one are the peer, in turn
with ours; without it the peer is Python importing torch and nothing else.
"""

import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.measure import build_row
from benchmarks.workers import environment_for

ROUNDS = 3
ASKED = {"search --tracklet": 2.0, "search --query, OpenVINO": 3.0, "gallery info": 0.5, "index of one picture": 3.5}
SRC = Path(__file__).parents[1] / "src"
MODEL = "method.backbone=resnet18", "data.size=[64, 32]", "data.workers=0", "schedule.epochs=1", "sampler.steps=2"


def run() -> Iterator[dict[str, Any]]:
    """One row a command."""
    before = os.environ.get("TAPETUM_BEFORE")
    with TemporaryDirectory() as folder:
        sides = {"ours": prepare(Path(folder) / "ours", SRC)}
        if before:
            sides["peer"] = prepare(Path(folder) / "before", Path(before))
        for name, asked in ASKED.items():
            seconds: dict[str, list[float]] = {side: [] for side in (*sides, "peer")}
            for _ in range(ROUNDS):
                for side, (place, source, commands) in sides.items():
                    shutil.rmtree(place / "fresh", ignore_errors=True)
                    seconds[side].append(call(place, source, *commands[name])[0])
                if not before:
                    seconds["peer"].append(call(Path(folder), SRC, "-c", "import torch")[0])
            ours, peer = min(seconds["ours"]), min(seconds["peer"])
            of = "the commit before" if before else "importing torch alone"
            yield build_row(f"CPU s: {name}", ours, peer, "s", note=f"peer: {of}; asked: {asked} s")


def prepare(place: Path, source: Path) -> tuple[Path, Path, dict[str, list[str]]]:
    """A run, its OpenVINO artefact and a gallery of 48 crops, all made by one checkout, and what is measured."""
    place.mkdir()

    def tapetum(*words: str) -> str:
        return call(place, source, "-m", "tapetum", *words)[1]

    tapetum("data", "generate", "scene", "--people", "6", "--cameras", "2", "--quiet")
    settings = [word for each in ("schedule.warmup_epochs=0", *MODEL) for word in ("--set", each)]
    tapetum("train", "ide_synth", "--data", "synth=scene", "--out", "run", "--quiet", *settings)
    tapetum("export", "run", "--to", "openvino", "--out", "artefact")
    pictures = sorted((place / "scene").rglob("*.jpg"))[:48]
    (place / "crops").mkdir()
    for number, picture in enumerate(pictures):
        shutil.copy(picture, place / "crops" / f"{number}.jpg")
    tapetum("index", "crops", "--gallery", "gallery", "--model", "artefact", "--quiet")
    answers = tapetum("search", "--gallery", "gallery", "--query", "crops/0.jpg", "-k", "1")
    found = re.search(r"[0-9a-f]{20}-[0-9a-f]+", answers)
    assert found, answers
    search = ["-m", "tapetum", "search", "--gallery", "gallery"]
    commands = {
        "search --tracklet": [*search, "--tracklet", found[0]],
        "search --query, OpenVINO": [*search, "--query", "crops/0.jpg"],
        "gallery info": ["-m", "tapetum", "gallery", "info", "gallery"],
        "index of one picture": ["-m", "tapetum", "index", "crops/1.jpg", "--gallery", "fresh", "--model", "artefact"],
    }
    return place, source, commands


def call(place: Path, source: Path, *words: str) -> tuple[float, str]:
    """CPU seconds of a Python process and its children, and what it printed."""
    environment = {**environment_for(source), "OMP_NUM_THREADS": "1"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, *words], cwd=place, env=environment, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}: {done.stderr.strip().splitlines()[-1]}")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done.stdout
