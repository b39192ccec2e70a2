"""The CMC curve: how often the right person stands among the first k answers."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from tapetum.plots.style import DASHES, MARKERS, MUTED, SERIES, WIDTH, legend_below, new_figure, styled

Array = NDArray[np.float64]


@styled
def draw_cmc(curves: Mapping[str, Array], *, ranks: int = 20, chance: Array | None = None) -> Figure:
    """CMC of several methods against the rank.

    Args:
        curves: label -> (R,) fractions, entry k-1 for rank k.
        ranks: ranks shown.
        chance: (R,) fractions of a ranking by lot, or None.
    """
    figure = new_figure(WIDTH, 3.2)
    panel = figure.add_subplot()
    for number, (label, curve) in enumerate(curves.items()):
        shown = np.asarray(curve, dtype=np.float64)[:ranks]
        panel.plot(
            np.arange(1, len(shown) + 1),
            100 * shown,
            label=label,
            color=SERIES[number % len(SERIES)],
            linestyle=DASHES[number % len(DASHES)],
            marker=MARKERS[number % len(MARKERS)],
            markevery=[rank - 1 for rank in (1, 5, 10, 20) if rank <= len(shown)],
            markersize=6,
        )
    if chance is not None:
        shown = np.asarray(chance, dtype=np.float64)[:ranks]
        panel.plot(np.arange(1, len(shown) + 1), 100 * shown, label="chance", color=MUTED, linestyle=":", linewidth=1.5)
    panel.set_ylim(0, 102)
    panel.set_xlim(0.5, max([2, *(min(len(curve), ranks) for curve in curves.values())]) + 0.5)
    panel.set_xticks([rank for rank in (1, 5, 10, 15, 20, 30, 40, 50) if rank <= panel.get_xlim()[1]])
    panel.set_xlabel("rank k")
    panel.set_ylabel("found by rank k, %")
    legend_below(figure, [panel], columns=4)
    return figure


def describe_cmc(curves: Mapping[str, Array], *, chance: Array | None = None) -> str:
    """The CMC in words: ranks 1, 5 and 10 of every method.

    Args:
        curves: as for `draw_cmc`.
        chance: as for `draw_cmc`.
    """
    lines = dict(curves) | ({} if chance is None else {"chance": chance})
    parts = [
        f"{label}: "
        + ", ".join(f"{100 * float(curve[rank - 1]):.1f} % by rank {rank}" for rank in (1, 5, 10) if rank <= len(curve))
        for label, curve in lines.items()
    ]
    return "CMC curves. " + "; ".join(parts) + "."
