"""The text of a recipe: YAML without code, as plain values."""

import copy
import re
from functools import lru_cache
from typing import Any, cast

import yaml

from tapetum.core.errors import RecipeError


class _Loader(yaml.SafeLoader):
    """YAML without code, in which 1e-4 is a number and a repeated key is an error.

    Not libyaml's, though it is faster: text that is nested deeply ends the process there.
    """


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+0123456789.")
)


def _construct_mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    keys = [key.value for key, _ in node.value]
    twice = sorted({str(key) for key in keys if keys.count(key) > 1})
    if twice:
        mark = node.start_mark
        raise yaml.constructor.ConstructorError(None, None, f"{twice[0]} is written twice", mark)
    return cast(dict[Any, Any], yaml.SafeLoader.construct_mapping(loader, node, deep=True))


_Loader.add_constructor("tag:yaml.org,2002:map", _construct_mapping)


def parse_yaml(text: str, place: str) -> Any:
    """Plain values from YAML text.

    Args:
        place: how error messages call the source.
    """
    return copy.deepcopy(_parse_yaml(text, place))


@lru_cache(1024)  # a table reads the same recipes over and over, 40 ms each; changes of theirs count too
def _parse_yaml(text: str, place: str) -> Any:
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506  # derives from SafeLoader: runs no code
    except RecursionError:
        raise RecipeError(f"recipe {place}: is nested too deeply to be a recipe; correct the YAML") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}" if mark else ""
        problem = str(getattr(error, "problem", None) or error).splitlines()[0]
        raise RecipeError(f"recipe {place}{line}: {problem}; correct the YAML") from None
