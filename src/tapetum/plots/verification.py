"""What is found at which rate of false alarms: pairs of pictures (verification), and whole searches (open set)."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tapetum.plots.style import DASHES, MARKERS, SERIES, WIDTH, legend_below, new_figure, styled


@styled
def draw_verification(checked: Mapping[str, Mapping[str, Any]]) -> Figure:
    """The ROC on a logarithmic axis: true pairs found against false alarms of comparisons, stated thresholds marked.

    Args:
        checked: label -> what the check of a calibration found.
    """
    figure = new_figure(WIDTH, 3.4)
    panel = figure.add_subplot()
    for number, (label, found) in enumerate(checked.items()):
        curve = found["verification"]
        _draw(panel, number, label, curve["rates"], 100 * np.asarray(curve["values"]))
        rows = [row for row in found["thresholds"] if row["gallery"] is None]
        _mark(panel, number, [row["observed"] for row in rows], [100 * row["found"] for row in rows])
    _finish(panel, "false alarms of comparisons, %", "pairs of one person found, %")
    legend_below(figure, [panel])
    return figure


@styled
def draw_open_set(checked: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Misses against false alarms of searches, FNIR at FPIR, in the largest gallery; stated thresholds marked.

    Args:
        checked: label -> what the check of a calibration found.
    """
    figure = new_figure(WIDTH, 3.4)
    panel = figure.add_subplot()
    for number, (label, found) in enumerate(checked.items()):
        curve = found["open_set"]
        name = f"{label}, {curve['gallery']:,} pictures"
        _draw(panel, number, name, curve["rates"], 100 * np.asarray(curve["values"]))
        rows = [row for row in found["thresholds"] if row["gallery"] == curve["gallery"]]
        _mark(panel, number, [row["observed"] for row in rows], [100 * (1 - row["found"]) for row in rows])
    _finish(panel, "false alarms of searches (FPIR), %", "people missed (FNIR), %")
    legend_below(figure, [panel], columns=2)
    return figure


def describe_verification(checked: Mapping[str, Mapping[str, Any]]) -> str:
    """Both curves in words: what each stated threshold does.

    Args:
        checked: as for `draw_verification`.
    """
    parts = []
    for label, found in checked.items():
        for row in found["thresholds"]:
            of = "comparisons" if row["gallery"] is None else f"searches in {row['gallery']:,} pictures"
            parts.append(
                f"{label}: {100 * row['found']:.1f} % found where {100 * row['observed']:.3g} % of {of} "
                f"are false alarms (wanted {100 * row['rate']:g} %)"
            )
    return "Found against false alarms. " + "; ".join(parts or ["no rate is supported by so few people"]) + "."


def _draw(panel: Axes, number: int, label: str, rates: list[float], values: Any) -> None:
    shown = np.asarray(rates) > 0
    panel.plot(
        100 * np.asarray(rates)[shown],
        np.asarray(values)[shown],
        label=label,
        color=SERIES[number % len(SERIES)],
        linestyle=DASHES[number % len(DASHES)],
    )


def _mark(panel: Axes, number: int, rates: list[float], values: list[float]) -> None:
    there = [(100 * rate, value) for rate, value in zip(rates, values, strict=True) if rate > 0]
    panel.plot(
        [rate for rate, _ in there],
        [value for _, value in there],
        linestyle="none",
        marker=MARKERS[number % len(MARKERS)],
        markersize=6,
        color=SERIES[number % len(SERIES)],
    )


def _finish(panel: Axes, rates: str, values: str) -> None:
    panel.set_xscale("log")
    panel.set_xlim(right=100)
    panel.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    panel.set_ylim(-2, 102)
    panel.set_xlabel(rates)
    panel.set_ylabel(values)
