import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gallery_rows import NIGHT
from tapetum.core.errors import FilterError
from tapetum.core.types import Modality
from tapetum.gallery.filters import (
    Among,
    And,
    Coded,
    Compare,
    Filter,
    Not,
    Or,
    as_filter,
    check_filter,
    parse_filter,
    rows_passing,
    write_filter,
)
from tapetum.gallery.milvus import render_expression
from tapetum.gallery.schema import FIELDS
from tapetum.gallery.sql import render_sql

TEXT = st.text(st.characters(blacklist_categories=("Cs", "Cc")), max_size=12)
NUMBER = st.floats(allow_nan=False, allow_infinity=False)
TEXT_FIELD = st.sampled_from([name for name, kind in FIELDS.items() if kind == "text"])
NUMBER_FIELD = st.sampled_from([name for name, kind in FIELDS.items() if kind in ("number", "time")])
LEAF = st.one_of(
    st.builds(Compare, TEXT_FIELD, st.sampled_from(["==", "!="]), TEXT),
    st.builds(Compare, NUMBER_FIELD, st.sampled_from(["==", "!=", "<", "<=", ">", ">="]), NUMBER),
    st.builds(Compare, st.just("modality"), st.sampled_from(["==", "!="]), st.sampled_from(Modality)),
    st.builds(Among, TEXT_FIELD, st.lists(TEXT, min_size=1, max_size=3).map(tuple)),
    st.builds(Among, NUMBER_FIELD, st.lists(NUMBER, min_size=1, max_size=3).map(tuple)),
)
TREE = st.recursive(
    LEAF,
    lambda part: st.one_of(
        st.builds(Not, part),
        st.builds(And, st.lists(part, min_size=2, max_size=3).map(tuple)),
        st.builds(Or, st.lists(part, min_size=2, max_size=3).map(tuple)),
    ),
    max_leaves=6,
)


def test_an_expression_becomes_a_tree_of_checked_values() -> None:
    text = (
        'camera in ("c1","c2") and time >= "2026-11-21T20:00Z" and modality == infrared and quality > 0.3 '
        'and not tracklet == "x"'
    )
    assert parse_filter(text) == And(
        (
            Among("camera", ("c1", "c2")),
            Compare("time", ">=", NIGHT),
            Compare("modality", "==", Modality.INFRARED),
            Compare("quality", ">", 0.3),
            Not(Compare("tracklet", "==", "x")),
        )
    )


def test_and_binds_closer_than_or_and_brackets_closer_than_both() -> None:
    a, b, c = (Compare("camera", "==", name) for name in "abc")
    assert parse_filter('camera == "a" or camera == "b" and camera == "c"') == Or((a, And((b, c))))
    assert parse_filter('(camera == "a" or camera == "b") and camera == "c"') == And((Or((a, b)), c))
    assert parse_filter('camera NOT IN ("a") AND NOT NOT camera == "b"') == And(
        (Not(Among("camera", ("a",))), Not(Not(b)))
    )


def test_times_in_any_zone_and_as_seconds_mean_the_same_moment() -> None:
    same = {
        write_filter(parse_filter(f"time < {value}"))
        for value in ('"2026-11-21T20:00Z"', "'2026-11-21 21:00+01:00'", f"{NIGHT}", "1795291200")
    }
    assert same == {'time < "2026-11-21T20:00:00+00:00"'}


def test_quotes_and_backslashes_in_text_can_be_written() -> None:
    assert parse_filter(r'source == "a \"b\" \\ c"') == Compare("source", "==", 'a "b" \\ c')
    assert parse_filter("source == 'it\\'s'") == Compare("source", "==", "it's")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('camra == "c1"', r"unknown field 'camra'; did you mean camera\?"),
        ("zzz == 1", r"unknown field 'zzz'; known: camera, frame"),
        ('vector == "c1"', "unknown field 'vector'"),
        ("stamp > 1", "unknown field 'stamp'"),
        ("modality == infrard", r"unknown modality 'infrard'; did you mean infrared\?"),
        ("modality > infrared", "modality has no order; use ==, != or in"),
        ('camera < "c1"', "camera has no order"),
        ("camera == 3", 'camera is text, 3.0 is not; write camera == "3.0"'),
        ("camera == c1", 'put text in quotes: "c1"'),
        ('quality > "much"', "quality is a number, 'much' is not; write e.g. quality > 0.3"),
        ("quality > 1e999", "quality is a number, inf is not"),
        ('time > "yesterday"', "'yesterday' is no time; write e.g. 2026-11-21T20:00Z"),
        ('time > "2026-11-21T20:00"', "has no zone; append Z"),
        ('camera = "c1"', "cannot read '= \"c1\"' at character 8; use ==,"),
        ('camera == "c1', "cannot read '\"c1' at character 11; close the quotes"),
        ('camera == "c1" camera == "c2"', "'camera' at character 16; expected and, or, or the end"),
        ('camera in "c1"', r"expected '\('"),
        ("camera in ()", "expected a value"),
        ('camera in ("c1"', "ends too early; expected ',' or"),
        ("camera", "ends too early; expected ==,"),
        ('camera not == "c1"', "expected in"),
        ("", "empty; write e.g."),
        ("   ", "empty"),
        ('and camera == "c1"', "unknown field 'and'"),
        ('(camera == "c1"', r"expected '\)'"),
        ('camera == "c1"; drop table rows', "cannot read '; drop table rows'"),
        ('camera == "c1" -- comment', "cannot read '-- comment'"),
        ("quality > 0.3abc", "cannot read '0.3abc'"),
        ('camera == "a\x00b"', "control characters"),
        ("(" * 60 + 'camera == "c1"' + ")" * 60, "brackets inside each other"),
        ("not " * 60 + 'camera == "c1"', "nots inside each other"),
        ("quality > 0 and " * 10_000 + "quality > 0", "characters, at most 100000"),
    ],
)
def test_what_cannot_be_meant_is_an_error_that_says_what_could(text: str, message: str) -> None:
    with pytest.raises(FilterError, match=message):
        parse_filter(text)


@pytest.mark.parametrize(
    "tree",
    [
        Compare("nosuch", "==", "x"),
        Compare("camera", "LIKE", "x"),
        Compare("quality", ">", float("nan")),
        Compare("quality", ">", True),
        Among("camera", ()),
        And(()),
        "",
        ("camera", "==", "c1"),
    ],
)
def test_a_tree_from_code_is_checked_like_text(tree: Filter) -> None:
    with pytest.raises(FilterError):
        as_filter(tree)


def test_no_filter_is_no_filter() -> None:
    assert as_filter(None) is None
    assert write_filter(None) == ""


@given(TREE)
def test_a_written_filter_reads_back_the_same(tree: Filter) -> None:
    assert parse_filter(write_filter(check_filter(tree))) == check_filter(tree)


@settings(max_examples=200)
@given(TEXT | st.text(max_size=30))
def test_any_text_is_read_or_refused_in_one_line(text: str) -> None:
    message = ""
    try:
        parse_filter(text)
    except FilterError as error:
        message = str(error)
    assert "\n" not in message


@given(TEXT)
def test_text_stays_inside_its_quotes_in_every_store(text: str) -> None:
    """Reads the literal as each language does: doubled quotes, and backslashes."""
    sql = render_sql(Compare("camera", "==", text)).removeprefix("camera = ")
    assert sql[0] == sql[-1] == "'"
    assert "'" not in sql[1:-1].replace("''", "")
    assert sql[1:-1].replace("''", "'") == text
    expression = render_expression(Compare("camera", "==", text)).removeprefix("(camera == ").removesuffix(")")
    plain, place = "", 1
    while place < len(expression) - 1:
        assert expression[place] != '"'
        place += expression[place] == "\\"
        plain += expression[place]
        place += 1
    assert (expression[0], expression[-1], plain) == ('"', '"', text)


def test_rows_pass_as_the_tree_says() -> None:
    columns = {
        "camera": Coded(np.array([0, 1, 1, 2], dtype=np.int32), ("c1", "c2", "c3")),
        "quality": np.array([0.1, 0.2, 0.3, 0.4]),
        "modality": np.array([0.0, 1.0, 0.0, 1.0]),
    }

    def passing(text: str) -> list[int]:
        return np.flatnonzero(rows_passing(parse_filter(text), columns.__getitem__)).tolist()

    assert passing('camera == "c2"') == [1, 2]
    assert passing('camera != "c2"') == [0, 3]
    assert passing('camera == "nobody"') == []
    assert passing('camera in ("c1", "c3")') == [0, 3]
    assert passing("quality >= 0.2 and quality < 0.4") == [1, 2]
    assert passing("quality == 0.3 or quality in (0.1, 7)") == [0, 2]
    assert passing("not (modality == infrared)") == [0, 2]
    assert passing('modality in (infrared) and camera in ("c2", "c3")') == [1, 3]
