"""How fast the night scene is made: pictures of 256 x 128 with two workers, sensor and JPEG included.

There is no peer: nothing else draws this scene. The aim was 150 pictures/s on two cores. "Once warm" leaves out the
first quarter, in which the workers start and render their streets.
"""

import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.measure import build_row
from tapetum.core.pixels import encode_jpeg
from tapetum.data.generate import generate_dataset
from tapetum.synth.scene import SceneOptions
from tapetum.synth.sensor import DarkenOptions, darken_picture

WORKERS = 2
AIM = 150
SCENE = SceneOptions(num_train_people=48, num_test_people=0, sizes="fixed", size=(256, 128))
DARKENED = 150


def measure_scene(options: SceneOptions) -> tuple[float, float]:
    """Pictures a second, in all and once warm."""
    marks: list[tuple[float, int]] = []

    def note(done: int, _total: int) -> None:
        marks.append((time.perf_counter(), done))

    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        generate_dataset(Path(folder) / "scene", "synth", options, workers=WORKERS, progress=note)
    end, total = marks[-1]
    warm = next(mark for mark in marks if mark[1] >= total / 4)
    return total / (end - start), (total - warm[1]) / (end - warm[0])


def measure_darkening() -> float:
    """Pictures a second of `tapetum data darken`'s sensor model, in one process."""
    rng = np.random.default_rng(0)
    day = cv2.resize(rng.integers(0, 255, (12, 5, 3), dtype=np.uint8), (128, 256), interpolation=cv2.INTER_CUBIC)
    options = DarkenOptions()
    start = time.perf_counter()
    for _ in range(DARKENED):
        encode_jpeg(darken_picture(day, options, rng), options.sensor.jpeg_quality)
    return DARKENED / (time.perf_counter() - start)


def run() -> list[dict[str, Any]]:
    """Rows: the scene warm, the scene with its start, varying sizes, darkening."""
    overall, warm = measure_scene(SCENE)
    _, varying = measure_scene(SceneOptions(num_train_people=48, num_test_people=0))
    aim = f"no peer; aim: {AIM} pictures/s"
    return [
        build_row(f"night scene 256 x 128, {WORKERS} workers, once warm", warm, None, "pictures/s", note=aim),
        build_row(f"night scene 256 x 128, {WORKERS} workers, start included", overall, None, "pictures/s"),
        build_row(f"night scene of varying sizes, {WORKERS} workers, once warm", varying, None, "pictures/s"),
        build_row("darkening by the sensor model, 256 x 128, 1 process", measure_darkening(), None, "pictures/s"),
    ]
