"""The tables of a recipe's keys."""

from typing import Annotated

from pydantic import Field

from tapetum.runs.recipe_sections import Section, describe_section, key


class Inner(Section):
    depth: int = key(1, "how deep")


class Example(Section):
    """One key of each form."""

    length: Annotated[int, Field(ge=1)] = key(..., "in epochs")
    share: Annotated[float, Field(gt=0, lt=1)] | None = key(None, "of everything")
    size: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]] = key((2, 3), "in pixels")
    inner: Inner = key(Inner(), "a section within")
    named: dict[str, Inner] = key({}, "sections by name")


def test_a_row_holds_name_type_with_bounds_default_as_in_yaml_and_text() -> None:
    assert describe_section(Example) == [
        ("length", "int, from 1", "required", "in epochs"),
        ("share", "float or null, above 0, below 1", "null", "of everything"),
        ("size", "tuple[int, int], from 1", "[2, 3]", "in pixels"),
        ("inner", "dict", "{}", "a section within"),
        ("named", "dict[str, dict]", "{}", "sections by name"),
    ]
