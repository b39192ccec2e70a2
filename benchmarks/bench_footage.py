"""A clip into a fresh gallery, frames a second end to end, against the slowest of its stages alone; by each detector.

`python -m benchmarks footage CLIP ...` takes clips of yours; without one a night video is generated, in which trained
detectors find next to nobody. The model is a ResNet-18 at 128 x 64 that learned nothing, exported to OpenVINO. Stages
are timed one at a time over the same frames, each with all the threads that it has in the pipeline, and take turns
with the whole. Detection includes what is asked of each frame's lightness; following includes quality, cutting and
writing of crops; embedding reads the crops from the disk; storing includes putting the gallery's files in order.

Stages share the cores. Where one that is alone keeps all of them busy, the whole cannot be as fast: the note says how
fast it would be if all cores were busy all the time with what the whole computes.

On a CPU with bf16 arithmetic, the whole with a fetched detector in bf16 takes turns with it.

With TAPETUM_BEFORE=SRC, the `src` folder of an earlier checkout, the same clip by that one takes turns as well.
"""

import os
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.bench_service import make_model
from benchmarks.measure import build_row
from benchmarks.workers import NotPreparedError, worker
from tapetum.core.threads import count_threads
from tapetum.data.generate import generate_video
from tapetum.footage.detectors import FALLBACK
from tapetum.footage.fetched import fetched_names
from tapetum.inference.export import export_run
from tapetum.inference.precision import has_fast_bf16
from tapetum.synth.scene import SceneOptions

TAKES_FILES = True
ROUNDS = 3
FRAMES = 600  # of a clip, at most
ASKED_OF_SLOWEST, ASKED_OF_BEFORE = 0.8, 1.5
GENERATED_SECONDS = 30


def run(clips: Sequence[Path] = (), frames: int = FRAMES, rounds: int = ROUNDS) -> Iterator[dict[str, Any]]:
    """Rows of each clip and detector."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        export_run(make_model(folder), "openvino", folder / "artefact")
        for clip in clips or [generate_clip(folder / "video")]:
            about = clip.name if clips else "a generated night video"
            for detector in (FALLBACK, *sorted(fetched_names(), reverse=True)):
                yield from measure(clip, about, detector, folder / "artefact", frames, rounds)


def generate_clip(folder: Path) -> Path:
    """One camera of the night scene."""
    generate_video(folder, SceneOptions(num_train_people=0, num_test_people=6, cameras=1), seconds=GENERATED_SECONDS)
    return next(folder.glob("*.mp4"))


def measure(
    clip: Path, about: str, detector: str, artefact: Path, frames: int, rounds: int
) -> Iterator[dict[str, Any]]:
    """The whole, its stages, the whole with the detector in bf16, and the whole by an earlier checkout, in turn."""
    before = os.environ.get("TAPETUM_BEFORE")
    words = "benchmarks.footage_work", str(clip), detector, str(artefact), str(frames)
    wholes: dict[str, list[dict[str, Any]]] = {"ours": [], "bf16": [], "before": []}
    stages: list[dict[str, float]] = []
    left_out = ""
    with ExitStack() as stack:
        ask = stack.enter_context(worker(*words))
        asks = {"ours": ask}
        if detector != FALLBACK and has_fast_bf16("cpu"):
            asks["bf16"] = stack.enter_context(worker(*words, "bf16"))
        if before:
            try:
                asks["before"] = stack.enter_context(worker(*words, source=Path(before)))
            except NotPreparedError as error:  # it may not know this detector
                left_out = f"; the commit before is left out: {error}"
        for _ in range(rounds):
            for side, one in asks.items():
                wholes[side].append(one("whole"))
            stages.append(ask("stages"))
    count = wholes["ours"][0]["frames"]
    seconds = {stage: statistics.median(each[stage] for each in stages) for stage in stages[0]}
    whole = statistics.median(each["seconds"] for each in wholes["ours"])
    slowest = max(seconds, key=lambda stage: seconds[stage])
    shares = ", ".join(f"{stage} {100 * each / sum(seconds.values()):.0f} %" for stage, each in seconds.items())
    cpu = statistics.median(each["cpu"] for each in wholes["ours"])
    busy = f"{count_threads()} busy cores would give {count_threads() * count / cpu:.0f} frames/s"
    title = f"{about}, {detector}"
    yield build_row(
        f"{title}: end to end, against {slowest} alone",
        count / whole,
        count / seconds[slowest],
        "frames/s",
        target=ASKED_OF_SLOWEST,
        note=f"{count} frames, {len(wholes['ours'][0]['rows'])} crops; one after the other: {shares}; {busy}{left_out}",
    )
    for stage, each in seconds.items():
        yield build_row(f"{title}: {stage} alone", count / each, None, "frames/s")
    if "bf16" in asks:
        full, half = wholes["ours"][0], wholes["bf16"][0]
        yield build_row(
            f"{title} in bf16: end to end, against fp32",
            count / statistics.median(each["seconds"] for each in wholes["bf16"]),
            count / whole,
            "frames/s",
            note=f"{len(half['rows'])} crops, not {len(full['rows'])}",
        )
    if "before" in asks:
        ours, theirs = wholes["ours"][0], wholes["before"][0]
        same = "the same rows" if ours["rows"] == theirs["rows"] else "OTHER ROWS"
        same += " and vectors" if ours["sum"] == theirs["sum"] else ", OTHER VECTORS"
        earlier = statistics.median(each["seconds"] for each in wholes["before"])
        yield build_row(
            f"{title}: end to end, against the commit before",
            count / whole,
            count / earlier,
            "frames/s",
            target=ASKED_OF_BEFORE,
            note=same,
        )
