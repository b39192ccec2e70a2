"""Times as metadata writes them, and a camera clock that never runs backwards."""

import re
from datetime import UTC, datetime, timedelta, timezone

OLDEST = 631152000.0  # 1990-01-01; a recorder without a clock writes 1904 or 1970, which is no time
NEWEST_YEAR = 2100
_USUAL_INTERVAL = 0.04  # seconds between frames until the source has shown its own
_LONGEST_INTERVAL = 1.0


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
    return moment.timestamp() if moment.timestamp() >= OLDEST and moment.year <= NEWEST_YEAR else None


def format_time(seconds: float) -> str:
    """A time as ISO 8601 in UTC.

    Args:
        seconds: since 1970-01-01 UTC.
    """
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class SteadyClock:
    """Times that never run backwards, out of stamps that may.

    The rule: a stamp before the one of the picture before it is a jump of the camera's clock. The picture then gets
    the time of the one before plus the usual interval, and every later stamp is moved by the same amount: the order
    of events stays, and the differences before and after the jump stay true. What was followed ends at a jump.
    """

    def __init__(self) -> None:
        self.jumps = 0
        self.largest_jump = 0.0  # seconds
        self._shift = 0.0
        self._last: float | None = None
        self._interval = _USUAL_INTERVAL

    def read(self, stamp: float | None) -> tuple[float, bool]:
        """The time of the next picture, and whether the clock jumped backwards before it.

        Args:
            stamp: as written, seconds; None where the picture has none.
        """
        if self._last is None:
            self._last = stamp or 0.0
            return self._last, False
        if stamp is None:
            self._last += self._interval
            return self._last, False
        time, jumped = stamp + self._shift, False
        if time < self._last - 1e-9:
            self.jumps += 1
            self.largest_jump = max(self.largest_jump, self._last - time)
            self._shift += self._last + self._interval - time
            time, jumped = self._last + self._interval, True
        elif 0 < time - self._last <= _LONGEST_INTERVAL:
            self._interval = time - self._last
        self._last = time
        return time, jumped
