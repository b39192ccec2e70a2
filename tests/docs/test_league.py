"""The league's figures in the documents are those of the runs that are kept."""

import importlib.util
import json
import re
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from tapetum.experiments.start import PRETRAINED
from tapetum.layers.weight_packages import is_installed

ROOT = Path(__file__).parents[2]
KEPT = ROOT / "docs/results/league"
NUMBER = r"\d+\.\d(?: ± \d+\.\d)?"
INTERVAL = r"(?<![\d.])([+-]?\d+\.\d) to ([+-]?\d+\.\d)(?!\d)"


def read_kept(family):
    """Label -> (rank-1, mAP) as a table writes them."""
    runs = defaultdict(list)
    for path in sorted(KEPT.glob(f"{family}-*.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        runs[content["label"]].append([content["testing"]["metrics"][name] for name in ("rank1", "mean_ap")])
    return {label: tuple(write(values) for values in zip(*some, strict=True)) for label, some in runs.items()}


def read_section(family):
    page = (ROOT / "docs/league.md").read_text(encoding="utf-8")
    return page.split(f"\n## The {family} family\n")[1].split("\n## ")[0]


def read_readme():
    return (ROOT / "README.md").read_text(encoding="utf-8").split("**A league of methods**")[1].split("\n![")[0]


def read_intervals(text):
    return {(float(low), float(high)) for low, high in re.findall(INTERVAL, text)}


def write(values):
    mean = f"{100 * np.mean(values):.1f}"
    return mean if len(values) == 1 else f"{mean} ± {100 * np.std(values, ddof=1):.1f}"


@pytest.mark.parametrize("family", ["visible", "infrared"])
def test_the_page_s_table_is_what_the_kept_runs_gave(family):
    rows = re.findall(rf"^\| ([^|]+) \| ({NUMBER}) \| ({NUMBER}) \|", read_section(family), flags=re.MULTILINE)
    assert {label: (rank1, mean_ap) for label, rank1, mean_ap in rows} == read_kept(family)


@pytest.mark.parametrize("family", ["visible", "infrared"])
def test_an_interval_in_brackets_in_the_prose_is_one_of_the_whole_table(family):
    """Of mAP or rank-1, of a pair in either order; what the README quotes is visible."""
    prose = read_section(family) + (read_readme() if family == "visible" else "")
    quoted = read_intervals(" ".join(re.findall(r"\([^()]*\)", prose)))
    assert quoted or family == "infrared"
    table = read_intervals((KEPT / f"{family}.md").read_text(encoding="utf-8"))
    assert not quoted - table - {(-high, -low) for low, high in table}


def test_the_readme_s_table_is_of_the_visible_league():
    lines = [line.strip("| ").split(" | ") for line in read_readme().splitlines() if line.startswith("|")][:4]
    (_, *labels), _, (_, *rank1), (_, *mean_ap) = lines
    assert dict(zip(labels, zip(rank1, mean_ap, strict=True), strict=True)) == read_kept("visible")


@pytest.mark.skipif(not is_installed(PRETRAINED), reason="these runs started from the package's weights")
@pytest.mark.parametrize("family", ["visible", "infrared"])
def test_the_whole_table_is_what_the_kept_runs_give(family):
    """`python docs/league.py` writes it again."""
    spec = importlib.util.spec_from_file_location("docs_league", ROOT / "docs/league.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    page, content = module.render(family)
    assert (KEPT / f"{family}.md").read_text(encoding="utf-8") == page
    assert {row["label"] for row in content["rows"]} == set(read_kept(family))


def test_the_student_s_figures_on_other_people_are_those_that_were_written():
    content = json.loads((ROOT / "docs/results/student.json").read_text(encoding="utf-8"))
    section = (ROOT / "docs/student.md").read_text(encoding="utf-8").split("### On people who had no part in it")[1]
    rows = re.findall(rf"^\| ([^|]+) \| ({NUMBER}) \| ({NUMBER}) \|", section, flags=re.MULTILINE)
    figures = {
        row["label"]: tuple(write(row[name]["each"]) for name in ("rank1", "mean_ap")) for row in content["rows"]
    }
    assert {label: (rank1, mean_ap) for label, rank1, mean_ap in rows} == figures
    for pair in content["pairs"]:
        first, last = pair["rows"]
        difference, low, high = (100 * pair["mean_ap"][end] for end in ("difference", "low", "high"))
        line = f"| {first} less {last} | {difference:.1f} | {low:.1f} to {high:.1f} |"
        assert line in section, line
