"""Indexing footage of more and more cameras by one process, by torchrun and on Ray, each a command as one types it.

Some cameras' nights are generated and lie under as many names as cameras are asked for. Every process computes with one
thread, so that processes are compared; seconds are those of the whole command, with its imports.
"""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.bench_service import make_model
from benchmarks.growth.subject import GIB, Knee, Needs, Panel, Row, Subject, in_child
from tapetum.core.atomic import write_bytes
from tapetum.data.generate import generate_video
from tapetum.inference.export import export_run
from tapetum.synth.scene import SceneOptions

SECONDS = 120.0
FILMED = 4  # cameras that are generated
PEOPLE = 40
RUNTIME = "openvino"
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
STARTERS = {"1 process": 1, "torchrun, 2": 2, "torchrun, 4": 4, "Ray, 2 nodes": 2, "Ray, 4 nodes": 4}  # -> processes


@dataclass(frozen=True)
class Cost:
    """Of a command and the processes that it waited for.

    Attributes:
        seconds: by the clock.
        peak_gib: memory of the largest among them.
    """

    seconds: float
    processor_seconds: float
    peak_gib: float


def build(seconds: float = SECONDS, detector: str = "background") -> Subject:
    """See the module.

    Args:
        seconds: of footage of each camera.
    """
    return Subject(
        counted="cameras",
        sizes=(1, 2, 4, 8, 16, 32, 64),
        needs=lambda size: Needs(memory=6 * GIB, disk=GIB + int(size * seconds * 2**20)),
        measure=partial(measure, seconds=seconds, detector=detector),
        panels=(
            Panel(
                "Frames a second",
                {starter: key_of(starter) for starter in STARTERS},
                Knee(key_of("torchrun, 2"), lambda slope: slope <= 0.2, "more cameras no longer fill the processes"),
            ),
            Panel("Time of the command, s", {starter: key_of(starter, "seconds") for starter in STARTERS}),
        ),
        beyond="as many processes as cores, then more machines by torchrun or Ray; a GPU for the model alone",
        settings={
            "filmed_cameras": FILMED,
            "seconds_of_a_camera": seconds,
            "detector": detector,
            "model": "ResNet-18, 128 x 64, " + RUNTIME,
        },
    )


def key_of(starter: str, figure: str = "frames_per_second") -> str:
    """Of a row's figure."""
    return f"{figure}_{starter.lower().replace(', ', '_').replace(' ', '_')}"


def measure(size: int, folder: Path, *, seconds: float, detector: str) -> Row:
    """Every starter indexes the same footage into a gallery of its own."""
    footage, model = film(folder, size, seconds), folder / "model"
    export_run(make_model(folder), RUNTIME, model)
    row: Row = {"hours": size * seconds / 3600}
    for starter, processes in STARTERS.items():
        if "Ray" in starter and importlib.util.find_spec("ray") is None:
            continue
        words = ["index", str(footage), "--gallery", str(folder / "night"), "--model", str(model), "--quiet"]
        words += ["--detector", detector, "--report", str(folder / "report.json")]
        cost = in_child(run_on_ray, words, processes) if "Ray" in starter else run_command(words, processes)
        report: dict[str, Any] = json.loads((folder / "report.json").read_bytes())
        if starter == "1 process":  # of many, a late one reports that all was done
            crops = [path.stat().st_size for path in (folder / "night" / "crops").rglob("*") if path.is_file()]
            row |= {
                "frames": report["footage"]["frames"],
                "rows": report["rows"],
                "tracklets": report["footage"]["tracklets"],
                "crop_bytes": sum(crops) / max(1, len(crops)),
                "frames_per_processor_second": report["footage"]["frames"] / cost.processor_seconds,
            }
        if report["rows"] != row["rows"]:
            raise AssertionError(f"{starter}: {report['rows']} rows, one process brought {row['rows']}")
        row[key_of(starter, "seconds")] = cost.seconds
        row[key_of(starter)] = row["frames"] / cost.seconds
        row["peak_gib"] = max(row.get("peak_gib", 0), cost.peak_gib)  # Ray's workers are not among them
        shutil.rmtree(folder / "night")
    return row


def film(folder: Path, cameras: int, seconds: float) -> Path:
    """A folder with a video of each camera, several of them of the same pictures.

    A box that says nothing tells them apart: of one recording under several names a gallery keeps the rows once.
    """
    place = folder.parent / f"filmed_{seconds:g}"
    scene = SceneOptions(num_train_people=0, num_test_people=PEOPLE, cameras=FILMED)
    generate_video(place, scene, seconds=seconds, workers=len(os.sched_getaffinity(0)))
    (folder / "footage").mkdir()
    for number in range(cameras):
        clip = place / f"cam{number % FILMED + 1}.mp4"
        box = (12).to_bytes(4, "big") + b"free" + number.to_bytes(4, "big")
        write_bytes(folder / "footage" / f"cam{number + 1}.mp4", clip.read_bytes() + box)
    return folder / "footage"


def run_command(words: list[str], processes: int) -> Cost:
    """A `tapetum` command, by one process or by torchrun."""
    starter = ["-m", "tapetum"] if processes == 1 else [*TORCHRUN, str(processes), "-m", "--", "tapetum"]
    return call([*starter, *words])


def run_on_ray(words: list[str], processes: int) -> Cost:
    """The same on a cluster of so many nodes of one processor each, all of them in this machine."""
    os.environ |= {"OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
    from ray.cluster_utils import Cluster

    node: dict[str, Any] = {"num_cpus": 1, "node_ip_address": "127.0.0.1", "object_store_memory": 80 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args=node | {"include_dashboard": False})
    try:
        for _ in range(processes - 1):
            cluster.add_node(**node)
        return call(["-m", "tapetum", *words, "--ray", cluster.address])
    finally:
        cluster.shutdown()


def call(words: list[str]) -> Cost:
    """A Python process."""
    begun = time.perf_counter()
    with tempfile.TemporaryFile() as told:
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        process = subprocess.Popen([sys.executable, *words], env=environment, stdout=told, stderr=told)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            told.seek(0)
            raise RuntimeError(f"{' '.join(words)}: {told.read().decode(errors='replace')[-2000:]}")
    return Cost(time.perf_counter() - begun, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 2**20)  # KiB on Linux
