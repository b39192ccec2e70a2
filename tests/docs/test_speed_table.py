"""README's table of speeds is what `python -m benchmarks` wrote down."""

import importlib.util
import json
from pathlib import Path

ROOT = Path(__file__).parents[2]
SPEC = importlib.util.spec_from_file_location("speed", ROOT / "docs/speed.py")
assert SPEC is not None
assert SPEC.loader is not None
speed = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(speed)
README = (ROOT / "README.md").read_text(encoding="utf-8")
ROWS = json.loads((ROOT / "docs/results/bench.json").read_text(encoding="utf-8"))


def test_every_line_is_of_kept_rows_of_one_machine_that_the_text_names() -> None:
    table = speed.build_table(ROWS)
    assert table in README
    assert table.count("\n") == 2 + len(speed.LINES)
    (machine,) = {row["machine"] for row in ROWS}
    family = machine.partition("family ")[2].partition(",")[0]
    assert f"AMD EPYC of family {family} (" in README.partition("## Speed")[2].partition("| what |")[0]
    assert "2 cores" in machine


def test_lines_name_benchmarks_that_are_there() -> None:
    names = {path.stem.removeprefix("bench_") for path in (ROOT / "benchmarks").glob("bench_*.py")}
    assert {line.name for line in speed.LINES} <= names


def test_a_ratio_is_that_of_the_two_numbers_beside_it() -> None:
    for row in ROWS:
        if row["ratio"] is not None and row["peer"] is not None:
            more_is_better = row["unit"].endswith("/s")
            ratio = row["ours"] / row["peer"] if more_is_better else row["peer"] / row["ours"]
            assert abs(ratio / row["ratio"] - 1) < 0.01, row["name"]
