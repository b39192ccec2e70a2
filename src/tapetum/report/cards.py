"""What a report takes out of result cards: numbers with intervals, circumstances, slices.

The shape of a card is the contract of `tapetum.evaluation.card`.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tapetum.report.content import Breakdown, Interval, Result, WorstSlice

Card = Mapping[str, Any]
LEVELS = ("low", "small", "medium", "high", "big")  # levels in their own order; other slices by their numbers
MOST_BARS = 12  # a property with more slices is no chart; its worst slices still show in "where it fails"
FEWEST_QUERIES = 10  # a slice of fewer says little about where a method fails
PROPERTIES = ("light", "size", "noise", "camera")  # in this order; others follow
CAMERA_PAIR = re.compile(r"camera (\d+) to camera (\d+)")
LONGEST_VALUE = 160  # characters of one value in the table of a card
LEVEL_NOTES = {
    "light": "Mean lightness of the query picture, 0 to 255: low below 25.5, high above 51.",
    "size": "Height of the query picture: small below 100 pixels, big above 200.",
}


def number(card: Card, quantity: str) -> float | None:
    """One of the card's numbers as a fraction, None where it has none.

    Args:
        quantity: "rank1", "rank5", "rank10", "rank20", "mean_ap" or "mean_inp".
    """
    value = card["metrics"].get(quantity)
    return None if value is None else float(value)


def interval(card: Card, quantity: str) -> Interval | None:
    """The bootstrap interval of one number, None where the card has none.

    Args:
        quantity: as for `number`.
    """
    return _ends(card.get("bootstrap", {}).get(quantity))


def cmc(card: Card) -> NDArray[np.float64]:
    """The stored CMC curve."""
    return np.asarray(card["metrics"]["cmc"], dtype=np.float64)


def chance(card: Card) -> dict[str, float]:
    """What a ranking by lot would reach, as far as the card says."""
    return {name: float(value) for name, value in card.get("chance", {}).items() if value is not None}


def circumstances(card: Card) -> dict[str, str]:
    """What must stand beside a number."""
    rules = card["rules"]
    found = {
        "protocol": str(rules["name"]),
        "AP rule": str(rules["ap"]),
        "seed": str(card["seed"]),
        "CMC by": str(rules["cmc"]),
        "mirror": "on" if card["mirror"] else "off",
        "re-ranking": "off" if card.get("rerank") is None else "also",
        "pictures": str(card["data"].get("name", "")),
        "fingerprint": str(card["data"].get("fingerprint", "")),
        "trials": _trials(card),
    }
    return {name: value for name, value in found.items() if value}


def _trials(card: Card) -> str:
    """How many trials and what they drew, e.g. "10, rand_perm_cam.mat"; nothing where the data set fixes it all."""
    source = card.get("galleries")
    return f"{card['trials']['count']}, {source}" if source else ""


def other_rule(card: Card) -> str:
    """The mean AP by the rule that the protocol does not use, e.g. "step 48.2"; nothing where the card lacks it."""
    rule = "step" if card["rules"]["ap"] == "trapezoid" else "trapezoid"
    value = card["metrics"].get(f"mean_ap_{rule}")
    return "" if value is None else f"{rule} {100 * float(value):.1f}"


def trials(card: Card, quantity: str) -> str:
    """Deviation over the trials, e.g. "± 1.2 over 10 trials"; nothing where there was one.

    Args:
        quantity: as for `number`.
    """
    count = int(card.get("trials", {}).get("count", 1))
    return "" if count < 2 else f"± {100 * float(card['trials']['deviation'][quantity]):.1f} over {count} trials"


def breakdowns(results: Sequence[Result]) -> tuple[Breakdown, ...]:
    """mAP by every property that some card was sliced by, e.g. light and size.

    Args:
        results: with their cards; a method whose card lacks a slice has no bar there.
    """
    found_names = dict.fromkeys(name for result in results for name in result.card.get("slices", {}))
    names = [name for name in PROPERTIES if name in found_names] + [n for n in found_names if n not in PROPERTIES]
    found = []
    for name in names:
        tables = {result.label: result.card["slices"].get(name, {}) for result in results}
        levels = sorted({level for table in tables.values() for level in table}, key=_order)
        if not 0 < len(levels) <= MOST_BARS or CAMERA_PAIR.fullmatch(levels[0]):
            continue
        rows = {label: [table.get(level, {}) for level in levels] for label, table in tables.items()}
        counts = (max(int(row.get("num_queries", 0)) for row in column) for column in zip(*rows.values(), strict=True))
        found.append(
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
    return tuple(found)


def camera_pairs(card: Card) -> dict[tuple[int, int], tuple[float, int]]:
    """mAP and number of queries of each (query camera, gallery camera), as far as the card was sliced by them."""
    return {
        (int(pair[1]), int(pair[2])): (float(row["mean_ap"]), int(row["num_queries"]))
        for table in card.get("slices", {}).values()
        for level, row in table.items()
        if (pair := CAMERA_PAIR.fullmatch(level))
    }


def worst_slices(results: Sequence[Result], *, count: int = 8, fewest: int = FEWEST_QUERIES) -> tuple[WorstSlice, ...]:
    """The slices with the lowest mAP, meaned over the methods, worst first; one entry a method and slice.

    Args:
        results: with their cards.
        count: slices at most.
        fewest: slices of fewer queries are left out, unless all are smaller.
    """
    found: dict[str, list[WorstSlice]] = {}
    for result in results:
        for name, table in result.card.get("slices", {}).items():
            for level, row in table.items():
                title = level if name.startswith("camera") else f"{name.replace('_', ' ')}: {level}"
                found.setdefault(title, []).append(
                    WorstSlice(
                        result.label,
                        title,
                        int(row["num_queries"]),
                        float(row["mean_ap"]),
                        float(row["rank1"]),
                        _ends(row.get("mean_ap_interval")),
                    )
                )
    large = [group for group in found.values() if group[0].count >= fewest] or list(found.values())
    ordered = sorted(large, key=lambda group: float(np.mean([one.mean_ap for one in group])))
    return tuple(one for group in ordered[:count] for one in group)


def flatten(card: Card, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Every field of a card as a dotted name and a short text.

    Args:
        card: a result card, or a section of one.
        prefix: put before every name.
    """
    for name, value in card.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{name}.")
        else:
            text = ", ".join(map(_short, value)) if isinstance(value, list | tuple) else _short(value)
            yield f"{prefix}{name}", text if len(text) <= LONGEST_VALUE else text[: LONGEST_VALUE - 1] + "…"


def _ends(interval: Mapping[str, float] | None) -> Interval | None:
    return None if interval is None else (float(interval["low"]), float(interval["high"]))


def _order(level: str) -> tuple[int, list[int], str]:
    """Known levels first and in their order, then "camera 2" before "camera 10"."""
    place = LEVELS.index(level) if level in LEVELS else len(LEVELS)
    return place, [int(digits) for digits in re.findall(r"\d+", level)], level


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else "none" if value is None else str(value)
