from pathlib import Path

import av
import pytest

from listed_sightings import read_all_sightings
from street_clip import street
from tapetum.core.sighting import Sighting
from tapetum.footage.detect import BackgroundDetector
from tapetum.footage.extract import extract_all
from tapetum.footage.facts import SourceOptions
from tapetum.footage.report import FootageReport
from tapetum.footage.sources import find_sources
from video_files import write_video

FORMS = {".mkv": None, ".ts": None, ".mp4": {"movflags": "frag_keyframe+empty_moov+default_base_moof"}}


def read(path: Path, out: Path) -> tuple[list[Sighting], FootageReport]:
    report = FootageReport()
    sources = find_sources([path], SourceOptions(start=1e9, camera="yard"))
    return list(extract_all(sources, out, BackgroundDetector(), report=report)), report


def said(report: FootageReport) -> str:
    return "\n".join(problem.message for problem in report.problems)


@pytest.mark.parametrize("ending", FORMS)
def test_a_file_that_has_grown_gives_its_finished_part_once_and_the_rest_later(tmp_path: Path, ending: str) -> None:
    path, out = tmp_path / f"a{ending}", tmp_path / "out"
    content = write_video(path, [street(frame) for frame in range(145)], container=FORMS[ending]).read_bytes()
    undisturbed, _ = read(path, tmp_path / "undisturbed")
    path.write_bytes(content[: round(0.5 * len(content))])
    first, _ = read(path, out)
    assert first
    until = max(sighting.time for sighting in first)
    path.write_bytes(content)
    second, report = read(path, out)
    assert "an earlier run read it to" in said(report)
    assert second
    assert min(sighting.time for sighting in second) > until
    together = list(read_all_sightings(out))
    assert len({sighting.id for sighting in together}) == len(together) == len(first) + len(second)
    assert len({(sighting.frame, sighting.box) for sighting in together}) == len(together)
    for walk in {sighting.tracklet for sighting in undisturbed}:
        seen = [sighting.time for sighting in undisturbed if sighting.tracklet == walk]
        assert any(min(seen) <= sighting.time <= max(seen) for sighting in together)
    third, again = read(path, out)
    assert not third
    assert again.finished_before == 1


def test_another_recording_that_begins_alike_is_read_from_its_beginning(tmp_path: Path) -> None:
    out, empty = tmp_path / "out", [street(frame, empty=True) for frame in range(40)]
    one = write_video(tmp_path / "a.mkv", [*empty, *(street(frame) for frame in range(20, 65))])
    other = write_video(tmp_path / "b.mkv", [*empty, *(street(frame) for frame in range(85, 130))])
    first, _ = read(one, out)
    second, report = read(other, out)
    assert first
    assert second
    assert "earlier run" not in said(report)


def test_a_run_killed_before_the_file_grew_stores_nothing_twice(tmp_path: Path) -> None:
    path, out = tmp_path / "a.ts", tmp_path / "out"
    content = write_video(path, [street(frame) for frame in range(145)]).read_bytes()
    path.write_bytes(content[: round(0.6 * len(content))])
    running = extract_all(
        find_sources([path], SourceOptions(start=1e9, camera="yard")), out, BackgroundDetector(), report=FootageReport()
    )
    stored = next(running)
    running.close()
    path.write_bytes(content)
    complete, _ = read(path, out)
    assert stored.id in {sighting.id for sighting in complete}


def test_a_list_that_was_deleted_lets_its_video_be_read_again(tmp_path: Path) -> None:
    path, out = write_video(tmp_path / "a.mkv", [street(frame) for frame in range(80)]), tmp_path / "out"
    first, _ = read(path, out)
    for written in (out / "sources").glob("*.jsonl"):
        written.unlink()
    assert read(path, out)[0] == first


def test_both_cameras_of_one_file_are_sources_with_names_of_their_own(tmp_path: Path) -> None:
    front, rear = [street(frame, empty=True) for frame in range(80)], [street(frame) for frame in range(80)]
    path = write_video(tmp_path / "car.mkv", front, more=[rear, front])
    sources = find_sources([path])
    assert [(source.camera, source.stream) for source in sources] == [("car", 0), ("car-2", 1), ("car-3", 2)]
    report = FootageReport()
    found = list(extract_all(sources, tmp_path / "out", BackgroundDetector(), report=report))
    assert {sighting.camera for sighting in found} == {"car-2"}
    assert report.without_person == [str(path), f"{path} (video 3)"]


def test_a_cover_picture_is_no_camera(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", [street(0)] * 5, more=[[street(0)]], codec="mjpeg")
    with av.open(str(path)) as film, av.open(str(tmp_path / "b.mp4"), "w") as file:
        streams = {stream.index: file.add_stream_from_template(stream) for stream in film.streams.video}
        streams[1].disposition = av.stream.Disposition.attached_pic
        for packet in film.demux():
            if packet.size:
                packet.stream = streams[packet.stream_index]
                file.mux(packet)
    assert len(find_sources([path])) == 2
    assert len(find_sources([tmp_path / "b.mp4"])) == 1
