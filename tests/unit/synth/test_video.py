"""Video: boxes hold the people, frames are reproducible, the file is read back."""

from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest

from tapetum.core.errors import OutputError, RecipeError
from tapetum.synth.scene import Scene, SceneOptions
from tapetum.synth.video import VideoOptions, plan_passages, render_frames, write_camera_video

OPTIONS = SceneOptions(num_train_people=2, num_test_people=4, cameras=2, light_scale=6.0, difficulty=0.2)
VIDEO = VideoOptions(size=(144, 256), fps=4, seconds_between=2.0)
SECONDS = 6.0


@pytest.fixture(scope="module")
def frames() -> list[tuple[np.ndarray, list]]:
    return list(render_frames(Scene(OPTIONS), 1, VIDEO, SECONDS))


def test_each_box_holds_somebody_who_is_not_in_the_empty_street(frames: list[tuple[np.ndarray, list]]) -> None:
    empty = np.median([picture for picture, _ in frames], axis=0)
    assert sum(len(boxes) for _, boxes in frames) > 15
    hits = []
    for picture, boxes in frames:
        moved = np.abs(picture.astype(float) - empty).max(axis=2)
        for box in boxes:
            inside = moved[box.y : box.y + box.height, box.x : box.x + box.width]
            hits.append((inside > 12).mean())
    assert np.median(hits) > 0.2


def test_nothing_moves_outside_the_boxes(frames: list[tuple[np.ndarray, list]]) -> None:
    empty = np.median([picture for picture, _ in frames], axis=0)
    for picture, boxes in frames[::3]:
        moved = np.abs(picture.astype(float) - empty).max(axis=2) > 40
        for box in boxes:
            wide = box.width
            moved[max(0, box.y - 6) : box.y + box.height + 12, max(0, box.x - wide) : box.x + 2 * wide] = False
        assert moved.mean() < 0.01


def test_boxes_are_inside_the_frame_and_follow_the_walk(frames: list[tuple[np.ndarray, list]]) -> None:
    tracks: dict[int, list[int]] = {}
    for number, (_, boxes) in enumerate(frames):
        assert len({box.pid for box in boxes}) == len(boxes)
        for box in boxes:
            assert box.frame == number
            assert box.time_seconds == pytest.approx(number / 4)
            assert min(box.x, box.y) >= 0
            assert box.x + box.width <= 256
            assert box.y + box.height <= 144
            assert 0 <= box.visible <= 1
            tracks.setdefault(box.pid, []).append(box.x + box.width // 2)
    for centres in tracks.values():
        steps = np.diff(centres)
        assert np.abs(steps).max(initial=0) < 60
    longest = max(tracks.values(), key=len)
    assert abs(longest[-1] - longest[0]) > 40


def test_frames_are_reproducible(frames: list[tuple[np.ndarray, list]]) -> None:
    again = next(iter(render_frames(Scene(OPTIONS), 1, VIDEO, SECONDS)))
    assert np.array_equal(again[0], frames[0][0])
    assert again[1] == frames[0][1]


def test_cameras_see_the_same_people_at_their_own_times() -> None:
    scene = Scene(OPTIONS)
    first, second = (plan_passages(scene, camid, VIDEO, SECONDS) for camid in (1, 2))
    assert {p.pid for p in first} == {p.pid for p in second}
    assert {p.pid for p in first} <= set(OPTIONS.test_pids)
    assert [p.middle_seconds for p in first] != [p.middle_seconds for p in second]
    assert all(0 <= p.middle_seconds <= SECONDS for p in first)


def test_people_can_be_chosen() -> None:
    chosen = plan_passages(Scene(OPTIONS), 1, replace(VIDEO, people=(1, 5)), SECONDS)
    assert sorted(p.pid for p in chosen) == [1, 5]


def test_the_file_has_the_frames_at_their_times(tmp_path: Path) -> None:
    path = tmp_path / "cam1.mp4"
    write_camera_video(path, Scene(OPTIONS), 1, VIDEO, 1.5)
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    assert [frame.time for frame in frames] == pytest.approx([0, 0.25, 0.5, 0.75, 1.0, 1.25])
    assert (frames[0].height, frames[0].width) == (144, 256)


def test_an_unwritable_video_is_named(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"cam1\.mp4: the video cannot be written"):
        write_camera_video(tmp_path / "none" / "cam1.mp4", Scene(OPTIONS), 1, VIDEO, 1.0)


@pytest.mark.parametrize("change", [{"size": (145, 256)}, {"fps": 0}, {"quality": 99}, {"zoom": 0}])
def test_an_impossible_setting_is_named(change: dict[str, object]) -> None:
    with pytest.raises(RecipeError, match=f"video: {next(iter(change))} is"):
        replace(VIDEO, **change).check(1.0)


def test_a_video_without_a_frame_is_refused() -> None:
    with pytest.raises(RecipeError, match="no frame"):
        VIDEO.check(0.01)
