"""The page's figures of scenes never seen are those that were measured."""

import json
import re
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"
MEASURED = json.loads((DOCS / "results/domains.json").read_text(encoding="utf-8"))
SECTION = re.split(r"^## ", (DOCS / "training.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
(PAGE,) = (part for part in SECTION if part.startswith("Domains never seen"))


def write(entry):
    """A figure as the table has it: with what was gained, where it was."""
    text = f"{entry['mean']:.1f} ± {entry['deviation']:.1f}"
    if "over_none" not in entry:
        return text
    gain = entry["over_none"]
    return f"{text} ({gain['difference']:+.1f}: {gain['low']:.1f} to {gain['high']:.1f})"


def test_the_table_is_what_was_measured():
    kinds = list(dict.fromkeys(row["tested_on"] for row in MEASURED["percent"]))
    rows = {(row["camera_norm"], row["tested_on"]): row for row in MEASURED["percent"] if row["method"] == "plain"}
    measured = {
        norm: [write(rows[norm, kind][name]) for kind in kinds for name in ("rank1", "mean_ap")]
        for norm in ("none", "centre", "standard")
    }
    lines = [line.strip("| ").split(" | ") for line in PAGE.splitlines() if line.startswith("|")][2:]
    assert {norm: cells for _, norm, *cells in lines} == measured


def test_the_gains_that_the_page_calls_real_exclude_zero():
    gains = [
        row[name]["over_none"]
        for row in MEASURED["percent"]
        if row["camera_norm"] != "none"
        for name in ("rank1", "mean_ap")
    ]
    assert all(gain["real"] == (gain["low"] > 0 or gain["high"] < 0) for gain in gains)
    assert all(gain["low"] > 0 for gain in gains)


def test_the_page_names_the_command_that_measured():
    assert MEASURED["command"] in PAGE
