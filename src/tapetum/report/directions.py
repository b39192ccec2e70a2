"""Results across modalities in one table: a row a method, its numbers in every direction that was evaluated."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tapetum.report import cards, numbers
from tapetum.report.content import Result
from tapetum.report.views import Cell, TableRow, TableView

SHORT = {"visible": "VIS", "infrared": "IR"}
RELEASED_SCRIPT = "_released_script"  # how protocols end whose script turns round who searches whom
COMPARED = {"rank1": "rank-1", "rank10": "rank-10", "rank20": "rank-20", "mean_ap": "mAP", "mean_inp": "mINP"}


@dataclass(frozen=True)
class Direction:
    """All results of one protocol.

    Attributes:
        name: e.g. "IR→VIS", with the protocol's where several are of one direction. A released script that turns its
            sides round is named by the direction under which its numbers are printed: "VIS→IR (released script)".
        protocol: its name.
        results: one a method, labelled by the method; the baseline first.
    """

    name: str
    protocol: str
    results: tuple[Result, ...]


def find_directions(results: Sequence[Result]) -> tuple[Direction, ...]:
    """The results by protocol, where all of them search one modality with the other; else none.

    Args:
        results: of a report, the baseline first.
    """
    groups: dict[str, list[Result]] = {}
    ways: dict[str, str] = {}
    for result in results:
        rules = result.card["rules"]
        asking, asked = (SHORT.get(str(rules.get(f"{side}_modality"))) for side in ("query", "gallery"))
        if asking is None or asked is None or asking == asked:
            return ()
        name = str(rules["name"])
        groups.setdefault(name, []).append(result)
        turned = name.endswith(RELEASED_SCRIPT)
        ways[name] = f"{asked}→{asking} (released script)" if turned else f"{asking}→{asked}"
    counts = Counter(ways.values())
    return tuple(
        Direction(ways[name] if counts[ways[name]] == 1 else f"{ways[name]}, {name}", name, _by_method(group))
        for name, group in groups.items()
    )


def compare_methods(directions: Sequence[Direction]) -> TableView:
    """One row a method, and one for chance. Where some searched with mirrored pictures too, a column says which.

    Args:
        directions: as `find_directions` gives them, at least one.
    """
    labels = list(dict.fromkeys(result.label for direction in directions for result in direction.results))
    found = {(direction.name, each.label): each for direction in directions for each in direction.results}
    results = list(found.values())
    seconds = {each.label: each.seconds for each in results if each.seconds is not None}
    mirrors = {label: {bool(each.card.get("mirror")) for each in results if each.label == label} for label in labels}
    mixed = len(set.union(*mirrors.values())) > 1
    rows = []
    for label in labels:
        cells = [
            _cell(found.get((direction.name, label)), name, direction) for direction in directions for name in COMPARED
        ]
        notes = {each.note for each in results if each.label == label}
        note = notes.pop() if len(notes) == 1 else ""  # what is said of one direction does not go for the row
        time = [Cell(numbers.duration(seconds.get(label)))] if seconds else []
        mirror = (
            [Cell(" and ".join("on" if on else "off" for on in sorted(mirrors[label], reverse=True)))] if mixed else []
        )
        rows.append(TableRow([Cell(label, note), *cells, *mirror, *time]))
    chances = [cards.chance(direction.results[0].card) for direction in directions]
    if any(chances):
        cells = [
            Cell(numbers.percent(chance[name]) if name in chance else "") for chance in chances for name in COMPARED
        ]
        empty = [Cell("")] * (mixed + bool(seconds))
        rows.append(TableRow([Cell("chance", "a ranking by lot"), *cells, *empty], aside=True))
    columns = ["method", *(f"{direction.name} {title}" for direction in directions for title in COMPARED.values())]
    columns += ["mirror"] * mixed + ["training"] * bool(seconds)
    return TableView(_caption(directions), columns, rows)


def _by_method(results: Sequence[Result]) -> tuple[Result, ...]:
    """Labelled by the method alone, where that is enough to tell them apart."""
    names = [each.method or str(each.card.get("recipe", {}).get("name") or each.label) for each in results]
    unique = len(set(names)) == len(names)
    return tuple(replace(each, label=name) if unique else each for each, name in zip(results, names, strict=True))


def _cell(result: Result | None, name: str, direction: Direction) -> Cell:
    if result is None:
        return Cell(numbers.NOTHING)
    value = cards.number(result.card, name)
    others = [cards.number(each.card, name) for each in direction.results]
    best = max((other for other in others if other is not None), default=math.nan)
    deviation = result.card.get("trials", {}).get("deviation", {}).get(name)
    several = int(result.card.get("trials", {}).get("count", 1)) > 1 and deviation is not None
    small = f"± {100 * float(deviation):.1f}" if several else ""
    return Cell(numbers.percent(value), small, best=len(others) > 1 and value is not None and value == best)


def _caption(directions: Sequence[Direction]) -> str:
    results = [result for direction in directions for result in direction.results]
    rules = sorted({str(result.card["rules"]["ap"]) for result in results})
    trials = sorted({int(result.card.get("trials", {}).get("count", 1)) for result in results})
    spread = f", mean ± deviation of {' or '.join(map(str, trials))} trials" if trials[-1] > 1 else ""
    protocols = " and ".join(direction.protocol for direction in directions)
    ways = "Every method, both directions" if len(directions) == 2 else "Every method"
    return f"{ways}, percent{spread}; {protocols}, {' or '.join(rules)} AP"
