import numpy as np
import pytest
import torch
from torchvision.models import detection
from torchvision.ops import nms

from street_clip import street
from tapetum.core.errors import DataError, RecipeError
from tapetum.footage import detect as module
from tapetum.footage.detect import (
    BackgroundDetector,
    TorchvisionDetector,
    compute_iou,
    keep_inside,
    suppress_overlaps,
)
from tapetum.footage.onnx import letterbox


def random_boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    corner = rng.uniform(0, 80, (count, 2))
    return np.concatenate([corner, corner + rng.uniform(5, 40, (count, 2))], 1).astype(np.float32)


def test_overlap_is_intersection_over_union() -> None:
    a = np.array([[0, 0, 10, 10]], np.float32)
    b = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [10, 0, 20, 10], [2, 2, 4, 4]], np.float32)
    assert compute_iou(a, b)[0] == pytest.approx([1, 50 / 150, 0, 0.04])


@pytest.mark.parametrize("seed", range(5))
def test_suppression_keeps_the_boxes_that_the_greedy_loop_keeps(seed: int) -> None:
    rng = np.random.default_rng(seed)
    boxes, scores = random_boxes(rng, 200), rng.uniform(0, 1, 200).astype(np.float32)
    expected = nms(torch.from_numpy(boxes), torch.from_numpy(scores), 0.4).numpy()
    assert suppress_overlaps(boxes, scores, 0.4).tolist() == expected.tolist()


def test_suppression_of_a_chain_keeps_every_second_box() -> None:
    """Each box is beaten by the one before it alone: the rule must be applied until nothing changes."""
    left = np.arange(0, 60, 3, dtype=np.float32)
    boxes = np.stack([left, left * 0, left + 10, left * 0 + 10], 1)
    scores = np.linspace(1, 0.5, len(boxes)).astype(np.float32)
    assert suppress_overlaps(boxes, scores, 0.5).tolist() == list(range(0, len(boxes), 2))


def test_a_letterboxed_picture_goes_back_to_its_own_pixels() -> None:
    picture = np.zeros((60, 120, 3), np.uint8)
    picture[20:40, 30:60] = 255
    boxed, factor, (left, top) = letterbox(picture, (64, 64))
    assert boxed.shape == (64, 64, 3)
    assert boxed[0, 0].tolist() == [114] * 3
    rows, columns = np.where(boxed[..., 0] > 200)
    back = [(columns.min() - left) / factor, (rows.min() - top) / factor, (columns.max() + 1 - left) / factor]
    assert back == pytest.approx([30, 20, 60], abs=2)


def test_boxes_end_at_the_picture_and_broken_ones_go() -> None:
    boxes = np.array([[-5, -5, 20, 20], [90, 90, 300, 300], [50, 50, 50, 60], [np.nan, 0, 5, 5], [200, 0, 300, 50]])
    found = keep_inside(boxes.astype(np.float32), np.ones(5, np.float32), (100, 100))
    assert found.boxes.tolist() == [[0, 0, 20, 20], [90, 90, 100, 100]]


def test_a_leaning_body_in_two_pieces_is_one_and_two_people_are_two() -> None:
    pieces = np.array([[499, 155, 632, 387], [635, 0, 711, 281]], np.float32)
    assert module._join_diagonal(pieces).tolist() == [[499, 0, 711, 387]]
    beside = np.array([[0, 0, 100, 250], [105, 10, 205, 255]], np.float32)
    behind = np.array([[0, 0, 100, 250], [102, 60, 140, 160]], np.float32)
    for two in (beside, behind, np.zeros((0, 4), np.float32)):
        assert module._join_diagonal(two).tolist() == two.tolist()


def test_the_fallback_says_that_it_is_one_and_finds_who_walks() -> None:
    detector = BackgroundDetector()
    assert "fallback" in detector.name
    assert detector.moving_only
    found = {frame: detector.detect(street(frame)) for frame in range(45)}
    assert not any(len(found[frame]) for frame in range(20))
    (left, top, right, bottom) = found[40].boxes[0].tolist()
    assert 70 <= (left + right) / 2 <= 90
    assert top <= 34
    assert bottom >= 95


def test_the_fallback_sees_in_the_dark() -> None:
    detector = BackgroundDetector()
    rng = np.random.default_rng(0)

    def night(frame: int) -> np.ndarray:
        return np.clip(street(frame) * 0.12 + rng.normal(0, 0.8, (120, 160, 3)), 0, 255).astype(np.uint8)

    found = [len(detector.detect(night(frame))) for frame in range(58)]
    assert sum(found[24:56]) >= 26
    assert sum(found[:20]) == 0


def test_the_fallback_begins_anew_where_the_light_changes_for_good() -> None:
    detector = BackgroundDetector()
    for frame in range(15):
        detector.detect(street(frame, empty=True))
    dim = [np.clip(street(0, empty=True) * 0.3, 0, 255).astype(np.uint8)] * 80
    counts = [len(detector.detect(picture)) for picture in dim]
    assert counts[-1] == 0


def test_torchvision_s_detector_reads_a_file_of_weights(tmp_path: pytest.TempPathFactory) -> None:
    path = tmp_path / "weights.pth"  # type: ignore[operator]
    torch.manual_seed(0)
    network = detection.ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=91)
    torch.save(network.state_dict(), path)
    detector = TorchvisionDetector("ssdlite320_mobilenet_v3_large", path, min_score=0.0)
    found = detector.detect(street(40))
    assert found.boxes.shape == (len(found.scores), 4)
    assert "ssdlite320" in detector.name
    path.write_bytes(b"no weights")
    with pytest.raises(DataError, match=r"weights\.pth: no weights of ssdlite320"):
        TorchvisionDetector("ssdlite320_mobilenet_v3_large", path)
    with pytest.raises(RecipeError, match="did you mean ssd300_vgg16"):
        TorchvisionDetector("ssd300_vgg", path)
