from pathlib import Path

import pytest

from tapetum.footage.clock import format_time
from tapetum.footage.paths import clean_camera, read_path


@pytest.mark.parametrize(
    ("path", "camera"),
    [
        ("x/cam3_2026-11-20T21-00-00.mp4", "cam3"),
        ("x/NVR_ch02_main_20261120.mp4", "ch02"),
        ("x/Camera 12.avi", "camera12"),
        ("x/gate_2026-11-20T21-00-00.mp4", "gate"),
        ("back door/2026-11-20T21-00-00.mp4", "back door"),
        ("x/one-by-one.mp4", "one-by-one"),
        ("x/C0012.MP4", "C0012"),
        # the number of a date is no number of a camera
        ("gate/camera_20261120_210000.mp4", "gate"),
        ("gate/cam_2026-11-20T21-00-00.mp4", "gate"),
        ("gate/ch20261120210000.mp4", "gate"),
        ("x/frontcam_20261120_210000.mp4", "frontcam"),
        ("x/yardcamera_2026-11-20_21-00-00.mp4", "yardcamera"),
        # what stands behind the time
        ("x/2026-11-20_21-00-00-front.mp4", "front"),
        ("x/20261120_210000_gate2.mp4", "gate2"),
        ("x/gate_20261120_210000_0001_motion.mp4", "gate"),
        ("x/gate_20261120_210000_213000_6D28808.mp4", "gate"),
        # words that say what a file is, and numbers of files
        ("CAM_A/video.mp4", "CAM_A"),
        ("CAM_B/video.mp4", "CAM_B"),
        ("yard/recording 7.mp4", "yard"),
        ("yard/VID_0012.mp4", "yard"),
        ("yard/0001.mp4", "yard"),
        ("yard/videos/2026-11-20/clip.mp4", "yard"),
        ("cam4/00.10.mp4", "cam4"),
        ("yard/Камера_20261120_210000.mp4", "yard"),
        ("x/192.0.2.64_01_20261120210000123_MOTION_DETECTION.jpg", "192.0.2.64_01"),
        # folders of dates and hours, above and below the camera
        ("2026-11-20/21/front_door/00.10.mp4", "front_door"),
        ("2026/11/20/yard/21.00.00.mp4", "yard"),
        ("yard/2026/11/20/21.00.00.mp4", "yard"),
        ("yard/2026-11/20/21.00.00.mp4", "yard"),
        ("yard/20261120/21/00.mp4", "yard"),
        ("yard/20261120_21/20261120_210000_1234.mkv", "yard"),
        ("yard_2026-11-20/21-00-00.mp4", "yard"),
        ("yard/2026112021/00M10S_1795208410.mp4", "yard"),
        ("NVR/2026-11-20/001/dav/21/21.00.00-21.15.00[M][0@0][0].dav", "001"),
        ("2026-11-20/03/21/00.10.mp4", "03"),
        # any script
        ("x/Ворота_20261120_210000.mp4", "Ворота"),
        ("x/20261120_210000_门.mp4", "门"),
        ("摄像头/2026年11月20日21时00分00秒.mp4", "摄像头"),
        ("x/🚪_20261120_210000.mp4", "🚪"),
        ("x/Hof Süd_20261120_210000.mp4", "Hof Süd"),
    ],
)
def test_a_camera_is_named_by_word_then_what_stands_beside_the_time_then_folder(path: str, camera: str) -> None:
    assert read_path(Path("/site") / path).camera == camera


@pytest.mark.parametrize(
    "path",
    [
        "2026-11-20/21/front_door/00.10.mp4",
        "2026-11-20/front_door/21/00.10.mp4",
        "front_door/2026-11-20/21/00-10.mp4",
        "front_door/2026/11/20/21/00m10s.mp4",
        "front_door/2026/11-20/21.00.10.mp4",
        "front_door/2026-11-20/210010.mp4",
        "front_door/20.11.2026/21-00-10.mp4",
        "front_door/2026-11-20/09PM/00.10.mp4",
        "front_door/2026-11-20/09-00-10 PM.mp4",
        "2026-11-20/21/front_door_00.10.mp4",
        "front_door/20261120_21/00.10.mp4",
        "2026112021/front_door/00.10.mp4",
        "2026-10-01/2026-11-20/front_door/21.00.10.mp4",
    ],
)
def test_date_hour_and_minute_of_folders_and_name_are_one_time(path: str) -> None:
    facts = read_path(Path("/site") / path)
    assert facts.time is not None
    assert format_time(facts.time) == "2026-11-20T21:00:10Z"
    assert (facts.camera, facts.time_origin, facts.time_doubts) == ("front_door", "folder", ())


@pytest.mark.parametrize(
    ("path", "time", "doubt"),
    [
        ("gate/2026-11-20/21.mp4", "21:00:00", "21 is read as the hour"),
        ("2026-11-20/gate_21-30.mp4", "21:30:00", "21-30 is read as hour and minute"),
        ("gate/2026-11-20/21/walk.mp4", "21:00:00", "only the hour is written"),
        ("gate/2026-11-20/21/00/10.mp4", "21:00:10", "21/00/10 is read as hour, minute, second"),
        ("gate/2026-11-20/000123.mp4", "00:01:23", "000123 is read as a time of day"),
        ("yard_2026-11-20/21-00-00.mp4", "21:00:00", "the date is that of the folder yard_2026-11-20"),
        ("alarm 2026-11-20 21-00-00/cam1.mp4", "21:00:00", "the time is that of a folder"),
        ("2026-10-01/cam1_2026-11-20_21-00-00.mp4", "21:00:00", "the folder 2026-10-01 says another day"),
    ],
)
def test_what_a_path_leaves_open_is_said(path: str, time: str, doubt: str) -> None:
    facts = read_path(Path("/site") / path)
    assert facts.time is not None
    assert format_time(facts.time) == f"2026-11-20T{time}Z"
    assert doubt in facts.time_doubts


@pytest.mark.parametrize(
    ("path", "doubt"),
    [
        ("yard/one-by-one.mp4", "camera guessed: the file's whole name"),
        ("yard/7.mp4", "camera guessed: 7 is taken for its number"),
        ("x/01_20261120_210000.mp4", "camera guessed: 01 is taken for its number"),
        ("2026-11-20/03/21/00.10.mp4", "camera guessed: 03 is taken for its number"),
        ("x/NVR_20261120_210000_gate.mp4", "camera guessed: NVR and gate stand around the time"),
        ("yard/2026_1120_210000_0001F.mp4", "0001F behind the time is left out; it may name a camera"),
        ("x/gate_20261120_210000_B.mp4", "B behind the time is left out; it may name a camera"),
        ("x/gate_2026-11-20_21-00-00_CET.mp4", "zone CET is not read; --utc-offset says it"),
    ],
)
def test_a_guessed_camera_is_said_to_be_guessed(path: str, doubt: str) -> None:
    assert read_path(Path("/site") / path).camera_doubts == (doubt,)
    assert read_path(Path("/video.mp4")).camera_doubts == ("camera guessed: no name and no folder says one",)


def test_a_folder_of_an_hour_that_is_no_hour_of_the_time_is_a_number_of_a_camera() -> None:
    facts = [read_path(Path(f"/site/2026-11-20/{number}/21/cam_20261120_210010.mp4")) for number in ("01", "02")]
    assert [each.camera for each in facts] == ["01", "02"]


def test_where_a_camera_stands_tells_two_of_one_name_apart() -> None:
    paths = ("Hof/ch01.mp4", "Tor/2026-11-20/ch01_210000.mp4", "Tor/ch01/2026-11-20/21.00.00.mp4", "x/Tor_ch01.mp4")
    facts = [read_path(Path("/site") / path) for path in paths]
    assert {each.camera for each in facts} == {"ch01"}
    assert [each.site for each in facts] == ["Hof", "Tor", "Tor", "x/Tor"]


def test_pictures_have_names_of_people_and_numbers_and_only_what_stands_at_a_time_is_a_camera() -> None:
    for path, camera in (
        ("yard/anna.jpg", "yard"),
        ("yard/0001.png", "yard"),
        ("yard/0002_c4s1_01.jpg", "c4"),
        ("yard/20261120_210000.jpg", "yard"),
        ("ftp/gate_20261120_210000.jpg", "gate"),
        ("yard/frame_20261120_210000.jpg", "yard"),
    ):
        assert read_path(Path("/site") / path, is_picture=True).camera == camera


def test_safe_forms_of_names_are_unique_and_plain_ones_keep_theirs() -> None:
    for name, safe in (
        ("cam3", "cam3"),
        ("back door", "back-door"),
        ("gate (east)", "gate-east"),
        ("192.0.2.64_01", "192.0.2.64_01"),
        ("x" * 64, "x" * 64),
        ("", "camera"),
        (" - ", "camera"),
    ):
        assert clean_camera(name) == safe
    names = ["Hof", "Höf", "Hôf", "Ворота", "Двор", "摄像头", "门", "🚪", "🚗", "камера 3", "камера 4", "???", "!!!"]
    names += ["y" * 65, "y" * 66, "é" * 300]
    safe = [clean_camera(name) for name in names]
    assert len(set(safe)) == len(names)
    assert all(len(each) <= 64 and each.isascii() and clean_camera(each) == each for each in safe)
    assert clean_camera("Ho\u0308f") == clean_camera("H\u00f6f")  # as two systems write it
    assert clean_camera("Höf").startswith("Hof-")
