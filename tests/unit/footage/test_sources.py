import os
import zlib
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from PIL import Image

from street_clip import street, write_clip
from tapetum.core.errors import DataError
from tapetum.core.types import Modality, Record
from tapetum.data.catalog import open_dataset
from tapetum.footage.fingerprint import fingerprint_source
from tapetum.footage.sources import (
    SourceOptions,
    find_sources,
    name_camera,
    picture_time,
    source_of_records,
    tell_kind,
)


def write_pictures(folder: Path, names: list[str], size: tuple[int, int]) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(len(names))
    for name in names:
        assert cv2.imwrite(str(folder / name), rng.integers(0, 255, (*size, 3), np.uint8))
    return [folder / name for name in names]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "site"
    write_pictures(root / "crops", ["0001_c3s1_01.jpg", "0002_c4s1_01.jpg"], (64, 32))
    write_pictures(root / "cam7", [f"{number}.png" for number in (1, 2, 10, 9)], (48, 64))
    (root / "night").mkdir()
    write_clip(root / "night" / "cam2_2026-11-20T21-00-00.mp4", [street(0)] * 3)
    (root / "night" / "notes.txt").write_text("x")
    write_pictures(root / ".hidden", ["a.jpg"], (64, 32))
    return root


def test_a_tree_gives_crops_frames_and_videos_and_names_what_it_passes_over(tree: Path) -> None:
    ignored: list[Path] = []
    found = {source.kind: source for source in find_sources([tree], ignored=ignored)}
    assert set(found) == {"crops", "frames", "video"}
    assert [path.name for path in ignored] == ["notes.txt"]
    assert sorted(picture.camera for picture in found["crops"].pictures) == ["c3", "c4"]
    assert [picture.path.name for picture in found["frames"].pictures] == ["1.png", "2.png", "9.png", "10.png"]
    assert (found["frames"].camera, found["video"].camera) == ("cam7", "cam2")
    assert found["video"].name == str(tree / "night" / "cam2_2026-11-20T21-00-00.mp4")


def test_a_gallery_in_a_tree_is_no_footage_but_its_crops_can_be_named(tree: Path) -> None:
    before = [source.name for source in find_sources([tree])]
    write_pictures(tree / "gallery" / "crops" / "ab12", ["000001_00000007.jpg"], (64, 32))
    (tree / "gallery" / "gallery.json").write_text("{}")
    assert [source.name for source in find_sources([tree])] == before
    assert len(find_sources([tree / "gallery" / "crops"])) == 1


def test_kind_of_pictures_follows_their_shape_and_can_be_said(tmp_path: Path) -> None:
    upright = write_pictures(tmp_path / "a", [f"{n}.jpg" for n in range(40)], (64, 32))
    lying = write_pictures(tmp_path / "b", [f"{n}.jpg" for n in range(4)], (32, 64))
    phone = write_pictures(tmp_path / "c", ["1.jpg", "2.jpg"], (1920, 1080))
    assert tell_kind(upright) == "crops"
    assert tell_kind(lying) == "frames"
    assert tell_kind(phone) == "frames"
    (said,) = find_sources([tmp_path / "a"], SourceOptions(kind="frames"))
    assert said.kind == "frames"


@pytest.mark.parametrize(
    ("path", "camera"),
    [
        ("x/cam3_2026-11-20T21-00-00.mp4", "cam3"),
        ("x/NVR_ch02_main_20261120.mp4", "ch02"),
        ("x/Camera 12.avi", "camera12"),
        ("x/gate_2026-11-20T21-00-00.mp4", "gate"),
        ("back door/2026-11-20T21-00-00.mp4", "back-door"),
        ("x/one-by-one.mp4", "one-by-one"),
        ("x/C0012.MP4", "C0012"),
    ],
)
def test_camera_is_named_by_word_then_what_stands_before_the_time_then_folder(path: str, camera: str) -> None:
    assert name_camera(Path(path)) == camera


def test_start_is_option_then_metadata_then_name_then_time_of_writing(tmp_path: Path) -> None:
    named = write_clip(tmp_path / "cam1_2026-11-20T21-00-00.mp4", [street(0)] * 2)
    plain = write_clip(tmp_path / "plain.mp4", [street(0)] * 2)
    os.utime(plain, (1.7e9, 1.7e9))
    stated = tmp_path / "cam1_2026-11-20T22-00-00.mp4"
    with av.open(str(stated), "w") as container:
        container.metadata["creation_time"] = "2026-11-20T23:30:00.000000Z"
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")))
        container.mux(stream.encode())
    found = {source.path.name: source for source in find_sources([tmp_path])}
    assert (found[named.name].start, found[named.name].start_origin) == (1795208400.0, "name")
    assert (found["plain.mp4"].start, found["plain.mp4"].start_origin) == (1.7e9, "mtime")
    assert (found[stated.name].start, found[stated.name].start_origin) == (1795217400.0, "metadata")
    (told,) = find_sources([stated], SourceOptions(start=5e8, camera="gate"))
    assert (told.start, told.start_origin, told.camera) == (5e8, "option", "gate")


def test_a_crop_s_time_is_its_exif_then_its_name(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9003] = "2026:11:20 21:00:00"
    path = tmp_path / "a_2020-01-01T00-00-00.jpg"
    Image.new("RGB", (16, 32)).save(path, exif=exif)
    assert picture_time(path, SourceOptions()) == (1795208400.0, "metadata")
    Image.new("RGB", (16, 32)).save(path)
    assert picture_time(path, SourceOptions()) == (1577836800.0, "name")


def test_records_of_a_data_set_bring_camera_and_modality_and_leave_their_identity(tmp_path: Path) -> None:
    paths = write_pictures(tmp_path / "d", ["1.jpg", "2.jpg"], (64, 32))
    records = [Record(paths[0], 7, 2), Record(paths[1], 8, 5, Modality.INFRARED)]
    source = source_of_records(records, "llcm")
    assert [(p.camera, p.modality) for p in source.pictures] == [("c2", Modality.VISIBLE), ("c5", Modality.INFRARED)]
    assert "7" not in {picture.camera for picture in source.pictures}


def test_an_opened_data_set_is_a_place(people: Path) -> None:
    dataset = open_dataset("night600", people)
    (source,) = find_sources([dataset])
    assert (source.kind, len(source.pictures)) == ("crops", len(dataset.records))


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="gone: does not exist"):
        find_sources([tmp_path / "gone"])
    with pytest.raises(DataError, match="holds no picture and no video"):
        find_sources([tmp_path])
    with pytest.raises(DataError, match="write 'back-door'"):
        SourceOptions(camera="back door")
    with pytest.raises(DataError, match="did you mean frames"):
        SourceOptions(kind="frame")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="frames_per_second is 0"):
        SourceOptions(frames_per_second=0)


def test_a_fingerprint_is_of_the_content_not_of_the_name(tmp_path: Path) -> None:
    first = write_clip(tmp_path / "a.mp4", [street(frame) for frame in range(5)])
    (tmp_path / "b.mp4").write_bytes(first.read_bytes())
    write_clip(tmp_path / "c.mp4", [street(frame) for frame in range(30, 35)])
    a, b, c = (fingerprint_source(find_sources([tmp_path / f"{name}.mp4"])[0]) for name in "abc")
    assert a == b != c


def test_a_decompression_bomb_is_found_without_being_opened(tmp_path: Path) -> None:
    """A header of 60000 x 60000 pixels; Pillow alone would warn, and a warning is an error here."""
    small = cv2.imencode(".png", np.zeros((8, 4, 3), np.uint8))[1].tobytes()
    header = b"IHDR" + (60000).to_bytes(4, "big") * 2 + small[24:29]
    bomb = small[:12] + header + zlib.crc32(header).to_bytes(4, "big") + small[33:]
    (tmp_path / "bomb.png").write_bytes(bomb)
    os.utime(tmp_path / "bomb.png", (1.7e9, 1.7e9))
    for kind in ("crops", "frames"):
        (source,) = find_sources([tmp_path], SourceOptions(kind=kind))  # type: ignore[arg-type]
        assert len(source.pictures) == 1
    assert picture_time(tmp_path / "bomb.png", SourceOptions()) == (1.7e9, "mtime")
