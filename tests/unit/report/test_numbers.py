"""Numbers as a reader meets them."""

import math

import pytest

from tapetum.report.numbers import duration, percent, percent_interval


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "–"), (4.21, "4.2 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (200.0, "3 min 20 s"), (7500.0, "2 h 5 min")],
)
def test_lengths_of_time_are_written_in_the_units_a_reader_thinks_in(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


def test_fractions_are_written_as_percent_and_missing_ones_as_a_dash() -> None:
    assert percent(0.4567) == "45.7"
    assert percent(0.4567, digits=2) == "45.67"
    assert percent(None) == percent(math.nan) == "–"
    assert percent_interval((0.1, 0.2)) == "10.0 to 20.0"
    assert percent_interval(None) == percent_interval((math.nan, math.nan)) == ""
