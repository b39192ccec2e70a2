"""The page's figures of look-alikes are those that were measured."""

import json
import re
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"
MEASURED = json.loads((DOCS / "results/lookalikes.json").read_text(encoding="utf-8"))
SECTIONS = re.split(r"^##+ ", (DOCS / "night_scene.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
(PAGE,) = (part for part in SECTIONS if part.startswith("Look-alikes"))
EVERYBODY, MET = (
    next(entry for entry in MEASURED["percent"] if entry["queries"] == which)
    for which in ("all", "look-alike in the gallery")
)


def test_the_table_is_what_was_measured():
    names = ("rank1", "mean_ap", "first_wrong_lookalike")
    measured = {
        f"`{sampler}`": [
            f"{entry['mean']:.1f} ± {entry['deviation']:.1f}" for entry in (MET[n][sampler] for n in names)
        ]
        for sampler in MEASURED["samplers"]
    }
    gains = [MET[name]["over_pk"] for name in names]
    measured["difference"] = [f"{gain['difference']:+.1f}: {gain['low']:.1f} to {gain['high']:.1f}" for gain in gains]
    lines = [line.strip("| ").split(" | ") for line in PAGE.splitlines() if line.startswith("|")][2:]
    assert {label: cells for label, *cells in lines} == measured


def test_every_query_has_a_look_alike_as_the_page_says():
    assert all(EVERYBODY[name] == MET[name] for name in ("people", "rank1", "mean_ap"))


def test_the_page_names_the_command_that_measured():
    assert MEASURED["command"] in PAGE
