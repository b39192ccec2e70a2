"""The reliability diagram: of the pairs that were given a probability, how many show one person?"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from tapetum.plots.style import MARKERS, MUTED, WIDTH, legend_below, line_style, new_figure, styled


@styled
def draw_reliability(checks: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Share of pairs of one person against the probability that was said; the nearer to the diagonal the better.

    Args:
        checks: label -> what the check of a calibration found; a marker's area is its share of the pairs.
    """
    figure = new_figure(WIDTH, 3.8)
    panel = figure.add_subplot()
    panel.plot([0, 100], [0, 100], color=MUTED, linestyle=":", linewidth=1.5, label="as promised")
    for number, (label, check) in enumerate(checks.items()):
        curve = check["reliability"]
        expected, seen, share = (
            np.array([np.nan if value is None else value for value in curve[name]], dtype=np.float64)
            for name in ("predicted", "observed", "share")
        )
        there = ~np.isnan(expected)
        style, marker = line_style(number), MARKERS[number % len(MARKERS)]
        name = f"{label}, error {100 * check['calibration_error']:.1f} %"
        panel.plot(100 * expected[there], 100 * seen[there], linewidth=1.2, label=name, **style)
        sizes = 12 + 200 * share[there]
        panel.scatter(100 * expected[there], 100 * seen[there], s=sizes, color=style["color"], marker=marker)
    panel.set_xlim(-3, 103)
    panel.set_ylim(-3, 103)
    panel.set_xlabel("probability said, %")
    panel.set_ylabel("pairs of one person, %")
    legend_below(figure, [panel], columns=2)
    return figure


def describe_reliability(checks: Mapping[str, Mapping[str, Any]]) -> str:
    """The diagram in words: the expected calibration error of each."""
    parts = []
    for label, check in checks.items():
        low, high = (100 * end for end in check["calibration_error_interval"])
        parts.append(
            f"{label}: calibration error {100 * check['calibration_error']:.1f} % ({low:.1f} to {high:.1f}) "
            f"on {check['people']} people"
        )
    return "Reliability diagram. " + "; ".join(parts) + "."
