import pytest

from tapetum.footage.clock import format_time, parse_time, read_time_in_name

NINE = 1795208400.0  # 2026-11-20T21:00:00Z


@pytest.mark.parametrize(
    "name",
    [
        "cam3_2026-11-20T21-00-00.mp4",
        "cam3_20261120_210000.mp4",
        "20261120210000.mkv",
        "NVR_ch02_main_20261120-210000_20261120-213000.dav",
        "2026.11.20 21.00.00.avi",
        "x_2026-11-20T22-00-00+01-00.mp4",
        "x_2026-11-20_21h00m00s.mp4",
    ],
)
def test_a_time_in_a_name_is_read_in_the_ways_recorders_write_it(name: str) -> None:
    found = read_time_in_name(name)
    assert found is not None
    assert format_time(found[0]) == "2026-11-20T21:00:00Z"
    assert found[0] == NINE


@pytest.mark.parametrize("name", ["cam3.mp4", "0007_c3s1_000151_00.jpg", "2026-13-40T21-00-00.mp4", "00001234567890"])
def test_numbers_that_are_no_time_are_none(name: str) -> None:
    assert read_time_in_name(name) is None


def test_a_name_without_zone_is_in_the_zone_of_the_option() -> None:
    local, stated = "2026-11-20T21-00-00.mp4", "2026-11-20T21-00-00Z.mp4"
    assert read_time_in_name(local, 1.0)[0] == NINE - 3600  # type: ignore[index]
    assert read_time_in_name(stated, 1.0)[0] == NINE  # type: ignore[index]


def test_metadata_of_a_recorder_without_a_clock_is_no_time() -> None:
    assert parse_time("1904-01-01T00:00:00.000000Z") is None
    assert parse_time("1970-01-01T00:00:00.000000Z") is None
    assert parse_time("yesterday") is None
    assert parse_time("2026-11-20T21:00:00.500000Z") == NINE + 0.5
    assert parse_time("2026:11:20 22:00:00", 1.0) == NINE  # EXIF, local
