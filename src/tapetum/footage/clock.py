"""Times as metadata writes them."""

import re
from datetime import UTC, datetime, timedelta, timezone

OLDEST = 631152000.0  # 1990-01-01; a recorder without a clock writes 1904 or 1970, which is no time
NEWEST_YEAR = 2100


def parse_time(text: str, utc_offset_hours: float = 0.0) -> float | None:
    """Seconds since 1970-01-01 UTC of a date and time as metadata writes them; None where it is none.

    Args:
        text: ISO 8601, or EXIF's ``2026:11:20 21:00:00``.
        utc_offset_hours: where the text says no zone.
    """
    stated = parse_zoned_time(text, utc_offset_hours)
    return None if stated is None else stated[0]


def parse_zoned_time(text: str, utc_offset_hours: float = 0.0) -> tuple[float, bool] | None:
    """As `parse_time`, and whether the text says its zone."""
    exif = re.fullmatch(r"(\d{4}):(\d\d):(\d\d) (.*)", text.strip())
    try:
        moment = datetime.fromisoformat("{}-{}-{} {}".format(*exif.groups()) if exif else text.strip())
    except ValueError:
        return None
    zone_written = moment.tzinfo is not None
    if not zone_written:
        moment = moment.replace(tzinfo=timezone(timedelta(hours=utc_offset_hours)))
    seconds = moment.timestamp()
    return (seconds, zone_written) if seconds >= OLDEST and moment.year <= NEWEST_YEAR else None


def format_time(seconds: float) -> str:
    """A time as ISO 8601 in UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
