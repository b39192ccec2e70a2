import pytest

from tapetum.footage.moments import choose_moment, find_moments, seconds_of

NINE = 1795208400.0  # 2026-11-20T21:00:00Z
HOUR = 3600.0


def read(name: str, utc_offset_hours: float = 0.0) -> tuple[float, tuple[str, ...]] | None:
    moment = choose_moment(find_moments(name))
    return None if moment is None or moment.clock is None else (seconds_of(moment, utc_offset_hours), moment.doubts)


@pytest.mark.parametrize(
    "name",
    [
        "cam3_2026-11-20T21-00-00",
        "cam3_20261120_210000",
        "20261120210000",
        "2026.11.20 21.00.00",
        "x_2026-11-20_21h00m00s",
        "2026-11-20_21-00",
        "20261120T2100Z",
        "202611202100",
        "20-11-2026_21-00-00",
        "21.00.00 20.11.2026",
        "gate_2026-11-20_09-00-00_PM",
        "Screen Recording 2026-11-20 at 9.00.00 PM",
        "2026-11-20_09-00-00p.m.",
        "2026-11-20 下午9.00.00",
        "2026年11月20日21时00分00秒",
        "2026-11-20_9.00.00 오후",
        "x_2026-11-20T22-00-00+01-00",
        "x_20261120T220000+0100",
        "x_2026-11-20T16-00-00-05-00",
        "x_2026-11-20T16-00-00-0500",
        "x_2026-11-21_02-30-00 UTC+5:30",
        "x_2026-11-20_21-00-00_UTC",
        "NVR_ch02_main_20261120-210000_20261120-213000",
        "RecM01_20261120_210000_210500_0_6D28808",
        "2026-11-20_21-00-00-21-30-00",
        "CAM-20261120-210000-1795208400",
        "1795208400000",
        "20261120_210000000",
        "2026_1120_210000_0001F",
        "Front Door - 11-20-2026, 22.00.00 GMT+1",
    ],
)
def test_a_time_in_a_name_is_read_in_the_ways_recorders_write_it(name: str) -> None:
    assert read(name) == (NINE, ())


@pytest.mark.parametrize(
    "name",
    [
        "192.0.2.64_01_20261120210000123",
        "2026-11-20T21:00:00.123Z",
        "2026-11-20_21.00.00.123",
        "PXL_20261120_210000123",
        "front_door-1795208400.123-k2x9ab",
        "CAM_0_1795208400123",
    ],
)
def test_milliseconds_are_read_with_and_without_a_sign_before_them(name: str) -> None:
    found = read(name)
    assert found is not None
    assert found[0] == pytest.approx(NINE + 0.123, abs=1e-6)
    assert found[1] == ()


@pytest.mark.parametrize(
    ("name", "seconds", "doubt"),
    [
        ("03-04-2026_21-00-00", 1775250000.0, "03-04-2026 is read as day, month, year; it may be month, day, year"),
        ("261120_210000", NINE, "261120 is read as year, month, day"),
        ("CAM_1795208400", NINE, "1795208400 is read as seconds since 1970"),
        ("20261120_210000_123", NINE + 0.123, "123 behind the time is read as milliseconds"),
        ("20261120-160000-0500", NINE, "-0500 behind the time is read as a zone"),
        ("2026-11-20_21-00-00_AM", NINE, "AM beside hour 21, which is taken as of a 24-hour clock"),
        ("2026-11-20_21-00-00_2026-11-25_10-00-00", NINE, "the name has two dates, the first with a time is taken"),
        ("2026-11-18_2026-11-20_21-00-00", NINE, "the name has two dates, the first with a time is taken"),
    ],
)
def test_what_can_be_read_in_two_ways_is_read_with_its_doubt(name: str, seconds: float, doubt: str) -> None:
    found = read(name)
    assert found is not None
    assert found[0] == pytest.approx(seconds, abs=1e-6)
    assert found[1] == (doubt,)


@pytest.mark.parametrize(
    "name",
    [
        "cam3",
        "0007_c3s1_000151_00",
        "2026-13-40T21-00-00",
        "00001234567890",
        "2026112021000012",  # sixteen digits
        "20123456789",
        "gate_20261120_0001",  # the number of a file
        "gate_2026-11-20_21",
        "2026-11-20_25-00-00",
        "2026-02-30_21-00-00",
        "18880101_210000",
        "9795208400",
        "192.0.2.64",
    ],
)
def test_numbers_that_are_no_time_are_none(name: str) -> None:
    assert read(name) is None


def test_noon_and_midnight_of_a_clock_with_twice_twelve_hours() -> None:
    midnight = NINE - 21 * HOUR
    for name, hours in (
        ("12-00-00_AM", 0),
        ("12-30-00AM", 0.5),
        ("01-00-00 AM", 1),
        ("12-00-00PM", 12),
        ("11-00-00_pm", 23),
    ):
        assert read(f"2026-11-20_{name}") == (midnight + hours * HOUR, ()), name


def test_a_name_without_zone_is_in_the_zone_of_the_option() -> None:
    assert read("2026-11-20T21-00-00", 1.0) == (NINE - HOUR, ())
    assert read("2026-11-20T21-00-00Z", 1.0) == (NINE, ())
    assert read("2026-11-20T21-00-00-03-30", 1.0) == (NINE + 3.5 * HOUR, ())


def test_a_minus_that_is_no_zone_parts_two_times() -> None:
    for name in ("20261120-210000-2130", "2026-11-20_21-00-00-21-30"):
        assert read(name) == (NINE, ())
