import json
from dataclasses import replace
from pathlib import Path

import pytest

from street_clip import street, write_clip
from tapetum.footage.facts import CameraFact
from tapetum.footage.lists import ListCounts, list_path, read_listed, writing_list
from tapetum.footage.report import FootageReport
from tapetum.footage.sources import Source, find_sources
from tapetum.indexing.earlier import compare_with_earlier


@pytest.fixture
def source(tmp_path: Path) -> Source:
    (tmp_path / "Hof").mkdir()
    return find_sources([write_clip(tmp_path / "Hof" / "ch01_20261120_210000.mp4", [street(0)] * 2)])[0]


def list_it(gallery: Path, source: Source, key: str = "ab", detector: str = "", **counts: int) -> None:
    (gallery / "crops" / key).mkdir(parents=True)
    with writing_list(gallery, key, source, detector, lambda: ListCounts(time_origins={"name": 2}, **counts)):
        pass


def doubts(sources: list[Source], gallery: Path, detector: str = "") -> list[str]:
    report = FootageReport()
    compare_with_earlier(sources, gallery, detector, report)
    assert report.num_doubts == len(report.doubts)
    return [each.message for each in report.doubts]


def test_a_list_tells_what_its_source_was_taken_for(tmp_path: Path, source: Source) -> None:
    list_it(tmp_path, replace(source, doubts=("a doubt",)))
    (listed,) = read_listed(tmp_path)
    assert (listed.source, listed.camera, listed.start) == (source.name, "ch01", "2026-11-20T21:00:00Z")
    assert listed.cameras == (CameraFact("ch01", "ch01", "name", "Hof"),)
    assert (listed.time_origins, listed.doubts) == ({"name": 2}, ("a doubt",))
    assert doubts([source], tmp_path) == []


def test_people_whom_another_detector_found_before_are_named(tmp_path: Path, source: Source) -> None:
    list_it(tmp_path, source, detector="background subtraction")
    assert doubts([source], tmp_path, "background subtraction") == []
    assert doubts([source], tmp_path, "ssd-mobilenet") == [
        "background subtraction looked for people there before, and whom it found stays beside those of ssd-mobilenet: "
        "everybody is there twice; make the gallery anew to have each once"
    ]
    list_it(tmp_path, source, key="cd", detector="ssd-mobilenet")
    assert doubts([source], tmp_path, "ssd-mobilenet") == []  # said when it looked


def test_what_a_gallery_took_otherwise_before_is_named(tmp_path: Path, source: Source) -> None:
    list_it(tmp_path, source)
    gate = CameraFact("gate", "gate", "name", "Hof")
    assert doubts([replace(source, camera="gate", cameras=(gate,))], tmp_path) == [
        "it was camera ch01 in this gallery before, and is gate now; whom it showed keeps the first: state --camera"
    ]
    assert doubts([replace(source, start=(source.start or 0) - 3600)], tmp_path) == [
        "it began at 2026-11-20T21:00:00Z in this gallery before, and begins at 2026-11-20T20:00:00Z now; "
        "whom it showed keeps the first: state --start"
    ]
    tor = replace(source, name="other", cameras=(CameraFact("ch01", "ch01", "name", "Tor"),))
    assert doubts([tor], tmp_path) == ["camera ch01 was found at 'Hof' before and is at 'Tor' now; taken as one"]
    spelt = replace(source, name="other", cameras=(CameraFact("ch01", "ch 01", "name", "Hof"),))
    assert doubts([spelt], tmp_path) == ["camera ch01 was written 'ch01' before; taken as one"]
    assert doubts([replace(source, name="other", start=5e8)], tmp_path) == []
    assert doubts([replace(source, start=5e8, start_origin="mtime")], tmp_path) == []  # of a copy


def test_lists_of_earlier_versions_tell_camera_and_start_and_damaged_ones_nothing(
    tmp_path: Path, source: Source
) -> None:
    list_it(tmp_path, source)
    path = list_path(tmp_path, "ab")
    head, end = path.read_text().splitlines()
    old = {key: value for key, value in json.loads(head).items() if key not in ("cameras", "doubts")}
    path.write_text(f'{json.dumps(old | {"camera": "camera20261120"})}\n{{"end": 0, "refused": {{}}}}\n')
    (tmp_path / "sources" / "cd.jsonl").write_text("{damaged")
    (listed,) = read_listed(tmp_path)
    assert (listed.camera, listed.cameras, listed.time_origins) == ("camera20261120", (), {})
    assert doubts([source], tmp_path) == [
        "it was camera camera20261120 in this gallery before, and is ch01 now; whom it showed keeps the first: state "
        "--camera"
    ]
    assert end
