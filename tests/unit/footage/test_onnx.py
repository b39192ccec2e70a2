from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tapetum.core.errors import DataError, RecipeError
from tapetum.footage.onnx import OnnxDetector, OnnxDetectorOptions

SIZE = 64
PERSON = (20.0, 16.0, 44.0, 56.0)  # left, top, right, bottom in the letterboxed picture
TWIN = (21.0, 17.0, 45.0, 57.0)  # the same person, a little less sure
CAR = (2.0, 2.0, 12.0, 10.0)


def write_network(
    path: Path, outputs: dict[str, np.ndarray], *, shape: tuple[object, ...] = (1, 3, SIZE, SIZE), kind: int = 1
) -> Path:
    """A network that answers the same to every picture: constants plus nothing times the picture's mean."""
    nodes = [helper.make_node("Cast", ["images"], ["number"], to=TensorProto.FLOAT)]
    nodes += [helper.make_node("ReduceMean", ["number"], ["mean"], keepdims=0)]
    nodes += [helper.make_node("Mul", ["mean", "zero"], ["nothing"])]
    constants = [numpy_helper.from_array(np.float32(0), "zero")]
    described = []
    for name, array in outputs.items():
        constants.append(numpy_helper.from_array(array, f"{name}_value"))
        whole = array.dtype == np.int64
        if whole:
            nodes.append(helper.make_node("Identity", [f"{name}_value"], [name]))
        else:
            nodes.append(helper.make_node("Add", [f"{name}_value", "nothing"], [name]))
        described.append(
            helper.make_tensor_value_info(name, TensorProto.INT64 if whole else TensorProto.FLOAT, array.shape)
        )
    image = helper.make_tensor_value_info("images", kind, shape)
    graph = helper.make_graph(nodes, "detector", [image], described, constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), str(path))
    return path


def middle(box: tuple[float, ...]) -> list[float]:
    return [(box[0] + box[2]) / 2, (box[1] + box[3]) / 2, box[2] - box[0], box[3] - box[1]]


def yolo(count: int = 30) -> np.ndarray:
    rows = np.zeros((count, 6), np.float32)  # box, person, car
    rows[3], rows[7], rows[9] = [*middle(PERSON), 0.9, 0.0], [*middle(TWIN), 0.8, 0.0], [*middle(CAR), 0.1, 0.95]
    return rows.T[None]


def yolo_objectness(count: int = 30) -> np.ndarray:
    rows = np.zeros((count, 7), np.float32)  # box, objectness, person, car
    rows[3], rows[7] = [*middle(PERSON), 0.95, 0.95, 0.0], [*middle(TWIN), 0.9, 0.9, 0.0]
    rows[9], rows[11] = [*middle(CAR), 0.9, 0.0, 0.95], [*middle(CAR), 0.2, 0.9, 0.0]
    return rows[None]


BOXES = {
    "boxes": np.array([PERSON, TWIN, CAR], np.float32),
    "labels": np.array([1, 1, 3], np.int64),
    "scores": np.array([0.9, 0.8, 0.9], np.float32),
}
LAYOUTS = {"yolo": {"output0": yolo()}, "yolo_objectness": {"output": yolo_objectness()}, "boxes": BOXES}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", [TensorProto.FLOAT, TensorProto.UINT8, TensorProto.FLOAT16])
def test_each_layout_gives_the_person_once_in_the_picture_s_own_pixels(tmp_path: Path, layout: str, kind: int) -> None:
    detector = OnnxDetector(write_network(tmp_path / "person.onnx", LAYOUTS[layout], kind=kind))
    found = detector.detect(np.zeros((128, 128, 3), np.uint8))
    assert found.boxes.tolist() == [[40, 32, 88, 112]]
    assert found.scores[0] == pytest.approx(0.9, abs=0.01)
    assert detector.name.startswith("ONNX person.onnx")
    assert not detector.moving_only


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_letterbox_is_undone(tmp_path: Path, layout: str) -> None:
    detector = OnnxDetector(write_network(tmp_path / "a.onnx", LAYOUTS[layout]))
    found = detector.detect(np.zeros((128, 256, 3), np.uint8))  # shrunk to 32 x 64, 16 rows of grey above
    assert found.boxes.tolist() == [[80, 0, 176, 128]]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_network_without_a_batch_or_a_fixed_size_runs(tmp_path: Path, layout: str) -> None:
    open_size = write_network(tmp_path / "open.onnx", LAYOUTS[layout], shape=("n", 3, "h", "w"))
    single = write_network(tmp_path / "single.onnx", LAYOUTS[layout], shape=(3, SIZE, SIZE))
    picture = np.zeros((SIZE, SIZE, 3), np.uint8)
    sized = OnnxDetector(open_size, OnnxDetectorOptions(size=(SIZE, SIZE)))
    assert sized.detect(picture).boxes.tolist() == OnnxDetector(single).detect(picture).boxes.tolist() == [list(PERSON)]
    assert OnnxDetector(open_size).detect(np.zeros((640, 640, 3), np.uint8)).boxes.tolist() == [list(PERSON)]


def test_class_layout_and_scores_can_be_said(tmp_path: Path) -> None:
    path = write_network(tmp_path / "a.onnx", LAYOUTS["yolo"])
    picture = np.zeros((SIZE, SIZE, 3), np.uint8)
    assert OnnxDetector(path, OnnxDetectorOptions(person_class=1)).detect(picture).boxes.tolist() == [list(CAR)]
    assert len(OnnxDetector(path, OnnxDetectorOptions(max_iou=0.95)).detect(picture)) == 2
    assert len(OnnxDetector(path, OnnxDetectorOptions(min_score=0.95)).detect(picture)) == 0
    few = write_network(tmp_path / "few.onnx", {"o": yolo_objectness(12)[:, :, :6].copy()[:, :6]})  # (1, 6, 6): either
    named = [OnnxDetector(few, OnnxDetectorOptions(layout=layout)).key for layout in ("yolo", "yolo_objectness")]
    assert named[0] != named[1]


def test_boxes_that_come_ready_are_read_as_what_they_are_and_never_guessed(tmp_path: Path) -> None:
    rows = np.zeros((30, 6), np.float32)  # corners, score, class
    rows[3], rows[7], rows[9] = [*PERSON, 0.95, 0], [*TWIN, 0.8, 0], [*CAR, 0.9, 1]
    path = write_network(tmp_path / "end.onnx", {"output0": rows[None]})
    with pytest.raises(DataError, match=r"gives \(1, 30, 6\), which may be .* say which by --detector-layout"):
        OnnxDetector(path)
    picture = np.zeros((SIZE, SIZE, 3), np.uint8)
    found = OnnxDetector(path, OnnxDetectorOptions(layout="yolo_end_to_end")).detect(picture)
    assert found.boxes.tolist() == [list(PERSON)]
    cars = OnnxDetector(path, OnnxDetectorOptions(layout="yolo_end_to_end", person_class=1)).detect(picture)
    assert cars.boxes.tolist() == [list(CAR)]


def test_names_find_the_outputs_in_any_order(tmp_path: Path) -> None:
    turned = {name: BOXES[name] for name in ("scores", "labels", "boxes")}
    found = OnnxDetector(write_network(tmp_path / "a.onnx", turned)).detect(np.zeros((SIZE, SIZE, 3), np.uint8))
    assert found.boxes.tolist() == [list(PERSON)]


def test_what_is_no_detector_is_named(tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("no network")
    with pytest.raises(DataError, match=r"text\.onnx: no ONNX network"):
        OnnxDetector(tmp_path / "text.onnx")
    with pytest.raises(DataError, match=r"gone\.onnx: cannot be read"):
        OnnxDetector(tmp_path / "gone.onnx")
    with pytest.raises(DataError, match="takes 1 channels"):
        OnnxDetector(write_network(tmp_path / "grey.onnx", BOXES, shape=(1, 1, SIZE, SIZE)))
    with pytest.raises(DataError, match=r"a detector must take \(1, 3, H, W\)"):
        OnnxDetector(write_network(tmp_path / "batch.onnx", BOXES, shape=(8, 3, SIZE, SIZE)))
    with pytest.raises(DataError, match=r"gives 1 output of shape \(1, 1000\)"):
        OnnxDetector(write_network(tmp_path / "classes.onnx", {"o": np.zeros((1, 1000), np.float32)}))
    with pytest.raises(RecipeError, match="did you mean yolo"):
        OnnxDetectorOptions(layout="yollo")  # type: ignore[arg-type]
    seven = OnnxDetectorOptions(person_class=7)
    detector = OnnxDetector(write_network(tmp_path / "a.onnx", LAYOUTS["yolo"]), seven)
    with pytest.raises(DataError, match="has 2 classes; person_class is 7"):
        detector.detect(np.zeros((SIZE, SIZE, 3), np.uint8))
