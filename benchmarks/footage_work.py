"""What `bench_footage` measures, in a process of its own: a clip into a fresh gallery, and each stage of it alone.

Command line: CLIP DETECTOR ARTEFACT FRAMES. Asked "whole", it indexes; asked "stages", it times each by itself.
"""

import importlib
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from benchmarks.workers import answer, wait_as_the_program
from tapetum.data.image_io import read_picture
from tapetum.data.threads import map_in_threads
from tapetum.footage import detect, follow
from tapetum.footage.dark import measure_lightness
from tapetum.footage.decode import Limits
from tapetum.footage.detect import Detections, Detector
from tapetum.footage.detectors import build_detector
from tapetum.footage.extract import extract_sightings
from tapetum.footage.frames import Frame, read_source_frames
from tapetum.footage.options import ExtractOptions
from tapetum.footage.quality import is_too_dark
from tapetum.footage.report import FootageReport
from tapetum.footage.sources import Source, find_sources
from tapetum.gallery.schema import Row, Run
from tapetum.indexing.index import IndexOptions, index_sources, open_gallery_for
from tapetum.indexing.report import IndexReport
from tapetum.inference.model import BATCH, Model
from tapetum.inference.sessions import open_model

CHUNK = 64  # frames in memory while a detector looks at them


class Replay:
    """A detector that knows its answers."""

    def __init__(self, detector: Detector, answers: list[Detections]) -> None:
        self.name, self.key, self.moving_only = detector.name, detector.key, detector.moving_only
        self._answers = answers

    def start(self) -> None:
        self._next = iter(self._answers)

    def detect(self, _: np.ndarray) -> Detections:
        return next(self._next)


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds, and what came out."""
    begin = time.perf_counter()
    result = function()
    return time.perf_counter() - begin, result


def index_whole(source: Source, detector: Detector, model: Model, options: ExtractOptions) -> dict[str, Any]:
    """Into a fresh gallery: seconds, CPU seconds of all threads, frames, and what was stored."""
    with (
        tempfile.TemporaryDirectory() as folder,
        open_gallery_for(Path(folder) / "night", model, Path(folder)) as store,
    ):
        settings, report = IndexOptions(extract=options), IndexReport()
        cpu = time.process_time()
        seconds, _ = timed(lambda: index_sources([source], store, model, detector, options=settings, report=report))
        cpu = time.process_time() - cpu
        rows = sorted(row.sighting.id for row in store.find())
        vectors = store.fetch(rows).vectors
    return {
        "seconds": seconds,
        "cpu": cpu,
        "frames": report.footage.frames,
        "rows": rows,
        "sum": [round(float(each), 4) for each in np.asarray(vectors).sum(0)[:8]],
    }


def time_stages(source: Source, detector: Detector, model: Model, options: ExtractOptions) -> dict[str, float]:
    """Seconds of each stage over the same frames; what it takes from the stage before lies in memory or on the disk."""
    count = options.limits.max_frames

    def decode() -> Iterator[Frame]:
        return islice(read_source_frames(source, lambda _: None), count)

    def look(frame: Frame) -> Detections:
        is_too_dark(frame.picture)
        measure_lightness(frame.picture)
        return detector.detect(frame.picture)

    decoding, _ = timed(lambda: sum(1 for _ in decode()))
    kept: list[Frame] = []
    answers: list[Detections] = []
    detecting = 0.0
    detector.start()
    with (
        tempfile.TemporaryDirectory() as folder,
        open_gallery_for(Path(folder) / "night", model, Path(folder)) as store,
    ):
        frames = decode()
        while chunk := list(islice(frames, CHUNK)):
            seconds, found = timed(lambda: list(map_in_threads(look, chunk, detect.detect_at_once(detector), ahead=2)))
            detecting += seconds
            answers += found
            place = np.memmap(
                Path(folder) / f"{len(kept)}.rgb", np.uint8, "w+", shape=(len(chunk), *chunk[0].picture.shape)
            )
            for row, frame in enumerate(chunk):
                place[row] = frame.picture
                kept.append(Frame(frame.number, frame.time, frame.seconds, place[row], frame.broken))
        assert store.folder is not None
        with mock.patch.object(follow, "read_source_frames", side_effect=lambda *_, **__: iter(kept)):
            walking = extract_sightings(
                source, store.folder, Replay(detector, answers), options=options, report=FootageReport()
            )
            with closing(walking):
                following, sightings = timed(lambda: list(walking))
        embedding, vectors = timed(lambda: embed(store.folder, sightings, model))
        rows = [Row(each, Run(model.id, model.runtime, model.precision)) for each in sightings]
        storing, _ = timed(lambda: (store.upsert(rows, vectors), store.compact()))
    return {
        "decode": decoding,
        "detect": detecting,
        "follow and cut": following,
        "embed": embedding,
        "store": storing,
    }


def embed(folder: Path | None, sightings: list[Any], model: Model) -> np.ndarray:
    """As indexing does: crops from the disk, resized, 64 at a time."""
    assert folder is not None
    vectors = [np.zeros((0, model.dimension), np.float32)]
    for first in range(0, len(sightings), 2 * BATCH):
        some = sightings[first : first + 2 * BATCH]
        pictures = model.resize([read_picture(folder / each.crop) for each in some])
        vectors.append(model.vectors_of(pictures, [int(each.modality) for each in some]))
    return np.concatenate(vectors)


def main() -> None:
    clip, name, artefact, most, *precision = sys.argv[1:]
    wait_as_the_program()
    detector = build_detector(name, **dict(zip(["precision"], precision, strict=False)))  # earlier code knows none
    (source,), model = find_sources([clip]), open_model(Path(artefact))
    options = ExtractOptions(limits=Limits(max_frames=int(most)))
    kinds = {"whole": index_whole, "stages": time_stages}
    index_whole(source, detector, model, ExtractOptions(limits=Limits(max_frames=40)))  # to load what is loaded late
    importlib.import_module("scipy.optimize")  # which following loads when it first sees somebody
    answer(lambda kind: kinds[kind](source, detector, model, options))


if __name__ == "__main__":
    main()
