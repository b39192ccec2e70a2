import json
import os
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from street_clip import COLOURS, RATE, WIDTH, street, write_clip, write_street
from tapetum.core.errors import DataError, OutputError
from tapetum.data.catalog import open_dataset
from tapetum.data.image_io import Picture, read_picture
from tapetum.footage import crop_video as module
from tapetum.footage import motion
from tapetum.footage.crop_video import CropVideoOptions, crop_video
from tapetum.footage.detect import Detections

CLIP = Path(
    os.environ.get("TAPETUM_CLIP", Path(__file__).parents[4] / "shared" / "data" / "one-by-one-person-detection.mp4")
)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_street(tmp_path_factory.mktemp("clip") / "street.mp4")


def test_two_people_one_after_the_other_are_two_appearances_in_two_halves(clip: Path, tmp_path: Path) -> None:
    result = crop_video(clip, tmp_path / "crops")
    assert result.appearances == 2
    assert result.frames == 145
    assert {(crop.appearance, crop.camid) for crop in result.crops} == {(1, 1), (1, 2), (2, 1), (2, 2)}
    for appearance in (1, 2):
        times = [[c.time_seconds for c in result.crops if (c.appearance, c.camid) == (appearance, k)] for k in (1, 2)]
        assert max(times[0]) < min(times[1])
        assert abs(len(times[0]) - len(times[1])) <= 1
    for crop in result.crops:
        picture = read_picture(result.out / crop.path)
        assert picture.shape[:2] == (crop.box[3], crop.box[2])
        middle = picture[picture.shape[0] // 2, picture.shape[1] // 2].astype(int)
        assert np.abs(middle - COLOURS[crop.appearance - 1]).max() < 40
        expected = 20 <= crop.frame < 60 if crop.appearance == 1 else 85 <= crop.frame < 125
        assert expected
        assert crop.time_seconds == pytest.approx(crop.frame / RATE)
        left, _, width, _ = crop.box
        assert 0 <= left < left + width <= WIDTH


def test_crops_are_a_dataset_with_a_match_for_each_query(clip: Path, tmp_path: Path) -> None:
    result = crop_video(clip, tmp_path / "crops")
    dataset = open_dataset("folder", result.out)
    assert {record.pid for record in dataset.split("query")} == {record.pid for record in dataset.split("gallery")}
    assert {record.camid for record in dataset.split("query")} == {1}
    assert {record.camid for record in dataset.split("gallery")} == {2}
    assert len(dataset.records) == len(result.crops)


def test_manifest_says_where_and_when(clip: Path, tmp_path: Path) -> None:
    result = crop_video(clip, tmp_path / "crops")
    manifest = json.loads((tmp_path / "crops" / "crops.json").read_text())
    assert manifest["clip"] == "street.mp4"
    assert [crop["path"] for crop in manifest["crops"]] == [crop.path for crop in result.crops]
    assert set(manifest["crops"][0]) == {"path", "appearance", "camid", "frame", "time_seconds", "box"}


def test_times_are_the_clip_s_own_stamps(clip: Path, tmp_path: Path) -> None:
    late = [number / RATE + (7.0 if number >= 70 else 0.0) for number in range(145)]  # the second comes later
    path = write_clip(tmp_path / "a.mp4", [street(frame) for frame in range(145)], late)
    result = crop_video(path, tmp_path / "late")
    times = {crop.frame: crop.time_seconds for crop in result.crops}
    assert result.appearances == 2
    assert {crop.frame for crop in crop_video(clip, tmp_path / "crops").crops} == set(times)
    assert [times[frame] for frame in times] == pytest.approx([late[frame] for frame in times])
    assert any("gap" in problem for problem in result.problems)
    assert crop_video(path, tmp_path / "late") == result


def test_typed_again_nothing_is_done_again(clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = crop_video(clip, tmp_path / "crops")
    monkeypatch.setattr(module, "follow_frames", lambda *_, **__: pytest.fail("decoded again"))
    assert crop_video(clip, tmp_path / "crops") == result


@pytest.mark.parametrize(("place", "moment"), [(motion, "_find_blobs"), (module, "write_picture")])
def test_interruption_leaves_no_output(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: ModuleType, moment: str
) -> None:
    def interrupted(*arguments: object, **keywords: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(place, moment, interrupted)
    with pytest.raises(KeyboardInterrupt):
        crop_video(clip, tmp_path / "crops")
    assert list(tmp_path.iterdir()) == []


def test_output_with_something_else_is_left_alone(clip: Path, tmp_path: Path) -> None:
    full = tmp_path / "full"
    full.mkdir()
    (full / "letter.txt").write_text("x")
    with pytest.raises(OutputError, match="holds something else than crops"):
        crop_video(clip, full)
    crop_video(clip, tmp_path / "crops")
    with pytest.raises(OutputError, match="another clip or with other settings"):
        crop_video(clip, tmp_path / "crops", options=CropVideoOptions(margin=0.2))
    with pytest.raises(OutputError, match="is a file"):
        crop_video(clip, full / "letter.txt")
    assert (full / "letter.txt").read_text() == "x"


def test_empty_street_is_said_to_be_empty(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "empty.mp4", [street(frame, empty=True) for frame in range(40)])
    with pytest.raises(DataError, match=r"empty\.mp4: nobody found in 40 frames"):
        crop_video(path, tmp_path / "crops")
    assert not (tmp_path / "crops").exists()


class OneStands:
    """A trained detector that sees one person, who never moves."""

    name, key, moving_only = "one stands", "one stands 1", False

    def start(self) -> None:
        """Nothing to forget."""

    def detect(self, picture: Picture) -> Detections:
        """Always there."""
        return Detections(np.array([[40, 20, 80, 120]], np.float32), np.ones(1, np.float32))


def test_a_trained_detector_crops_who_stands_and_is_named(clip: Path, tmp_path: Path) -> None:
    crop_video(clip, tmp_path / "crops", detector=OneStands())
    manifest = json.loads((tmp_path / "crops" / "crops.json").read_text())
    assert (manifest["appearances"], manifest["detector"]) == (1, "one stands")
    with pytest.raises(OutputError, match="of another clip or with other settings"):
        crop_video(clip, tmp_path / "crops")


def test_change_of_light_alone_is_nobody(tmp_path: Path) -> None:
    frames = [street(0, empty=True) for _ in range(60)]
    frames[30:] = [np.clip(frame * 0.8, 0, 255).astype(np.uint8) for frame in frames[30:]]
    with pytest.raises(DataError, match="nobody found"):
        crop_video(write_clip(tmp_path / "light.mp4", frames), tmp_path / "crops")


def test_damaged_or_missing_clip_is_named(clip: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.mp4: cannot be read"):
        crop_video(tmp_path / "gone.mp4", tmp_path / "crops")
    for name, content in (("text.mp4", b"no video at all" * 50), ("cut.mp4", clip.read_bytes()[:2000])):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=name.replace(".", r"\.")) as caught:
            crop_video(tmp_path / name, tmp_path / "crops")
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "crops").exists()


@pytest.mark.slow
@pytest.mark.skipif(not CLIP.is_file(), reason=f"the real clip is not at {CLIP}; set TAPETUM_CLIP to try it")
def test_six_people_of_the_real_clip_are_six_appearances(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    result = crop_video(CLIP, tmp_path / "crops", progress=lambda *state: seen.append(state))
    assert result.appearances == 6
    assert result.frames == 1394
    starts = [min(c.time_seconds for c in result.crops if c.appearance == number) for number in range(1, 7)]
    ends = [max(c.time_seconds for c in result.crops if c.appearance == number) for number in range(1, 7)]
    assert all(end < start for end, start in zip(ends, starts[1:], strict=False))  # one by one
    assert starts == pytest.approx([6.6, 23.2, 50.9, 75.1, 92.7, 124.5], abs=1.0)  # as seen on a contact sheet
    sizes = np.array([crop.box[2:] for crop in result.crops])
    assert np.median(sizes[:, 1]) > 300
    assert (sizes[:, 1] > sizes[:, 0]).all()
    assert seen[-1][0] <= seen[-1][1] == 1394
