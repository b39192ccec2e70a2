from pathlib import Path

import numpy as np
import pytest

from tapetum.core.errors import DataError
from tapetum.core.types import Modality
from tapetum.data.generate import generate_video
from tapetum.footage.detect import BackgroundDetector, Detections
from tapetum.footage.extract import extract_sightings
from tapetum.footage.options import ExtractOptions
from tapetum.footage.sources import Source, find_sources
from tapetum.footage.truth import Truth, TruthOptions, measure_following, read_truth
from tapetum.synth.scene import SceneOptions
from tapetum.synth.video import VideoOptions

SECONDS = 16.0


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A visible and a near-infrared camera at night."""
    root = tmp_path_factory.mktemp("video")
    scene = SceneOptions(num_train_people=0, num_test_people=6, cameras=2, infrared_cameras=(2,))
    video = VideoOptions(size=(240, 426), zoom=2.5, seconds_between=8.0)
    generate_video(root, scene, seconds=SECONDS, video=video)
    return root


@pytest.fixture
def sources(videos: Path) -> list[Source]:
    return find_sources(sorted(videos.glob("*.mp4")))


class Oracle:
    """A detector that reads the ground truth, and its errors as wanted."""

    name, key, moving_only = "oracle", "oracle", False

    def __init__(self, truth: Truth, *, shift: float = 0.0) -> None:
        self._truth, self._shift = truth, shift

    def start(self) -> None:
        self._frame = -1

    def detect(self, picture: np.ndarray) -> Detections:
        self._frame += 1
        boxes = self._truth.boxes.get(self._frame, np.zeros((0, 4), np.float32)) + np.float32(self._shift)
        return Detections(boxes, np.ones(len(boxes), np.float32))


@pytest.mark.slow
def test_a_perfect_detector_scores_everything_and_its_tracklets_are_pure(sources: list[Source]) -> None:
    for source in sources:
        truth = read_truth(source.path.with_suffix(".csv"))
        score = measure_following(source, truth, Oracle(truth))
        assert (score.recall, score.precision, score.people_found) == (1, 1, 1)
        assert score.purity >= 0.95
        assert score.people >= 2
        assert score.false_tracklets == 0


def test_a_detector_that_looks_beside_people_scores_nothing(sources: list[Source]) -> None:
    truth = read_truth(sources[0].path.with_suffix(".csv"))
    score = measure_following(sources[0], truth, Oracle(truth, shift=500.0))
    assert (score.recall, score.purity, score.people_found) == (0, 0, 0)
    assert score.false_tracklets == score.tracklets > 0


def test_the_fallback_finds_and_follows_people_of_the_generated_night(sources: list[Source]) -> None:
    """Levels stand below what was measured; see the page on footage."""
    levels = {"cam1": (0.6, 0.7, 0.85), "cam2": (0.8, 0.85, 0.85)}
    for source in sources:
        truth = read_truth(source.path.with_suffix(".csv"))
        score = measure_following(source, truth, BackgroundDetector(), counting=TruthOptions(min_iou=0.5))
        recall, precision, purity = levels[source.camera]
        assert score.recall >= recall
        assert score.precision >= precision
        assert score.purity >= purity
        assert score.people_found == 1


def test_modality_of_generated_videos_is_told(sources: list[Source], tmp_path: Path) -> None:
    expected = {"cam1": Modality.VISIBLE, "cam2": Modality.INFRARED}
    for source in sources:
        truth = read_truth(source.path.with_suffix(".csv"))
        found = list(extract_sightings(source, tmp_path, Oracle(truth), options=ExtractOptions(every_seconds=1.0)))
        assert found
        assert {sighting.modality for sighting in found} == {expected[source.camera]}


def test_what_is_no_ground_truth_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x,y\n1,2\n")
    for name in ("a.csv", "gone.csv"):
        with pytest.raises(DataError, match=rf"{name}: no ground truth"):
            read_truth(tmp_path / name)
