from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tapetum.footage.facts import SourceOptions, TimeFact, decide_picture_time
from tapetum.footage.preview import preview_sources
from tapetum.footage.report import FootageReport
from tapetum.footage.sources import find_sources

NINE = 1795208400.0  # 2026-11-20T21:00:00Z
TAKEN, ZONE_TAKEN, FRACTION_TAKEN, DIGITISED, ZONE_DIGITISED = 0x9003, 0x9011, 0x9291, 0x9004, 0x9012
CHANGED, ZONE_CHANGED = 0x0132, 0x9010


def write_photo(path: Path, tags: dict[int, str], size: tuple[int, int] = (64, 32)) -> Path:
    """A picture with these tags of EXIF; (height, width)."""
    exif = Image.Exif()
    exif[0x010F] = "maker"  # Pillow writes into a PNG only what has a tag beside the folder
    folder = exif.get_ifd(0x8769)
    for tag, text in tags.items():
        (exif if tag == CHANGED else folder)[tag] = text
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (*size, 3), np.uint8)).save(path, exif=exif)
    return path


def time_of(path: Path, **options: float) -> TimeFact:
    return decide_picture_time(path, SourceOptions(**options))  # type: ignore[arg-type]


@pytest.mark.parametrize("ending", ["jpg", "png", "webp"])
@pytest.mark.parametrize(("time_tag", "zone_tag"), [(TAKEN, ZONE_TAKEN), (DIGITISED, ZONE_DIGITISED)])
def test_the_zone_that_exif_states_counts(tmp_path: Path, time_tag: int, zone_tag: int, ending: str) -> None:
    path = write_photo(tmp_path / f"p.{ending}", {time_tag: "2026:11:20 23:00:00", zone_tag: "+02:00"})
    assert time_of(path, utc_offset_hours=-5.0) == TimeFact(NINE, "metadata")


def test_exif_behind_the_pixels_of_a_png_is_found_and_no_pixel_is_decoded_for_it(tmp_path: Path) -> None:
    tags = {TAKEN: "2026:11:20 23:00:00", ZONE_TAKEN: "+02:00"}
    content = write_photo(tmp_path / "p.png", tags).read_bytes()
    assert content.index(b"eXIf") < content.index(b"IDAT")
    start = content.index(b"eXIf") - 4
    stop = start + 12 + int.from_bytes(content[start : start + 4])
    pixels = content[content.index(b"IDAT") - 4 : -12]
    damaged = pixels[:8] + bytes(len(pixels) - 8)
    (tmp_path / "p.png").write_bytes(content[:start] + damaged + content[start:stop] + content[-12:])
    assert time_of(tmp_path / "p.png") == TimeFact(NINE, "metadata")


@pytest.mark.parametrize("zone", ["", "   :  ", "+25:00", "\0"])
def test_exif_without_a_zone_is_said_to_have_none(tmp_path: Path, zone: str) -> None:
    path = write_photo(tmp_path / "p.jpg", {TAKEN: "2026:11:20 22:00:00", ZONE_TAKEN: zone})
    assert time_of(path, utc_offset_hours=1.0) == TimeFact(NINE, "metadata", zone_written=False)


def test_fractions_of_a_second_in_exif_count(tmp_path: Path) -> None:
    path = write_photo(tmp_path / "p.jpg", {TAKEN: "2026:11:20 21:00:00", FRACTION_TAKEN: "25"})
    assert time_of(path).seconds == NINE + 0.25


def test_when_a_picture_was_changed_is_a_guess_behind_its_name(tmp_path: Path) -> None:
    tags = {CHANGED: "2026:11:22 10:00:00", ZONE_CHANGED: "+00:00"}
    guess = time_of(write_photo(tmp_path / "p.jpg", tags))
    assert (guess.seconds, guess.origin) == (NINE + 37 * 3600, "metadata")
    assert guess.doubts == ("time guessed: EXIF says only when the picture was changed",)
    named = time_of(write_photo(tmp_path / "cam1_20261120_210000.jpg", tags))
    assert (named.seconds, named.origin, named.doubts) == (NINE, "name", ())
    dated = time_of(write_photo(tmp_path / "cam1_2026-11-20.jpg", tags))
    assert (dated.seconds, dated.origin) == (NINE - 21 * 3600, "name")
    assert dated.doubts == ("only the day is written, its beginning is taken",)


@pytest.mark.parametrize("kind", ["crops", "frames"])
def test_zones_and_guesses_of_pictures_are_told_of_their_source(tmp_path: Path, kind: str) -> None:
    zoned = {TAKEN: "2026:11:20 21:00:00", ZONE_TAKEN: "+02:00"}
    for camera, tags in (("a", zoned), ("b", {TAKEN: "2026:11:20 21:00:00"}), ("c", {CHANGED: "2026:11:20 21:00:00"})):
        write_photo(tmp_path / camera / "1.jpg", tags)
    report = FootageReport()
    found = find_sources([tmp_path], SourceOptions(kind=kind), report=report)  # type: ignore[arg-type]
    assert [source.zone_written for source in found] == [True, False, False]
    assert "no zone is written, --utc-offset is taken: 2 sources" in report.fact_lines()
    starts = [
        next(word for word in line.split() if word.endswith("Z")) for line in preview_sources(found) if "Z" in line
    ]
    assert starts == ["2026-11-20T19:00:00Z", "2026-11-20T21:00:00Z", "2026-11-20T21:00:00Z"]
    assert [sum("EXIF says only when" in doubt for doubt in source.doubts) for source in found] == [0, 0, 1]
