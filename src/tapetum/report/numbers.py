"""Numbers as a reader meets them: percent, intervals, lengths of time."""

import math

from tapetum.report.content import Interval

NOTHING = "–"


def percent(value: float | None, digits: int = 1) -> str:
    """A fraction as percent without the sign, or a dash where there is none."""
    return NOTHING if value is None or not math.isfinite(value) else f"{100 * value:.{digits}f}"


def percent_interval(interval: Interval | None) -> str:
    """An interval of fractions in percent, or nothing."""
    if interval is None or not all(math.isfinite(end) for end in interval):
        return ""
    return f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f}"


def duration(seconds: float | None) -> str:
    """Seconds for a reader: "4.2 s", "48 s", "3 min 20 s", "2 h 5 min"; a dash where it was not measured."""
    if seconds is None or not math.isfinite(seconds):
        return NOTHING
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def count(value: object) -> str:
    """A fact; large whole numbers with commas."""
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) and value > 9999 else str(value)
