"""Dates and times of day as recorders write them into names, read strictly: what is no time stays unread.

What can be read in two ways is read in the likelier one, and the doubt is said. Zones count where they are written.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from tapetum.footage.clock import NEWEST_YEAR, OLDEST

_EPOCH = range(1_100_000_000, 2_000_000_000)  # 2004 to 2033
_DAY = 86400.0
_MORNING = "am|a\\.m\\.|上午|午前|오전"
_EVENING = "pm|p\\.m\\.|下午|午後|오후"
HALF_OF_DAY = f"{_MORNING}|{_EVENING}"
_YEAR = r"(?:19|20)\d\d"
_DATE = re.compile(
    rf"(?<!\d)(?:(?P<y>{_YEAR})(?P<sep>[-_. ]?)(?P<m>\d\d)(?P=sep)(?P<d>\d\d)"
    rf"|(?P<y3>{_YEAR})年(?P<m3>\d{{1,2}})月(?P<d3>\d{{1,2}})日"
    rf"|(?P<first>\d{{1,2}})(?P<sep2>[-_. ])(?P<second>\d{{1,2}})(?P=sep2)(?P<y2>{_YEAR})(?!\d)"
    rf"|(?P<y4>{_YEAR})[-_](?P<m4>\d\d)(?P<d4>\d\d)(?=[-_]\d{{6}}(?!\d))"
    r"|(?P<short>\d{6})(?=[-_ ]\d{6}(?!\d)))"
)
_PARTED = (
    r"(?P<c>[-_.:h時时点])(?P<mi>\d\d)(?:(?P=c)|[m分])(?P<s>\d\d)[s秒]?"
    r"(?:[.,](?P<f1>\d{1,6})|(?P=c)(?P<f2>\d{3}))?(?!\d)"
)
_WHOLE = r"(?P<hms>\d{6})(?:(?P<f3>\d{6}|\d{3})|[.,](?P<f4>\d{1,6})|[-_](?P<f5>\d{3}))?(?!\d)"
_LATE = rf"(?:[ _.-]?(?P<late>{HALF_OF_DAY})(?=Z?(?![a-z])))?"
_ZONE = (
    r"(?:[ _]?(?:(?:UTC|GMT)(?P<z1>[-+]\d{1,2}(?:[:-]?\d\d)?)(?!\d)|(?P<z2>Z|UTC|GMT)(?![a-z])"
    r"|(?P<z3>\+\d\d(?:[:-]?\d\d)?|-\d\d[:-]?\d\d)(?![-.:]?\d)))?"
)
_GAP = r"(?P<gap>[T_ .,-]{1,3}|[ _-]at[ _-]|(?<=日))"
_CLOCK_AFTER_DATE = re.compile(
    rf"{_GAP}(?:(?P<early>{HALF_OF_DAY})[ _-]?)?"
    rf"(?:(?P<h>\d{{1,2}}){_PARTED}|{_WHOLE}|(?P<h4>\d{{1,2}})(?P<c4>[-_.:h时時点])(?P<m4>\d\d)[m分]?(?!\d)"
    r"|(?<=T)(?P<short>\d{4}|\d\d)(?!\d)|(?P<lone>\d{1,2})(?:[h时時点](?![a-z])|(?=[ _.-]?(?:"
    + HALF_OF_DAY
    + r")(?![a-z]))))"
    rf"{_LATE}{_ZONE}",
    re.IGNORECASE,
)
_CLOCK_IN_RUN = re.compile(rf"(?P<run>\d{{12}}|\d{{9}}|\d{{6}}|\d{{4}}|\d\d)(?!\d){_LATE}{_ZONE}", re.IGNORECASE)
_LONE_HOUR = rf"\d(?=(?P<lone_sign>[-_.:])\d\d(?P=lone_sign)\d\d[ _.-]?(?:{HALF_OF_DAY}))"  # 9.00.00 PM
_CLOCK = re.compile(
    rf"(?<!\d)(?:(?<![a-z])(?P<early>{HALF_OF_DAY})[ _-]?)?"
    rf"(?:(?P<h>\d\d|{_LONE_HOUR}){_PARTED}|{_WHOLE}){_LATE}{_ZONE}",
    re.IGNORECASE,
)
_EPOCH_NUMBER = re.compile(r"(?<!\d)(?P<seconds>1\d{9})(?:[.,](?P<f1>\d{1,6})|(?P<f3>\d{3}))?(?!\d)")
_BEHIND_ZONES = frozenset({-2.5, -3.5, -9.5})
_AHEAD_ZONES = frozenset({3.5, 4.5, 5.5, 5.75, 6.5, 8.75, 9.5, 10.5, 12.75, 13.75})


@dataclass(frozen=True)
class Moment:
    """A date, a time of day, or both, as it stands in a text."""

    first: int  # where it begins
    last: int  # where it ends, exclusive
    date: tuple[int, int, int] | None = None  # year, month, day; None where only a time of day is written
    clock: float | None = None  # seconds since midnight; None where only a date is written
    zone: float | None = None  # hours east of UTC; None where none is written
    epoch: bool = False  # whether it is seconds since 1970 rather than a date
    hour_only: bool = False  # whether minutes are not written
    doubts: tuple[str, ...] = ()  # why it may be another


def find_moments(text: str) -> list[Moment]:
    """Dates in a text, each with the time of day beside it where one is written, in their order.

    Args:
        text: name of a file or folder, without a file's ending.
    """
    moments: list[Moment] = []
    for match in _DATE.finditer(text):
        day = _moment_of_date(match)
        whole = None if day is None or (moments and match.start() < moments[-1].last) else _add_clock(day, text)
        if whole is not None:
            moments.append(whole)
    moments += [epoch for epoch in _find_epochs(text) if not _touches(epoch, moments)]
    return sorted(moments, key=lambda moment: moment.first)


def find_clocks(text: str, moments: list[Moment]) -> list[Moment]:
    """Times of day in a text that stand alone, to the second.

    Args:
        text: name of a file or folder, without a file's ending.
    """
    clocks = [_moment_of_clock(match) for match in _CLOCK.finditer(mask_moments(text, moments))]
    return [clock for clock in clocks if clock is not None]


def choose_moment(moments: list[Moment]) -> Moment | None:
    """The one that says when something begins: the first with a time of day, else the first; doubts are added."""
    whole = [moment for moment in moments if moment.clock is not None and not moment.epoch]
    best = next(iter(whole or [each for each in moments if each.epoch] or moments), None)
    if best is None:
        return None
    for other in moments:
        if other is best or other.date is None or other.epoch:
            continue
        begins, ends = seconds_of(best), seconds_of(other)
        if other.clock is None and other.date == best.date:
            continue
        if other.clock is None or not begins <= ends <= begins + _DAY:  # else it is the end of the recording
            doubt = "the name has two dates, the first with a time is taken"
            return replace(best, doubts=(*best.doubts, doubt))
    return best


def mask_moments(text: str, moments: Iterable[Moment]) -> str:
    """The text with what was read replaced by signs that nothing matches, so that places stay."""
    for moment in moments:
        text = text[: moment.first] + "\0" * (moment.last - moment.first) + text[moment.last :]
    return text


def seconds_of(moment: Moment, utc_offset_hours: float = 0.0) -> float:
    """Seconds since 1970-01-01 UTC; midnight where no time of day is written.

    Args:
        utc_offset_hours: of its clock, where it names no zone.
    """
    year, month, day = moment.date or (1970, 1, 1)
    zone = utc_offset_hours if moment.zone is None else moment.zone
    return datetime(year, month, day, tzinfo=UTC).timestamp() + (moment.clock or 0.0) - 3600 * zone


def read_clock(hour: int, minute: int, second: float, half: str | None = None) -> tuple[float, str] | None:
    """Seconds since midnight and a doubt, of a clock with 24 or twice 12 hours; None where it is no time of day.

    Args:
        half: AM or PM in some language, where written.
    """
    doubt = ""
    if half is not None:
        evening = re.fullmatch(_EVENING, half, re.IGNORECASE) is not None
        if 1 <= hour <= 12:
            hour = hour % 12 + 12 * evening
        elif not (evening and hour >= 13) and not (hour == 0 and not evening):
            doubt = f"{half} beside hour {hour}, which is taken as of a 24-hour clock"
    if not (0 <= hour <= 23 and 0 <= minute <= 59 and 0 <= second < 60):
        return None
    return 3600.0 * hour + 60.0 * minute + second, doubt


def read_zone(text: str) -> float | None:
    """Hours east of UTC, e.g. of ``Z``, ``+01``, ``-0500``, ``-05-00``; None where no such zone exists."""
    if text.upper() in ("Z", "UTC", "GMT"):
        return 0.0
    digits = re.sub(r"\D", "", text)
    hours = int(digits) if len(digits) <= 2 else int(digits[:-2]) + int(digits[-2:]) / 60
    zone = -hours if text[0] == "-" else hours
    exists = -12 <= zone <= 14 if zone == int(zone) else zone in _BEHIND_ZONES | _AHEAD_ZONES
    return zone if exists else None


def is_date(year: int, month: int, day: int) -> bool:
    """Whether there is such a day, from 1990 to 2100."""
    try:
        return datetime(year, month, day, tzinfo=UTC).timestamp() >= OLDEST and year <= NEWEST_YEAR
    except ValueError:
        return False


def _moment_of_date(match: re.Match[str]) -> Moment | None:
    doubts: tuple[str, ...] = ()
    if match["short"]:
        date = (2000 + int(match["short"][:2]), int(match["short"][2:4]), int(match["short"][4:]))
        doubts = (f"{match['short']} is read as year, month, day",)
    elif match["y2"]:
        first, second, year = int(match["first"]), int(match["second"]), int(match["y2"])
        date = (year, second, first)
        if not is_date(*date):
            date = (year, first, second)
        elif is_date(year, first, second) and first != second:
            doubts = (f"{match[0]} is read as day, month, year; it may be month, day, year",)
    else:
        date = tuple(int(match[name] or match[f"{name}3"] or match[f"{name}4"]) for name in "ymd")  # type: ignore[assignment]
    return Moment(match.start(), match.end(), date, doubts=doubts) if is_date(*date) else None


def _add_clock(day: Moment, text: str) -> Moment | None:
    """With the time of day that follows the date, or stands right before it; None for a longer number."""
    in_run = text[day.last - 1 : day.last + 1].isdecimal() and day.last < len(text)
    match = (_CLOCK_IN_RUN if in_run else _CLOCK_AFTER_DATE).match(text, day.last)
    clock = None if match is None else _moment_of_clock(match)
    if clock is not None:
        doubts = (*day.doubts, *clock.doubts)
        return replace(clock, first=day.first, date=day.date, doubts=doubts)
    if in_run:
        return None
    for match in _CLOCK.finditer(text[: day.first]):
        clock = _moment_of_clock(match)
        if clock is not None and re.fullmatch(r"[_ .,-]{1,3}", text[clock.last : day.first]):
            doubts = (*day.doubts, *clock.doubts)
            return replace(clock, last=day.last, date=day.date, doubts=doubts)
    return day


def _moment_of_clock(match: re.Match[str]) -> Moment | None:
    """A time of day out of whichever of the expressions found it."""
    parts = {name: text for name, text in match.groupdict().items() if text is not None}
    doubts: list[str] = []
    fraction = "0"
    if "run" in parts:
        run = parts["run"]
        hour, minute, second = int(run[:2]), int(run[2:4] or 0), int(run[4:6] or 0)
        fraction = run[6:] or "0"
    elif "hms" in parts:
        hour, minute, second = (int(parts["hms"][place : place + 2]) for place in (0, 2, 4))
        fraction = next((parts[name] for name in ("f3", "f4", "f5") if name in parts), "0")
        if "f5" in parts:
            doubts.append(f"{fraction} behind the time is read as milliseconds")
    elif "h" in parts:
        hour, minute, second = (int(parts[name]) for name in ("h", "mi", "s"))
        fraction = parts.get("f1") or parts.get("f2") or "0"
        if "f2" in parts and parts["c"] != ".":
            doubts.append(f"{fraction} behind the time is read as milliseconds")
    elif "h4" in parts:
        hour, minute, second = int(parts["h4"]), int(parts["m4"]), 0
        if len(parts["h4"]) == 1 and not parts.keys() & {"early", "late"}:
            return None
    elif "short" in parts:
        hour, minute, second = int(parts["short"][:2]), int(parts["short"][2:] or 0), 0
    else:
        hour, minute, second = int(parts["lone"]), 0, 0
    reading = read_clock(hour, minute, second + float(f"0.{fraction}"), parts.get("late") or parts.get("early"))
    if reading is None:
        return None
    zone, last = None, match.end()
    zone_text = next((parts[name] for name in ("z1", "z2", "z3") if name in parts), None)
    if zone_text is not None:
        zone = read_zone(zone_text)
        if zone is None:  # the minus of -2130 parts two times
            last = match.start("z3") if "z3" in parts else last
        elif zone_text.startswith("-") and "hms" in parts and "T" not in parts.get("gap", ""):
            doubts.append(f"{zone_text} behind the time is read as a zone")
    doubts += [reading[1]] if reading[1] else []
    first = match.start("early") if "early" in parts else match.start()
    hour_only = "lone" in parts or len(parts.get("short", parts.get("run", "MMSS"))) == 2
    return Moment(first, last, clock=reading[0], zone=zone, hour_only=hour_only, doubts=tuple(doubts))


def _find_epochs(text: str) -> Iterator[Moment]:
    for match in _EPOCH_NUMBER.finditer(text):
        whole = int(match["seconds"])
        if whole not in _EPOCH:
            continue
        moment = datetime.fromtimestamp(whole, UTC)
        clock = (moment - moment.replace(hour=0, minute=0, second=0)) / timedelta(seconds=1)
        fraction = match["f1"] or match["f3"]
        doubts = () if fraction else (f"{match[0]} is read as seconds since 1970",)
        yield Moment(
            match.start(),
            match.end(),
            (moment.year, moment.month, moment.day),
            clock + float(f"0.{fraction or 0}"),
            0.0,
            epoch=True,
            doubts=doubts,
        )


def _touches(moment: Moment, others: list[Moment]) -> bool:
    return any(moment.first < other.last and other.first < moment.last for other in others)
