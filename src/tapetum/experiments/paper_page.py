"""What a paper's table says of its rows: our figures beside the paper's, as JSON, page and picture."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tapetum.core.atomic import write_bytes
from tapetum.evaluation.card import Card
from tapetum.experiments.paper_rows import QUANTITIES, PaperRow
from tapetum.experiments.paper_tables import TABLES
from tapetum.plots.slices import describe_slices, draw_slices
from tapetum.plots.style import Array, figure_bytes

BARS = "rank-1"  # which hangs on no rule of AP


def summarise(
    table: str, rows: Sequence[PaperRow], results: Mapping[str, Sequence[Card]], scene: bool
) -> dict[str, Any]:
    """Mean and deviation over the trainings of each row, beside the paper's figures; rows without any are left out."""
    printed = TABLES[table]
    content: dict[str, Any] = {
        "table": table,
        "paper": printed.paper,
        "title": printed.title,
        "pictures": "generated" if scene else "real",
        "paper_pictures": printed.pictures,
        "paper_remark": printed.remark,
        "quantities": list(printed.quantities),
        "rows": [],
    }
    for row in rows:
        cards = results[row.label]
        if row.recipe is not None and not cards:
            continue
        theirs = row.published
        seeds = list(dict.fromkeys(card.seed for card in cards))
        trials = [card.data["division"]["trial"] for card in cards if "trial" in card.data.get("division", {})]
        entry: dict[str, Any] = {"label": row.label, "recipe": row.recipe, "seeds": seeds}
        entry |= {"trials": list(dict.fromkeys(trials))} if trials else {}
        if cards:
            entry |= {
                "ours_percent": {
                    name: _spread([100 * float(card.metrics[name]) for card in cards]) for name in printed.quantities
                },
                "protocol": cards[0].rules.name,
                "ap": cards[0].rules.ap,
                "checkpoint": cards[0].checkpoint["chosen_by"],
            }
        entry |= {
            "paper_percent": None if theirs is None else {name: getattr(theirs, name) for name in printed.quantities},
            "paper_remark": "" if theirs is None else theirs.remark,
            "paper_ap": None if theirs is None else theirs.ap,
        }
        if row.group:
            entry |= {"group": row.group, "series": row.series}
        content["rows"].append(entry)
    return content


def _spread(values: Sequence[float]) -> dict[str, float | None]:
    return {"mean": statistics.fmean(values), "deviation": statistics.stdev(values) if len(values) > 1 else None}


def render_table(content: Mapping[str, Any]) -> str:
    """A table as Markdown: ours and the paper's in columns of their own."""
    quantities = content["quantities"]
    names = [QUANTITIES[name] for name in quantities]
    header = ["row", *(f"{name} ours" for name in names), *(f"{name} paper" for name in names), "seeds"]
    lines = [f"{content['paper']}, {content['title']}; percent", ""]
    if content["pictures"] == "generated":
        place = content["paper_pictures"]
        lines += [f"Ours: generated night scene. Paper: {place}. Compare the order of the rows, never the figures.", ""]
    lines += ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    for row in content["rows"]:
        values = row.get("ours_percent", {})
        ours = [_cell(values[name]["mean"], values[name]["deviation"]) if values else "not run" for name in quantities]
        paper = [_cell((row["paper_percent"] or {}).get(name)) for name in quantities]
        if row["paper_percent"] is None and "group" not in row:  # a figure's bars are there, without numbers
            paper = ["not in the paper" for _ in quantities]
        seeds, trials = (", ".join(map(str, row.get(name, ()))) for name in ("seeds", "trials"))
        cells = [row["label"], *ours, *paper, f"{seeds}; trial {trials}" if trials else seeds]
        lines.append("| " + " | ".join(cells) + " |")
    remarks = [f"Paper, {row['label']}: {row['paper_remark']}." for row in content["rows"] if row["paper_remark"]]
    remarks += [f"{content['paper_remark']}."] if content["paper_remark"] else []
    rules = {
        row["label"]: f"protocol {row['protocol']}, AP {row['ap']}, {row['checkpoint']}"
        for row in content["rows"]
        if "protocol" in row
    }
    inferred = {row["label"]: f"AP {row['paper_ap']}" for row in content["rows"] if row.get("paper_ap")}
    said = [*_say("Ours", rules), *_say("Paper, by inference", inferred)]
    bars = _list_bars(content)
    drawn = ["", f"![{describe_slices(*bars, quantity=BARS)}]({content['table']}.svg)"] if bars[0] else []
    return "\n".join([*lines, "", *said, *remarks, *drawn, ""])


def _say(whose: str, facts: Mapping[str, str]) -> list[str]:
    """A sentence for each fact; the rows are named where they differ.

    Args:
        facts: of each row, by its label.
    """
    different = sorted(set(facts.values()))
    if len(different) == 1:
        return [f"{whose}: {different[0]}."]
    return [f"{whose}, {'; '.join(label for label in facts if facts[label] == fact)}: {fact}." for fact in different]


def _list_bars(content: Mapping[str, Any]) -> tuple[list[str], None, dict[str, Array]]:
    """Groups of bars, no counts, and the height of each method's bars: nothing where a table is not drawn."""
    rows = [row for row in content["rows"] if "group" in row]
    groups, methods = (list(dict.fromkeys(row[key] for row in rows)) for key in ("group", "series"))
    heights = {method: np.full(len(groups), np.nan) for method in methods}
    for row in rows:
        heights[row["series"]][groups.index(row["group"])] = row["ours_percent"]["rank1"]["mean"] / 100
    return groups, None, heights


def write_bars(path: Path, content: Mapping[str, Any]) -> None:
    """The table as groups of bars, in the format of the path's ending."""
    write_bytes(path, figure_bytes(draw_slices(*_list_bars(content), quantity=BARS), path.suffix))


def _cell(value: float | None, deviation: float | None = None) -> str:
    if value is None:
        return "–"
    return f"{value:.2f}" if deviation is None else f"{value:.2f} ± {deviation:.2f}"
