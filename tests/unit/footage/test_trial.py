import numpy as np
import pytest

from street_clip import write_street
from tapetum.core.errors import RecipeError
from tapetum.footage.detect import BackgroundDetector, Detections
from tapetum.footage.sources import Source, find_sources
from tapetum.footage.trial import draw_boxes, try_detector


class Middle:
    """A detector that finds one person in the middle of every frame."""

    name, key, moving_only = "middle", "middle", False

    def __init__(self) -> None:
        self.looked = 0

    def start(self) -> None:
        self.looked = 0

    def detect(self, picture: np.ndarray) -> Detections:
        self.looked += 1
        height, width = picture.shape[:2]
        box = [width / 4, height / 4, width / 2, height / 2]
        return Detections(np.array([box], np.float32), np.array([0.75], np.float32))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    return find_sources([str(write_street(tmp_path_factory.mktemp("clip") / "yard.mp4"))])[0]


def test_frames_are_spread_over_the_clip_and_only_those_are_looked_at(source: Source) -> None:
    detector = Middle()
    trial = try_detector(source, detector, 5)
    assert trial.frames == (0, 36, 72, 108, 144)
    assert (trial.people, detector.looked) == ((1,) * 5, 5)
    assert trial.lines()[0] == "people by frame: 0: 1, 36: 1, 72: 1, 108: 1, 144: 1"
    assert trial.lines()[1].endswith(" ms a frame")


def test_who_takes_what_moves_sees_the_frames_in_between(source: Source) -> None:
    trial = try_detector(source, BackgroundDetector(), 5)
    assert trial.people[0] == 0
    assert sum(trial.people) >= 1


def test_boxes_are_drawn_where_they_are_and_large_frames_are_made_smaller() -> None:
    picture = np.zeros((720, 1280, 3), np.uint8)
    drawn = draw_boxes(picture, Middle().detect(picture))
    assert drawn.shape == (360, 640, 3)
    assert drawn[90:181, 160, 0].min() == 255
    assert drawn[200:, 400:].max() == 0
    assert picture.max() == 0


def test_a_number_of_frames_that_cannot_be_shown_is_refused(source: Source) -> None:
    for count in (0, 37):
        with pytest.raises(RecipeError, match=f"--frames {count} cannot be shown; it must be in 1..36"):
            try_detector(source, Middle(), count)
