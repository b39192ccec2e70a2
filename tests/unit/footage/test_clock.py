from tapetum.footage.clock import parse_time

NINE = 1795208400.0  # 2026-11-20T21:00:00Z


def test_metadata_of_a_recorder_without_a_clock_is_no_time() -> None:
    assert parse_time("1904-01-01T00:00:00.000000Z") is None
    assert parse_time("1970-01-01T00:00:00.000000Z") is None
    assert parse_time("yesterday") is None
    assert parse_time("2026-11-20T21:00:00.500000Z") == NINE + 0.5
    assert parse_time("2026:11:20 22:00:00", 1.0) == NINE  # EXIF, local
