"""README's tables of the demos are what `make demo` and `make demo-ir` wrote down."""

import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def read_result(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((ROOT / "docs/results" / name).read_text(encoding="utf-8"))
    return content


def read_section(title: str) -> str:
    (section,) = (part for part in re.split(r"^## ", README, flags=re.MULTILINE) if part.startswith(title))
    return section


def read_first_table(section: str) -> dict[str, list[str]]:
    lines = section[section.index("| method |") :].partition("\n\n")[0].splitlines()[2:]
    return {
        label: cells for label, *cells in ([cell.strip() for cell in line.strip("| ").split("|")] for line in lines)
    }


def percent(*numbers: float) -> list[str]:
    return [f"{100 * number:.1f}" for number in numbers]


def test_the_demo_s_table_its_intervals_and_its_cpu_are_those_of_the_run() -> None:
    section, content = read_section("The demo's result"), read_result("demo.json")
    table = read_first_table(section)
    for label, numbers in content["methods"].items():
        figures = percent(*(numbers[name] for name in ("rank1", "rank5", "rank10", "mean_ap", "mean_inp")))
        light = " / ".join(percent(*(numbers["per_light"][level]["mean_ap"] for level in ("low", "medium", "high"))))
        assert table[label] == [*figures, light], label
        for name in ("mean_ap", "rank1"):
            assert "{} to {}".format(*percent(*numbers["bootstrap"][name].values())) in section, (label, name)
        assert f"{numbers['num_queries']:,} queries" in section
    chance = content["chance"]
    assert [cell for cell in table["chance"] if cell] == percent(chance["rank1"], chance["mean_ap"])
    assert content["machine"] in section


def test_the_infrared_demo_s_table_and_its_cpu_are_those_of_the_run() -> None:
    section, content = read_section("Across visible and infrared"), read_result("demo_ir.json")
    table = read_first_table(section)
    ways = list(content["protocols"])
    for label, numbers in content["methods"].items():
        figures = [numbers[way][name] for way in ways for name in ("rank1", "rank10", "mean_ap")]
        assert table[label] == percent(*figures), label
    chance = [content["chance"][way][name] for way in ways for name in ("rank1", "mean_ap")]
    assert [cell for cell in table["chance"] if cell] == percent(*chance)
    assert content["machine"] in section
