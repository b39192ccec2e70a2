"""What a report takes out of result cards: numbers with intervals, circumstances, slices."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tapetum.evaluation.card import Card
from tapetum.report.content import Breakdown, Interval, Result, WorstSlice

LEVELS = ("low", "small", "medium", "high", "big")  # levels in their own order; other slices by their numbers
MOST_BARS = 12  # a property with more slices is no chart; its worst slices still show in "where it fails"
FEWEST_QUERIES = 10  # a slice of fewer says little about where a method fails
PROPERTIES = ("light", "size", "noise", "camera")  # in this order; others follow
CAMERA_PAIR = re.compile(r"camera (\d+) to camera (\d+)")
LEVEL_NOTES = {
    "light": "Mean lightness of the query picture, 0 to 255: low below 25.5, high above 51.",
    "lookalikes": "Whether somebody else in the gallery wears the query person's clothes.",
    "size": "Height of the query picture: small below 100 pixels, big above 200.",
}


def interval(card: Card, quantity: str) -> Interval | None:
    """The bootstrap interval of one number, None where the card has none."""
    return _ends(card.bootstrap.get(quantity))


def chance(card: Card) -> dict[str, float]:
    """What a ranking by lot would reach, as far as the card says."""
    return {name: float(value) for name, value in card.chance.items() if value is not None}


def circumstances(card: Card) -> dict[str, str]:
    """What must stand beside a number."""
    facts = {
        "protocol": card.rules.name,
        "AP rule": card.rules.ap,
        "seed": str(card.seed),
        "CMC by": card.rules.cmc,
        "mirror": "on" if card.mirror else "off",
        "camera norm": "" if card.camera_norm == "none" else f"{card.camera_norm}, from unlabelled test pictures",
        "ranked by": "" if card.calibration is None else "calibrated log-odds of each pair of modalities",
        "re-ranking": "off" if card.rerank is None else "also",
        "pictures": str(card.data.get("name", "")),
        "fingerprint": str(card.data.get("fingerprint", "")),
        "trials": f"{card.num_trials}, {card.galleries}" if card.galleries else "",
    }
    return {name: value for name, value in facts.items() if value}


def shared_circumstances(results: Sequence[Result]) -> dict[str, str]:
    """Those that are the same for all results."""
    facts = [circumstances(result.card) for result in results]
    return {name: value for name, value in (facts or [{}])[0].items() if all(each.get(name) == value for each in facts)}


def other_rule(card: Card, metrics: Mapping[str, Any]) -> str:
    """The mean AP by the rule that the protocol does not use, e.g. "step 48.2"; nothing where the card lacks it."""
    rule = "step" if card.rules.ap == "trapezoid" else "trapezoid"
    value = metrics.get(f"mean_ap_{rule}")
    return "" if value is None else f"{rule} {100 * float(value):.1f}"


def trials(card: Card, quantity: str) -> str:
    """Deviation over the trials, e.g. "± 1.2 over 10 trials"; nothing where there was one."""
    deviation = card.deviation(quantity)
    return "" if deviation is None else f"± {100 * deviation:.1f} over {card.num_trials} trials"


def breakdowns(results: Sequence[Result]) -> tuple[Breakdown, ...]:
    """mAP by every property that some card was sliced by; a method whose card lacks a slice has no bar there."""
    known = dict.fromkeys(name for result in results for name in result.card.slices)
    names = [name for name in PROPERTIES if name in known] + [name for name in known if name not in PROPERTIES]
    charts = []
    for name in names:
        tables = {result.label: result.card.slices.get(name, {}) for result in results}
        levels = sorted({level for table in tables.values() for level in table}, key=_order)
        if not 0 < len(levels) <= MOST_BARS or CAMERA_PAIR.fullmatch(levels[0]):
            continue
        rows = {label: [table.get(level, {}) for level in levels] for label, table in tables.items()}
        counts = (max(int(row.get("num_queries", 0)) for row in column) for column in zip(*rows.values(), strict=True))
        charts.append(
            Breakdown(
                name=name.replace("_", " ").capitalize(),
                levels=tuple(levels),
                counts=tuple(counts),
                values={label: np.array([row.get("mean_ap", math.nan) for row in own]) for label, own in rows.items()},
                intervals={
                    label: np.array([_ends(row.get("mean_ap_interval")) or (math.nan, math.nan) for row in own])
                    for label, own in rows.items()
                },
                note=LEVEL_NOTES.get(name, ""),
            )
        )
    return tuple(charts)


def camera_pairs(card: Card) -> dict[tuple[int, int], tuple[float, int]]:
    """mAP and number of queries of each (query camera, gallery camera), as far as the card was sliced by them."""
    return {
        (int(pair[1]), int(pair[2])): (float(row["mean_ap"]), int(row["num_queries"]))
        for table in card.slices.values()
        for level, row in table.items()
        if (pair := CAMERA_PAIR.fullmatch(level))
    }


def worst_slices(results: Sequence[Result], *, count: int = 8, fewest: int = FEWEST_QUERIES) -> tuple[WorstSlice, ...]:
    """The slices with the lowest mAP, meaned over the methods, worst first; one entry a method and slice.

    Args:
        count: slices at most.
        fewest: slices of fewer queries are left out, unless all are smaller.
    """
    groups: dict[str, list[WorstSlice]] = {}
    for result in results:
        for name, table in result.card.slices.items():
            for level, row in table.items():
                title = level if name.startswith("camera") else f"{name.replace('_', ' ')}: {level}"
                numbers = int(row["num_queries"]), float(row["mean_ap"]), float(row["rank1"])
                groups.setdefault(title, []).append(
                    WorstSlice(result.label, title, *numbers, _ends(row.get("mean_ap_interval")))
                )
    large = [group for group in groups.values() if group[0].count >= fewest] or list(groups.values())
    groups_by_ap = sorted(large, key=lambda group: float(np.mean([one.mean_ap for one in group])))
    return tuple(one for group in groups_by_ap[:count] for one in group)


def _ends(interval: Mapping[str, float] | None) -> Interval | None:
    return None if interval is None else (float(interval["low"]), float(interval["high"]))


def _order(level: str) -> tuple[int, list[int], str]:
    """Known levels first and in their order, then "camera 2" before "camera 10"."""
    place = LEVELS.index(level) if level in LEVELS else len(LEVELS)
    return place, [int(digits) for digits in re.findall(r"\d+", level)], level
