import numpy as np
import pytest

from tapetum.footage.dark import brighten_for_detection, brightening_curve, measure_lightness
from tapetum.footage.detect import BrighteningDetector, Detections
from tapetum.footage.detect import Detector as Finder


class Looking:
    """A detector that remembers what it saw."""

    name, key, moving_only = "looking", "look", False

    def __init__(self) -> None:
        self.seen: list[np.ndarray] = []
        self.begun = 0

    def start(self) -> None:
        self.begun += 1

    def detect(self, picture: np.ndarray) -> Detections:
        self.seen.append(picture)
        return Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32))


def test_the_curve_takes_the_one_value_to_the_other_and_keeps_the_order() -> None:
    curve = brightening_curve(20, 0.25)
    assert curve[20] == 64
    assert curve[255] == 255
    assert (np.diff(curve.astype(int)) >= 0).all()


@pytest.mark.parametrize("light", [1, 8, 16, 32, 60])
def test_dark_frames_come_to_one_lightness_and_light_ones_stay(light: int) -> None:
    rng = np.random.default_rng(0)
    dark = np.clip(rng.normal(light, light / 4, (120, 160, 3)), 0, 255).astype(np.uint8)
    assert measure_lightness(brighten_for_detection(dark)) == pytest.approx(64, abs=8)
    day = np.clip(rng.normal(90, 20, (120, 160, 3)), 0, 255).astype(np.uint8)
    assert brighten_for_detection(day) is day


def test_a_detector_sees_brightened_frames_and_says_so() -> None:
    inner = Looking()
    detector: Finder = BrighteningDetector(inner)
    detector.start()
    detector.detect(np.full((40, 40, 3), 10, np.uint8))
    assert inner.begun == 1
    assert measure_lightness(inner.seen[0]) == pytest.approx(64, abs=1)
    assert detector.name == "looking, dark frames brightened by gamma"
    assert detector.key.startswith("look after gamma")
    own: Finder = BrighteningDetector(inner, np.flipud, name="turning", key="turn")
    own.detect(np.arange(48, dtype=np.uint8).reshape(4, 4, 3))
    assert inner.seen[1][0, 0, 0] == 36
    assert (own.name, own.key) == ("looking, dark frames brightened by turning", "look after turn")


def test_large_frames_are_made_smaller_first_where_that_is_asked_for() -> None:
    class Quarter(Looking):
        """Finds the upper left quarter of whatever it sees."""

        def detect(self, picture: np.ndarray) -> Detections:
            super().detect(picture)
            height, width = picture.shape[:2]
            return Detections(np.array([[0, 0, width / 2, height / 2]], np.float32), np.ones(1, np.float32))

    inner = Quarter()
    found = BrighteningDetector(inner, longest_side=100).detect(np.full((200, 400, 3), 10, np.uint8))
    assert inner.seen[0].shape == (50, 100, 3)
    assert found.boxes.tolist() == [[0, 0, 200, 100]]
