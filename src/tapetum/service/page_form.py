"""The fields of the page's forms: from text to what the API takes, and back."""

import math
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.datastructures import FormData, QueryParams

from tapetum.footage.clock import format_time
from tapetum.gallery.filters import parse_time
from tapetum.service.errors import ServiceError
from tapetum.service.schemas import RowSelection, SearchOptions

BOX = ("left", "top", "width", "height")
Values = FormData | QueryParams
M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True)
class SearchForm:
    """The fields of the search form as text, so that a page shows again what was asked.

    Attributes:
        cameras: ticked; none means all.
        since, until: of the timeline, UTC, without a zone.
        modality: of the answers; empty for both.
        quality: percent, at least.
        group: what one answer is.
        k: answers.
        exclude: seconds around the query in which its own camera is left out.
        false_alarms: allowed rate.
        prior: percent, the belief before looking that an answer shows the person.
        told: modality of the uploaded pictures; empty lets each picture tell.
        rerank: by their neighbours.
        exact: compare every crop.
    """

    cameras: tuple[str, ...] = ()
    since: str = ""
    until: str = ""
    modality: str = ""
    quality: str = ""
    group: str = "tracklet"
    k: str = "20"
    exclude: str = ""
    false_alarms: str = ""
    prior: str = ""
    told: str = ""
    rerank: bool = False
    exact: bool = False

    @property
    def changed(self) -> bool:
        """Whether a search is asked for in another way than usual."""
        plain = SearchForm(self.cameras, self.since, self.until, self.modality, self.quality)
        return self != plain

    def where(self) -> RowSelection:
        """Which rows are meant.

        Raises:
            ServiceError: a field holds something else.
        """
        return check_fields(
            RowSelection,
            cameras=list(self.cameras),
            since=f"{self.since}Z" if self.since else None,
            until=f"{self.until}Z" if self.until else None,
            modality=self.modality or None,
            min_quality=number_of(self.quality, "quality") / 100 if self.quality else None,
        )

    def options(self) -> dict[str, Any]:
        """How to search, as fields of `SearchOptions`.

        Raises:
            ServiceError: a field holds something else.
        """
        return {
            "where": self.where(),
            "k": self.k or "20",
            "group": self.group,
            "exclude_seconds": self.exclude or None,
            "rerank": self.rerank,
            "exact": True if self.exact else None,
            "false_alarms": self.false_alarms or None,
            "prior": number_of(self.prior, "prior") / 100 if self.prior else None,
        }


def read_asked(values: Values) -> SearchForm:
    """The fields of the search form; unknown ones are passed over.

    Args:
        values: of a form or an address.
    """
    return SearchForm(
        cameras=tuple(value for value in values.getlist("camera") if isinstance(value, str)),
        since=_moment(text_of(values, "since")),
        until=_moment(text_of(values, "until")),
        modality=text_of(values, "modality"),
        quality=text_of(values, "quality"),
        group=text_of(values, "group") or "tracklet",
        k=text_of(values, "k") or "20",
        exclude=text_of(values, "exclude"),
        false_alarms=text_of(values, "false_alarms"),
        prior=text_of(values, "prior"),
        told=text_of(values, "told"),
        rerank=text_of(values, "rerank") == "yes",
        exact=text_of(values, "exact") == "yes",
    )


def asked_before(options: SearchOptions) -> SearchForm:
    """The form of a search that was done.

    Args:
        options: it was done with.
    """

    def moment(value: str | float | None) -> str:
        seconds = parse_time(value) if isinstance(value, str) else value
        try:
            return "" if seconds is None else format_time(seconds).removesuffix("Z")
        except (ValueError, OverflowError):  # in no calendar: it excludes all or nothing
            return ""

    def number(value: float | None) -> str:
        return "" if value is None else f"{value:g}"

    where = options.where
    return SearchForm(
        cameras=tuple(where.cameras),
        since=moment(where.since),
        until=moment(where.until),
        modality=where.modality or "",
        quality=number(None if where.min_quality is None else 100 * where.min_quality),
        group=options.group,
        k=str(options.k),
        exclude=number(options.exclude_seconds),
        false_alarms=number(options.false_alarms),
        prior=number(None if options.prior is None else 100 * options.prior),
        rerank=options.rerank,
        exact=bool(options.exact),
    )


def read_boxes(form: Values, pictures: int) -> list[list[int] | None]:
    """The one box of the form, for a single picture.

    Args:
        form: of the page.
        pictures: sent with it.
    Raises:
        ServiceError: numbers are missing, or there are several pictures.
    """
    texts = [text_of(form, name) for name in BOX]
    if not any(texts):
        return []
    if pictures != 1:
        raise ServiceError(f"box: there are {pictures} pictures; a box goes with a single one")
    if not all(texts):
        raise ServiceError("box: give left, top, width and height, or none of them")
    return [[round(number_of(text, name)) for name, text in zip(BOX, texts, strict=True)]]


def check_fields(made: type[M], /, **values: Any) -> M:
    """What fields say, checked.

    Args:
        made: what they shall be.
        values: of the fields.
    Raises:
        ServiceError: one of them is something else.
    """
    try:
        return made(**values)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ServiceError(f"{place}: {first['msg']}"[:400]) from None


def text_of(values: Values, name: str) -> str:
    """A field as text; empty where it is missing, or is a file.

    Args:
        values: of a form or an address.
        name: of the field.
    """
    value = values.get(name)
    return value.strip() if isinstance(value, str) else ""


def number_of(text: str, name: str) -> float:
    """A field as a number.

    Args:
        text: of the field.
        name: of the field, for the message.
    Raises:
        ServiceError: it is none.
    """
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ServiceError(f"{name}: {text[:40]!r} is no number; write e.g. 30")
    return number


def _moment(text: str) -> str:
    """What a browser's field for times holds, to the second."""
    return f"{text}:00" if len(text) == len("2026-11-21T20:00") else text
