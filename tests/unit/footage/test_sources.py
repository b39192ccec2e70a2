import json
import os
import tempfile
import zlib
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from PIL import Image

from lower_rights import as_nobody, open_folder
from street_clip import street, write_clip
from tapetum.core.errors import DataError, RecipeError
from tapetum.core.types import Modality, Record
from tapetum.data.catalog import open_dataset
from tapetum.footage.detect import BackgroundDetector
from tapetum.footage.extract import extract_all
from tapetum.footage.facts import SourceOptions, TimeFact, decide_picture_time
from tapetum.footage.fingerprint import fingerprint_source
from tapetum.footage.frames import read_source_frames
from tapetum.footage.report import FootageReport
from tapetum.footage.sources import find_sources, source_of_records, tell_kind

NINE = 1795208400.0  # 2026-11-20T21:00:00Z


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
    report = FootageReport()
    found = {source.kind: source for source in find_sources([tree], report=report)}
    assert set(found) == {"crops", "frames", "video"}
    assert report.passed_over == {"that are hidden": 1, "that are neither picture nor video": 1}
    assert [Path(each.source).name for each in report.passed] == [".hidden", "notes.txt"]
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
    # written last at its end, two frames of a tenth of a second after its beginning
    assert (found["plain.mp4"].start, found["plain.mp4"].start_origin) == (pytest.approx(1.7e9 - 0.2), "mtime")
    assert (found[stated.name].start, found[stated.name].start_origin) == (1795217400.0, "metadata")
    (told,) = find_sources([stated], SourceOptions(start=5e8, camera="gate"))
    assert (told.start, told.start_origin, told.camera) == (5e8, "option", "gate")


def test_a_crop_s_time_is_its_exif_then_its_name(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9003] = "2026:11:20 21:00:00"
    path = tmp_path / "a_2020-01-01T00-00-00.jpg"
    Image.new("RGB", (16, 32)).save(path, exif=exif)
    assert decide_picture_time(path, SourceOptions()) == TimeFact(
        1795208400.0,
        "metadata",
        zone_written=False,
        doubts=("metadata says 2026-11-20T21:00:00Z, the file name 2020-01-01T00:00:00Z",),
    )
    Image.new("RGB", (16, 32)).save(path)
    named = decide_picture_time(path, SourceOptions())
    assert (named.seconds, named.origin) == (1577836800.0, "name")


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
    guess = decide_picture_time(tmp_path / "bomb.png", SourceOptions())
    assert (guess.seconds, guess.origin, guess.guessed) == (1.7e9, "mtime", True)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system's folders hold no pipes")
def test_what_is_read_and_what_is_passed_over_add_up_to_what_lies_on_the_disk(tree: Path, tmp_path: Path) -> None:
    """Every kind of thing that a folder may hold, each counted once and named."""
    write_pictures(tree / "galleries" / "crops" / "ab", ["1.jpg", "2.jpg"], (64, 32))
    (tree / "galleries" / "gallery.json").write_text("{}")
    (tree / ".hidden" / "deep").mkdir()
    (tree / ".hidden" / "deep" / "b.mp4").write_bytes(b"x")
    (tree / "night" / ".DS_Store").write_bytes(b"x")
    (tree / "crops" / "broken.jpg").write_bytes(b"no picture")
    (tree / "broken.mp4").write_bytes(b"no video")
    elsewhere = write_pictures(tmp_path / "elsewhere", ["a.jpg"], (64, 32))[0].parent
    (tree / "linked").symlink_to(elsewhere)
    (tree / "linked.jpg").symlink_to(elsewhere / "a.jpg")
    (tree / "nowhere.mp4").symlink_to(tmp_path / "nothing")
    os.mkfifo(tree / "pipe.mkv")
    out = tmp_path / "out"
    on_disk = sum(len(files) for _, _, files in os.walk(tree))
    reports = []
    for _ in range(2):
        report = FootageReport()
        found = find_sources([tree], report=report)
        list(extract_all(found, out, BackgroundDetector(), report=report))
        assert report.files.total() + report.passed_over.total() == on_disk
        assert sum(source.num_files for source in found) == report.files.total()
        reports.append(report)
    first, second = reports
    assert first.files == {"read": 8, "failed": 2}
    assert second.files == {"finished": 9, "failed": 1}  # the crops' list is written
    assert first.passed_over == {
        "that are hidden": 3,
        "that are links to folders": 0,
        "that lie in galleries": 3,
        "that are neither picture nor video": 1,
        "that cannot be looked at": 2,
    }
    passed = {Path(each.source).relative_to(tree).as_posix() for each in first.passed}
    assert passed == {".hidden", "night/.DS_Store", "linked", "galleries", "night/notes.txt", "nowhere.mp4", "pipe.mkv"}
    assert "files: 8 read, 0 finished before, 2 unreadable, 9 passed over" in first.lines()
    assert f"passed over: folders that are links to folders: {tree / 'linked'}" in first.lines()
    assert FootageReport.from_dict(json.loads(json.dumps(first.to_dict()))) == first


def test_folders_and_files_that_are_closed_are_named() -> None:
    with open_folder() as root:
        write_pictures(root / "open", ["cam1_a.jpg"], (64, 32))
        write_pictures(root / "open" / "locked", ["cam2_a.jpg"], (64, 32))
        write_pictures(root / "listed", ["cam3_a.jpg"], (64, 32))
        write_pictures(root / "files", ["cam4_a.jpg"], (64, 32))
        (root / "files" / "cam4_a.jpg").chmod(0)
        (root / "open" / "locked").chmod(0)
        (root / "listed").chmod(0o444)  # its names can be seen, its files not
        report = FootageReport()
        with as_nobody(), tempfile.TemporaryDirectory() as out:
            found = find_sources([root], SourceOptions(kind="crops"), report=report)
            list(extract_all(found, Path(out), None, report=report))
        assert sorted(source.camera for source in found) == ["cam1", "cam4"]
        closed = root / "open" / "locked"
        assert f"{closed}: cannot be read (Permission denied); it is passed over" in report.lines()
        assert report.passed_over == {"that cannot be looked at": 1}
        assert [each.source for each in report.passed] == [str(root / "listed" / "cam3_a.jpg"), str(closed)]
        assert report.files == {"read": 1, "failed": 1}
        assert any("cam4_a.jpg" in each.message for each in report.problems)


def test_a_place_that_is_closed_as_a_whole_says_so() -> None:
    with open_folder() as root:
        write_pictures(root / "locked", ["cam2_a.jpg"], (64, 32))
        (root / "locked").chmod(0)
        with (
            as_nobody(),
            pytest.raises(
                DataError, match=r"holds no picture and no video, but 1 files and folders that cannot be looked at"
            ),
        ):
            find_sources([root])


def test_each_fact_says_where_it_comes_from_in_the_report(tmp_path: Path) -> None:
    write_clip(tmp_path / "gate.mp4", [street(0)] * 2)
    (tmp_path / "2026-11-20" / "21" / "front_door").mkdir(parents=True)
    write_clip(tmp_path / "2026-11-20" / "21" / "front_door" / "00.10.mp4", [street(0)] * 2)
    write_pictures(tmp_path / "crops", ["cam1_2026-11-20T21-00-00Z.jpg", "ворота_03-04-2026_21-00-00.jpg"], (64, 32))
    report = FootageReport()
    found = {source.kind + source.camera: source for source in find_sources([tmp_path], report=report)}
    door = found["videofront_door"]
    assert (door.start, door.start_origin, door.cameras[0].origin, door.doubts) == (
        1795208410.0,
        "folder",
        "folder",
        (),
    )
    assert found["videogate"].doubts == (
        "camera guessed: the file's whole name",
        "time guessed: file's time of writing",
    )
    crops = next(source for source in found.values() if source.kind == "crops")
    assert {(fact.written, fact.origin) for fact in crops.cameras} == {("cam1", "name"), ("ворота", "name")}
    assert crops.doubts == ("03-04-2026 is read as day, month, year; it may be month, day, year (1 pictures)",)
    lines = report.lines()
    assert "cameras of sources: 2 from file name, 1 from folder" in lines
    assert "starts of sources: 1 from file's time of writing, 1 from folder" in lines
    assert "no zone is written, --utc-offset is taken: 2 sources" in lines
    assert f"in doubt, time guessed: file's time of writing: {tmp_path / 'gate.mp4'}" in lines
    facts = {each["source"]: each for each in report.to_dict()["facts"]}
    told = facts[str(tmp_path / "2026-11-20" / "21" / "front_door" / "00.10.mp4")]
    assert (told["start_from"], told["cameras"][0]["origin"], told["zone_written"]) == ("folder", "folder", False)


def test_cameras_of_one_name_at_several_places_are_taken_as_one_and_said_to_be(tmp_path: Path) -> None:
    for path in ("Hof/ch01.mp4", "Tor/ch01.mp4", "Tor/2026-11-20/ch01_210000.mp4"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        write_clip(tmp_path / path, [street(0)] * 2)
    found = find_sources([tmp_path])
    assert {source.camera for source in found} == {"ch01"}
    assert all("camera ch01 is found at 'Hof', 'Tor' and taken as one" in " ".join(each.doubts) for each in found)
    told = find_sources(
        [tmp_path / "Hof", tmp_path / "Tor" / "ch01.mp4"], SourceOptions(path_pattern="{site}/{camera}")
    )
    assert [(source.camera, source.start_origin) for source in told] == [("Hof-ch01", "mtime"), ("Tor-ch01", "mtime")]
    assert {doubt for source in told for doubt in source.doubts} == {"time guessed: file's time of writing"}
    (alone,) = find_sources([tmp_path / "Hof"])
    assert "taken as one" not in " ".join(alone.doubts)


def test_names_that_lose_the_same_signs_are_said_to_be_taken_as_one(tmp_path: Path) -> None:
    for minute, name in enumerate(("Hof (1)", "Hof 1", "Hof_1")):
        write_clip(tmp_path / f"{name}_20261120_210{minute}00.mp4", [street(0)] * 2)
    found = find_sources([tmp_path])
    assert [source.camera for source in found] == ["Hof-1", "Hof-1", "Hof_1"]
    doubt = "camera Hof-1 is written 'Hof (1)', 'Hof 1' and taken as one"
    assert [source.doubts for source in found] == [(doubt,), (doubt,), ()]


def test_sites_and_cameras_that_share_a_name_are_said_to_be_taken_as_one(tmp_path: Path) -> None:
    for minute, path in enumerate(("a-b/c", "a/b-c")):
        (tmp_path / path).mkdir(parents=True)
        write_clip(tmp_path / path / f"20261120_210{minute}00.mp4", [street(0)] * 2)
    found = find_sources([tmp_path], SourceOptions(path_pattern="{site}/{camera}/{date}_{hour}{minute}{second}"))
    assert [source.camera for source in found] == ["a-b-c", "a-b-c"]
    assert {doubt for each in found for doubt in each.doubts} == {
        "camera a-b-c is written 'a-b/c', 'a/b-c' and taken as one"
    }


def test_frames_of_two_cameras_in_one_folder_are_two_sources(tmp_path: Path) -> None:
    names = [f"cam{camera}_20261120_21000{second}.png" for camera in (1, 2) for second in range(3)]
    write_pictures(tmp_path / "ftp", names, (48, 64))
    found = find_sources([tmp_path], SourceOptions(kind="frames"))
    assert [(source.camera, len(source.pictures)) for source in found] == [("cam1", 3), ("cam2", 3)]
    assert all(
        [frame.time for frame in read_source_frames(source, print)] == [NINE, NINE + 1, NINE + 2] for source in found
    )
    assert len({fingerprint_source(source) for source in found}) == 2


def test_metadata_that_contradicts_the_name_is_taken_with_a_doubt(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9003] = "2026:11:22 10:00:00"
    Image.new("RGB", (64, 48)).save(tmp_path / "cam1_20261120_210000.jpg", exif=exif)
    (source,) = find_sources([tmp_path], SourceOptions(kind="frames"))
    assert source.start_origin == "metadata"
    assert source.doubts == ("metadata says 2026-11-22T10:00:00Z, the file name 2026-11-20T21:00:00Z",)


def test_a_day_alone_is_the_start_where_the_time_of_writing_is_another_day_s(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "gate_2026-11-20.mp4", [street(0)] * 2)
    os.utime(clip, (NINE + 60, NINE + 60))
    assert find_sources([clip])[0].start_origin == "mtime"
    os.utime(clip, (1.7e9, 1.7e9))
    (source,) = find_sources([clip])
    assert (source.start, source.start_origin) == (NINE - 21 * 3600, "name")
    assert source.doubts == ("only the day is written, its beginning is taken",)


def test_a_path_that_does_not_fit_the_pattern_is_named(tree: Path) -> None:
    with pytest.raises(DataError, match=r"site/cam7/1.png: does not fit the path pattern '\{camera\}_\{date\}'"):
        find_sources([tree], SourceOptions(path_pattern="{camera}_{date}"))
    with pytest.raises(RecipeError, match="did you mean camera"):
        SourceOptions(path_pattern="{kamera}")


@pytest.mark.parametrize("name", [b"a\tcam1.mp4", b"H\xf6f_cam1.mp4"])
def test_a_name_that_no_gallery_can_keep_is_passed_over_with_what_to_do(tmp_path: Path, name: bytes) -> None:
    clip = write_clip(tmp_path / "cam2.mp4", [street(0)] * 2)
    try:
        odd = clip.rename(tmp_path / os.fsdecode(name))
    except OSError as error:
        pytest.skip(f"this file system has no such names: {error}")
    with pytest.raises(DataError, match="the name holds control characters or is no UTF-8; rename it") as caught:
        find_sources([odd])
    str(caught.value).encode()  # can be printed
    write_clip(clip, [street(0)] * 2)
    report = FootageReport()
    assert [source.camera for source in find_sources([tmp_path], report=report)] == ["cam2"]
    assert report.passed_over == {"whose names hold control characters or are no UTF-8: rename them": 1}
