"""How costs grow with size: one panel a quantity, both axes by powers of ten, the knee marked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from matplotlib.figure import Figure

from tapetum.plots.style import MARKERS, MUTED, WRONG, Array, line_style, new_panels, styled


@dataclass(frozen=True)
class GrowthPanel:
    """One quantity.

    Attributes:
        title: what it is, with its unit.
        lines: label -> (N,) values above 0, one a size, NaN where nothing was measured.
        knee: the size from which it grows otherwise; None where no knee was found.
    """

    title: str
    lines: Mapping[str, Array]
    knee: float | None = None


@styled
def draw_growth(sizes: Array, panels: Sequence[GrowthPanel], *, counted: str, note: str = "") -> Figure:
    """Lines against the size, in panels beside each other.

    Args:
        sizes: (N,) above 0, ascending.
        panels: at least one.
        counted: what a size counts, e.g. "rows".
        note: a line below all panels; empty for none.
    """
    figure, axes = new_panels(len(panels), 2, 3.6, 2.9, 0.3)
    for panel, quantity in zip(axes, panels, strict=True):
        for number, (label, values) in enumerate(quantity.lines.items()):
            there = np.isfinite(values)
            if there.any():
                style = {"marker": MARKERS[number % len(MARKERS)], "markersize": 4, **line_style(number)}
                panel.plot(np.asarray(sizes)[there], np.asarray(values)[there], label=label, **style)
        panel.set_xscale("log")
        panel.set_yscale("log")
        if quantity.knee is not None:
            panel.axvline(quantity.knee, color=WRONG, linewidth=1.2, linestyle=":", label="knee")
        panel.set_title(quantity.title)
        panel.set_xlabel(counted)
        panel.set_xticks(np.asarray(sizes), [short_number(float(size)) for size in sizes])
        panel.set_xticks([], minor=True)
        low, high = panel.get_ylim()
        panel.yaxis.set_major_formatter(lambda value, _: short_number(value))
        told = "123456789" if high < 5 * low else "25" if high < 30 * low else ""  # else powers of ten are enough
        panel.yaxis.set_minor_formatter(partial(_minor_number, told=told))
        if len(panel.lines) > 1:  # a panel's own: the lines of two panels have nothing in common
            panel.legend(fontsize=8, handlelength=1.6)
    if note:
        figure.supxlabel(note, fontsize=9, color=MUTED)
    return figure


def describe_growth(sizes: Array, panels: Sequence[GrowthPanel], *, counted: str, note: str = "") -> str:
    """`draw_growth` in words: each line's first and last value, and the knees."""
    parts = []
    for quantity in panels:
        for label, values in quantity.lines.items():
            there = np.flatnonzero(np.isfinite(values))
            if len(there):
                ends = [f"{values[place]:.3g} at {short_number(float(sizes[place]))}" for place in there[[0, -1]]]
                parts.append(f"{quantity.title}, {label}: {' to '.join(dict.fromkeys(ends))} {counted}")
        if quantity.knee is not None:
            parts.append(f"its knee is at {short_number(quantity.knee)} {counted}")
    return "Lines on two logarithmic axes. " + "; ".join(parts) + "." + (f" {note}." if note else "")


def short_number(value: float) -> str:
    """10000 as 10k, 2500000 as 2.5M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.4g}{letter}"
    return f"{value:.4g}"


def _minor_number(value: float, _: int | None, *, told: str) -> str:
    """What stands at a tick between two powers of ten: nothing where its first digit is none of those told."""
    return short_number(value) if f"{value:e}"[0] in told else ""
