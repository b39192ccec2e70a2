"""The CMC curve: how often the right person stands among the first k answers."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from tapetum.plots.style import MARKERS, WIDTH, Array, legend_below, line_style, new_figure, styled


@styled
def draw_cmc(curves: Mapping[str, Array], *, ranks: int = 20) -> Figure:
    """CMC of several methods against the rank.

    Args:
        curves: label -> (R,) fractions, entry k-1 for rank k.
    """
    figure = new_figure(WIDTH, 3.2)
    panel = figure.add_subplot()
    for number, (label, curve) in enumerate(curves.items()):
        heights = 100 * np.asarray(curve, dtype=np.float64)[:ranks]
        panel.plot(
            np.arange(1, len(heights) + 1),
            heights,
            label=label,
            marker=MARKERS[number % len(MARKERS)],
            markevery=[rank - 1 for rank in (1, 5, 10, 20) if rank <= len(heights)],
            markersize=6,
            **line_style(number),
        )
    panel.set_ylim(0, 102)
    panel.set_xlim(0.5, max([2, *(min(len(curve), ranks) for curve in curves.values())]) + 0.5)
    panel.set_xticks([rank for rank in (1, 5, 10, 15, 20, 30, 40, 50) if rank <= panel.get_xlim()[1]])
    panel.set_xlabel("rank k")
    panel.set_ylabel("found by rank k, %")
    legend_below(figure, [panel], columns=4)
    return figure


def describe_cmc(curves: Mapping[str, Array]) -> str:
    """The CMC in words: ranks 1, 5 and 10 of every method."""
    parts = [
        f"{label}: "
        + ", ".join(f"{100 * float(curve[rank - 1]):.1f} % by rank {rank}" for rank in (1, 5, 10) if rank <= len(curve))
        for label, curve in curves.items()
    ]
    return "CMC curves. " + "; ".join(parts) + "."
