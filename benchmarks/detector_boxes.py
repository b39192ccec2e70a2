"""How many people trained detectors find on hand-checked pictures, by day and darkened: the table of docs/detectors.md.

`python -m benchmarks.detector_boxes CLIPS [DETECTOR ...]`, where CLIPS holds the clips and their `clip_labels.json`,
and a detector is what `tapetum detector` takes; without one, all that were fetched. `BRIGHTEN=RUN` in the environment
adds a run or an enhancer that brightens.

A person is found where a box overlaps the hand-checked one by half (intersection over union), each box for one person;
any other box is false. Frames are darkened by the sensor model of `tapetum data darken` to one mean lightness before
noise, seeds 0 and up. Milliseconds are CPU time of one frame on one core, the middle of all by day, with decoding left
out.
"""

import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import av
import cv2
import numpy as np

from benchmarks.__main__ import describe_machine
from tapetum.data.image_io import Picture
from tapetum.footage.detect import Detector, FloatArray, compute_iou
from tapetum.footage.detectors import build_detector
from tapetum.footage.fetched import fetched_names, find_fetched
from tapetum.footage.track import assign_best
from tapetum.indexing.finder import build_finder
from tapetum.inference.precision import has_fast_bf16
from tapetum.synth.sensor import DarkenOptions, darken_picture

LEVELS = (None, 32, 16, 8)  # mean lightness, 0..255, before noise; None is the frame as it is
FOUND = 0.5
OWN_BOXES = Path(__file__).with_name("detector_boxes.json")
Labelled = tuple[Picture, FloatArray]


def read_frames(clips: Path) -> Iterator[Labelled]:
    """Frames with the boxes that were drawn on them by hand, (N, 4) left, top, right, bottom."""
    files = (clips / "clip_labels.json", OWN_BOXES)
    labels = {name: clip for file in files for name, clip in json.loads(file.read_text())["clips"].items()}
    for name, clip in labels.items():
        with av.open(str(clips / name)) as container:
            for number, frame in enumerate(container.decode(video=0)):
                if str(number) in clip["keyframes"]:
                    boxes = list(clip["keyframes"][str(number)].values())
                    yield frame.to_ndarray(format="rgb24"), np.array(boxes, np.float32).reshape(-1, 4)


def darken(frames: Sequence[Labelled], level: int | None) -> list[Labelled]:
    """The same frames at night."""
    if level is None:
        return list(frames)
    options = DarkenOptions(lightness=(level, level))
    return [
        (darken_picture(picture, options, np.random.default_rng(seed)), boxes)
        for seed, (picture, boxes) in enumerate(frames)
    ]


def measure(detector: Detector, frames: Sequence[Labelled]) -> tuple[int, int, float]:
    """People found, false boxes, and milliseconds of a frame."""
    found, false, seconds = 0, 0, []
    for picture, boxes in frames:
        begin = time.process_time()
        detections = detector.detect(picture)
        seconds.append(time.process_time() - begin)
        iou = compute_iou(boxes, detections.boxes)
        pairs = len(assign_best(iou, iou >= FOUND)) if iou.size else 0
        found, false = found + pairs, false + len(detections) - pairs
    return found, false, 1000 * float(np.median(seconds))


def open_detector(name: str, brighten: str, precision: str = "fp32") -> Detector:
    """One core only, where the detector lets one say so."""
    fetched = find_fetched(name) if name in fetched_names() else None
    if fetched is not None and brighten == "off":
        return fetched.open(threads=1, precision=precision)
    return build_detector(name) if name == "background" else build_finder(name, brighten=brighten)


def main(clips: Path, names: Sequence[str]) -> None:
    """Print the table."""
    cv2.setNumThreads(1)
    frames = list(read_frames(clips))
    total = sum(len(boxes) for _, boxes in frames)
    print(f"{len(frames)} frames, {total} people; {describe_machine()}")
    nights = {level: darken(frames, level) for level in LEVELS}
    for level, pictures in nights.items():
        print(f"lightness {level or 'by day'}: {np.mean([picture.mean() for picture, _ in pictures]):.1f} measured")
    for name in names or fetched_names():
        ways = [(way, "fp32") for way in ("off", "gamma", *filter(None, [os.environ.get("BRIGHTEN")]))]
        if name in fetched_names() and has_fast_bf16("cpu"):
            ways.append(("off", "bf16"))
        for brighten, precision in ways:
            detector = open_detector(name, brighten, precision)
            results = [measure(detector, pictures) for pictures in nights.values()]
            figures = "  ".join(f"{found}+{false}" for found, false, _ in results)
            print(f"{name:<16} {Path(brighten).name:<10} {precision} {figures}  {results[0][2]:.0f} ms", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
