"""What is found at which rate of false alarms: pairs of pictures (verification), and whole searches (open set)."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from tapetum.plots.style import MARKERS, WIDTH, Array, legend_below, line_style, new_figure, styled

Checks = Mapping[str, Mapping[str, Any]]  # label -> what the check of a calibration found


@styled
def draw_verification(checks: Checks) -> Figure:
    """The ROC on a logarithmic axis: true pairs found against false alarms of comparisons, stated thresholds marked."""
    lines = {label: (check["verification"], None, check) for label, check in checks.items()}
    return _draw(lines, lambda share: share, "comparisons, %", "pairs of one person found, %", 3)


@styled
def draw_open_set(checks: Checks) -> Figure:
    """Misses against false alarms of searches, FNIR at FPIR, in the largest gallery; stated thresholds marked."""
    curves = {label: check["open_set"] for label, check in checks.items()}
    lines = {
        f"{label}, {curve['gallery']:,} pictures": (curve, curve["gallery"], checks[label])
        for label, curve in curves.items()
    }
    return _draw(lines, lambda share: 1 - share, "searches (FPIR), %", "people missed (FNIR), %", 2)


def _draw(
    lines: Mapping[str, tuple[Mapping[str, Any], int | None, Mapping[str, Any]]],
    height: Callable[[float], float],
    rates: str,
    values: str,
    columns: int,
) -> Figure:
    """One line a label.

    Args:
        lines: label -> curve, pictures of the gallery whose thresholds are marked, and the check that states them.
        height: of a mark, from the share found at its threshold.
    """
    figure = new_figure(WIDTH, 3.4)
    panel = figure.add_subplot()
    for number, (label, (curve, gallery, check)) in enumerate(lines.items()):
        alarms, heights = _percent(curve["rates"]), _percent(curve["values"])
        panel.plot(alarms[alarms > 0], heights[alarms > 0], label=label, **line_style(number))
        rows = [row for row in check["thresholds"] if row["gallery"] == gallery and row["observed"] > 0]
        panel.plot(
            _percent([row["observed"] for row in rows]),
            _percent([height(row["found"]) for row in rows]),
            linestyle="none",
            marker=MARKERS[number % len(MARKERS)],
            markersize=6,
            color=line_style(number)["color"],
        )
    panel.set_xscale("log")
    panel.set_xlim(right=100)
    panel.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    panel.set_ylim(-2, 102)
    panel.set_xlabel(f"false alarms of {rates}")
    panel.set_ylabel(values)
    legend_below(figure, [panel], columns=columns)
    return figure


def _percent(shares: list[float]) -> Array:
    return 100 * np.asarray(shares, dtype=np.float64)


def describe_verification(checks: Checks) -> str:
    """Both curves in words: what each stated threshold does."""
    parts = []
    for label, check in checks.items():
        for row in check["thresholds"]:
            of = "comparisons" if row["gallery"] is None else f"searches in {row['gallery']:,} pictures"
            parts.append(
                f"{label}: {100 * row['found']:.1f} % found where {100 * row['observed']:.3g} % of {of} "
                f"are false alarms (wanted {100 * row['rate']:g} %)"
            )
    return "Found against false alarms. " + "; ".join(parts or ["no rate is supported by so few people"]) + "."
