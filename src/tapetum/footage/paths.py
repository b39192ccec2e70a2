"""What the path of a recording says: camera and time, in the file's name or in the folders above it.

Names are read strictly (see `footage.moments`); what can be read in two ways is said in a doubt. Only the path decides,
never what lies beside it, so that the same recording is told the same whatever else is read with it.
"""

import hashlib
import re
import unicodedata
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal

from tapetum.footage.moments import (
    Moment,
    choose_moment,
    find_clocks,
    find_moments,
    is_date,
    mask_moments,
    read_clock,
    seconds_of,
)

PathOrigin = Literal["name", "folder"]
_LONGEST_CAMERA = 64
_EDGES = "-_. \0"
_CAMERA_WORD = re.compile(
    r"(?:^|(?<=[-_. \0]))((?:camera|cam|channel|ch)[-_ ]?\d+|c\d{1,2})(?![a-rt-z\d])", re.IGNORECASE
)
_IP_ADDRESS = re.compile(r"\d{1,3}(?:\.\d{1,3}){3}(?:\D.*)?")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Say what a file is, not who took it; a folder or name of nothing else is passed over in the search for a camera.
_KINDS_OF_FILE = _words(
    "alarm animal audio avi cam camera cameras capture captures ch channel chunk clip clips continuous copy crop "
    "crops dav day dcim detection dji download dsc emergency event events export face file files footage frame "
    "frames hd hour human image images img index intrusion jpeg jpg linedetection live loop main manual mdalarm mkv "
    "motion mov movie movies mp4 mvi night normal out output parking part people person pic picture pictures pir "
    "playback pxl rec record recorded recording recordings regular schedule scheduled screen screenshot sd segment "
    "snap snapshot snapshots stream sub tamper timed timer timing untitled vehicle vid video videos vmd aufnahme "
    "aufnahmen enregistrement grabacion grabaciones kamera kameras registrazione видео запись камера 录像 视频"
)
_PLACES = _words("data desktop documents downloads home media mnt srv tmp users volumes")
_ZONE_NAMES = _words("aest bst cdt cest cet cst edt eest eet est ist jst mdt mst msk pdt pst west wet")
_HOUR = re.compile(r"(\d{1,2})(?:h|hour|时|時|点|[ _-]?(am|pm))?", re.IGNORECASE)
_LETTER_BEHIND = re.compile(r"(?:^|(?<=[-_. ]))\d*[A-Za-z](?=$|[-_. ])")
# Two numbers, or one, that begin a name, or two that end it: minute and second below an hour, else hour and minute.
_PAIR = r"(?P<a>\d\d)(?:[-_.:hm时分]?(?P<b>\d\d)[ms分秒]?(?:[.,](?P<f>\d{1,6}))?)"
_PART_FIRST = re.compile(rf"{_PAIR}?(?=$|[-_ .\[(])", re.IGNORECASE)
_PART_LAST = re.compile(rf"(?<=[-_ .]){_PAIR}$", re.IGNORECASE)
_SPLIT_DATE = re.compile(r"(?:^|(?<=/))((?:19|20)\d\d)[-_.年]?/?(\d{1,2})[-_.月]?/?(\d{1,2})日?(?=/|$)")


@dataclass(frozen=True)
class PathFacts:
    """What a path says."""

    camera: str  # as it is written; never empty
    camera_origin: PathOrigin  # where it stands
    camera_doubts: tuple[str, ...]  # why it may be another
    # the folder above that names neither camera nor time, with what stands before a camera's number: the same
    # camera at two sites may be two
    site: str
    time: float | None = None  # seconds since 1970-01-01 UTC; None where no time of day is written
    time_origin: PathOrigin | None = None  # where it stands; "folder" where folders say a part of it
    time_doubts: tuple[str, ...] = ()  # why it may be another
    # when the day begins that is written, where no time of day is; seconds since 1970-01-01 UTC
    day: float | None = None
    zone_written: bool = False  # whether the zone is written too
    in_name: bool = False  # whether the file's own name says a part of the time


def read_path(
    path: Path, utc_offset_hours: float = 0.0, *, is_picture: bool = False, is_folder: bool = False
) -> PathFacts:
    """Camera and time as a path says them.

    The camera is the first of: a camera word with a number in the file's name (``cam3``, ``camera_3``, ``ch02``,
    ``c3``); what stands before and behind a time in it; the file's whole name; the nearest folder that is neither a
    date nor an hour nor a word like ``videos``.

    The time is the first of: a date with a time of day in the file's name; a time of day there, or a part of one, with
    the date (and hour) of the folders; a time in a folder.

    Args:
        path: of a file, or of a folder that is read as one.
        utc_offset_hours: of clocks that write no zone.
        is_picture: for pictures of a folder, whose own names are mere numbers or people: only a camera word counts,
            or what stands beside a time.
        is_folder: the path is a folder's.
    """
    folder = path.resolve() if is_folder else path.parent.resolve()
    stem = "" if is_folder else split_stem(path.name)
    above = _read_folders(folder.parts[1:])
    name = _read_stem(stem, above)
    camera, camera_origin, site, camera_doubts = _choose_camera(name, above, is_picture)
    moment = name.moment
    if moment is None:
        return PathFacts(camera, camera_origin, camera_doubts, site)
    seconds, has_clock = seconds_of(moment, utc_offset_hours), moment.clock is not None
    doubts = (*moment.doubts, "only the hour is written") if moment.hour_only else moment.doubts
    return PathFacts(
        camera,
        camera_origin,
        camera_doubts,
        site,
        time=seconds if has_clock else None,
        time_origin=name.origin,
        time_doubts=doubts,
        day=None if has_clock else seconds,
        zone_written=moment.zone is not None,
        in_name="\0" in name.masked,
    )


def clean_camera(name: str) -> str:
    """A name of letters, digits, '.', '_' and '-' alone, for whatever is written.

    A name of ASCII letters and signs keeps its form, spaces and other signs become '-'. One in another script, or a
    longer one than 64, gets eight hexadecimal digits of its own behind what is left of it.
    """
    composed = unicodedata.normalize("NFC", name)
    plain = unicodedata.normalize("NFKD", composed).encode("ascii", "ignore").decode()
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", plain).strip("-.")
    if safe and composed.isascii() and len(safe) <= _LONGEST_CAMERA:
        return safe
    if not composed.strip("-. "):
        return "camera"
    digits = hashlib.sha256(composed.encode("utf-8", "surrogateescape")).hexdigest()[:8]
    return f"{safe[: _LONGEST_CAMERA - 9].strip('-.') or 'camera'}-{digits}"


def spell_camera(name: str) -> str:
    """A camera's name without what differs from file to file: ``Camera 3``, ``camera_3`` and ``camera3`` are one."""
    word = _CAMERA_WORD.fullmatch(name)
    return re.sub(r"[-_ ]", "", name).lower() if word else name


def name_folder(name: str) -> str:
    """What pictures of several cameras in one folder are called together."""
    word = _CAMERA_WORD.search(name)
    return clean_camera(spell_camera(word[1]) if word else name)


@dataclass(frozen=True)
class _Folder:
    """A folder's name: what it says of time, and what is left of it."""

    name: str
    has_date: bool
    rest: str  # without times; empty where nothing else is there


@dataclass(frozen=True)
class _Above:
    """The folders above a file, the nearest first."""

    folders: tuple[_Folder, ...]
    date: Moment | None  # the nearest
    numbers: tuple[str, ...]  # folders below it that may be hour and minute, the highest first


@dataclass(frozen=True)
class _Stem:
    """A file's name, and the time that it says alone or with the folders."""

    text: str
    masked: str  # without times
    moment: Moment | None = None
    origin: PathOrigin | None = None
    used: int = 0  # of the folders that may be hour and minute, how many are


@dataclass(frozen=True)
class _Camera:
    """What a folder's name says of a camera."""

    name: str
    before: str = ""  # in front of its number
    doubts: tuple[str, ...] = ()


def split_stem(name: str) -> str:
    """A file's name without its ending; ``21.00.00`` has none."""
    suffix = Path(name).suffix
    return name[: -len(suffix)] if re.fullmatch(r"\.[A-Za-z0-9]*[A-Za-z][A-Za-z0-9]*", suffix) else name


@lru_cache(4096)
def _read_folders(parts: tuple[str, ...]) -> _Above:
    split, split_date = _find_split_date(parts)
    folders: list[_Folder] = []
    date, numbers = None, list[str]()
    for depth in range(len(parts) - 1, -1, -1):
        part = parts[depth]
        if depth in split:
            date = date or split_date
            folders.append(_Folder(part, has_date=True, rest=""))
            continue
        moments = _find_day_and_hour(part) or find_moments(part)
        moment, rest = choose_moment(moments), _rest(mask_moments(part, moments))
        folders.append(_Folder(part, moment is not None, rest))
        if date is None and moment is not None:
            date = moment
            if rest:
                date = replace(date, doubts=(*date.doubts, f"the date is that of the folder {part}"))
        elif date is None and _HOUR.fullmatch(part):
            numbers.insert(0, part)
    return _Above(tuple(folders), date, tuple(numbers) if date else ())


def _find_split_date(parts: tuple[str, ...]) -> tuple[range, Moment | None]:
    """Which folders are a date together, one each for year, month and day or two of them in one; and that date."""
    text = "/".join(parts)
    best: tuple[range, Moment | None] = range(0), None
    for match in _SPLIT_DATE.finditer(text):
        date = (int(match[1]), int(match[2]), int(match[3]))
        if "/" in match[0] and is_date(*date):
            first = text[: match.start()].count("/")
            best = range(first, first + match[0].count("/") + 1), Moment(0, 0, date)
    return best


def _find_day_and_hour(part: str) -> list[Moment]:
    """A folder of an hour: its date, and the hour behind it."""
    match = re.fullmatch(r"((?:19|20)\d\d)([-_.]?)(\d\d)\2(\d\d)[-_T ](\d\d)", part)
    date = None if match is None else (int(match[1]), int(match[3]), int(match[4]))
    if match is None or date is None or not is_date(*date) or int(match[5]) > 23:
        return []
    return [Moment(0, len(part), date, 3600.0 * int(match[5]), hour_only=True)]


def _read_stem(stem: str, above: _Above) -> _Stem:
    moments = find_moments(stem)
    own = choose_moment(moments)
    clocks = find_clocks(stem, moments) if own is not None or above.date is not None else []
    masked = mask_moments(stem, [*moments, *clocks])
    if own is not None:
        whole = _join(own, clocks[0], stem) if own.clock is None and clocks else own
        return _Stem(stem, masked, _compare(whole, above), "name", _count_used(whole, above))
    if above.date is None:
        return _Stem(stem, masked)
    if clocks:
        moment = _join(above.date, clocks[0], stem)
        return _Stem(stem, masked, moment, "folder", _count_used(moment, above))
    if above.date.clock is not None and not above.date.hour_only:
        doubts = (*above.date.doubts, "the time is that of a folder") if stem else above.date.doubts
        return _Stem(stem, masked, replace(above.date, doubts=doubts), "folder")
    return _read_parts(stem, above.date, above.numbers)


def _read_parts(stem: str, date: Moment, numbers: tuple[str, ...]) -> _Stem:
    """The time of a file whose folders say the day, and perhaps the hour, and its name what is missing."""
    part = _PART_FIRST.match(stem) or _PART_LAST.search(stem)
    first, second = (0, None) if part is None else (int(part["a"]), part["b"])
    fraction = float(f"0.{(part and part['f']) or 0}")
    doubts = date.doubts
    clock: float | None = None
    hour = date.clock if date.hour_only else _hour_of(numbers)
    used = 0 if date.hour_only else min(1, len(numbers))
    if hour is None and part is not None:
        reading = read_clock(first, int(second or 0), 0)
        clock = None if reading is None else reading[0]
        doubts = (*doubts, f"{part[0]} is read as {'hour and minute' if second else 'the hour'}")
    elif (
        hour is not None
        and part is not None
        and not second
        and _hour_of(numbers[:-1]) is not None
        and not date.hour_only
    ):
        reading = read_clock(0, int(re.sub(r"\D", "", numbers[-1])), first)
        clock = None if reading is None else (_hour_of(numbers[:-1]) or 0.0) + reading[0]
        doubts = (*doubts, f"{numbers[-2]}/{numbers[-1]}/{part[0]} is read as hour, minute, second")
        used = 2
    elif hour is not None and part is not None:
        reading = read_clock(0, first, int(second or 0) + fraction)
        clock = None if reading is None else hour + reading[0]
    if clock is not None and part is not None:
        masked = stem[: part.start()] + "\0" * (part.end() - part.start()) + stem[part.end() :]
        return _Stem(stem, masked, replace(date, clock=clock, hour_only=False, doubts=doubts), "folder", used)
    return _Stem(stem, stem, replace(date, clock=hour, hour_only=hour is not None), "folder", used)


def _hour_of(numbers: tuple[str, ...]) -> float | None:
    """Seconds since midnight that the last of some folders says."""
    hour = _HOUR.fullmatch(numbers[-1]) if numbers else None
    reading = None if hour is None else read_clock(int(hour[1]), 0, 0, hour[2])
    return None if reading is None else reading[0]


def _count_used(moment: Moment, above: _Above) -> int:
    """How many of the last folders that are numbers repeat hour and minute of a time, and name no camera."""
    if moment.clock is None:
        return 0
    whole = int(moment.clock)
    for used, expected in ((2, whole // 60 * 60), (1, whole // 3600 * 3600)):
        if len(above.numbers) < used:
            continue
        hour = _hour_of(above.numbers[: len(above.numbers) - used + 1])
        minute = int(re.sub(r"\D", "", above.numbers[-1])) if used == 2 else 0
        if hour is not None and hour + 60 * minute == expected:
            return used
    return 0


def _join(day: Moment, clock: Moment, text: str) -> Moment:
    digits = text[clock.first : clock.last]
    doubts = (*day.doubts, *clock.doubts)
    if re.fullmatch(r"0\d{5}", digits):  # or the number of a file
        doubts = (*doubts, f"{digits} is read as a time of day")
    zone = clock.zone if clock.zone is not None else day.zone
    return replace(day, clock=clock.clock, zone=zone, hour_only=False, doubts=doubts)


def _compare(own: Moment, above: _Above) -> Moment:
    """With a doubt where the folder of a day is days away from the file's own date."""
    day_folder = next((folder for folder in above.folders if folder.has_date), None)
    if day_folder is None or day_folder.rest or above.date is None or own.epoch:
        return own
    apart = seconds_of(replace(own, clock=0.0, zone=0.0)) - seconds_of(replace(above.date, clock=0.0, zone=0.0))
    if abs(apart) <= 86400:  # over midnight, or between zones
        return own
    return replace(own, doubts=(*own.doubts, f"the folder {day_folder.name} says another day"))


def _choose_camera(name: _Stem, above: _Above, is_picture: bool) -> tuple[str, PathOrigin, str, tuple[str, ...]]:
    """The camera's name as written, where it stands, its site, and doubts."""
    folders = _cameras_above(above, above.numbers[: len(above.numbers) - name.used])
    word = _CAMERA_WORD.search(name.masked)
    if word:
        return spell_camera(word[1]), "name", _site(folders, _rest(name.masked[: word.start()])), ()
    has_time = "\0" in name.masked
    in_name = _camera_in_name(name, is_picture) if has_time or not is_picture else None
    if in_name is not None and in_name.name:
        return in_name.name, "name", _site(folders, ""), in_name.doubts
    left_open = () if in_name is None else in_name.doubts
    if not folders:
        nearest = next((folder.rest for folder in above.folders if folder.rest), "camera")
        return nearest, "folder", "", ("camera guessed: no name and no folder says one", *left_open)
    camera, further = folders[0], folders[1:]
    number = name.text.strip(_EDGES)
    if not is_picture and not has_time and re.fullmatch(r"\d{1,3}", number) and not _CAMERA_WORD.search(camera.name):
        doubts = (f"camera guessed: {number} is taken for its number",)
        return f"{camera.name}-{number}", "name", _site(further, ""), doubts
    return camera.name, "folder", _site(further, camera.before), (*camera.doubts, *left_open)


def _camera_in_name(name: _Stem, is_picture: bool) -> _Camera | None:
    """What stands before and behind the times of a name, perhaps nothing; None where a name without times is none."""
    before, *rest = (part.strip(_EDGES + "@,") for part in re.split(r"\0+", name.masked))
    if not rest:
        return _Camera(before, doubts=("camera guessed: the file's whole name",)) if _names_something(before) else None
    behind = [words for words in map(_words_behind, rest) if words]
    left_out = [letter for part in rest for letter in _LETTER_BEHIND.findall(part)]
    zones = [word for part in rest for word in re.findall(r"[^\W\d_]+", part) if word.lower() in _ZONE_NAMES]
    doubts = [f"zone {zone} is not read; --utc-offset says it" for zone in zones]
    doubts += [f"{letter} behind the time is left out; it may name a camera" for letter in left_out]
    if re.fullmatch(r"\d{1,3}", before) and not is_picture and not behind:
        return _Camera(before, doubts=(f"camera guessed: {before} is taken for its number", *doubts))
    if not (_names_something(before) or _IP_ADDRESS.fullmatch(before)) or re.fullmatch(
        r"\d+m\d+s", before, re.IGNORECASE
    ):
        before = ""
    if before and name.moment is not None and name.moment.epoch:
        behind = []  # the number of an event
    if before and behind:
        doubts.append(f"camera guessed: {before} and {' '.join(behind)} stand around the time")
    return _Camera("-".join(filter(None, (before, *behind))), doubts=tuple(doubts))


def _words_behind(part: str) -> str:
    """The words behind a time that may name a camera: no numbers, no kinds of files, no marks."""
    words = [word for word in re.split(r"[\W_]+", part) if word]
    kept = [
        word
        for word in words
        if re.fullmatch(r"(?:[^\W\d_]{2,}|[^\x00-\x7f\W])\d{0,2}", word)
        and word.lower().rstrip("0123456789") not in _KINDS_OF_FILE | _ZONE_NAMES
    ]
    return part if kept and len(kept) == len(words) else "_".join(kept)


def _names_something(text: str) -> bool:
    """Whether a text has more than numbers and words that say what a file is."""
    words = [word for word in re.split(r"[\W\d_]+", text) if word]
    if words:
        return any(word.lower() not in _KINDS_OF_FILE for word in words)
    return any(not sign.isascii() and not sign.isalnum() and not sign.isspace() for sign in text)  # of signs alone


def _cameras_above(above: _Above, unused: tuple[str, ...]) -> list[_Camera]:
    """Folders that may name a camera, the nearest first."""
    cameras: list[_Camera] = []
    below_date = above.date is not None
    for folder in above.folders:
        word = _CAMERA_WORD.search(folder.rest)
        below_date &= not folder.has_date
        if word:
            cameras.append(_Camera(spell_camera(word[1]), _rest(folder.rest[: word.start()])))
        elif below_date and folder.name in above.numbers and folder.name not in unused:
            continue
        elif folder.rest.isdecimal():
            if len(folder.rest) <= 3:
                cameras.append(_Camera(folder.rest, doubts=(f"camera guessed: {folder.rest} is taken for its number",)))
        elif _names_something(folder.rest) and folder.rest.lower() not in _PLACES and not _HOUR.fullmatch(folder.rest):
            cameras.append(_Camera(folder.rest))
    return cameras


def _site(folders: list[_Camera], before: str) -> str:
    nearest = next((folder.name for folder in folders if not folder.name.isdecimal()), "")
    return "/".join(filter(None, (nearest, before)))


def _rest(masked: str) -> str:
    return re.sub(r"\0+", " ", masked).strip(_EDGES)
