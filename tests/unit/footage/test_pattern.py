from pathlib import Path

import pytest

from tapetum.core.errors import DataError, RecipeError
from tapetum.footage.clock import format_time
from tapetum.footage.pattern import PathPattern


@pytest.mark.parametrize(
    ("pattern", "path", "camera", "time"),
    [
        ("{date}/{hour}/{camera}/{minute}.{second}", "/r/2026-11-20/21/front_door/00.10.mp4", "front_door", "21:00:10"),
        ("{camera}_{day}{month}{year}_{hour}{minute}", "/r/gate_20112026_2100.mp4", "gate", "21:00:00"),
        (
            "{month}-{day}-{year}/{camera}/{hour}-{minute}-{second}{ampm}",
            "/r/11-20-2026/g/9-00-10PM.mp4",
            "g",
            "21:00:10",
        ),
        ("{year}{month}{day}{hour}{minute}{second}{zone}", "/r/261120160000-0500.mkv", None, "21:00:00"),
        ("{site}/{any}/{camera}_{date}_{hour}", "/r/Hof/x y/ch01_20261120_21.avi", "Hof/ch01", "21:00:00"),
        (
            "{camera}/{any}-{date}T{hour}{minute}{second}.{millisecond}",
            "/r/Höf/a-20261120T210000.500.ts",
            "Höf",
            "21:00:00",
        ),
        ("/{camera}/{any}/", "/r/Camera 3/x.mp4", "camera3", None),
    ],
)
def test_fields_of_a_pattern_are_read_from_the_end_of_a_path(
    pattern: str, path: str, camera: str | None, time: str | None
) -> None:
    found = PathPattern(pattern).read(Path(path))
    assert found.camera == camera
    assert (None if found.time is None else format_time(found.time)) == (time and f"2026-11-20T{time}Z")
    assert found.zone_written == ("{zone}" in pattern)
    assert found.doubts == (("only the hour is written",) if pattern.endswith("{hour}") else ())


def test_milliseconds_and_the_zone_of_the_option_count() -> None:
    pattern = PathPattern("{date}_{hour}{minute}{second}{millisecond}")
    assert pattern.read(Path("/r/20261120_210000123.mp4"), 1.0).time == pytest.approx(1795208400.123 - 3600, abs=1e-6)


def test_a_day_alone_is_a_day() -> None:
    found = PathPattern("{camera}/{date}_{any}").read(Path("/r/gate/2026-11-20_0001.mp4"))
    assert (found.time, found.day) == (None, 1795208400.0 - 21 * 3600)


@pytest.mark.parametrize(
    ("pattern", "complaint"),
    [
        ("{kamera}/{any}", "field {kamera} is unknown; did you mean camera?"),
        ("{camera}/{camera}", "has {camera} twice; write {any} for one of them"),
        ("{date}/{year}{month}{day}", "has {date} and {day}, which say the same; leave one out"),
        ("{date}/{minute}", "has {minute} and no {hour}; add it"),
        ("{month}/{day}/{camera}", "has {day} and no {year}; add it"),
        ("{site}/{date}", "has {site} and no {camera}; add it"),
        ("{camera}/{hour}", "has {hour} and no day; add {date}, or {year}, {month} and {day}"),
        ("{camera", "has a single '{'; fields stand in { and }"),
        ("camera}", "has a single '}'; fields stand in { and }"),
        ("{any}/{any}", "has no field but {any}; add e.g. {camera} or {date}"),
        ("", "is empty; write e.g. '{date}/{hour}/{camera}/{minute}.{second}'"),
        ("{}", "field {} is unknown; known: "),
    ],
)
def test_a_wrong_pattern_is_one_line(pattern: str, complaint: str) -> None:
    with pytest.raises(RecipeError) as caught:
        PathPattern(pattern)
    assert str(caught.value).startswith(f"path pattern {pattern!r}: {complaint}")
    assert "\n" not in str(caught.value)


def test_a_path_that_does_not_fit_is_named() -> None:
    pattern = PathPattern("{date}/{hour}/{camera}")
    for path in ("/r/2026-11-20/21/a/b.mp4", "/r/2026-11-20/24/b.mp4", "/b.mp4"):
        with pytest.raises(DataError, match=f"^{path}: does not fit the path pattern"):
            pattern.read(Path(path))
    with pytest.raises(DataError, match=r"b.mp4: what the path pattern .* finds there is no date and time"):
        pattern.read(Path("/r/2026-02-30/21/b.mp4"))
