"""Result cards as a report prints them: fractions become percent, and every number keeps its circumstances."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tapetum.report.content import Interval

LONGEST_VALUE = 160  # characters of one value in the table of a card


def percent(value: float | None, digits: int = 1) -> str:
    """A fraction as percent without the sign, or an en dash where there is none.

    Args:
        value: a fraction.
        digits: after the point.
    """
    return "–" if value is None or not math.isfinite(value) else f"{100 * value:.{digits}f}"


def percent_interval(interval: Interval | None) -> str:
    """An interval in percent, or nothing.

    Args:
        interval: lower and upper end, fractions.
    """
    if interval is None or not all(math.isfinite(end) for end in interval):
        return ""
    return f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f}"


def duration(seconds: float | None) -> str:
    """Seconds for a reader: "48 s", "3 min 20 s", "2 h 5 min".

    Args:
        seconds: a length of time, or None where it was not measured.
    """
    if seconds is None or not math.isfinite(seconds):
        return "–"
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def number(card: Mapping[str, Any], quantity: str) -> float | None:
    """One of the card's numbers as a fraction, None where the card lacks it.

    Args:
        card: a result card.
        quantity: "rank1", "rank5", "rank10", "mean_ap" or "mean_inp".
    """
    value = _metrics(card).get(quantity)
    if isinstance(value, Mapping):
        value = value.get("mean", value.get("value"))
    return float(value) if isinstance(value, int | float) else None


def interval(card: Mapping[str, Any], quantity: str) -> Interval | None:
    """The bootstrap interval of one number, None where the card has none.

    Args:
        card: a result card.
        quantity: as for `number`.
    """
    ends = _section(card, "bootstrap", "intervals").get(quantity)
    if isinstance(ends, Mapping):
        ends = (ends.get("low"), ends.get("high"))
    if not isinstance(ends, list | tuple) or len(ends) != 2 or not all(isinstance(end, int | float) for end in ends):
        return None
    return float(ends[0]), float(ends[1])


def cmc(card: Mapping[str, Any]) -> NDArray[np.float64] | None:
    """The stored CMC curve, None where the card has none.

    Args:
        card: a result card.
    """
    values = _metrics(card).get("cmc")
    return np.asarray(values, dtype=np.float64) if isinstance(values, list | tuple) and len(values) else None


def circumstances(card: Mapping[str, Any]) -> dict[str, str]:
    """What must stand beside a number: protocol, AP rule, seed, mirror, re-ranking, choice of the checkpoint.

    Args:
        card: a result card.
    """
    names = {"protocol": "protocol", "ap": "AP rule", "seed": "seed"}
    return {shown: str(card[name]) for name, shown in names.items() if isinstance(card.get(name), str | int)}


def flatten(card: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Every field of a card as a dotted name and a short text.

    Args:
        card: a result card, or a section of one.
        prefix: put before every name.
    """
    for name, value in card.items():
        if isinstance(value, Mapping) and value:
            yield from flatten(value, f"{prefix}{name}.")
        else:
            text = ", ".join(map(_short, value)) if isinstance(value, list | tuple) else _short(value)
            yield f"{prefix}{name}", text if len(text) <= LONGEST_VALUE else text[: LONGEST_VALUE - 1] + "…"


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else "none" if value is None else str(value)


def _metrics(card: Mapping[str, Any]) -> Mapping[str, Any]:
    return _section(card, "metrics") or card


def _section(card: Mapping[str, Any], *names: str) -> Mapping[str, Any]:
    for name in names:
        section = card.get(name)
        if isinstance(section, Mapping):
            return section
    return {}
