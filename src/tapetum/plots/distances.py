"""Intra- and inter-class distances: how far pairs of one person lie from pairs of two, figure 5 (a to e) of DEEN."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from tapetum.evaluation.pair_distances import PairDistances
from tapetum.plots.style import INK, RIGHT, WRONG, legend_below, letter_panels, new_panels, styled

BIN = 0.01  # width of the bins drawn and compared
MARGIN = 0.05


@styled
def draw_distances(
    distances: Mapping[str, PairDistances], *, titles: bool = True, beside: Mapping[str, PairDistances] | None = None
) -> Figure:
    """Two filled histograms a method, each of area one, their means as lines; all panels have the same axes.

    Args:
        distances: label of a method -> its distances.
        beside: what figures next to this one show, whose axes it shares; None takes `distances` alone.
    """
    figure, axes = new_panels(len(distances), 2, 3.6, 2.9, 0.3)
    low, high = find_limits(beside or distances)
    curves = [each.densities(BIN) for each in (beside or distances).values()]
    ceiling = max((float(values.max()) for _, *both in curves for values in both), default=1.0)
    for panel, title, each in zip(axes, letter_panels(distances), distances.values(), strict=True):
        edges, intra, inter = each.densities(BIN)
        for values, mean, colour, dash, name in (
            (intra, each.intra_mean, RIGHT, "-", "one person (intra-class)"),
            (inter, each.inter_mean, WRONG, (0, (3, 2)), "two people (inter-class)"),
        ):
            panel.stairs(values, edges, fill=True, color=colour, alpha=0.45, linewidth=0, label=name)
            panel.stairs(values, edges, color=colour, linewidth=1.4)
            if not np.isnan(mean):
                panel.axvline(mean, ymax=0.78, color=colour, linestyle=dash, linewidth=1.6)
        panel.set_xlim(low, high)
        panel.set_ylim(0, 1.28 * ceiling)
        means = " / ".join("none" if np.isnan(mean) else f"{mean:.2f}" for mean in (each.intra_mean, each.inter_mean))
        words = f"means {means}\noverlap {100 * each.overlap(BIN):.0f} %"
        panel.text(0.5, 0.985, words, transform=panel.transAxes, ha="center", va="top", fontsize=8.5, color=INK)
        panel.set_xlabel("cosine distance")
        panel.set_ylabel("density of pairs")
        if titles:
            panel.set_title(title)
    legend_below(figure, axes, columns=2)
    return figure


def describe_distances(distances: Mapping[str, PairDistances]) -> str:
    """The histograms in words: pairs, means, overlap."""
    parts = [
        f"{label}: {int(each.intra.sum()):,} pairs of one person at a mean of {each.intra_mean:.3f}, "
        f"{int(each.inter.sum()):,} of two people at {each.inter_mean:.3f}; "
        f"{100 * each.overlap(BIN):.1f} % of the areas overlap; a pair of one person is the closer one in "
        f"{100 * each.separability():.1f} % of comparisons"
        for label, each in distances.items()
    ]
    return "Histograms of the cosine distance of pairs of pictures. " + ". ".join(parts) + "."


def find_limits(distances: Mapping[str, PairDistances]) -> tuple[float, float]:
    """Ends of the distance axis that leave out no pair of any method."""
    bins = [(each.edges, ((each.intra + each.inter) > 0).nonzero()[0]) for each in distances.values()]
    ends = [(float(edges[places[0]]), float(edges[places[-1] + 1])) for edges, places in bins if len(places)]
    if not ends:
        return 0.0, 2.0
    return max(0.0, min(low for low, _ in ends) - MARGIN), min(2.0, max(high for _, high in ends) + MARGIN)
