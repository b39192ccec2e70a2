"""Options of methods, augmentations and samplers: name, type, default, allowed values and meaning stand in one line.

A file's ``Options`` is a frozen dataclass whose fields are written with `option`; `read_options` fills it from a recipe
and stops at unknown names, wrong types and values out of range; `describe_options` gives the rows of a table about it.
"""

import contextlib
import dataclasses
import math
import operator
import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from tapetum.core.errors import RecipeError, nearest_name

T = TypeVar("T")
_TEXT, _BOUNDS = "text", "bounds"


# Bounds of a number: how a message calls each, and what holds within.
BOUNDS: dict[str, tuple[str, Callable[[float, float], bool]]] = {
    "least": ("from", operator.ge),
    "above": ("above", operator.gt),
    "most": ("up to", operator.le),
    "below": ("below", operator.lt),
}


def option(
    default: Any,
    text: str,
    *,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
) -> Any:
    """A field of an ``Options`` dataclass, with bounds of its number; of a tuple, for each of its numbers.

    Args:
        default: what holds where a recipe does not name it; a mapping or list is copied for each.
        text: what it does, for people; without a full stop.
    """
    bounds = {"least": least, "above": above, "most": most, "below": below}
    metadata = {_TEXT: text, _BOUNDS: {name: limit for name, limit in bounds.items() if limit is not None}}
    if isinstance(default, dict | list):
        return dataclasses.field(default_factory=default.copy, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def read_options(kind: type[T], values: Mapping[str, Any] | None, *, place: str = "method") -> T:
    """An options dataclass filled from a mapping; what is not named keeps its default.

    Args:
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
    arguments = {name: _checked(value, hints[name], f"{place}.{name}") for name, value in values.items()}
    for name, value in arguments.items():
        _check_bounds(value, fields[name].metadata.get(_BOUNDS, {}), f"{place}.{name}")
    missing = [name for name, field in fields.items() if name not in arguments and _is_required(field)]
    if missing:
        raise RecipeError(f"{place}.{missing[0]} is missing; add it")
    return kind(**arguments)


def describe_options(kind: type[Any]) -> list[tuple[str, str, str, str]]:
    """(name, type and range, default, text) of each option, as a table about them shows it."""
    hints = get_type_hints(kind)
    rows = []
    for field in dataclasses.fields(kind):
        bounds = _spell_bounds(field.metadata.get(_BOUNDS, {}))
        form = spell_type(hints[field.name]) + (f", {bounds}" if bounds else "")
        default = None if field.default is MISSING else field.default
        if field.default_factory is not MISSING:
            default = field.default_factory()
        text = "required" if _is_required(field) else spell_value(default)
        rows.append((field.name, form, text, field.metadata.get(_TEXT, "")))
    return rows


def plain_options(options: Any) -> dict[str, Any]:
    """An options dataclass as the plain values that `read_options` makes it of, every default written out."""
    return {field.name: _as_lists(getattr(options, field.name)) for field in dataclasses.fields(options)}


def spell_type(expected: Any) -> str:
    """A type as a table of options and a message name it."""
    if get_origin(expected) is Literal:
        return " or ".join(map(spell_value, get_args(expected)))
    if expected is types.NoneType:
        return "null"
    if get_origin(expected) in (Union, types.UnionType):
        return " or ".join(map(spell_type, get_args(expected)))
    name = expected.__name__ if isinstance(expected, type) and get_origin(expected) is None else str(expected)
    return name.replace("None", "null").replace("typing.", "").replace("collections.abc.", "")


def spell_value(value: Any) -> str:
    """A value as YAML would have it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(spell_value, value))}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{name}: {spell_value(each)}' for name, each in value.items())}}}"
    return f"{value:.6g}" if isinstance(value, float) else str(value) or '""'


def require(condition: bool, message: str) -> None:
    """Complain unless options go together; the message names the option, its value and the remedy.

    Raises:
        RecipeError: they do not.
    """
    if not condition:
        raise RecipeError(message)


def _as_lists(value: Any) -> Any:
    return [_as_lists(each) for each in value] if isinstance(value, tuple | list) else value


def _is_required(field: "dataclasses.Field[Any]") -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def _checked(value: Any, expected: Any, place: str) -> Any:
    origin, arguments = get_origin(expected), get_args(expected)
    if expected is Any:
        return value
    if origin is Literal:
        if any(value == choice and type(value) is type(choice) for choice in arguments):
            return value
        raise RecipeError(f"{place}: {value!r} is none of {', '.join(map(repr, arguments))}; choose one of them")
    if origin in (Union, types.UnionType):
        for choice in arguments:
            with contextlib.suppress(RecipeError):
                return _checked(value, choice, place)
        raise _wrong(value, expected, place)
    if origin is tuple:
        if isinstance(value, list | tuple) and arguments[1:] == (Ellipsis,):
            arguments = (arguments[0],) * len(value)
        if not isinstance(value, list | tuple) or len(arguments) != len(value):
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


def _check_bounds(value: Any, bounds: Mapping[str, float], place: str) -> None:
    for number in _numbers(value):
        if not all(BOUNDS[name][1](number, limit) for name, limit in bounds.items()):
            raise RecipeError(f"{place}: {number!r} is out of range; use a number {_spell_bounds(bounds)}")


def _spell_bounds(bounds: Mapping[str, float]) -> str:
    return ", ".join(f"{BOUNDS[name][0]} {limit:g}" for name, limit in bounds.items())


def _numbers(value: Any) -> Iterable[float]:
    if isinstance(value, tuple):
        for each in value:
            yield from _numbers(each)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield value


def _wrong(value: Any, expected: Any, place: str) -> RecipeError:
    return RecipeError(f"{place}: {value!r} is of type {type(value).__name__}; expected {spell_type(expected)}")
