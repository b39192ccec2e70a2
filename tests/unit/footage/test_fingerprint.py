import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from street_clip import street, write_clip
from tapetum.footage import extract
from tapetum.footage.detect import BackgroundDetector
from tapetum.footage.extract import extract_all, is_finished
from tapetum.footage.facts import SourceOptions
from tapetum.footage.fingerprint import fingerprint_source
from tapetum.footage.options import ExtractOptions
from tapetum.footage.report import FootageReport
from tapetum.footage.sources import find_sources


def write_bitmaps(folder: Path, count: int = 4, *, shift: int = 0) -> Path:
    folder.mkdir(exist_ok=True)
    for number in range(count):
        cv2.imwrite(str(folder / f"{number}.bmp"), np.full((60, 40 if "crops" in folder.name else 90, 3), 90 + shift))
    return folder


def replace_in_place(path: Path, content: bytes) -> None:
    """Same name, same size, same time of writing."""
    state = path.stat()
    assert len(content) == state.st_size
    path.write_bytes(content)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert path.stat().st_mtime_ns == state.st_mtime_ns


@pytest.mark.parametrize("name", ["crops", "frames"])
def test_a_picture_replaced_in_place_is_another_source(tmp_path: Path, name: str) -> None:
    folder = write_bitmaps(tmp_path / name)
    (source,) = find_sources([folder])
    assert source.kind == name
    before = fingerprint_source(source)
    assert fingerprint_source(source) == before
    content = bytearray((folder / "2.bmp").read_bytes())
    content[-5] ^= 1
    replace_in_place(folder / "2.bmp", bytes(content))
    assert fingerprint_source(source) != before


@pytest.mark.parametrize("place", [0.0, 0.4, 1.0])
def test_a_recording_replaced_in_place_is_read_again(tmp_path: Path, place: float) -> None:
    path = write_clip(tmp_path / "cam1.mp4", [street(frame) for frame in range(80)])
    sources, out = find_sources([path], SourceOptions(start=1e9)), tmp_path / "out"
    assert list(extract_all(sources, out, BackgroundDetector()))
    assert is_finished(sources[0], out, BackgroundDetector())
    content = bytearray(path.read_bytes())
    content[min(len(content) - 1, round(place * len(content)))] ^= 255
    replace_in_place(path, bytes(content))
    assert not is_finished(sources[0], out, BackgroundDetector())


def test_pictures_that_version_0_1_0_has_finished_stay_finished_until_one_is_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, out = write_bitmaps(tmp_path / "crops"), tmp_path / "out"
    sources = find_sources([folder])
    with monkeypatch.context() as patch:
        patch.setattr(extract, "fingerprint_source", extract.fingerprint_names)
        assert list(extract_all(sources, out, None))
    later = max(path.stat().st_ctime for path in folder.iterdir()) + 10
    for written in (out / "sources").glob("*.jsonl"):
        os.utime(written, (later, later))
    report = FootageReport()
    assert list(extract_all(sources, out, None, report=report)) == []
    assert report.finished_before == 1
    os.utime(folder / "0.bmp", (later + 10, later + 10))
    assert not is_finished(sources[0], out, None)


def test_an_option_that_a_newer_version_adds_changes_no_key_while_it_is_not_used(tmp_path: Path) -> None:
    (source,) = find_sources([write_bitmaps(tmp_path / "frames")])
    stated = extract._stated(source.options)
    assert set(stated) >= {"kind", "camera", "start", "utc_offset_hours", "frames_per_second", "modality"}
    assert extract.source_key(source, None, ExtractOptions()) == extract.source_key(source, None, ExtractOptions())
