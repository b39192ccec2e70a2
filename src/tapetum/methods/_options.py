"""From what a recipe says to a method's typed options: unknown names and wrong types stop here."""

import dataclasses
import math
import types
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from tapetum.core.errors import RecipeError, nearest_name

T = TypeVar("T")


def read_options(kind: type[T], values: Mapping[str, Any] | None, *, place: str = "method") -> T:
    """An options dataclass filled from a mapping; what is not named keeps its default.

    Args:
        kind: the frozen dataclass.
        values: as read from a recipe; None is empty.
        place: where the mapping stands, for messages.
    Raises:
        RecipeError: a name is unknown, or a value is not of its option's type. Nothing is converted but an integer for
            a float and a list for a tuple.
    """
    if values is None:
        values = {}
    if not isinstance(values, Mapping):
        raise RecipeError(f"{place}: {values!r} is no mapping of options; write name: value lines")
    hints = get_type_hints(kind)
    names = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
    for name in values:
        if name not in names:
            raise RecipeError(f"{place}.{name} is unknown; {nearest_name(str(name), names)}")
    checked = {name: _checked(value, hints[name], f"{place}.{name}") for name, value in values.items()}
    return kind(**checked)


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
            try:
                return _checked(value, choice, place)
            except RecipeError:
                continue
        raise _wrong(value, expected, place)
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


def _wrong(value: Any, expected: Any, place: str) -> RecipeError:
    name = expected.__name__ if isinstance(expected, type) and get_origin(expected) is None else str(expected)
    name = "null" if expected is types.NoneType else name.replace("None", "null").replace("typing.", "")
    return RecipeError(f"{place}: {value!r} is of type {type(value).__name__}; expected {name}")


def require(condition: bool, message: str) -> None:
    """Complain unless the options make sense.

    Args:
        condition: what must hold.
        message: naming the option, its value and the remedy.
    Raises:
        RecipeError: it does not hold.
    """
    if not condition:
        raise RecipeError(message)
