"""Generation: layouts that are read back, the same bytes with any number of workers, resumable, refused politely."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import av
import pytest

from tapetum.core.errors import OutputError, RecipeError, TapetumError
from tapetum.core.types import Modality
from tapetum.data import generate
from tapetum.data.catalog import fingerprint, open_dataset
from tapetum.data.generate import generate_dataset, generate_video, scene_settings
from tapetum.synth.scene import SceneOptions
from tapetum.synth.video import VideoOptions

TINY = SceneOptions(num_train_people=2, num_test_people=2, cameras=2, pictures_per_camera=3, size=(48, 24))


def contents(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", ["night600", "synth"])
def test_queries_stay_in_the_gallery_where_the_dataset_has_it_so(tmp_path: Path, name: str) -> None:
    made = generate_dataset(tmp_path / "scene", name, TINY, queries_per_camera=2)
    assert made.total == made.written == 2 * 2 * 3 + 2 * 2 * (3 + 2)  # training; gallery, and some of it as queries
    dataset = open_dataset(name, tmp_path / "scene")
    train, query, gallery = (dataset.split(split) for split in ("train", "query", "gallery"))
    assert (len(train), len(query), len(gallery)) == (12, 8, 12)
    assert {r.pid for r in train} == {1, 2}
    assert {r.pid for r in query} == {r.pid for r in gallery} == {3, 4}
    assert {r.camid for r in query} == {1, 2}
    assert {r.path.read_bytes() for r in query} <= {r.path.read_bytes() for r in gallery}


def test_market_keeps_queries_out_of_the_gallery(tmp_path: Path) -> None:
    generate_dataset(tmp_path / "scene", "market1501", TINY)
    dataset = open_dataset("market1501", tmp_path / "scene")
    query, gallery = dataset.split("query"), dataset.split("gallery")
    assert (len(query), len(gallery)) == (8, 4)
    assert not {r.path.read_bytes() for r in query} & {r.path.read_bytes() for r in gallery}


def test_the_ground_truth_names_every_picture_person_and_camera(tmp_path: Path) -> None:
    root = tmp_path / "scene"
    generate_dataset(root, "synth", TINY)
    scene = json.loads((root / "scene.json").read_text())
    assert {root / picture["path"] for picture in scene["pictures"]} == {
        record.path for record in open_dataset("synth", root).records
    }
    assert set(scene["people"]) == {"1", "2", "3", "4"}
    assert set(scene["cameras"]) == {"1", "2"}
    assert scene["options"]["num_train_people"] == 2
    first = scene["pictures"][0]
    assert {"pid", "camid", "split", "lightness", "heading_deg", "occluded", "electrons"} <= set(first)
    assert not list(root.glob(".*"))


def test_an_interrupted_generation_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = generate_dataset(tmp_path / "whole", "synth", TINY)
    render, calls = generate._render_person, []

    def interrupted(*arguments: object) -> dict[str, object]:
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return render(*arguments)

    monkeypatch.setattr(generate, "_render_person", interrupted)
    with pytest.raises(KeyboardInterrupt):
        generate_dataset(tmp_path / "scene", "synth", TINY)
    assert not (tmp_path / "scene" / "scene.json").exists()
    monkeypatch.setattr(generate, "_render_person", render)
    resumed = generate_dataset(tmp_path / "scene", "synth", TINY)
    assert resumed.digest == whole.digest
    assert resumed.written == 24  # the testing people, whose pictures are queries and gallery
    assert contents(tmp_path / "scene") == contents(tmp_path / "whole")


def test_a_damaged_picture_of_an_interrupted_generation_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = generate_dataset(tmp_path / "whole", "synth", TINY)
    root = tmp_path / "scene"

    def stop(*_: object) -> dict[str, object]:
        raise KeyboardInterrupt

    monkeypatch.setattr(generate._Job, "_complete", stop)
    with pytest.raises(KeyboardInterrupt):
        generate_dataset(root, "synth", TINY)
    monkeypatch.undo()
    victim = next((root / "bounding_box_train").glob("0001_*.jpg"))
    victim.write_bytes(victim.read_bytes()[:50])
    result = generate_dataset(root, "synth", TINY)
    assert result.written == 6
    assert result.digest == whole.digest
    assert contents(root) == contents(tmp_path / "whole")


def test_a_finished_scene_is_left_alone_and_another_one_refused(tmp_path: Path) -> None:
    root = tmp_path / "scene"
    generate_dataset(root, "synth", TINY)
    before = fingerprint(open_dataset("synth", root).records)
    seen: list[tuple[int, int]] = []
    again = generate_dataset(root, "synth", TINY, progress=lambda done, total: seen.append((done, total)))
    assert again.written == 0
    assert seen == [(24, 24)]
    other = SceneOptions(num_train_people=1, num_test_people=1, cameras=2, size=(48, 24))
    with pytest.raises(OutputError, match="holds another scene"):
        generate_dataset(root, "synth", other)
    assert fingerprint(open_dataset("synth", root).records) == before


def test_a_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(OutputError, match="holds other files"):
        generate_dataset(tmp_path, "synth", TINY)
    assert contents(tmp_path) == {"mine.txt": b"keep"}


def test_a_second_run_into_the_same_folder_is_refused(tmp_path: Path) -> None:
    root, refused = tmp_path / "scene", []

    def intrude(done: int, total: int) -> None:
        if done == 6:
            with pytest.raises(OutputError, match="another run is writing here"):
                generate_dataset(root, "synth", TINY)
            refused.append(done)

    generate_dataset(root, "synth", TINY, progress=intrude)
    assert refused == [6]
    assert len(open_dataset("synth", root).records) == 36


def test_a_root_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="file"):
        generate_dataset(tmp_path / "file", "synth", TINY)


def test_progress_counts_pictures(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    generate_dataset(tmp_path / "scene", "synth", TINY, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(0, 24), (6, 24), (12, 24), (18, 24), (24, 24)]


def test_an_unknown_dataset_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="night600"):
        generate_dataset(tmp_path / "scene", "night60", TINY)
    assert not (tmp_path / "scene").exists()


def test_a_layout_without_room_for_a_gallery_is_refused(tmp_path: Path) -> None:
    single = SceneOptions(num_train_people=1, num_test_people=1, cameras=2, pictures_per_camera=1, size=(48, 24))
    with pytest.raises(RecipeError, match="pictures_per_camera is 1"):
        generate_dataset(tmp_path / "scene", "market1501", single)


def test_video_comes_with_boxes_people_and_times(tmp_path: Path) -> None:
    root = tmp_path / "video"
    options = SceneOptions(num_train_people=1, num_test_people=2, cameras=2, light_scale=4.0)
    video = VideoOptions(size=(96, 160), fps=4, seconds_between=1.0)
    result = generate_video(root, options, seconds=2.0, video=video)
    assert result.written == 2
    settings = json.loads((root / "video.json").read_text())
    for camid in (1, 2):
        with av.open(str(root / f"cam{camid}.mp4")) as container:
            assert sum(1 for _ in container.decode(video=0)) == 8
        header, *lines = (root / f"cam{camid}.csv").read_text().splitlines()
        assert header == "frame,time_seconds,pid,x,y,width,height,visible"
        pids = {int(line.split(",")[2]) for line in lines}
        assert pids
        assert {str(pid) for pid in pids} <= set(settings["people"])
    again = generate_video(root, options, seconds=2.0, video=video)
    assert (again.written, again.digest) == (0, result.digest)
    with pytest.raises(OutputError, match="another scene"):
        generate_video(root, options, seconds=3.0, video=video)


def test_a_layout_without_infrared_says_so_before_anything_is_written(tmp_path: Path) -> None:
    infrared = SceneOptions(num_train_people=1, num_test_people=1, cameras=2, infrared_cameras=(2,), size=(48, 24))
    with pytest.raises(TapetumError, match="infrared"):
        generate_dataset(tmp_path / "scene", "night600", infrared)
    assert not (tmp_path / "scene").exists()


def test_pictures_may_be_rendered_for_an_infrared_camera_in_the_other_band() -> None:
    options = SceneOptions(num_train_people=1, num_test_people=0, cameras=1, infrared_cameras=(1,), size=(48, 24))
    assert generate._scene(options).shot(1, 1, 0).modality is Modality.INFRARED


PAIRED = SceneOptions(
    num_train_people=2, num_test_people=2, cameras=2, pictures_per_camera=2, paired_cameras=(1, 2), size=(48, 24)
)


def test_a_pair_of_cameras_writes_both_modalities_under_one_number_at_different_moments(tmp_path: Path) -> None:
    result = generate_dataset(tmp_path / "scene", "llcm", PAIRED)
    assert result.total == 4 * 2 * 2 * 2
    scene = json.loads((tmp_path / "scene" / "scene.json").read_text())
    assert set(scene["cameras"]) == set(scene["paired_cameras"]) == {"1", "2"}
    assert {camera["modality"] for camera in scene["cameras"].values()} == {"visible"}
    assert {camera["modality"] for camera in scene["paired_cameras"].values()} == {"infrared"}
    moments = {(p["pid"], p["camid"], p["index"]) for p in scene["pictures"]}
    assert len(moments) == len(scene["pictures"])
    assert {p["split"] for p in scene["pictures"]} == {"train", "test"}
    records = open_dataset("llcm", tmp_path / "scene").records
    assert {tmp_path / "scene" / p["path"] for p in scene["pictures"]} == {record.path for record in records}
    assert {(r.camid, r.modality) for r in records} == {(c, m) for c in (1, 2) for m in Modality}


def test_lists_that_were_lost_are_written_again_without_rendering_anew(tmp_path: Path) -> None:
    root = tmp_path / "scene"
    whole = generate_dataset(root, "llcm", PAIRED)
    before = contents(root)
    (root / "idx" / "train_nir.txt").unlink()
    again = generate_dataset(root, "llcm", PAIRED)
    assert again.digest == whole.digest
    assert contents(root) == before
    assert generate_dataset(root, "llcm", PAIRED).written == 0


def test_settings_of_scenes_of_before_have_no_new_entry_so_that_they_stay_known() -> None:
    text = json.dumps(scene_settings(SceneOptions()), sort_keys=True)
    assert hashlib.sha256(text.encode()).hexdigest()[:12] == "936f8204898d"
    assert scene_settings(replace(TINY, light="day"))["light"] == "day"


def test_a_scene_of_both_lights_is_written_with_the_facts_of_every_camera(tmp_path: Path) -> None:
    both = replace(PAIRED, light="both", num_train_people=1, num_test_people=1)
    generate_dataset(tmp_path / "scene", "synth", replace(both, paired_cameras=()), queries_per_camera=1)
    dataset = open_dataset("synth", tmp_path / "scene")
    assert {record.camid for record in dataset.split("query")} == {1, 2, 3, 4}
    scene = json.loads((tmp_path / "scene" / "scene.json").read_text())
    assert {name: camera["lighting"]["lamps"][0]["kind"] == "sun" for name, camera in scene["cameras"].items()} == {
        "1": False, "2": False, "3": True, "4": True
    }  # fmt: skip
    generate_dataset(tmp_path / "pairs", "llcm", replace(both, paired_cameras=(2,)))
    pairs = json.loads((tmp_path / "pairs" / "scene.json").read_text())
    assert set(pairs["paired_cameras"]) == {"2", "4"}


@pytest.mark.slow
def test_the_number_of_workers_changes_no_byte(tmp_path: Path) -> None:
    one = generate_dataset(tmp_path / "one", "llcm", PAIRED)
    two = generate_dataset(tmp_path / "two", "llcm", PAIRED, workers=2)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert one.digest == two.digest


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("llcm", {"paired_cameras": ()}, "the layout llcm wants infrared cameras too and has none"),
        ("llcm", {"infrared_cameras": (1, 2), "paired_cameras": ()}, "wants visible cameras too and has none"),
        ("llcm", {"cameras": 3, "paired_cameras": (1, 3)}, "infrared cameras 1, 2, 4, 5, 6, 7, 8, 9, not 3"),
        ("sysu_mm01", {}, "there is no infrared camera 1"),
        ("regdb", {"infrared_cameras": (2,), "paired_cameras": (), "cameras": 3}, "there is no visible camera 3"),
        ("night600", {}, "visible pictures only, not infrared"),
    ],
)
def test_cameras_without_a_place_in_the_layout_are_refused_before_anything_is_written(
    tmp_path: Path, name: str, change: dict[str, object], message: str
) -> None:
    with pytest.raises(TapetumError, match=message):
        generate_dataset(tmp_path / "scene", name, replace(PAIRED, **change))
    assert not (tmp_path / "scene").exists()


def test_who_wears_the_same_clothes_stands_in_the_ground_truth_and_is_read_back(tmp_path: Path) -> None:
    generate_dataset(tmp_path / "scene", "synth", replace(TINY, lookalikes=2))
    assert json.loads((tmp_path / "scene" / "scene.json").read_text())["outfits"] == {"1": 1, "2": 1, "3": 3, "4": 3}
    dataset = open_dataset("synth", tmp_path / "scene")
    assert {(record.pid, record.outfit) for record in dataset.records} == {(1, 1), (2, 1), (3, 3), (4, 3)}
    generate_dataset(tmp_path / "plain", "synth", TINY)
    assert "outfits" not in json.loads((tmp_path / "plain" / "scene.json").read_text())
    assert {record.outfit for record in open_dataset("synth", tmp_path / "plain").records} == {-1}
    generate_dataset(tmp_path / "market", "market1501", replace(TINY, lookalikes=2))
    assert {record.outfit for record in open_dataset("synth", tmp_path / "market").split("query")} == {3}


@pytest.mark.parametrize("name", ["llcm", "regdb"])
def test_who_wears_the_same_clothes_is_told_also_where_a_layout_numbers_people_anew(name: str, tmp_path: Path) -> None:
    options = replace(TINY, num_train_people=4, pictures_per_camera=2, infrared_cameras=(2,), lookalikes=2)
    generate_dataset(tmp_path / "scene", name, options)
    dataset = open_dataset("synth", tmp_path / "scene")
    worn = {(record.pid, record.outfit) for record in dataset.split("train")}
    assert worn == {(0, 1), (1, 1), (2, 3), (3, 3)}
    assert {record.outfit for record in dataset.split("test")} == {5}
