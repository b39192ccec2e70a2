import pytest

from tapetum.footage.clock import SteadyClock, parse_time

NINE = 1795208400.0  # 2026-11-20T21:00:00Z


def test_metadata_of_a_recorder_without_a_clock_is_no_time() -> None:
    assert parse_time("1904-01-01T00:00:00.000000Z") is None
    assert parse_time("1970-01-01T00:00:00.000000Z") is None
    assert parse_time("yesterday") is None
    assert parse_time("2026-11-20T21:00:00.500000Z") == NINE + 0.5
    assert parse_time("2026:11:20 22:00:00", 1.0) == NINE  # EXIF, local


def test_a_clock_that_runs_on_is_left_alone() -> None:
    clock = SteadyClock()
    stamps = [10.0, 10.1, 10.1, 12.0, 500.0]
    assert [clock.read(stamp) for stamp in stamps] == [(stamp, False) for stamp in stamps]
    assert clock.jumps == 0


def test_after_a_jump_backwards_times_go_on_from_the_frame_before() -> None:
    clock = SteadyClock()
    read = [clock.read(stamp) for stamp in (100.0, 100.5, 101.0, 41.0, 41.5, 42.5)]
    assert [time for time, _ in read] == [100.0, 100.5, 101.0, 101.5, 102.0, 103.0]
    assert [jumped for _, jumped in read] == [False, False, False, True, False, False]
    assert (clock.jumps, clock.largest_jump) == (1, 60.0)


def test_a_picture_without_a_stamp_follows_at_the_usual_interval() -> None:
    clock = SteadyClock()
    assert [clock.read(stamp)[0] for stamp in (5.0, 5.2, None, None)] == pytest.approx([5.0, 5.2, 5.4, 5.6])
