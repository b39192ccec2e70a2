"""Results across modalities in one table: a row a method, its numbers in every direction that was evaluated."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tapetum.core.types import Modality
from tapetum.report import cards, numbers
from tapetum.report.content import Result
from tapetum.report.tables import Cell, Table, chance_cells

SHORT = {Modality.VISIBLE: "VIS", Modality.INFRARED: "IR"}
RELEASED_SCRIPT = "_released_script"  # how protocols end whose script turns round who searches whom
COMPARED = {"rank1": "rank-1", "rank10": "rank-10", "rank20": "rank-20", "mean_ap": "mAP", "mean_inp": "mINP"}


@dataclass(frozen=True)
class Direction:
    """All results of one protocol.

    A released script that turns its sides round is named by the direction under which its numbers are printed:
    "VIS→IR (released script)".
    """

    name: str  # e.g. "IR→VIS", with the protocol's where several are of one direction
    protocol: str
    results: tuple[Result, ...]  # one a method, labelled by the method; the baseline first


def find_directions(results: Sequence[Result]) -> tuple[Direction, ...]:
    """The results by protocol, where all of them search one modality with the other; else none."""
    groups: dict[str, list[Result]] = {}
    ways: dict[str, str] = {}
    for result in results:
        rules = result.card.rules
        if rules.query_modality is None or rules.gallery_modality in (None, rules.query_modality):
            return ()
        ours, theirs = SHORT[rules.query_modality], SHORT[rules.gallery_modality]
        groups.setdefault(rules.name, []).append(result)
        is_reverse = rules.name.endswith(RELEASED_SCRIPT)
        ways[rules.name] = f"{theirs}→{ours} (released script)" if is_reverse else f"{ours}→{theirs}"
    counts = Counter(ways.values())
    return tuple(
        Direction(ways[name] if counts[ways[name]] == 1 else f"{ways[name]}, {name}", name, _by_method(group))
        for name, group in groups.items()
    )


def compare_methods(directions: Sequence[Direction]) -> Table:
    """One row a method, and one for chance. Where some searched with mirrored pictures too, a column says which."""
    labels = list(dict.fromkeys(result.label for direction in directions for result in direction.results))
    by_place = {(direction.name, each.label): each for direction in directions for each in direction.results}
    results = list(by_place.values())
    seconds = {each.label: each.seconds for each in results if each.seconds is not None}
    mirrors = {label: {each.card.mirror for each in results if each.label == label} for label in labels}
    has_both = len(set.union(*mirrors.values())) > 1
    rows = []
    for label in labels:
        cells = [
            _cell(by_place.get((direction.name, label)), name, direction)
            for direction in directions
            for name in COMPARED
        ]
        if has_both:
            cells.append(Cell(" and ".join("on" if on else "off" for on in sorted(mirrors[label], reverse=True))))
        if seconds:
            cells.append(Cell(numbers.duration(seconds.get(label))))
        notes = {each.note for each in results if each.label == label}
        note = notes.pop() if len(notes) == 1 else ""  # what is said of one direction does not go for the row
        rows.append([Cell(label, note), *cells])
    chances = [cards.chance(direction.results[0].card) for direction in directions]
    lot = any(chances)
    if lot:
        title, *cells = chance_cells(chances[0], COMPARED)
        for chance in chances[1:]:
            cells += chance_cells(chance, COMPARED)[1:]
        rows.append([title, *cells, *[Cell("")] * (has_both + bool(seconds))])
    columns = ["method", *(f"{direction.name} {title}" for direction in directions for title in COMPARED.values())]
    columns += ["mirror"] * has_both + ["training"] * bool(seconds)
    return Table(_caption(directions), columns, rows, lot=lot)


def _by_method(results: Sequence[Result]) -> tuple[Result, ...]:
    """Labelled by the method alone, where that is enough to tell them apart."""
    names = [each.method or str(each.card.recipe.get("name") or each.label) for each in results]
    unique = len(set(names)) == len(names)
    return tuple(replace(each, label=name) if unique else each for each, name in zip(results, names, strict=True))


def _cell(result: Result | None, name: str, direction: Direction) -> Cell:
    if result is None:
        return Cell(numbers.NOTHING)
    value = result.card.metrics.get(name)
    others = [each.card.metrics.get(name) for each in direction.results]
    best = max((other for other in others if other is not None), default=math.nan)
    deviation = result.card.deviation(name)
    small = "" if deviation is None else f"± {100 * deviation:.1f}"
    return Cell(numbers.percent(value), small, best=len(others) > 1 and value is not None and value == best)


def _caption(directions: Sequence[Direction]) -> str:
    results = [result.card for direction in directions for result in direction.results]
    rules = sorted({card.rules.ap for card in results})
    trials = sorted({card.num_trials for card in results})
    deviation = f", mean ± deviation of {' or '.join(map(str, trials))} trials" if trials[-1] > 1 else ""
    protocols = " and ".join(direction.protocol for direction in directions)
    ways = "Every method, both directions" if len(directions) == 2 else "Every method"
    return f"{ways}, percent{deviation}; {protocols}, {' or '.join(rules)} AP"
