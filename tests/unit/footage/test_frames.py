from pathlib import Path

import cv2
import numpy as np
import pytest

from street_clip import street, write_clip
from tapetum.core.errors import DataError
from tapetum.footage.decode import Limits
from tapetum.footage.frames import Frame, count_units, read_source_frames
from tapetum.footage.sources import SourceOptions, find_sources


def read(path: Path, **keywords: object) -> tuple[list[Frame], list[str]]:
    notes: list[str] = []
    options = keywords.pop("source_options", SourceOptions(start=1e9, kind="frames"))
    (source,) = find_sources([path], options)  # type: ignore[arg-type]
    return list(read_source_frames(source, notes.append, **keywords)), notes  # type: ignore[arg-type]


def write_frames(folder: Path, names: list[str]) -> Path:
    folder.mkdir()
    for name in names:
        cv2.imwrite(str(folder / name), np.full((48, 64, 3), 90, np.uint8))
    return folder


def test_frames_of_a_video_come_with_its_own_stamps_from_the_start(tmp_path: Path) -> None:
    stamps = [0.0, 0.1, 0.2, 1.7, 1.8, 4.0]
    frames, notes = read(write_clip(tmp_path / "a.mp4", [street(number) for number in range(6)], stamps))
    assert [round(frame.time - 1e9, 3) for frame in frames] == stamps
    assert [frame.number for frame in frames] == list(range(6))
    assert frames[0].picture.shape == (120, 160, 3)
    assert not notes


def test_fewer_frames_a_second_can_be_asked_for(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", [street(0)] * 30)
    frames, _ = read(path, rate=2.0)
    assert [frame.number for frame in frames] == [0, 5, 10, 15, 20, 25]


def test_a_folder_of_frames_has_times_by_its_rate_or_by_its_names(tmp_path: Path) -> None:
    by_rate, _ = read(write_frames(tmp_path / "a", ["1.png", "2.png", "10.png"]))
    assert [round(frame.time - 1e9, 3) for frame in by_rate] == [0.0, 0.1, 0.2]
    names = [f"cam1_2026-11-20T21-00-0{second}.png" for second in (0, 2, 7)]
    named, notes = read(write_frames(tmp_path / "b", names), source_options=SourceOptions(kind="frames"))
    assert [frame.time for frame in named] == [1795208400.0, 1795208402.0, 1795208407.0]
    assert not notes


def test_a_clock_that_jumps_back_is_named_and_times_go_on(tmp_path: Path) -> None:
    clocks = ["21-00-00", "21-00-01", "20-00-02", "20-00-03"]  # the names of an hour later sort first
    folder = write_frames(tmp_path / "a", [f"{place}_2026-11-20T{clock}.png" for place, clock in enumerate(clocks)])
    frames, notes = read(folder, source_options=SourceOptions(kind="frames"))
    assert [frame.time - frames[0].time for frame in frames] == [0, 1, 2, 3]
    assert [frame.broken for frame in frames] == [False, False, True, False]
    assert len(notes) == 1
    assert "jumps back by 3599.000 s at frame 2" in notes[0]


def test_limits_end_the_reading_and_are_named(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", [street(0)] * 20)
    frames, notes = read(path, limits=Limits(max_frames=7))
    assert len(frames) == 7
    assert "longer than the limit of 7 frames" in notes[0]
    frames, notes = read(path, limits=Limits(max_seconds=0.55))
    assert len(frames) == 6
    assert "longer than the limit of 0.55 s" in notes[0]
    with pytest.raises(DataError, match="frames of 19200 pixels exceed the limit of 1000"):
        read(path, limits=Limits(max_pixels=1000))


def test_a_damaged_part_is_passed_over_and_the_rest_is_read(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", [street(number % 60) for number in range(40)])
    content = bytearray(path.read_bytes())
    place = content.find(b"mdat")
    middle = place + 4 + (len(content) - place) // 3
    content[middle : middle + 400] = bytes(400)
    path.write_bytes(bytes(content))
    frames, _ = read(path)
    assert 10 <= len(frames) <= 40
    assert np.all(np.diff([frame.time for frame in frames]) >= 0)


@pytest.mark.parametrize("content", [b"", b"no video at all" * 99, b"\x00\x00\x00\x18ftypmp42" + bytes(500)])
def test_what_is_no_video_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.mp4").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.mp4: cannot be opened as a video") as caught:
        read(tmp_path / "a.mp4")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "playlist", ["#EXTM3U\n#EXTINF:1,\nother.mp4\n#EXT-X-ENDLIST\n", "ffconcat version 1.0\nfile other.mp4\n"]
)
def test_a_playlist_opens_no_other_file(tmp_path: Path, playlist: str) -> None:
    write_clip(tmp_path / "other.mp4", [street(0)] * 5)
    (tmp_path / "a.mp4").write_text(playlist)
    with pytest.raises(DataError, match=r"a\.mp4: cannot be opened as a video"):
        read(tmp_path / "a.mp4")


def test_a_cut_video_gives_what_it_has(tmp_path: Path) -> None:
    path = tmp_path / "a.avi"
    rng = np.random.default_rng(0)
    write_clip(path, [rng.integers(0, 255, (120, 160, 3), np.uint8) for _ in range(60)])
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    frames, _ = read(path)
    assert 5 < len(frames) < 60


def test_frames_that_cannot_be_read_are_named_and_a_folder_of_them_fails(tmp_path: Path) -> None:
    folder = write_frames(tmp_path / "a", ["1.png", "2.png", "3.png"])
    (folder / "2.png").write_bytes(b"x")
    frames, notes = read(folder)
    assert [frame.number for frame in frames] == [0, 2]
    assert "2.png" in notes[0]
    for name in ("1.png", "3.png"):
        (folder / name).write_bytes(b"x")
    with pytest.raises(DataError, match="none of its 3 pictures can be read"):
        read(folder)


def test_frames_are_counted_before_they_are_read(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.mp4", [street(0)] * 12)
    write_frames(tmp_path / "b", ["1.png", "2.png"])
    (tmp_path / "c.mp4").write_bytes(b"broken")
    assert [count_units(source) for source in find_sources([tmp_path / name for name in ("a.mp4", "b", "c.mp4")])] in (
        [12, 2, 0],
        [12, 0, 2],
        [2, 12, 0],
    )


@pytest.mark.parametrize("ending", [".mp4", ".avi", ".mkv", ".ts"])
def test_a_file_damaged_anywhere_ends_in_frames_or_a_named_error(tmp_path: Path, ending: str) -> None:
    rng = np.random.default_rng(len(ending))
    whole = write_clip(tmp_path / f"whole{ending}", [street(number) for number in range(20, 30)]).read_bytes()
    path = tmp_path / f"a{ending}"
    for _ in range(25):
        content = np.frombuffer(whole, np.uint8).copy()
        places = rng.integers(0, len(content) if rng.uniform() < 0.5 else 2000, int(rng.integers(1, 60)))
        content[places] = rng.integers(0, 256, len(places))
        path.write_bytes(content[: int(rng.integers(1, len(content) + 1)) if rng.uniform() < 0.3 else None].tobytes())
        try:
            frames, notes = read(path, limits=Limits(max_frames=100))
        except DataError as error:
            notes, frames = [str(error)], []
        assert all("\n" not in note for note in notes)
        assert np.all(np.diff([frame.time for frame in frames]) >= 0)
