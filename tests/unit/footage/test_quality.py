import cv2
import numpy as np
import pytest

from street_clip import street
from tapetum.core.types import Modality
from tapetum.footage.quality import (
    BLURRED,
    CUT,
    HIDDEN,
    TOO_DARK,
    TOO_SMALL,
    is_too_dark,
    judge_modality,
    measure_quality,
    touches_edge,
)
from tapetum.synth.scene import Scene, SceneOptions


@pytest.fixture(scope="module")
def scene() -> Scene:
    return Scene(
        SceneOptions(num_train_people=0, num_test_people=4, cameras=4, infrared_cameras=(3,), pictures_per_camera=1)
    )


@pytest.fixture(scope="module")
def crop(scene: Scene) -> np.ndarray:
    """A well lit one."""
    return max(
        (scene.picture(pid, camid, 0) for pid in scene.options.test_pids for camid in (1, 2, 4)),
        key=lambda picture: float(picture.mean()),
    )


def through_jpeg(picture: np.ndarray, quality: int = 85) -> np.ndarray:
    data = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.ascontiguousarray(cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1])


def test_a_good_crop_has_no_remark(crop: np.ndarray) -> None:
    quality = measure_quality(cv2.resize(crop, (64, 160)))
    assert quality.remark == ""
    assert quality.value > 0.5
    assert quality.light == pytest.approx(float(crop.reshape(-1, 3).mean(0) @ (0.299, 0.587, 0.114)), abs=1)


def test_darkness_is_said_not_hidden(crop: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    dark = np.clip(crop * 0.03 + rng.normal(0, 1.5, crop.shape), 0, 255).astype(np.uint8)
    quality = measure_quality(dark)
    assert TOO_DARK in quality.remark
    assert quality.value < 0.3
    assert TOO_DARK in measure_quality(np.zeros((100, 50, 3), np.uint8)).remark


def test_what_spoils_a_crop_is_said_and_lowers_its_quality(crop: np.ndarray) -> None:
    crop = cv2.resize(crop, (64, 160))
    best = measure_quality(crop).value
    blurred = measure_quality(cv2.GaussianBlur(crop, (0, 0), 8))
    small = measure_quality(cv2.resize(crop, (16, 40), interpolation=cv2.INTER_AREA))
    cut, hidden = measure_quality(crop, cut=True), measure_quality(crop, hidden_share=0.6)
    for found, remark in ((blurred, BLURRED), (small, TOO_SMALL), (cut, CUT), (hidden, HIDDEN)):
        assert remark in found.remark
        assert found.value < 0.75 * best
    half = crop[:70]
    assert measure_quality(half, cut=True).value < 0.7 * measure_quality(half).value


@pytest.mark.parametrize("size", [(1, 1), (2, 500), (500, 2), (3, 3)])
def test_pictures_of_odd_sizes_are_measured(size: tuple[int, int]) -> None:
    picture = np.full((*size, 3), 100, np.uint8)
    assert 0 <= measure_quality(picture).value <= 1
    assert judge_modality(picture)[0] == Modality.INFRARED


@pytest.mark.parametrize("light_scale", [1.0, 0.3])
def test_modality_of_generated_crops_is_told_by_their_colour(light_scale: float) -> None:
    scene = Scene(
        SceneOptions(
            num_train_people=0,
            num_test_people=3,
            cameras=3,
            infrared_cameras=(3,),
            pictures_per_camera=1,
            light_scale=light_scale,
        )
    )
    for pid in scene.options.test_pids:
        for camid, modality, index in scene.pictures_of(pid):
            shot = scene.shot(pid, camid, index, modality)
            assert judge_modality(through_jpeg(shot.picture))[0] == shot.modality


def test_grey_with_noise_is_infrared_even_with_a_coloured_time_burnt_in() -> None:
    rng = np.random.default_rng(0)
    frame = street(40)
    grey = np.repeat(frame.mean(2, keepdims=True), 3, 2)
    noisy = np.clip(grey + rng.normal(0, 3, grey.shape), 0, 255).astype(np.uint8)
    assert judge_modality(noisy)[0] == Modality.INFRARED
    cv2.putText(noisy, "21:00:00", (4, 12), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (255, 255, 0), 1)
    assert judge_modality(through_jpeg(noisy))[0] == Modality.INFRARED
    assert judge_modality(frame)[0] == Modality.VISIBLE


def test_a_box_at_any_side_touches_the_edge() -> None:
    assert not touches_edge((10, 10, 20, 40), (100, 100))
    for box in ((1, 10, 20, 40), (10, 0, 20, 40), (79, 10, 20, 40), (10, 60, 20, 40)):
        assert touches_edge(box, (100, 100))


TINTS = {"purple": (1.0, 0.7, 1.0), "pink": (1.0, 0.75, 0.9), "green": (0.7, 1.0, 0.75), "amber": (1.0, 0.8, 0.5)}


def test_modality_under_a_single_tint() -> None:
    scene = Scene(
        SceneOptions(num_train_people=0, num_test_people=8, cameras=6, infrared_cameras=(5, 6), pictures_per_camera=1)
    )
    judged: dict[str, list[tuple[Modality, bool]]] = {name: [] for name in ("visible", *TINTS)}
    for pid in scene.options.test_pids:
        for camid, modality, index in scene.pictures_of(pid):
            picture = scene.shot(pid, camid, index, modality).picture
            if modality == Modality.VISIBLE:
                judged["visible"].append(judge_modality(through_jpeg(picture)))
                continue
            for name, tint in TINTS.items():
                judged[name].append(judge_modality(through_jpeg((picture * np.array(tint)).astype(np.uint8))))
    assert [len(each) for each in judged.values()] == [32, 16, 16, 16, 16]
    assert set(judged["visible"]) == {(Modality.VISIBLE, False)}
    assert set(judged["purple"] + judged["pink"]) == {(Modality.INFRARED, True)}
    others = judged["green"] + judged["amber"]
    assert {modality for modality, _ in others} == {Modality.VISIBLE}
    assert sum(doubtful for _, doubtful in others) >= 31


def test_a_frame_is_too_dark_where_nothing_stands_out_and_fog_is_not_dark() -> None:
    rng = np.random.default_rng(0)
    black = np.clip(rng.normal(3, 2, (240, 320, 3)), 0, 255).astype(np.uint8)
    assert is_too_dark(black)
    assert not is_too_dark(black + 120)
    black[60:200, 100:160] += 40
    assert not is_too_dark(black)
