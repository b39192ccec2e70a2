"""The fields of the page's forms: from text to what the API takes, and back."""

import math
from typing import Any

from starlette.datastructures import FormData, QueryParams

from tapetum.footage.clock import format_time
from tapetum.gallery.filters import parse_time
from tapetum.searching.question import RowSelection, check_fields
from tapetum.service.errors import ServiceError
from tapetum.service.schemas import SearchOptions

BOX = ("left", "top", "width", "height")
WHERE = dict.fromkeys(("since", "until", "modality", "quality"), "")  # UTC without a zone; percent
HOW = dict.fromkeys(("exclude", "false_alarms", "prior", "told", "rank", "rerank", "exact"), "") | {
    "group": "tracklet",
    "k": "20",
}
Values = FormData | QueryParams
SearchForm = dict[str, Any]  # text of each field, so that a page shows again what was asked, and ticked cameras


def read_search_form(values: Values | None = None) -> SearchForm:
    """The fields of the search form; unknown ones are passed over, missing ones are as in an untouched form."""
    values = QueryParams() if values is None else values
    form: SearchForm = {name: text_of(values, name) or plain for name, plain in (WHERE | HOW).items()}
    for name in ("since", "until"):
        if len(form[name]) == len("2026-11-21T20:00"):  # a browser leaves out seconds that are 0
            form[name] += ":00"
    return form | {"camera": [value for value in values.getlist("camera") if isinstance(value, str)]}


def is_changed(form: SearchForm) -> bool:
    """Whether a search is asked for in another way than usual."""
    return any(form[name] != plain for name, plain in HOW.items())


def selected_rows(form: SearchForm) -> RowSelection:
    """Which rows are meant.

    Raises:
        TapetumError: a field holds something else.
    """
    return check_fields(
        RowSelection,
        {
            "cameras": form["camera"],
            "since": f"{form['since']}Z" if form["since"] else None,
            "until": f"{form['until']}Z" if form["until"] else None,
            "modality": form["modality"] or None,
            "min_quality": number_of(form["quality"], "quality") / 100 if form["quality"] else None,
        },
    )


def search_options(form: SearchForm) -> dict[str, Any]:
    """How to search, as fields of `SearchOptions` that are not checked yet.

    Raises:
        TapetumError: a field of the rows holds something else.
    """
    return {
        "where": selected_rows(form),
        "k": form["k"],
        "group": form["group"],
        "exclude_seconds": form["exclude"] or None,
        "rank": form["rank"] or "similarity",
        "rerank": form["rerank"] == "yes",
        "exact": True if form["exact"] == "yes" else None,
        "false_alarms": form["false_alarms"] or None,
        "prior": number_of(form["prior"], "prior") / 100 if form["prior"] else None,
    }


def form_of(options: SearchOptions) -> SearchForm:
    """The form of a search that was done."""

    def moment(value: str | float | None) -> str:
        seconds = parse_time(value) if isinstance(value, str) else value
        try:
            return "" if seconds is None else format_time(seconds).removesuffix("Z")
        except (ValueError, OverflowError):  # in no calendar: it excludes all or nothing
            return ""

    def number(value: float | None, factor: float = 1) -> str:
        return "" if value is None else f"{factor * value:g}"

    where = options.where
    return {
        "camera": where.cameras,
        "since": moment(where.since),
        "until": moment(where.until),
        "modality": where.modality or "",
        "quality": number(where.min_quality, 100),
        "group": options.group,
        "k": str(options.k),
        "exclude": number(options.exclude_seconds),
        "false_alarms": number(options.false_alarms),
        "prior": number(options.prior, 100),
        "told": "",
        "rank": options.rank if options.rank != "similarity" else "",
        "rerank": "yes" if options.rerank else "",
        "exact": "yes" if options.exact else "",
    }


def read_boxes(form: Values, pictures: int) -> list[list[int] | None]:
    """The one box of the form, for a single picture.

    Args:
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


def text_of(values: Values, name: str) -> str:
    """A field as text; empty where it is missing, or is a file."""
    value = values.get(name)
    return value.strip() if isinstance(value, str) else ""


def number_of(text: str, name: str) -> float:
    """A field as a number.

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
