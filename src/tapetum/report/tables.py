"""The tables of a report: rows of cells, texts already."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tapetum.evaluation.card import Card, leaves, to_content
from tapetum.report import cards, numbers
from tapetum.report.content import QUANTITIES, Breakdown, PublishedRow, Result, WorstSlice

ALWAYS_BESIDE = ("protocol", "AP rule", "seed")
LONGEST_VALUE = 160  # characters of one value in the table of a card


@dataclass(frozen=True)
class Cell:
    """One cell of a table."""

    text: str
    small: str = ""  # a remark under it
    best: bool = False  # of its column


@dataclass(frozen=True)
class Table:
    """A table; on a phone its rows become cards."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    text_columns: Sequence[int] = (0,)
    lot: bool = False  # the last row is a ranking by lot, no result


def result_table(caption: str, results: Sequence[Result], chance: Mapping[str, float]) -> Table:
    """A row a result, one more for its re-ranked form, and one for chance."""
    circumstances = [cards.circumstances(result.card) for result in results]
    differing = [name for name in circumstances[0] if len({each.get(name) for each in circumstances}) > 1]
    columns = list(dict.fromkeys([*ALWAYS_BESIDE, *differing]))
    has_time = any(result.seconds is not None for result in results)
    best = {name: max(_or_nan(result.card.metrics.get(name)) for result in results) for name in QUANTITIES}
    rows = []
    for result, facts in zip(results, circumstances, strict=True):
        card = result.card
        values = {name: card.metrics.get(name) for name in QUANTITIES}
        cells = [
            Cell(
                numbers.percent(value),
                ", ".join(
                    filter(None, (numbers.percent_interval(cards.interval(card, name)), cards.trials(card, name)))
                ),
                best=len(results) > 1 and value is not None and value == best[name],
            )
            for name, value in values.items()
        ]
        time = [Cell(numbers.duration(result.seconds))] * has_time
        rows.append([Cell(result.label, result.note), *cells, *_beside(card, card.metrics, facts, columns), *time])
        if card.reranked:
            cells = [Cell(numbers.percent(card.reranked.get(name))) for name in QUANTITIES]
            beside = _beside(card, card.reranked, facts, columns)
            rows.append([Cell(result.label, "re-ranked"), *cells, *beside, *[Cell("")] * has_time])
    if chance:
        rows.append([*chance_cells(chance, QUANTITIES), *[Cell("")] * (len(columns) + has_time)])
    first_text = 1 + len(QUANTITIES)
    return Table(
        caption,
        ["method", *QUANTITIES.values(), *columns, *["training"] * has_time],
        rows,
        (0, *range(first_text, first_text + len(columns))),
        lot=bool(chance),
    )


def chance_cells(chance: Mapping[str, float], quantities: Sequence[str] | Mapping[str, str]) -> list[Cell]:
    """The row of a ranking by lot."""
    values = [Cell(numbers.percent(chance[name]) if name in chance else "") for name in quantities]
    return [Cell("chance", "a random ranking"), *values]


def _beside(card: Card, metrics: Mapping[str, Any], facts: Mapping[str, str], names: Sequence[str]) -> list[Cell]:
    """What stands beside the numbers; under the AP rule that was used, the mean AP by the other one."""
    other = {"AP rule": cards.other_rule(card, metrics)}
    return [Cell(facts.get(name, numbers.NOTHING), other.get(name, "")) for name in names]


def breakdown_table(chart: Breakdown) -> Table:
    """A row a slice."""
    rows = []
    for place, (level, count) in enumerate(zip(chart.levels, chart.counts, strict=True)):
        cells = [Cell(level), Cell(str(count))]
        for label, values in chart.values.items():
            ends = chart.intervals.get(label)
            reach = None if ends is None else (float(ends[place, 0]), float(ends[place, 1]))
            cells.append(Cell(numbers.percent(float(values[place])), numbers.percent_interval(reach)))
        rows.append(cells)
    name = chart.name.lower()
    columns = [name, "queries", *(f"{label}, {chart.quantity}" for label in chart.values)]
    return Table(f"{chart.quantity} by {name}, percent", columns, rows)


def threshold_table(checks: Mapping[str, Mapping[str, Any]]) -> Table:
    """Every stated threshold of calibrations with what it does."""
    rows = []
    for label, check in checks.items():
        for row in check["thresholds"]:
            of = "comparisons" if row["gallery"] is None else f"searches in {row['gallery']:,} pictures"
            rates = [
                Cell(f"{100 * row[name]:.3g}", f"{100 * low:.3g} to {100 * high:.3g}")
                for name in ("observed", "found")
                for low, high in (row[f"{name}_interval"],)
            ]
            rows.append(
                [Cell(label), Cell(of), Cell(f"{100 * row['rate']:g}"), Cell(f"{row['threshold']:.3f}"), *rates]
            )
    columns = ["pictures", "false alarms of", "wanted", "similarity from", "seen", "found"]
    return Table("Thresholds, percent", columns, rows, (0, 1))


def worst_table(slices: Sequence[WorstSlice]) -> Table:
    """A row a slice, two columns a method."""
    methods = list(dict.fromkeys(worst.method for worst in slices))
    by_slice: dict[str, dict[str, WorstSlice]] = {}
    for worst in slices:
        by_slice.setdefault(worst.slice, {})[worst.method] = worst
    rows = []
    for name, by_method in by_slice.items():
        cells = [Cell(name), Cell(str(max(worst.count for worst in by_method.values())))]
        for method in methods:
            one = by_method.get(method)
            reach = numbers.percent_interval(one.interval) if one else ""
            cells.append(Cell(numbers.percent(one.mean_ap if one else None), reach))
            cells.append(Cell(numbers.percent(one.rank1 if one else None)))
        rows.append(cells)
    columns = ["slice", "queries", *(f"{method} {what}" for method in methods for what in ("mAP", "rank-1"))]
    return Table("Worst slices, percent", columns, rows)


def published_table(published: Sequence[PublishedRow]) -> Table:
    """What papers print."""
    rows = []
    for row in published:
        values = (row.rank1, row.rank5, row.rank10, row.mean_ap)
        cells = [Cell(numbers.NOTHING if value is None else f"{value:.2f}") for value in values]
        rows.append([Cell(row.label, row.remark), *cells, Cell(row.source)])
    columns = ["the paper's", "rank-1", "rank-5", "rank-10", "mAP", "from"]
    return Table("As printed, percent", columns, rows, (0, 5))


def card_table(card: Card) -> Table:
    """Every field of a card but the slices."""
    values = {name: value for name, value in leaves(to_content(card)) if not name.startswith("slices.")}
    rows = [[Cell(name), Cell(short_text(value))] for name, value in values.items()]
    return Table("Every field", ["field", "value"], rows, (0, 1))


def short_text(value: object) -> str:
    """A JSON value in one line."""
    items = value if isinstance(value, list | tuple) else [value]
    texts = (f"{each:.4g}" if isinstance(each, float) else "none" if each is None else str(each) for each in items)
    text = ", ".join(texts)
    return text if len(text) <= LONGEST_VALUE else text[: LONGEST_VALUE - 1] + "…"


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value
