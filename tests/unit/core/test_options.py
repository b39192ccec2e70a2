from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from tapetum.core.errors import RecipeError
from tapetum.core.options import read_options
from tapetum.methods import build_method, build_options, method_options


@dataclass(frozen=True)
class Options:
    width: int = 512
    rate: float = 0.5
    name: str = "a"
    flag: bool = False
    kind: Literal["code", "paper"] = "code"
    power: Literal[1, 2] = 2
    limit: float | None = None
    size: tuple[int, int] = (256, 128)
    steps: tuple[int, ...] = ()
    inner: Mapping[str, Any] = field(default_factory=dict)
    anything: Any = None


def test_what_is_not_named_keeps_its_default():
    assert read_options(Options, None) == Options()
    assert read_options(Options, {"width": 4}) == Options(width=4)


def test_an_integer_becomes_a_float_and_a_list_a_tuple_and_nothing_else_is_converted():
    options = read_options(
        Options, {"rate": 1, "limit": 2, "size": [4, 2], "steps": [1, 2, 3], "inner": {"a": [1]}, "anything": "x"}
    )
    assert options == Options(rate=1.0, limit=2.0, size=(4, 2), steps=(1, 2, 3), inner={"a": [1]}, anything="x")
    assert isinstance(options.rate, float)


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("width", "512", "method.width: '512' is of type str; expected int"),
        ("width", 5.0, "method.width: 5.0 is of type float; expected int"),
        ("width", True, "method.width: True is of type bool; expected int"),
        ("width", None, "method.width: None is of type NoneType; expected int"),
        ("rate", "high", "method.rate: 'high' is of type str; expected float"),
        ("rate", False, "method.rate: False is of type bool; expected float"),
        ("rate", float("nan"), "method.rate: nan is no finite number; write one"),
        ("name", 3, "method.name: 3 is of type int; expected str"),
        ("flag", 1, "method.flag: 1 is of type int; expected bool"),
        ("flag", "yes", "method.flag: 'yes' is of type str; expected bool"),
        ("kind", "papers", "method.kind: 'papers' is none of 'code', 'paper'; choose one of them"),
        ("power", "2", "method.power: '2' is none of 1, 2; choose one of them"),
        ("power", True, "method.power: True is none of 1, 2; choose one of them"),
        ("limit", "none", "method.limit: 'none' is of type str; expected float or null"),
        ("size", [1, 2, 3], r"method.size: [1, 2, 3] is of type list; expected tuple[int, int]"),
        ("size", [1, "2"], "method.size[1]: '2' is of type str; expected int"),
        ("size", 3, "method.size: 3 is of type int; expected tuple[int, int]"),
        ("inner", [1], "method.inner: [1] is of type list; expected"),
    ],
)
def test_a_wrong_type_is_told_with_option_value_and_expected_type(name, value, complaint):
    with pytest.raises(RecipeError) as error:
        read_options(Options, {name: value})
    assert str(error.value).startswith(complaint)


def test_an_unknown_name_is_told_with_the_nearest_one():
    with pytest.raises(RecipeError, match=r"^method\.widht is unknown; did you mean width\?$"):
        read_options(Options, {"widht": 4})


def test_something_else_than_a_mapping_is_refused():
    with pytest.raises(RecipeError, match="is no mapping of options"):
        read_options(Options, [1])  # type: ignore[arg-type]


def test_an_unknown_method_is_told_with_the_nearest_one():
    with pytest.raises(RecipeError, match=r"method 'idff' is unknown; did you mean idf\?"):
        method_options("idff")


def test_a_strangers_method_is_found_by_its_dotted_name(stranger):
    assert build_method(stranger, {"width": 8}, 4).reduce.out_features == 8
    with pytest.raises(RecipeError, match="package nobody is not installed"):
        method_options("nobody.method")


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        ("ide", "width", 0),
        ("ide", "dropout", 1.0),
        ("ide", "label_smoothing", -0.1),
        ("ide", "input_scale", 0.0),
        ("bnneck", "label_smoothing", 1.0),
        ("bnneck", "input_scale", -1.0),
        ("idf", "input_scale", 0.0),
        ("idf", "curve_scale", 1.5),
        ("idf", "curve_width", 0),
        ("idf", "fusion_width", 0),
        ("idf", "distillation_temperature", 0.0),
    ],
)
def test_a_value_that_cannot_work_is_refused_with_its_option(name, option, value):
    with pytest.raises(RecipeError, match=rf"method\.{option}: {value}"):
        build_options(name, {option: value})
