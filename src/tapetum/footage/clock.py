"""When a picture was taken: times in names and metadata."""

import re
from datetime import UTC, datetime, timedelta, timezone

OLDEST = 631152000.0  # 1990-01-01; a recorder without a clock writes 1904 or 1970, which is no time
_NEWEST_YEAR = 2100
_TIME = re.compile(
    r"(?<!\d)(?P<date>(?:19|20)\d{2}(?P<a>[-_.]?)\d{2}(?P=a)\d{2})"
    r"[T_ .-]{0,2}(?P<clock>\d{2}(?P<b>[-_.:h]?)\d{2}[-_.:m]?\d{2})s?"
    r"(?:[.,](?P<fraction>\d{1,6}))?(?P<zone>Z|\+\d{2}[:-]?\d{2})?(?!\d)"
)


def read_time_in_name(name: str, utc_offset_hours: float = 0.0) -> tuple[float, tuple[int, int]] | None:
    """The first date and time in a name, e.g. ``cam3_2026-11-20T21-00-00.mp4`` or ``20261120_210000``.

    Args:
        name: of a file or folder.
        utc_offset_hours: of the clock that wrote it, where the name says no zone (``Z`` or ``+01-00``) itself.
    Returns:
        Seconds since 1970-01-01 UTC and where in the name it stands (first, last); None where there is none.
    """
    for found in _TIME.finditer(name):
        digits = re.sub(r"\D", "", found["date"] + found["clock"])
        zone = _parse_zone(found["zone"]) if found["zone"] else timezone(timedelta(hours=utc_offset_hours))
        try:
            moment = datetime.strptime(digits, "%Y%m%d%H%M%S").replace(tzinfo=zone)
        except ValueError:  # a number of 14 digits that is no date
            continue
        if moment.year <= _NEWEST_YEAR and moment.timestamp() >= OLDEST:
            return moment.timestamp() + float(f"0.{found['fraction'] or 0}"), found.span()
    return None


def parse_time(text: str, utc_offset_hours: float = 0.0) -> float | None:
    """Seconds since 1970-01-01 UTC of a date and time as metadata writes them; None where it is none.

    Args:
        text: ISO 8601, or EXIF's ``2026:11:20 21:00:00``.
        utc_offset_hours: where the text says no zone.
    """
    exif = re.fullmatch(r"(\d{4}):(\d\d):(\d\d) (.*)", text.strip())
    try:
        moment = datetime.fromisoformat("{}-{}-{} {}".format(*exif.groups()) if exif else text.strip())
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=timezone(timedelta(hours=utc_offset_hours)))
    return moment.timestamp() if moment.timestamp() >= OLDEST and moment.year <= _NEWEST_YEAR else None


def format_time(seconds: float) -> str:
    """A time as ISO 8601 in UTC.

    Args:
        seconds: since 1970-01-01 UTC.
    """
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _parse_zone(text: str) -> timezone:
    if text == "Z":
        return UTC
    hours, minutes = int(text[1:3]), int(text[-2:])
    return timezone(timedelta(hours=min(hours, 14), minutes=minutes if minutes < 60 else 0))
