"""Breakdown bars: one quantity by light level, size level or any other slicing, with intervals and counts."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from tapetum.plots.style import INK, MUTED, SERIES, SURFACE, WIDTH, Array, legend_below, new_figure, styled


@styled
def draw_slices(
    levels: Sequence[str],
    counts: Sequence[int] | None,
    values: Mapping[str, Array],
    *,
    intervals: Mapping[str, Array] | None = None,
    quantity: str = "mAP",
) -> Figure:
    """Horizontal bars, grouped by slice, one bar a method.

    Args:
        levels: names of the S slices, top to bottom.
        counts: queries in each slice, or None where they are the same everywhere.
        values: label of a method -> (S,) fractions, NaN where the slice is empty.
        intervals: label -> (S, 2) lower and upper end of the interval, NaN where there is none.
        quantity: what the values are; empty where each slice is a quantity of its own.
    """
    methods = list(values)
    bar = 0.8 / max(1, len(methods))
    figure = new_figure(WIDTH, 0.75 + max(1, len(levels)) * (0.25 + 0.27 * max(1, len(methods))))
    panel = figure.add_subplot()
    ends = [0.05]
    for number, label in enumerate(methods):
        heights = 100 * np.asarray(values[label], dtype=np.float64)
        places = np.arange(len(levels)) + (number - (len(methods) - 1) / 2) * bar
        panel.barh(places, np.nan_to_num(heights), bar * 0.86, label=label, color=SERIES[number % len(SERIES)])
        bounds = 100 * np.asarray((intervals or {}).get(label, np.full((len(levels), 2), np.nan)), dtype=np.float64)
        reach = np.fmax(heights, bounds[:, 1])
        finite = np.isfinite(bounds).all(1) & np.isfinite(heights)
        panel.hlines(places[finite], bounds[finite, 0], bounds[finite, 1], color=INK, linewidth=1.4)
        panel.plot(heights[finite], places[finite], "o", color=SURFACE, markeredgecolor=INK, markersize=4)
        for place, height, end in zip(places, heights, reach, strict=True):
            text = f"{height:.1f}" if np.isfinite(height) else "no query"
            end = end if np.isfinite(end) else 0
            panel.annotate(text, (end, place), (5, 0), textcoords="offset points", va="center", fontsize=9)
        ends.append(float(np.nanmax(reach)) if np.isfinite(reach).any() else 0.0)
    panel.set_xlim(0, min(112.0, 1.16 * max(ends)))
    panel.set_ylim(len(levels) - 0.45, -0.55)
    panel.set_yticks(range(len(levels)), [""] * len(levels))
    for place, level in enumerate(levels):  # two texts, each flush right whatever font a page has
        lines = [(level, INK)] if counts is None else [(level, INK), (f"n = {counts[place]}", MUTED)]
        for line, (text, colour) in enumerate(lines):
            offset = 6.5 * (len(lines) - 1) - 13 * line
            panel.annotate(
                text,
                (0, place),
                (-6, offset),
                textcoords="offset points",
                ha="right",
                va="center",
                color=colour,
                fontsize=10 if line == 0 else 9,
                annotation_clip=False,
            )
    panel.xaxis.set_major_formatter(lambda value, _: f"{value:.4g}")
    panel.grid(visible=False, axis="y")
    panel.grid(visible=True, axis="x")
    panel.spines["left"].set_visible(False)
    panel.spines["bottom"].set_visible(False)
    panel.set_xlabel(f"{quantity}, %" if quantity else "%")
    legend_below(figure, [panel], columns=3)
    return figure


def describe_slices(
    levels: Sequence[str],
    counts: Sequence[int] | None,
    values: Mapping[str, Array],
    *,
    intervals: Mapping[str, Array] | None = None,
    quantity: str = "mAP",
) -> str:
    """The breakdown in words: every bar with its interval and number of queries."""
    parts = []
    for place, level in enumerate(levels):
        queries = f" ({counts[place]} queries)" if counts is not None else ""
        bars = []
        for label, heights in values.items():
            height = float(heights[place])
            bounds = None if intervals is None or label not in intervals else 100 * intervals[label][place]
            interval = (
                f" ({bounds[0]:.1f} to {bounds[1]:.1f})" if bounds is not None and np.isfinite(bounds).all() else ""
            )
            bars.append(f"{label} {100 * height:.1f} %{interval}" if np.isfinite(height) else f"{label} has no query")
        parts.append(f"{level}{queries}: {', '.join(bars)}")
    return f"Bars of {quantity or 'several measures'}. " + "; ".join(parts) + "."
