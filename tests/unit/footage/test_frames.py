from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from PIL import Image

from street_clip import street, write_clip
from tapetum.core.errors import DataError
from tapetum.footage.decode import Limits
from tapetum.footage.facts import SourceOptions
from tapetum.footage.frames import Frame, count_units, read_frame_at, read_source_frames
from tapetum.footage.sources import find_sources
from video_files import write_video


def read(path: Path, **keywords: object) -> tuple[list[Frame], list[str]]:
    notes: list[str] = []
    options = keywords.pop("source_options", SourceOptions(start=1e9, kind="frames"))
    source, *_ = find_sources([path], options)  # type: ignore[arg-type]  # a damaged file may seem to hold a second video
    return list(read_source_frames(source, notes.append, **keywords)), notes  # type: ignore[arg-type]


def write_frames(folder: Path, names: list[str]) -> Path:
    folder.mkdir(parents=True)
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


def test_frames_by_the_rate_are_said_to_be_and_one_picture_needs_none(tmp_path: Path) -> None:
    folder = write_frames(tmp_path / "a", ["1.png", "2.png"])
    for options in (SourceOptions(kind="frames", frames_per_second=4.0), SourceOptions(start=1e9, kind="frames")):
        (source,) = find_sources([folder], options)
        rate = options.frames_per_second
        assert f"times within it are by --frame-rate, {rate:g} frames a second" in " ".join(source.doubts)
    named = write_frames(tmp_path / "b", ["cam1_20261120_210000.png", "cam1_20261120_220000.png"])
    assert "by --frame-rate" in " ".join(find_sources([named], SourceOptions(start=1e9, kind="frames"))[0].doubts)
    assert find_sources([named], SourceOptions(kind="frames"))[0].doubts == ()
    (folder / "2.png").unlink()
    assert "by --frame-rate" not in " ".join(find_sources([folder], SourceOptions(kind="frames"))[0].doubts)


@pytest.mark.parametrize(("stranger", "its_time"), [("snapshot.png", 3000), ("0_snapshot.png", -600)])
def test_one_picture_without_a_time_leaves_the_others_theirs(tmp_path: Path, stranger: str, its_time: float) -> None:
    folder = write_frames(tmp_path / "yard", [f"20261120_21{minute}000.png" for minute in range(5)])
    cv2.imwrite(str(folder / stranger), np.full((48, 64, 3), 200, np.uint8))
    frames, notes = read(folder, source_options=SourceOptions(kind="frames"))
    assert sorted(frame.time - 1795208400 for frame in frames) == sorted([0, 600, 1200, 1800, 2400, its_time])
    assert "frames without a stamp: 1, the first at frame " in notes[0]
    (source,) = find_sources([folder], SourceOptions(kind="frames"))
    assert (source.start, source.start_origin) == (1795208400, "name")
    assert source.doubts == ("1 of 6 pictures have no time of their own, and take it from their neighbours",)


def test_frames_that_all_say_one_time_are_by_the_rate_around_it(tmp_path: Path) -> None:
    alike = write_frames(tmp_path / "a", [f"{number}_20261120_210000.png" for number in range(3)])
    alone = write_frames(tmp_path / "b", ["1.png", "2_20261120_210000.png", "3.png"])
    for folder, first in ((alike, 0.0), (alone, -0.1)):
        frames, _ = read(folder, source_options=SourceOptions(kind="frames"))
        assert times(frames) == pytest.approx([first, first + 0.1, first + 0.2])
        assert frames[0].time - frames[0].seconds == 1795208400
        assert "names and EXIF do not tell them apart" in find_sources([folder])[0].doubts[-1]


def write_photo(path: Path, clock: str) -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9003] = clock
    Image.new("RGB", (64, 48)).save(path, exif=exif)


def test_photographs_have_the_times_of_their_exif_however_long_they_take(tmp_path: Path) -> None:
    for number in range(4):
        write_photo(tmp_path / f"IMG_{number:04d}.jpg", f"2026:1{number // 2}:20 2{number}:00:00")
    frames, notes = read(tmp_path, source_options=SourceOptions(kind="frames"))
    month = 31 * 86400
    assert [frame.seconds for frame in frames] == [0, 3600, month + 7200, month + 10800]
    assert len(notes) == 1
    assert "gaps" in notes[0]
    (source,) = find_sources([tmp_path], SourceOptions(kind="frames"))
    assert (source.zone_written, source.doubts) == (False, ())


def test_exif_counts_before_the_name_for_each_frame_as_for_the_start(tmp_path: Path) -> None:
    for second in range(3):
        write_photo(tmp_path / f"cam1_20261120_21000{second}.jpg", f"2026:11:22 10:00:0{second}")
    (tmp_path / "cam1_20261120_210002.jpg").unlink()
    cv2.imwrite(str(tmp_path / "cam1_20261122_100002.jpg"), np.zeros((48, 64, 3), np.uint8))
    frames, _ = read(tmp_path, source_options=SourceOptions(kind="frames"))
    assert [frame.time - 1795208400 for frame in frames] == [37 * 3600, 37 * 3600 + 1, 37 * 3600 + 2]
    (source,) = find_sources([tmp_path], SourceOptions(kind="frames"))
    assert source.doubts == (
        "metadata says 2026-11-22T10:00:00Z, the file name 2026-11-20T21:00:00Z",
        "metadata says 2026-11-22T10:00:01Z, the file name 2026-11-20T21:00:01Z (1 pictures)",
    )


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


def write_refused(path: Path, damaged: range) -> Path:
    """A motion JPEG of 60 frames, those of `damaged` without a picture."""
    with (
        av.open(
            str(write_video(path.with_suffix(".mkv"), [street(number) for number in range(60)], codec="mjpeg"))
        ) as whole,
        av.open(str(path), "w") as out,
    ):
        stream = out.add_stream_from_template(whole.streams.video[0])
        for number, packet in enumerate(whole.demux(whole.streams.video[0])):
            if packet.size:
                wrong = av.Packet(b"no picture at all") if number in damaged else packet
                wrong.pts, wrong.dts, wrong.time_base = packet.pts, packet.dts, packet.time_base
                wrong.stream = stream
                out.mux(wrong)
    return path


def test_damage_that_goes_on_ends_the_reading_and_what_was_read_before_stays(tmp_path: Path) -> None:
    path = write_refused(tmp_path / "a.avi", range(20, 40))
    frames, notes = read(path)
    assert [frame.number for frame in frames] == [*range(40)]
    assert "damaged in 20 places that cannot be decoded, the first after frame 19" in "\n".join(notes)
    frames, notes = read(path, limits=Limits(max_bad_packets=10))
    assert len(frames) == 20
    assert "damaged after frame 19 (11 places behind each other cannot be decoded); the rest is left out" in (
        "\n".join(notes)
    )
    scattered = write_refused(tmp_path / "b.avi", range(1, 60, 2))
    frames, notes = read(scattered, limits=Limits(max_bad_packets=10))
    assert len(frames) == 30
    with pytest.raises(DataError, match=r"c\.avi: cannot be opened as a video \(11 places"):
        read(write_refused(tmp_path / "c.avi", range(60)), limits=Limits(max_bad_packets=10))


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


def times(frames: list[Frame]) -> list[float]:
    return [round(frame.seconds, 3) for frame in frames]


@pytest.mark.parametrize("stamp", [3600.0, 90000.0, 1_500_000.0])
@pytest.mark.parametrize("frame", [0, 7, 29])
def test_a_frame_stamped_hours_off_is_put_between_its_neighbours(tmp_path: Path, stamp: float, frame: int) -> None:
    stamps = [number / 10 for number in range(30)]
    stamps[frame] = stamp
    frames, notes = read(write_video(tmp_path / "a.mkv", [street(number) for number in range(30)], stamps=stamps))
    assert times(frames) == pytest.approx([number / 10 for number in range(30)], abs=0.002)
    assert len(notes) == 1
    assert f"stamps that fit to none of their neighbours: 1, the first at frame {frame} " in notes[0]


def test_a_folder_of_frames_with_one_wrong_time_in_a_name_is_put_right(tmp_path: Path) -> None:
    clocks = ["21-00-00", "21-00-01", "09-00-02", "21-00-03", "21-00-04", "21-00-05"]
    folder = write_frames(tmp_path / "a", [f"{place}_2026-11-20T{clock}.png" for place, clock in enumerate(clocks)])
    frames, notes = read(folder, source_options=SourceOptions(kind="frames"))
    assert times(frames) == [0, 1, 2, 3, 4, 5]
    assert "the first at frame 2 (2026-11-20T21:00:02Z), off by up to 43200.000 s" in notes[0]


def test_one_frame_can_be_asked_for_by_a_time_that_no_outlier_moves(tmp_path: Path) -> None:
    stamps = [number / 10 for number in range(30)]
    stamps[5] = 1e6
    path = write_video(tmp_path / "a.mkv", [street(number) for number in range(30)], stamps=stamps)
    assert read_frame_at(find_sources([path])[0], 1.0).number == 10


@pytest.mark.parametrize(("ending", "codec"), [("h264", "libx264"), ("hevc", "libx265")])
def test_a_raw_stream_has_the_rate_of_its_header(tmp_path: Path, ending: str, codec: str) -> None:
    quiet = {"x265-params": "log-level=none"} if codec == "libx265" else None
    path = write_video(tmp_path / f"a.{ending}", [street(0)] * 20, codec=codec, form=ending, options=quiet, rate=5)
    frames, notes = read(path)
    assert np.diff(times(frames)) == pytest.approx(0.2)
    assert notes == [f"{path}: has no time stamps; times are by the 5 frames a second that its header states"]


def test_a_raw_stream_that_states_no_rate_is_said_to_be_timed_by_an_assumption(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mjpg", [street(0)] * 20, codec="mjpeg", form="mjpeg")
    frames, notes = read(path)
    assert np.diff(times(frames)) == pytest.approx(0.04)
    assert "states no rate; times are by an ASSUMED rate of 25 frames a second" in notes[0]


@pytest.mark.parametrize(
    ("aspect", "size"), [(Fraction(1, 2), (240, 160)), (Fraction(4, 3), (120, 213)), (Fraction(1, 1), (120, 160))]
)
@pytest.mark.parametrize("ending", [".mp4", ".mkv"])
def test_pixels_are_square_once_decoded(tmp_path: Path, aspect: Fraction, size: tuple[int, int], ending: str) -> None:
    frames, _ = read(write_video(tmp_path / f"a{ending}", [street(40)] * 3, aspect=aspect))
    assert frames[0].picture.shape[:2] == size
    shown = cv2.resize(frames[0].picture, (160, 120), interpolation=cv2.INTER_AREA).astype(int)
    assert np.abs(shown - street(40)).mean() < 12


@pytest.mark.parametrize("turn", [90, 180, -90])
def test_frames_are_turned_after_their_pixels_are_made_square(tmp_path: Path, turn: int) -> None:
    frames, _ = read(write_video(tmp_path / "a.mp4", [street(40)] * 3, aspect=Fraction(1, 2), turn=turn))
    assert frames[0].picture.shape[:2] == ((240, 160) if turn == 180 else (160, 240))
    expected = np.rot90(np.repeat(street(40), 2, 0), turn // 90)
    assert np.abs(frames[0].picture.astype(int) - expected).mean() < 12


def test_the_limit_of_pixels_counts_what_is_shown(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", [street(40)] * 3, aspect=Fraction(1, 2))
    with pytest.raises(DataError, match="frames of 38400 pixels exceed the limit of 20000"):
        read(path, limits=Limits(max_pixels=20_000))


@pytest.mark.parametrize(("ending", "share"), [(".mp4", 0.5), (".mp4", 0.8), (".avi", 0.6), (".mkv", 0.5)])
def test_a_file_that_ends_before_its_index_does_is_named(tmp_path: Path, ending: str, share: float) -> None:
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 255, (120, 160, 3), np.uint8) for _ in range(60)]
    front = {"movflags": "faststart"} if ending == ".mp4" else None
    path = write_video(tmp_path / f"a{ending}", noise, container=front)
    whole, nothing = read(path)
    assert (len(whole), nothing) == (60, [])
    path.write_bytes(path.read_bytes()[: round(share * path.stat().st_size)])
    frames, notes = read(path)
    (ends,) = [note for note in notes if "ends after frame" in note]
    assert f"ends after frame {len(frames) - 1}" in ends
    assert "of 60" in ends or "of the 6.0 s" in ends
    assert "cut short or is still being written" in ends


@pytest.mark.parametrize(("ending", "codec"), [(".mp4", "libx264"), (".avi", "mjpeg"), (".ts", "mpeg2video")])
def test_damage_is_counted_and_nothing_but_the_report_speaks_of_it(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], ending: str, codec: str
) -> None:
    rng = np.random.default_rng(1)
    noise = [rng.integers(0, 255, (120, 160, 3), np.uint8) for _ in range(40)]
    rate = 25 if codec == "mpeg2video" else 10
    path = write_video(tmp_path / f"a{ending}", noise, codec=codec, rate=rate)
    content = bytearray(path.read_bytes())
    for place in range(len(content) // 5, len(content) - 4000, len(content) // 5):
        content[place : place + 3000] = bytes(3000)
    path.write_bytes(bytes(content))
    _, notes = read(path)
    assert capfd.readouterr() == ("", "")
    assert all(note.startswith(str(path)) for note in notes)
    if ending == ".ts":  # the others' decoders conceal it without a mark
        assert any("marked as damaged" in note or "cannot be decoded" in note for note in notes)


def test_what_a_limit_leaves_out_is_counted(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", [street(0)] * 20)
    _, notes = read(path, limits=Limits(max_frames=7))
    assert "the last 13 of its 20 frames are left out" in notes[0]
