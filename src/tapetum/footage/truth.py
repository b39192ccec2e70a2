"""Detection and tracking against ground truth, such as a generated scene's video brings with it."""

import csv
from collections import Counter, defaultdict
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tapetum.core.errors import DataError
from tapetum.footage.detect import Detections, Detector, FloatArray, compute_iou
from tapetum.footage.follow import follow_frames, is_walk
from tapetum.footage.options import ExtractOptions
from tapetum.footage.report import FootageReport
from tapetum.footage.sources import Source
from tapetum.footage.track import assign_best


@dataclass(frozen=True)
class TruthOptions:
    """Who counts."""

    min_iou: float = 0.5  # overlap from which a detection shows a person
    min_visible: float = 0.5  # share of a person that nobody hides, from which the person must be found
    min_height: float = 0.1  # share of the frame's height from which a person must be found


@dataclass(frozen=True)
class Truth:
    """Who is where in a video."""

    boxes: dict[int, FloatArray]  # frame -> (N, 4) left, top, right, bottom, pixels
    pids: dict[int, NDArray[np.int64]]  # frame -> (N,) who
    visible: dict[int, FloatArray]  # frame -> (N,) share that nobody hides


@dataclass(frozen=True)
class FollowingScore:
    """How well people were found and followed."""

    recall: float  # share of the people in all frames, of those who count, that a detection shows
    precision: float  # share of the detections that show somebody
    # share of the detections in kept tracklets that show the person whom their tracklet shows most, of those that
    # show anybody
    purity: float
    # share of the people who count in at least `min_detections` frames of whom a kept tracklet shows most
    people_found: float
    false_tracklets: int  # kept tracklets in which fewer than half of the detections show anybody
    tracklets: int  # kept tracklets
    people: int  # people who count
    boxes: int  # of ground truth that count


def read_truth(path: Path) -> Truth:
    """The ground truth of a generated video, ``cam1.csv``.

    Raises:
        DataError: it is missing or something else.
    """
    rows: dict[int, list[tuple[int, float, float, float, float, float]]] = defaultdict(list)
    try:
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                x, y, width, height = (float(row[name]) for name in ("x", "y", "width", "height"))
                rows[int(row["frame"])].append((int(row["pid"]), x, y, x + width, y + height, float(row["visible"])))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: no ground truth of a video ({error}); generate the video again") from None
    arrays = {frame: np.array(each, np.float64) for frame, each in rows.items()}
    return Truth(
        boxes={frame: each[:, 1:5].astype(np.float32) for frame, each in arrays.items()},
        pids={frame: each[:, 0].astype(np.int64) for frame, each in arrays.items()},
        visible={frame: each[:, 5].astype(np.float32) for frame, each in arrays.items()},
    )


def measure_following(
    source: Source,
    truth: Truth,
    detector: Detector,
    *,
    options: ExtractOptions | None = None,
    counting: TruthOptions | None = None,
) -> FollowingScore:
    """Detect and follow people through a video and compare with ground truth.

    Raises:
        DataError: the video cannot be read.
    """
    settings, rules = options or ExtractOptions(), counting or TruthOptions()
    pid_counts: dict[int, Counter[int]] = defaultdict(Counter)  # tracklet -> pid -> detections; -1 is nobody
    appears: Counter[int] = Counter()
    kept: list[int] = []
    num_boxes = num_hits = num_detections = right = 0
    with closing(follow_frames(source, detector, settings, FootageReport())) as followed:
        for frame, detections, owners, ended in followed:
            kept += [tracklet.number for tracklet in ended if is_walk(tracklet, source, detector, settings)]
            if frame is None:
                continue
            people = truth.pids.get(frame.number, np.zeros(0, np.int64))
            partner, hits = _match(truth.boxes.get(frame.number), detections, rules.min_iou)
            if len(people):
                boxes = truth.boxes[frame.number]
                tall = boxes[:, 3] - boxes[:, 1] >= rules.min_height * frame.picture.shape[0]
                counts = tall & (truth.visible[frame.number] >= rules.min_visible)
                num_boxes += int(counts.sum())
                num_hits += int((counts & hits).sum())
                appears.update(people[counts].tolist())
            seen = np.where(partner >= 0, people[partner], -1) if len(people) else np.full(len(detections), -1)
            num_detections += len(detections)
            right += int((seen >= 0).sum())
            for owner, pid in zip(owners.tolist(), seen.tolist(), strict=True):
                pid_counts[owner][pid] += 1
    counters = [pid_counts[number] for number in kept]
    real = [Counter({pid: count for pid, count in each.items() if pid >= 0}) for each in counters]
    most = [each.most_common(1)[0] for each in real if each]
    people_counted = {pid for pid, count in appears.items() if count >= settings.min_detections}
    return FollowingScore(
        recall=_share(num_hits, num_boxes),
        precision=_share(right, num_detections),
        purity=_share(sum(count for _, count in most), sum(each.total() for each in real)),
        people_found=_share(len(people_counted & {pid for pid, _ in most}), len(people_counted)),
        false_tracklets=sum(2 * each[-1] > each.total() for each in counters),
        tracklets=len(kept),
        people=len(people_counted),
        boxes=num_boxes,
    )


def _match(
    boxes: FloatArray | None, detections: Detections, min_iou: float
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """(N,) row of ground truth for each detection, -1 for none; and which rows of ground truth were met."""
    partner = np.full(len(detections), -1, np.int64)
    hits = np.zeros(0 if boxes is None else len(boxes), bool)
    if boxes is not None and len(detections):
        iou = compute_iou(boxes, detections.boxes)
        for row, detection in assign_best(iou, iou >= min_iou):
            partner[detection] = row
            hits[row] = True
    return partner, hits


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
