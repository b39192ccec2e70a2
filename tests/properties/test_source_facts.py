"""One recorded walk, renamed and re-timed in every way: the same camera and time each time, or a stated doubt."""

import itertools
import os
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from street_clip import street, write_clip
from tapetum.footage.facts import GUESSED_TIME, SourceOptions
from tapetum.footage.paths import clean_camera
from tapetum.footage.sources import Source, find_sources

WALK = datetime(2026, 11, 20, 21, 4, 5, tzinfo=UTC)
CAMERAS = ("front_door", "cam3", "yardcam", "Hof Süd", "Ворота", "门", "c3")
DATES = ("%Y-%m-%d", "%Y%m%d", "%Y.%m.%d", "%d-%m-%Y", "%Y年%m月%d日")
CLOCKS = ("%H-%M-%S", "%H.%M.%S", "%I-%M-%S_%p", "%I.%M.%S %p", "%Hh%Mm%Ss")
ZONES = {"": 0.0, "Z": 0.0, "+01-00": 1.0, "+0530": 5.5, "-05-00": -5.0, "-0330": -3.5}
# {D} date, {C} clock, {T} both with their zone, {S} a second time, the end
LAYOUTS = (
    "{camera}_{T}",
    "{T}_{camera}",
    "{camera}/{T}",
    "{camera}/video_{T}",
    "{camera}/camera_{T}",
    "{camera}_{T}_{S}",
    "{camera}/{T}_{S}",
    "{camera}/{D}/{C}",
    "{D}/{camera}/{C}",
    "{D}/{camera}_{C}",
    "{camera}/{D}/{C}_0001",
    "{camera}/videos/{D}/{T}",
)
FIXED = (  # whose dates and clocks cannot be chosen
    "{camera}/%Y/%m/%d/%H-%M-%S",
    "%Y/%m/%d/{camera}/%H.%M.%S",
    "%Y-%m-%d/%H/{camera}/%M.%S",
    "{camera}/%Y-%m-%d/%H/%M.%S",
    "{camera}/%Y%m%d/%I%p/%M-%S",
    "%Y%m%d%H/{camera}/%Mm%Ss",
    "%Y%m%d_%H/{camera}_%M.%S",
    "{camera}/%Y-%m/%d/%H%M%S",
    "{camera}/%Y%m%d%H%M%S000",
    "{camera}_%Y%m%d%H%M%S",
    "{camera}_%s000",
    "{camera}/%s",
    "{camera}/%Y%m%d%H/%MM%SS_%s",
    "{camera}/%Y-%m-%d/%H/%M/%S",
    "{camera}_%y%m%d_%H%M%S",
)


def ways() -> list[tuple[str, str]]:
    """Camera and path of each; every layout with every date, clock and zone that it can have, cameras in turn."""
    cameras = itertools.cycle(CAMERAS)
    made = []
    for layout, date, clock, (zone, hours) in itertools.product(LAYOUTS, DATES, CLOCKS, ZONES.items()):
        if zone.startswith(("+", "-")) and ("%p" in clock or "{T}" not in layout):
            continue  # nobody writes it so
        local = WALK + timedelta(hours=hours)
        camera = next(cameras)
        day, time, end = local.strftime(date), local.strftime(clock), (local + timedelta(minutes=15)).strftime(clock)
        sign = "T" if zone else "_"
        texts = {"{D}": day, "{C}": time, "{T}": f"{day}{sign}{time}{zone}", "{S}": f"{day}{sign}{end}{zone}"}
        for field, text in texts.items():
            layout = layout.replace(field, text)
        made.append((camera, layout.replace("{camera}", camera)))
    for layout, camera in itertools.product(FIXED, CAMERAS):
        text = WALK.strftime(layout.replace("%s", str(int(WALK.timestamp()))))
        made.append((camera, text.replace("{camera}", camera)))
    return made


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = write_clip(tmp_path_factory.mktemp("walk") / "walk.mp4", [street(0)] * 2)
    os.utime(path, (1.7e9, 1.7e9))  # re-timed: the time of writing is that of a copy
    return path


def find_at(folder: Path, walk: Path, path: str) -> Source:
    place = folder / f"{path}.mp4"
    place.parent.mkdir(parents=True)
    os.link(walk, place)
    (source,) = find_sources([folder])
    shutil.rmtree(folder)
    return source


def test_renamed_in_every_way_a_walk_keeps_camera_and_time_or_states_a_doubt(tmp_path: Path, walk: Path) -> None:
    every = ways()
    assert len({path for _, path in every}) > 50
    certain = 0
    for number, (camera, path) in enumerate(every):
        source = find_at(tmp_path / "site" / f"way{number}", walk, path)
        if source.doubts and (source.start, source.camera) != (WALK.timestamp(), clean_camera(camera)):
            continue
        assert source.start == pytest.approx(WALK.timestamp(), abs=1e-3), (path, source)
        assert source.camera == clean_camera(camera), (path, source)
        assert source.cameras[0].written == camera, path
        certain += not source.doubts
    assert certain > 0.9 * len(every)


def test_retimed_a_walk_without_a_time_in_its_path_has_a_guessed_one(tmp_path: Path, walk: Path) -> None:
    for number, camera in enumerate(CAMERAS):
        for name in (f"{camera}/video", f"{camera}/0001", f"{camera}/clip_2026-11-20", f"2026-11-20/{camera}"):
            source = find_at(tmp_path / "site" / f"way{number}", walk, name)
            assert source.camera == clean_camera(camera), name
            assert set(source.doubts) & {GUESSED_TIME, "only the day is written, its beginning is taken"}, name


def test_a_pattern_finds_camera_and_time_in_every_fixed_layout_without_a_doubt(tmp_path: Path, walk: Path) -> None:
    fields = {"%Y": "{year}", "%m": "{month}", "%d": "{day}", "%H": "{hour}", "%I": "{hour}", "%p": "{ampm}"}
    fields |= {"%M": "{minute}", "%S": "{second}", "%y": "{year}"}
    for number, layout in enumerate(each for each in FIXED if "%s" not in each):
        pattern = layout
        for sign, field in fields.items():
            pattern = pattern.replace(sign, field)
        folder = tmp_path / f"way{number}"
        place = folder / f"{WALK.strftime(layout).replace('{camera}', 'Hof Süd')}.mp4"
        place.parent.mkdir(parents=True)
        os.link(walk, place)
        (source,) = find_sources([folder], SourceOptions(path_pattern=pattern))
        assert (source.camera, source.start) == (clean_camera("Hof Süd"), WALK.timestamp()), pattern
        assert (source.start_origin, source.doubts) == ("pattern", ())
