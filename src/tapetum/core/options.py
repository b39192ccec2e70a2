"""Options of methods, augmentations and samplers: name, type, default, allowed values and meaning stand in one line.

A file's ``Options`` is a frozen dataclass whose fields are written with `option`; `read_options` fills it from a recipe
and stops at unknown names, wrong types and values out of range; `describe_options` gives the rows of a table about it.
"""

import dataclasses
import math
import types
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from tapetum.core.errors import RecipeError, nearest_name

T = TypeVar("T")
_TEXT, _BOUNDS = "text", "bounds"


@dataclass(frozen=True)
class Bounds:
    """Which numbers an option takes; None does not bound.

    Attributes:
        least: the smallest.
        most: the largest.
        above: all are larger.
        below: all are smaller.
    """

    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None

    def hold(self, value: float) -> bool:
        """Whether a number is within.

        Args:
            value: the number.
        """
        return (
            (self.least is None or value >= self.least)
            and (self.most is None or value <= self.most)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        told = [
            f"{word} {limit:g}"
            for word, limit in (
                ("from", self.least),
                ("above", self.above),
                ("up to", self.most),
                ("below", self.below),
            )
            if limit is not None
        ]
        return ", ".join(told)


def option(
    default: Any,
    text: str,
    *,
    least: float | None = None,
    most: float | None = None,
    above: float | None = None,
    below: float | None = None,
) -> Any:
    """A field of an ``Options`` dataclass.

    Args:
        default: what holds where a recipe does not name it; a mapping or list is copied for each.
        text: what it does, for people; without a full stop.
        least: the smallest number allowed; of a tuple, of each of its numbers.
        most: the largest.
        above: all numbers must be larger.
        below: all numbers must be smaller.
    """
    metadata = {_TEXT: text, _BOUNDS: Bounds(least, most, above, below)}
    if isinstance(default, dict | list):
        return dataclasses.field(default_factory=default.copy, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def read_options(kind: type[T], values: Mapping[str, Any] | None, *, place: str = "method") -> T:
    """An options dataclass filled from a mapping; what is not named keeps its default.

    Args:
        kind: the frozen dataclass.
        values: as read from a recipe; None is empty.
        place: where the mapping stands, for messages.
    Raises:
        RecipeError: a name is unknown, or a value is not of its option's type or out of its range. Nothing is
            converted but an integer for a float and a list for a tuple.
    """
    if values is None:
        values = {}
    if not isinstance(values, Mapping):
        raise RecipeError(f"{place}: {values!r} is no mapping of options; write name: value lines")
    hints = get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for name in values:
        if name not in fields:
            raise RecipeError(f"{place}.{name} is unknown; {nearest_name(str(name), fields)}")
    checked = {name: _checked(value, hints[name], f"{place}.{name}") for name, value in values.items()}
    for name, value in checked.items():
        _check_bounds(value, fields[name].metadata.get(_BOUNDS, Bounds()), f"{place}.{name}")
    missing = [name for name, field in fields.items() if name not in checked and _is_required(field)]
    if missing:
        raise RecipeError(f"{place}.{missing[0]} is missing; add it")
    return kind(**checked)


def describe_options(kind: type[Any]) -> list[tuple[str, str, str, str]]:
    """(name, type and range, default, text) of each option, as a table about them shows it.

    Args:
        kind: the options dataclass.
    """
    hints = get_type_hints(kind)
    rows = []
    for field in dataclasses.fields(kind):
        bounds = str(field.metadata.get(_BOUNDS, Bounds()))
        allowed = _spell(hints[field.name]) + (f", {bounds}" if bounds else "")
        default = field.default if field.default is not MISSING else None
        if field.default_factory is not MISSING:
            default = field.default_factory()
        rows.append((field.name, allowed, "required" if _is_required(field) else _plain(default), _text(field)))
    return rows


def plain_options(options: Any) -> dict[str, Any]:
    """An options dataclass as the plain values that `read_options` makes it of, every default written out.

    Args:
        options: the filled dataclass.
    """
    return {field.name: _as_lists(getattr(options, field.name)) for field in dataclasses.fields(options)}


def require(condition: bool, message: str) -> None:
    """Complain unless options go together.

    Args:
        condition: what must hold.
        message: naming the option, its value and the remedy.
    Raises:
        RecipeError: it does not hold.
    """
    if not condition:
        raise RecipeError(message)


def _as_lists(value: Any) -> Any:
    return [_as_lists(each) for each in value] if isinstance(value, tuple | list) else value


def _text(field: "dataclasses.Field[Any]") -> str:
    return str(field.metadata.get(_TEXT, ""))


def _is_required(field: "dataclasses.Field[Any]") -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def _plain(value: Any) -> str:
    """As YAML would have it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_plain, value))}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{name}: {_plain(each)}' for name, each in value.items())}}}"
    return f"{value:.6g}" if isinstance(value, float) else str(value) or '""'


def _checked(value: Any, expected: Any, place: str) -> Any:
    origin, arguments = get_origin(expected), get_args(expected)
    if expected is Any:
        return value
    if origin is Literal:
        if any(value == choice and type(value) is type(choice) for choice in arguments):
            return value
        raise RecipeError(f"{place}: {value!r} is none of {', '.join(map(repr, arguments))}; choose one of them")
    if origin in (Union, types.UnionType):
        return _checked_against_any(value, expected, arguments, place)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise _wrong(value, expected, place)
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            arguments = (arguments[0],) * len(value)
        if len(arguments) != len(value):
            raise _wrong(value, expected, place)
        return tuple(
            _checked(item, kind, f"{place}[{i}]") for i, (item, kind) in enumerate(zip(value, arguments, strict=True))
        )
    if expected is float and isinstance(value, int | float) and not isinstance(value, bool):
        if not math.isfinite(value):
            raise RecipeError(f"{place}: {value!r} is no finite number; write one")
        return float(value)
    kind = Mapping if origin is not None and issubclass(origin, Mapping) else expected
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise _wrong(value, expected, place)
    return value


def _checked_against_any(value: Any, expected: Any, choices: Sequence[Any], place: str) -> Any:
    for choice in choices:
        try:
            return _checked(value, choice, place)
        except RecipeError:
            continue
    raise _wrong(value, expected, place)


def _check_bounds(value: Any, bounds: Bounds, place: str) -> None:
    for number in _numbers(value):
        if not bounds.hold(number):
            raise RecipeError(f"{place}: {number!r} is out of range; use a number {bounds}")


def _numbers(value: Any) -> Iterable[float]:
    if isinstance(value, tuple):
        for each in value:
            yield from _numbers(each)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield value


def _wrong(value: Any, expected: Any, place: str) -> RecipeError:
    return RecipeError(f"{place}: {value!r} is of type {type(value).__name__}; expected {_spell(expected)}")


def _spell(expected: Any) -> str:
    if get_origin(expected) is Literal:
        return " or ".join(map(_plain, get_args(expected)))
    if expected is types.NoneType:
        return "null"
    if get_origin(expected) in (Union, types.UnionType):
        return " or ".join(map(_spell, get_args(expected)))
    name = expected.__name__ if isinstance(expected, type) and get_origin(expected) is None else str(expected)
    return name.replace("None", "null").replace("typing.", "").replace("collections.abc.", "")
