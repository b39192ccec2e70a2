"""Intra- and inter-class distances: how far pairs of one person lie from pairs of two, figure 5 (a to e) of DEEN."""

import math
from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tapetum.evaluation.pair_distances import PairDistances
from tapetum.plots.style import INK, RIGHT, WIDTH, WRONG, legend_below, new_figure, panels, styled

BIN = 0.01  # width of the bins drawn and compared
MARGIN = 0.05


@styled
def draw_distances(
    found: Mapping[str, PairDistances],
    *,
    columns: int = 2,
    titles: bool = True,
    beside: Mapping[str, PairDistances] | None = None,
) -> Figure:
    """Two filled histograms a method, each of area one, their means as lines; all panels have the same axes.

    Args:
        found: label of a method -> its distances.
        columns: panels in a row.
        titles: whether each panel names its method.
        beside: what figures next to this one show, whose axes it shares; None takes `found` alone.
    """
    columns = max(1, min(columns, len(found)))
    rows = max(1, -(-len(found) // columns))
    figure = new_figure(WIDTH if columns == 1 else 3.6 * columns, 2.9 * rows + 0.3)
    axes = panels(figure, rows, columns, len(found))
    low, high = find_limits(beside or found)
    curves = [distances.densities(BIN) for distances in (beside or found).values()]
    ceiling = max((float(values.max()) for _, *both in curves for values in both), default=1.0)
    for panel, (label, distances) in zip(axes, found.items(), strict=True):
        edges, intra, inter = distances.densities(BIN)
        for values, mean, colour, dash, name in (
            (intra, distances.intra_mean, RIGHT, "-", "one person (intra-class)"),
            (inter, distances.inter_mean, WRONG, (0, (3, 2)), "two people (inter-class)"),
        ):
            panel.stairs(values, edges, fill=True, color=colour, alpha=0.45, linewidth=0, label=name)
            panel.stairs(values, edges, color=colour, linewidth=1.4)
            _mark(panel, mean, colour, dash)
        panel.set_xlim(low, high)
        panel.set_ylim(0, 1.28 * ceiling)
        panel.text(
            0.5,
            0.985,
            _means(distances),
            transform=panel.transAxes,
            ha="center",
            va="top",
            fontsize=8.5,
            color=INK,
        )
        panel.set_xlabel("cosine distance")
        panel.set_ylabel("density of pairs")
        if titles:
            panel.set_title(label)
    legend_below(figure, axes, columns=2)
    return figure


def describe_distances(found: Mapping[str, PairDistances]) -> str:
    """The histograms in words: pairs, means, overlap.

    Args:
        found: as for `draw_distances`.
    """
    parts = [
        f"{label}: {int(distances.intra.sum()):,} pairs of one person at a mean of {distances.intra_mean:.3f}, "
        f"{int(distances.inter.sum()):,} of two people at {distances.inter_mean:.3f}; "
        f"{100 * distances.overlap(BIN):.1f} % of the areas overlap; a pair of one person is the closer one in "
        f"{100 * distances.separability():.1f} % of comparisons"
        for label, distances in found.items()
    ]
    return "Histograms of the cosine distance of pairs of pictures. " + ". ".join(parts) + "."


def find_limits(found: Mapping[str, PairDistances]) -> tuple[float, float]:
    """Ends of the distance axis that leave out no pair of any method.

    Args:
        found: as for `draw_distances`.
    """
    filled = [(each.edges, ((each.intra + each.inter) > 0).nonzero()[0]) for each in found.values()]
    ends = [(float(edges[places[0]]), float(edges[places[-1] + 1])) for edges, places in filled if len(places)]
    if not ends:
        return 0.0, 2.0
    return max(0.0, min(low for low, _ in ends) - MARGIN), min(2.0, max(high for _, high in ends) + MARGIN)


def _mark(panel: Axes, mean: float, colour: str, dash: object) -> None:
    if not math.isnan(mean):
        panel.axvline(mean, ymax=0.78, color=colour, linestyle=dash, linewidth=1.6)


def _means(distances: PairDistances) -> str:
    means = " / ".join(
        "none" if np.isnan(mean) else f"{mean:.2f}" for mean in (distances.intra_mean, distances.inter_mean)
    )
    return f"means {means}\noverlap {100 * distances.overlap(BIN):.0f} %"
