"""What the operator says of paths: which part is the camera, which the time.

A pattern such as ``{date}/{hour}/{camera}/{minute}.{second}`` is compared with the end of a path, folder by folder; the
file's own ending is left out. What is not a field must be there as it is written.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from tapetum.core.errors import DataError, RecipeError, nearest_name
from tapetum.footage.moments import HALF_OF_DAY, Moment, is_date, read_clock, read_zone, seconds_of
from tapetum.footage.paths import spell_camera, split_stem

FIELDS = {
    "camera": r"[^/]+?",
    "site": r"[^/]+?",
    "date": r"(?:19|20)\d\d(?P<sign>[-_. ]?)\d\d(?P=sign)\d\d",
    "year": r"(?:19|20)\d\d|\d\d",
    "month": r"1[0-2]|0?[1-9]",
    "day": r"3[01]|[12]\d|0?[1-9]",
    "hour": r"2[0-3]|1\d|0?\d",
    "minute": r"[0-5]\d",
    "second": r"[0-5]\d",
    "millisecond": r"\d{1,3}",
    "ampm": HALF_OF_DAY,
    "zone": r"Z|UTC|GMT|[-+]\d\d(?:[:_-]?\d\d)?",
    "any": r"[^/]*?",
}
_NEEDS = (
    ("millisecond", "second"),
    ("second", "minute"),
    ("minute", "hour"),
    ("ampm", "hour"),
    ("zone", "hour"),
    ("year", "month"),
    ("month", "day"),
    ("day", "year"),
    ("site", "camera"),
)


@dataclass(frozen=True)
class PatternFacts:
    """What a pattern found in a path."""

    camera: str | None  # as it is spelt; None where the pattern has no such field
    time: float | None  # seconds since 1970-01-01 UTC; None where the pattern has no time of day
    # when the day begins that the pattern finds, where it has no time of day; seconds since 1970-01-01 UTC
    day: float | None
    zone_written: bool  # whether it has the zone too
    doubts: tuple[str, ...] = ()  # why the time may be another


class PathPattern:
    """A checked pattern.

    Raises:
        RecipeError: it is no pattern: a field is unknown, there twice, or needs another one.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        place = f"path pattern {text!r}"
        if not text.strip("/"):
            raise RecipeError(f"{place}: is empty; write e.g. '{{date}}/{{hour}}/{{camera}}/{{minute}}.{{second}}'")
        self.fields: list[str] = []
        self._depth = len(text.strip("/").split("/"))
        expression = ""
        for literal, field, stray in re.findall(r"([^{}]+)|\{([^{}]*)\}|([{}])", text.strip("/")):
            if stray:
                raise RecipeError(f"{place}: has a single {stray!r}; fields stand in {{ and }}")
            if literal:
                expression += re.escape(literal)
                continue
            if field not in FIELDS:
                raise RecipeError(f"{place}: field {{{field}}} is unknown; {nearest_name(field, FIELDS)}")
            if field == "any":
                expression += f"(?:{FIELDS[field]})"
                continue
            if field in self.fields:
                raise RecipeError(f"{place}: has {{{field}}} twice; write {{any}} for one of them")
            self.fields.append(field)
            expression += f"(?P<{field}>{FIELDS[field]})"
        self._check(place)
        self._expression = re.compile(expression, re.IGNORECASE)

    def _check(self, place: str) -> None:
        fields = set(self.fields)
        twice = fields & {"year", "month", "day"} if "date" in fields else set()
        if twice:
            raise RecipeError(f"{place}: has {{date}} and {{{min(twice)}}}, which say the same; leave one out")
        for field, companion in _NEEDS:
            if field in fields and companion not in fields:
                raise RecipeError(f"{place}: has {{{field}}} and no {{{companion}}}; add it")
        if "hour" in fields and not fields & {"date", "day"}:
            raise RecipeError(f"{place}: has {{hour}} and no day; add {{date}}, or {{year}}, {{month}} and {{day}}")
        if not fields:
            raise RecipeError(f"{place}: has no field but {{any}}; add e.g. {{camera}} or {{date}}")

    def read(self, path: Path, utc_offset_hours: float = 0.0) -> PatternFacts:
        """What the pattern finds in a path.

        Args:
            utc_offset_hours: of its clock, where the pattern has no zone.
        Raises:
            DataError: the path does not fit, or what stands there is no date or time.
        """
        folder = path.parent.resolve()
        parts = [*folder.parts[1:], split_stem(path.name)][-self._depth :]
        match = self._expression.fullmatch("/".join(parts))
        if match is None:
            raise DataError(f"{path}: does not fit the path pattern {self.text!r}; correct it, or index this one alone")
        values = {name: value for name, value in match.groupdict().items() if name != "sign"}
        camera = values.get("camera")
        if camera is not None:
            camera = "/".join(
                filter(None, (values.get("site"), spell_camera(camera)))
            )  # as it is written, "-" in its name
        moment = self._moment(values, path)
        if moment is None:
            return PatternFacts(camera, None, None, zone_written=False)
        doubts = ("only the hour is written",) if moment.hour_only else ()
        seconds = seconds_of(moment, utc_offset_hours)
        return PatternFacts(
            camera,
            None if moment.clock is None else seconds,
            seconds if moment.clock is None else None,
            zone_written=moment.zone is not None,
            doubts=(*moment.doubts, *doubts),
        )

    def _moment(self, values: dict[str, str], path: Path) -> Moment | None:
        if "date" in values:
            digits = re.sub(r"\D", "", values["date"])
            date = (int(digits[:4]), int(digits[4:6]), int(digits[6:]))
        elif "day" in values:
            year = int(values["year"])
            date = (year + 2000 if year < 100 else year, int(values["month"]), int(values["day"]))
        else:
            return None
        clock, zone = None, None
        if "hour" in values:
            second = int(values.get("second", 0)) + int(values.get("millisecond", 0)) / 1000
            clock = read_clock(int(values["hour"]), int(values.get("minute", 0)), second, values.get("ampm"))
        if "zone" in values:
            zone = read_zone(values["zone"])
        if not is_date(*date) or ("hour" in values and clock is None) or ("zone" in values and zone is None):
            raise DataError(f"{path}: what the path pattern {self.text!r} finds there is no date and time; correct it")
        if clock is None:
            return Moment(0, 0, date, zone=zone)
        return Moment(
            0, 0, date, clock[0], zone, hour_only="minute" not in values, doubts=tuple(filter(None, clock[1:]))
        )


@lru_cache(16)
def compile_pattern(text: str) -> PathPattern:
    """A pattern, checked.

    Raises:
        RecipeError: it is no pattern.
    """
    return PathPattern(text)
