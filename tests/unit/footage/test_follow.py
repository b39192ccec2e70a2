"""Frames looked at by several threads; what a report says about silence, the dark and what never moves."""

import random
import threading
import time
from collections import deque
from pathlib import Path

import numpy as np
import pytest

from street_clip import COLOURS, street, write_clip, write_street
from tapetum.core.errors import DataError
from tapetum.core.sighting import Sighting
from tapetum.footage.detect import Detections
from tapetum.footage.extract import extract_sightings
from tapetum.footage.follow import follow_frames
from tapetum.footage.lists import read_listed
from tapetum.footage.options import ExtractOptions
from tapetum.footage.report import FootageReport
from tapetum.footage.sources import find_sources


class Seeing:
    """A detector that finds what it is told: a box for each frame."""

    name, key, moving_only = "seeing", "seeing", False

    def __init__(self, *boxes: tuple[float, float, float, float]) -> None:
        self.boxes = boxes
        self.frames = 0

    def start(self) -> None:
        self.frames = 0

    def detect(self, picture: np.ndarray) -> Detections:
        now = self.boxes[self.frames % len(self.boxes)] if self.boxes else None
        self.frames += 1
        boxes = np.array([] if now is None else [now], np.float32).reshape(-1, 4)
        return Detections(boxes, np.ones(len(boxes), np.float32))


def report_of(path: Path, detector: Seeing, out: Path) -> FootageReport:
    report = FootageReport()
    for _ in extract_sightings(find_sources([str(path)])[0], out, detector, report=report):
        pass
    return report


def messages(report: FootageReport, word: str) -> list[str]:
    return [problem.message for problem in report.problems if word in problem.message]


def darkened(frame: int, light: float) -> np.ndarray:
    picture = street(frame, empty=True).astype(float)
    return np.rint(picture * light / picture.mean()).astype(np.uint8)


def test_silence_in_the_dark_is_not_called_absence(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "night.mp4", [darkened(frame, 8) for frame in range(40)])
    report = report_of(path, Seeing(), tmp_path / "out")
    assert report.undetectable_frames == 40
    assert messages(report, "that nobody was found does not say that nobody was there")
    lines = report.lines()
    assert "too dark to detect: 40 frames; who was there is not known" in lines
    assert f"nobody found: {path}, but it is too dark to detect; somebody may be there" in lines


def test_a_source_that_was_too_dark_is_named_again_when_it_is_finished(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "night.mp4", [darkened(frame, 8) for frame in range(40)])
    report_of(path, Seeing(), tmp_path / "out")
    (listed,) = read_listed(tmp_path / "out")
    assert (listed.frames, listed.undetectable, listed.is_dark, listed.detector) == (40, 40, True, "seeing")
    again = report_of(path, Seeing(), tmp_path / "out")
    assert (again.sources, again.finished_before, again.undetectable) == (0, 1, [str(path)])
    assert messages(again, "40 of 40 frames were too dark to detect anybody when it was looked at")


def test_what_was_counted_is_told_where_the_run_is_stopped(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "night.mp4", [darkened(frame, 8) for frame in range(40)])
    report = FootageReport()
    followed = follow_frames(find_sources([str(path)])[0], Seeing(), ExtractOptions(), report)
    next(followed)
    followed.close()
    assert (report.frames, report.undetectable_frames) == (1, 1)
    assert messages(report, "1 of 1 frames looked at have a mean lightness below")


def test_silence_in_the_light_is(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "day.mp4", [darkened(frame, 60) for frame in range(40)])
    report = report_of(path, Seeing(), tmp_path / "out")
    assert (report.undetectable_frames, report.undetectable, report.problems) == (0, [], [])
    assert f"nobody found: {path}" in report.lines()


def test_a_few_dark_frames_are_counted_and_the_rest_is_believed(tmp_path: Path) -> None:
    frames = [darkened(frame, 8 if frame < 10 else 60) for frame in range(40)]
    report = report_of(write_clip(tmp_path / "dusk.mp4", frames), Seeing(), tmp_path / "out")
    assert 9 <= report.undetectable_frames <= 11
    assert report.undetectable == []
    assert messages(report, "of 40 frames looked at have a mean lightness below 16 of 255")


def test_counts_of_several_runs_add_up(tmp_path: Path) -> None:
    one, other = FootageReport(undetectable_frames=3, undetectable=["a"]), FootageReport(undetectable_frames=4)
    other.add(one)
    assert (other.undetectable_frames, other.undetectable) == (7, ["a"])
    assert FootageReport.from_dict(other.to_dict()) == other


def test_a_detector_that_finds_nothing_in_an_hour_is_doubted(tmp_path: Path) -> None:
    frames = [darkened(0, 60)] * 130
    path = write_clip(tmp_path / "hour.mp4", frames, [30.0 * frame for frame in range(130)])
    (doubt,) = messages(report_of(path, Seeing(), tmp_path / "out"), "not a single box")
    assert doubt.startswith(f"{path}: not a single box in 64 minutes (130 frames) by seeing; if people are to be seen")
    once = report_of(path, Seeing(*[(40.0, 20.0, 70.0, 100.0)]), tmp_path / "other")
    assert not messages(once, "not a single box")


@pytest.mark.parametrize("sways", [False, True])
def test_what_never_moves_is_kept_and_named(tmp_path: Path, sways: bool) -> None:
    frames = [darkened(0, 60)] * 60
    path = write_clip(tmp_path / "hall.mp4", frames, [0.9 * frame for frame in range(60)])
    left = 8.0 if sways else 0.5
    report = report_of(path, Seeing((40, 20, 70, 100), (40 + left, 20, 70 + left, 100)), tmp_path / "out")
    assert report.tracklets == 1
    assert len(messages(report, "a poster, a reflection, a doll")) == (not sways)


class CoatDetector:
    """Finds coats by their colours, takes its time, and fails on the frame that it is told."""

    name, key, moving_only = "coats", "coats", False

    def __init__(self, at_once: int, *, fails_at: int | None = None) -> None:
        self.at_once, self.fails_at = at_once, fails_at
        self.asked = self.running = self.most = 0
        self._lock, self._random = threading.Lock(), random.Random(0)

    def start(self) -> None:
        self.asked = 0

    def detect(self, picture: np.ndarray) -> Detections:
        with self._lock:
            self.asked += 1
            self.running += 1
            self.most = max(self.most, self.running)
            fails, pause = self.asked == self.fails_at, self._random.random() / 200
        time.sleep(pause)
        with self._lock:
            self.running -= 1
        if fails:
            raise DataError("coats.onnx: does not run on this picture; set its size")
        boxes = []
        for colour in COLOURS:
            rows, columns = np.nonzero(np.abs(picture.astype(int) - np.array(colour) * 1.0).max(2) < 40)
            if len(rows) > 200:
                boxes.append((columns.min(), rows.min(), columns.max() + 1, rows.max() + 1))
        found = np.array(boxes, np.float32).reshape(-1, 4)
        return Detections(found, np.ones(len(found), np.float32))


def sightings_of(path: Path, detector: CoatDetector, out: Path) -> list[Sighting]:
    return list(extract_sightings(find_sources([path])[0], out, detector))


def threads_left() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("tapetum-")]


def test_several_frames_looked_at_at_once_give_what_one_after_the_other_gives(tmp_path: Path) -> None:
    path = write_street(tmp_path / "cam1.mp4")
    alone, together = CoatDetector(1), CoatDetector(4)
    expected = sightings_of(path, alone, tmp_path / "alone")
    assert sightings_of(path, together, tmp_path / "together") == expected
    assert len({sighting.tracklet for sighting in expected}) == 2
    assert (alone.most, alone.asked, together.asked) == (1, 145, 145)
    assert 1 < together.most <= 4
    for sighting in expected:
        contents = {(tmp_path / side / sighting.crop).read_bytes() for side in ("alone", "together")}
        assert len(contents) == 1


def test_what_takes_whatever_moves_is_asked_in_the_order_of_frames_whatever_it_says(tmp_path: Path) -> None:
    detector = CoatDetector(4)
    detector.moving_only = True
    sightings_of(write_street(tmp_path / "cam1.mp4"), detector, tmp_path / "out")
    assert detector.most == 1


def test_an_error_while_looking_at_a_frame_ends_the_threads_and_leaves_what_was_written(tmp_path: Path) -> None:
    path = write_street(tmp_path / "cam1.mp4")
    came: list[Sighting] = []
    sightings = extract_sightings(find_sources([path])[0], tmp_path / "out", CoatDetector(2, fails_at=100))
    with pytest.raises(DataError, match=r"^coats\.onnx: does not run"):
        deque(map(came.append, sightings))
    assert came
    assert all((tmp_path / "out" / sighting.crop).is_file() for sighting in came)
    assert not threads_left()
    assert sightings_of(path, CoatDetector(2), tmp_path / "out")[: len(came)] == came


def test_whoever_stops_taking_sightings_leaves_no_threads(tmp_path: Path) -> None:
    path = write_street(tmp_path / "cam1.mp4")
    sightings = extract_sightings(find_sources([path])[0], tmp_path / "out", CoatDetector(2))
    next(sightings)
    sightings.close()
    assert not threads_left()


def test_whoever_walks_across_the_end_of_an_earlier_reading_is_followed_anew_behind_it(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "cam1.mp4", [darkened(0, 60)] * 100)
    source, box = find_sources([str(path)])[0], (40.0, 20.0, 70.0, 100.0)
    followed = follow_frames(source, Seeing(box), ExtractOptions(), FootageReport(), known_until=5.0)
    spans = [(walk.times[0], walk.times[-1]) for *_, ended in followed for walk in ended]
    assert spans == [(0.0, pytest.approx(5.0)), (pytest.approx(5.1), pytest.approx(9.9))]


def write_seen_at(path: Path, times: list[float], pace: float = 1.0) -> Path:
    """The street as frames at some times show it, its two people `pace` times as fast."""
    return write_clip(path, [street(round(10 * pace * time)) for time in times], times)


@pytest.mark.parametrize(
    ("frame_rate", "rate", "pace"), [(29.97, 1.0, 1.0), (29.97, 0.8, 1.0), (25.0, 0.5, 0.5), (0.5, None, 0.5)]
)
def test_walks_are_followed_where_few_frames_are_looked_at(
    frame_rate: float, rate: float | None, pace: float, tmp_path: Path
) -> None:
    times = [number / frame_rate for number in range(round(14.4 / pace * frame_rate))]
    path = write_seen_at(tmp_path / "cam1.mp4", times, pace)
    report, options = FootageReport(), ExtractOptions(rate=rate)
    found = list(
        extract_sightings(
            find_sources([str(path)])[0], tmp_path / "out", CoatDetector(1), options=options, report=report
        )
    )
    assert (report.tracklets, report.dropped_tracklets) == (2, 0)
    assert len({sighting.tracklet for sighting in found}) == 2
    assert len(found) >= 4
    assert report.without_person == []
    moving = CoatDetector(1)
    moving.key, moving.moving_only = "moving", True
    walked = FootageReport()
    sightings = extract_sightings(
        find_sources([str(path)])[0], tmp_path / "moving", moving, options=options, report=walked
    )
    assert len({sighting.tracklet for sighting in sightings}) == 2


def test_somebody_whom_a_slow_recorder_shows_once_is_kept(tmp_path: Path) -> None:
    path = write_seen_at(tmp_path / "cam1.mp4", [0.0, 2.0, 4.0, 7.0, 10.0, 13.0, 16.0])
    report = FootageReport()
    found = list(extract_sightings(find_sources([str(path)])[0], tmp_path / "out", CoatDetector(1), report=report))
    assert len(found) == report.detections
    assert {sighting.frame for sighting in found} >= {2, 4}


def test_footage_at_a_low_rate_that_an_earlier_version_finished_is_looked_at_again() -> None:
    usual = {rate: ExtractOptions(rate=rate).deciding() for rate in (None, 2.5, 5.0)}
    assert all("few" not in deciding for deciding in usual.values())
    assert ExtractOptions(rate=1.0).deciding()["few"] == 1


def test_a_source_in_which_somebody_was_found_is_never_called_empty(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "day.mp4", [darkened(0, 60)] * 40)
    glimpsed = Seeing((40, 20, 70, 100), *[None] * 39)  # type: ignore[arg-type]
    report = report_of(path, glimpsed, tmp_path / "out")
    lines = "\n".join(report.lines())
    why = "1 boxes of people, each seen too briefly to be followed; look at them with `tapetum detector try`"
    assert (report.without_person, report.crops, report.dropped_detections) == ([], 0, 1)
    assert f"nobody kept: {path}: {why}" in lines
    assert "nobody found" not in lines
    assert "1 read, 0 finished before, 0 unreadable, 0 without a person, 1 of which nobody was kept" in lines
    assert report.to_dict()["kept_nobody"] == [{"source": str(path), "message": why}]
    both = FootageReport()
    both.add(report)
    assert FootageReport.from_dict(both.to_dict()).kept_nobody == report.kept_nobody
    still = Seeing((40, 20, 70, 100))
    still.moving_only = True
    rarely = FootageReport()
    source = find_sources([str(path)])[0]
    list(extract_sightings(source, tmp_path / "rare", still, options=ExtractOptions(rate=1.0), report=rarely))
    assert f"nobody kept: {path}: 4 boxes of what moved, each seen too briefly or never walking; raise --rate" in (
        rarely.lines()
    )
