"""Filters: which rows of a gallery are meant, as a small checked tree that each store renders for itself.

    camera in ("c1", "c2") and time >= "2026-11-21T20:00Z" and modality == infrared and not tracklet == "x"

A field that the schema does not have, a comparison that makes no sense or a time without a zone is an error, never an
empty answer. No store ever sees the text.
"""

import math
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from tapetum.core.errors import FilterError, nearest_name
from tapetum.core.types import Modality
from tapetum.gallery.schema import FIELDS

LONGEST_FILTER = 100_000  # characters of text
DEEPEST = 50  # nested brackets and nots
MOST_VALUES = 10_000  # in one list
EQUAL = ("==", "!=")
SIGNS: dict[str, Callable[[NDArray[np.float64], float], NDArray[np.bool_]]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
MODALITIES = {modality.name.lower(): modality for modality in Modality}

Value: TypeAlias = str | float | Modality


@dataclass(frozen=True)
class Compare:
    """One field against one value: ==, !=, and for numbers and times <, <=, >, >=."""

    field: str
    operator: str
    value: Value


@dataclass(frozen=True)
class Among:
    """One field is one of several values."""

    field: str
    values: tuple[Value, ...]


@dataclass(frozen=True)
class And:
    """Every part holds."""

    parts: tuple["Filter", ...]


@dataclass(frozen=True)
class Or:
    """At least one part holds."""

    parts: tuple["Filter", ...]


@dataclass(frozen=True)
class Not:
    """The part does not hold."""

    part: "Filter"


Filter: TypeAlias = Compare | Among | And | Or | Not


@dataclass(frozen=True)
class Coded:
    """A column of text as numbers.

    Attributes:
        codes: (N,) positions in `names`.
        names: each text once.
    """

    codes: NDArray[np.int32]
    names: tuple[str, ...]


def as_filter(source: "str | Filter | None") -> "Filter | None":
    """A checked filter from text or from a tree; None stands for every row.

    Raises:
        FilterError: naming what is wrong and the remedy.
    """
    if source is None:
        return None
    return parse_filter(source) if isinstance(source, str) else check_filter(source)


def check_filter(tree: "Filter", depth: int = 0) -> "Filter":
    """The same filter with every value in its field's own type."""
    if depth > DEEPEST:
        raise FilterError(f"filter: more than {DEEPEST} brackets inside each other; write it flatter")
    match tree:
        case Compare(field, sign, value):
            kind = check_field(field)
            if sign not in SIGNS:
                raise FilterError(f"filter: {field} {sign}: unknown comparison; {nearest_name(sign, SIGNS)}")
            if sign not in EQUAL and kind in ("text", "modality"):
                raise FilterError(f"filter: {field} {sign} ...: {field} has no order; use ==, != or in")
            return Compare(field, sign, check_value(field, value))
        case Among(field, values):
            check_field(field)
            if not 1 <= len(values) <= MOST_VALUES:
                raise FilterError(f"filter: {field} in ({len(values)} values); give 1 to {MOST_VALUES}")
            return Among(field, tuple(check_value(field, value) for value in values))
        case And(parts) | Or(parts):
            if not parts:
                raise FilterError(f"filter: {type(tree).__name__} without parts; give at least one")
            return type(tree)(tuple(check_filter(part, depth + 1) for part in parts))
        case Not(part):
            return Not(check_filter(part, depth + 1))
    raise FilterError(f"filter: {tree!r} is no filter; give text or a tree of Compare, Among, And, Or and Not")


def check_field(field: str) -> str:
    """The kind of a field."""
    if field not in FIELDS:
        raise FilterError(f"filter: unknown field {field!r}; {nearest_name(field, FIELDS)}")
    return FIELDS[field]


def check_value(field: str, value: object) -> Value:
    """A value in its field's own type."""
    kind = FIELDS[field]
    if kind == "text":
        if not isinstance(value, str):
            raise FilterError(f'filter: {field} is text, {value} is not; write {field} == "{value}"')
        if any(ord(letter) < 32 or ord(letter) == 127 or 0xD800 <= ord(letter) < 0xE000 for letter in value):
            raise FilterError(f"filter: {field} {value!r} has control characters, which no row has; remove them")
        return value
    if kind == "modality":
        if isinstance(value, Modality):
            return value
        if not isinstance(value, str) or value.lower() not in MODALITIES:
            raise FilterError(f"filter: unknown modality {value!r}; {nearest_name(str(value).lower(), MODALITIES)}")
        return MODALITIES[value.lower()]
    if kind == "time" and isinstance(value, str):
        return parse_time(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        example = '"2026-11-21T20:00Z"' if kind == "time" else "0.3"
        raise FilterError(f"filter: {field} is a {kind}, {value!r} is not; write e.g. {field} > {example}")
    return float(value)


def parse_time(text: str) -> float:
    """Seconds since 1970-01-01 UTC.

    Args:
        text: ISO 8601 with a zone, e.g. 2026-11-21T20:00Z or 2026-11-21 21:00+01:00.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise FilterError(f"filter: {text!r} is no time; write e.g. 2026-11-21T20:00Z") from None
    if moment.tzinfo is None:
        raise FilterError(f"filter: time {text!r} has no zone; append Z for UTC or an offset such as +01:00")
    return moment.timestamp()


TOKEN = re.compile(
    r"""\s*(?:
    (?P<text>"(?:[^"\\]|\\["'\\])*"|'(?:[^'\\]|\\["'\\])*')
  | (?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)(?![A-Za-z0-9_.])
  | (?P<name>[A-Za-z_][A-Za-z0-9_]*)
  | (?P<sign>==|!=|<=|>=|<|>|\(|\)|,)
  )""",
    re.VERBOSE,
)


def parse_filter(text: str) -> "Filter":
    """A checked filter from its text.

    Comparisons `field == value` (also !=, and <, <=, >, >= for numbers and times) and `field in (value, ...)`, joined
    by `and`, `or`, `not` and brackets; `not in` works too. Text and times stand in quotes, numbers and modalities do
    not.

    Raises:
        FilterError: naming the place, what is wrong and the remedy.
    """
    if len(text) > LONGEST_FILTER:
        raise FilterError(f"filter: {len(text)} characters, at most {LONGEST_FILTER} are read; use a shorter one")
    return check_filter(_Parser(text).parse())


class _Parser:
    """Reads one expression from left to right."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens: list[tuple[str, str, int]] = []
        position, end = 0, len(text.rstrip())
        while position < end:
            match = TOKEN.match(text, position)
            if not match:
                place = position + len(text[position:]) - len(text[position:].lstrip())
                hint = "close the quotes" if text[place] in "\"'" else "use ==, !=, <, <=, >, >=, in, and, or, not"
                raise FilterError(f"filter: cannot read {text[place : place + 20]!r} at character {place + 1}; {hint}")
            self.tokens.append((match.lastgroup or "", match[match.lastgroup or 0], match.start(match.lastgroup or 0)))
            position = match.end()
        self.next = 0

    def parse(self) -> "Filter":
        if not self.tokens:
            raise FilterError('filter: empty; write e.g. camera == "c1", or leave the filter out')
        tree = self.either(0)
        if self.next < len(self.tokens):
            raise self.unexpected("and, or, or the end")
        return tree

    def unexpected(self, expectation: str) -> FilterError:
        if self.next >= len(self.tokens):
            return FilterError(f"filter: ends too early; expected {expectation}")
        _, token, place = self.tokens[self.next]
        return FilterError(f"filter: {token[:40]!r} at character {place + 1}; expected {expectation}")

    def word(self, *words: str) -> str | None:
        """The next token where it is one of these words or signs, taken."""
        if self.next < len(self.tokens):
            kind, token, _ = self.tokens[self.next]
            if kind in ("name", "sign") and token.lower() in words:
                self.next += 1
                return token.lower()
        return None

    def either(self, depth: int) -> "Filter":
        if depth > DEEPEST:
            raise FilterError(f"filter: more than {DEEPEST} brackets inside each other; write it flatter")
        parts = [self.both(depth)]
        while self.word("or"):
            parts.append(self.both(depth))
        return parts[0] if len(parts) == 1 else Or(tuple(parts))

    def both(self, depth: int) -> "Filter":
        parts = [self.single(depth)]
        while self.word("and"):
            parts.append(self.single(depth))
        return parts[0] if len(parts) == 1 else And(tuple(parts))

    def single(self, depth: int) -> "Filter":
        if depth > DEEPEST:
            raise FilterError(f"filter: more than {DEEPEST} nots inside each other; write it flatter")
        if self.word("not"):
            return Not(self.single(depth + 1))
        if self.word("("):
            tree = self.either(depth + 1)
            if not self.word(")"):
                raise self.unexpected("')'")
            return tree
        return self.comparison()

    def comparison(self) -> "Filter":
        if self.next >= len(self.tokens) or self.tokens[self.next][0] != "name":
            raise self.unexpected("a field")
        field = self.tokens[self.next][1]
        check_field(field)
        self.next += 1
        negated = bool(self.word("not"))
        if self.word("in"):
            return self.listing(field, negated)
        sign = None if negated else self.word(*SIGNS)
        if sign is None:
            raise self.unexpected("in" if negated else "==, !=, <, <=, >, >= or in")
        return Compare(field, sign, self.value(field))

    def listing(self, field: str, negated: bool) -> "Filter":
        if not self.word("("):
            raise self.unexpected("'('")
        values = [self.value(field)]
        while self.word(","):
            values.append(self.value(field))
        if not self.word(")"):
            raise self.unexpected("',' or ')'")
        listing = Among(field, tuple(values))
        return Not(listing) if negated else listing

    def value(self, field: str) -> Value:
        if self.next >= len(self.tokens):
            raise self.unexpected("a value")
        kind, token, _ = self.tokens[self.next]
        if kind == "sign":
            raise self.unexpected("a value")
        if kind == "name" and FIELDS[field] != "modality":
            raise FilterError(f'filter: {field} ... {token}: put text in quotes: "{token}"')
        self.next += 1
        if kind == "text":
            return check_value(field, re.sub(r"\\(.)", r"\1", token[1:-1]))
        return check_value(field, float(token) if kind == "number" else token)


def write_filter(tree: "Filter | None") -> str:
    """The text of a filter, as an audit log keeps it; reading it again gives the same filter."""
    match tree:
        case None:
            return ""
        case Compare(field, sign, value):
            return f"{field} {sign} {_write_value(field, value)}"
        case Among(field, values):
            return f"{field} in ({', '.join(_write_value(field, value) for value in values)})"
        case And(parts) | Or(parts):
            joint = f" {type(tree).__name__.lower()} "
            return joint.join(f"({write_filter(p)})" if isinstance(p, And | Or) else write_filter(p) for p in parts)
        case Not(part):
            return f"not ({write_filter(part)})"


def _write_value(field: str, value: Value) -> str:
    if isinstance(value, Modality):
        return value.name.lower()
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    if FIELDS[field] == "time" and value == int(value) and 0 <= value < 2**32:
        return f'"{datetime.fromtimestamp(value, UTC).isoformat()}"'
    return repr(value)


def rows_passing(tree: "Filter", column: Callable[[str], "NDArray[np.float64] | Coded"]) -> NDArray[np.bool_]:
    """Which rows pass, computed in memory.

    Args:
        column: the values of a field, one a row; numbers for numbers, times and modalities, codes for text.
    Returns:
        (N,) bool.
    """
    match tree:
        case Compare(field, sign, value):
            values = column(field)
            if isinstance(values, Coded):
                same = _is_among(values, (value,))
                return same if sign == "==" else ~same
            passing: NDArray[np.bool_] = SIGNS[sign](values, float(value))
            return passing
        case Among(field, wanted):
            values = column(field)
            if isinstance(values, Coded):
                return _is_among(values, wanted)
            return np.isin(values, np.array([float(value) for value in wanted]))
        case And(parts):
            passing = rows_passing(parts[0], column)
            for part in parts[1:]:
                passing = passing & rows_passing(part, column)
            return passing
        case Or(parts):
            passing = rows_passing(parts[0], column)
            for part in parts[1:]:
                passing = passing | rows_passing(part, column)
            return passing
        case Not(part):
            return ~rows_passing(part, column)


def _is_among(column: Coded, values: tuple[Value, ...]) -> NDArray[np.bool_]:
    names = set(values)
    inside = np.array([name in names for name in column.names] or [False])
    codes = np.flatnonzero(inside)
    if len(codes) == 1:  # the usual case, and eight times as fast
        return np.asarray(column.codes == codes[0])
    passing: NDArray[np.bool_] = inside[column.codes]
    return passing
