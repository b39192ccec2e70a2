import datetime
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from tapetum.core.errors import DataError
from tapetum.footage.facts import SourceOptions
from tapetum.footage.preview import preview_sources
from tapetum.footage.sources import find_sources

NINE = 1795208400.0  # 2026-11-20T21:00:00Z
WRONG = "which one camera cannot do"


def write_recording(path: Path, begin: float | None = None, *, seconds: float = 60.0, streams: int = 1) -> Path:
    """A frame a second, in a container that states when it begins."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        if begin is not None:
            moment = datetime.datetime.fromtimestamp(NINE + begin, datetime.UTC)
            container.metadata["creation_time"] = moment.isoformat().replace("+00:00", "Z")
        tracks = [container.add_stream("mpeg4", rate=1) for _ in range(streams)]
        for track in tracks:
            track.width, track.height, track.pix_fmt = 64, 48, "yuv420p"
        for track in tracks:
            for _ in range(round(seconds)):
                container.mux(track.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")))
            container.mux(track.encode())
    return path


def doubts_of(*places: Path, camera: str | None = "yard") -> list[str]:
    """Of each source by its start, then its name."""
    found = sorted(find_sources(places, SourceOptions(camera=camera)), key=lambda each: (each.start, each.name))
    return [" ".join(source.doubts) for source in found]


def test_recordings_of_one_camera_that_begin_at_once_are_doubted_and_shown_so(tmp_path: Path) -> None:
    for number in range(3):
        write_recording(tmp_path / f"part_{number:03d}.mp4", 0)
    doubts = doubts_of(tmp_path)
    assert all(f"3 recordings of camera yard all begin at 2026-11-20T21:00:00Z, {WRONG}" in doubt for doubt in doubts)
    lines = preview_sources(find_sources([tmp_path], SourceOptions(camera="yard")))
    assert sum("all begin at" in line for line in lines) == 3


def test_a_recording_that_begins_before_the_one_before_it_ends_is_doubted(tmp_path: Path) -> None:
    for number, begin in enumerate((0, 30, 89, 200, 260)):
        write_recording(tmp_path / f"{number}.mp4", begin)
    doubts = doubts_of(tmp_path)
    assert (
        "2 recordings of camera yard lie over each other between 2026-11-20T21:00:00Z and 2026-11-20T21:01:30Z"
        in (doubts[0])
    )
    assert doubts[0] == doubts[1]
    assert doubts[2:] == ["", "", ""]


def test_a_long_recording_over_several_short_ones_is_doubted_with_each(tmp_path: Path) -> None:
    write_recording(tmp_path / "day.mp4", 0, seconds=300)
    for number, begin in enumerate((60, 180, 400)):
        write_recording(tmp_path / f"{number}.mp4", begin, seconds=20)
    assert ["3 recordings" in doubt for doubt in doubts_of(tmp_path)] == [True, True, True, False]


def test_seconds_that_recorders_keep_in_two_files_other_cameras_and_streams_are_no_doubt(tmp_path: Path) -> None:
    cut = [write_recording(tmp_path / "cut" / f"{n}.mp4", begin) for n, begin in enumerate((0, 51, 111))]
    assert doubts_of(*cut) == ["", "", ""]
    assert doubts_of(cut[0], tmp_path / "cut") == ["", "", "", ""], "named twice"
    cams = [write_recording(tmp_path / "cams" / f"cam{n}.mp4", 0) for n in (1, 2)]
    assert not any(WRONG in doubt for doubt in doubts_of(*cams, camera=None))
    both = write_recording(tmp_path / "both.mkv", 0, streams=2)
    assert not any(WRONG in doubt for doubt in doubts_of(both))


def test_folders_of_frames_with_one_start_are_doubted(tmp_path: Path) -> None:
    for day in ("a", "b"):
        (tmp_path / day).mkdir()
        for number in range(3):
            cv2.imwrite(str(tmp_path / day / f"{number}.png"), np.full((48, 64, 3), 90, np.uint8))
    found = find_sources([tmp_path], SourceOptions(camera="yard", start=NINE, kind="frames"))
    assert all("2 recordings of camera yard all begin at" in " ".join(source.doubts) for source in found)


def test_one_start_for_several_videos_of_a_camera_is_refused(tmp_path: Path) -> None:
    one, other = (write_recording(tmp_path / f"cam{number}_clip_{number}.mp4") for number in range(2))
    options = SourceOptions(camera="yard", start=NINE)
    with pytest.raises(DataError, match=r"--start: is one time, .* yard has 2 videos \(.*clip_0.mp4, .*_1.mp4"):
        find_sources([tmp_path], options)
    assert len(find_sources([one], options)) == 1
    assert len(find_sources([one, other], SourceOptions(start=NINE))) == 2
    assert len(find_sources([write_recording(tmp_path / "both.mkv", streams=2)], options)) == 2
