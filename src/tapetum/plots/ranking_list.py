"""Rank lists: each query beside its first answers, right and wrong told apart by colour, line and sign."""

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from tapetum.plots.style import INK, MUTED, RIGHT, WRONG, Picture, brighten, new_figure, show_picture, styled

RIGHT_SIGN, WRONG_SIGN = "✓", "✗"


@styled
def draw_ranking_list(
    queries: Sequence[Picture],
    answers: Sequence[Sequence[Picture]],
    right: Sequence[Sequence[bool]],
    *,
    captions: Sequence[str] | None = None,
    modalities: Sequence[str] | None = None,
    title: str = "",
    exponent: float = 1.0,
) -> Figure:
    """One row a query: the query, then its answers in order of rank.

    Args:
        queries: (H, W, 3) uint8 RGB each.
        answers: for each query, nearest first.
        right: for each query whether each answer shows the same person.
        captions: under each query.
        modalities: above each query, "visible" or "infrared"; None where all pictures are of one.
        title: above everything.
        exponent: of each value between black and white when shown; 0.5 lets the eye see what a night picture holds.
    """
    depth = max([1, *(len(row) for row in answers)])
    rows = max(1, len(queries))
    height = (1.55 if modalities else 1.42) * rows + (0.3 if title else 0.05)
    figure = new_figure(0.62 * (depth + 1) + 0.5, height)
    grid = figure.add_gridspec(rows, depth + 2, width_ratios=[1, 0.12, *[1] * depth])
    for row, (query, pictures, truth) in enumerate(zip(queries, answers, right, strict=True)):
        panel = figure.add_subplot(grid[row, 0])
        _show(panel, brighten(query, exponent), INK, "-")
        name = f"query\n{modalities[row]}" if modalities and modalities[row] else "query"
        panel.set_title(name, fontsize=8, loc="center", pad=3)
        if captions:
            panel.set_xlabel(captions[row], fontsize=7, color=MUTED)
        for place, (picture, is_right) in enumerate(zip(pictures, truth, strict=True)):
            panel = figure.add_subplot(grid[row, place + 2])
            colour, sign = (RIGHT, RIGHT_SIGN) if is_right else (WRONG, WRONG_SIGN)
            _show(panel, brighten(picture, exponent), colour, "-" if is_right else (0, (3, 2)))
            panel.set_title(f"{place + 1} {sign}", fontsize=8, loc="center", pad=3, color=colour)
    if title:
        figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
    return figure


def describe_ranking_list(
    right: Sequence[Sequence[bool]],
    *,
    captions: Sequence[str] | None = None,
    modalities: Sequence[str] | None = None,
) -> str:
    """The rank lists in words: which ranks of which query are right."""
    parts = []
    for row, truth in enumerate(right):
        name = captions[row] if captions else f"query {row + 1}"
        name += f", {modalities[row]}" if modalities and modalities[row] else ""
        parts.append(f"{name}: {describe_ranks(truth)}")
    return "Rank lists. " + "; ".join(parts) + "."


def describe_ranks(truth: Sequence[bool]) -> str:
    """Which ranks are right, e.g. "right at ranks 1 and 4 of 10"."""
    ranks = [str(rank) for rank, is_right in enumerate(truth, 1) if is_right]
    if not ranks:
        return f"none of {len(truth)} answers is right"
    text = ranks[0] if len(ranks) == 1 else f"{', '.join(ranks[:-1])} and {ranks[-1]}"
    return f"right at rank{'s' if len(ranks) > 1 else ''} {text} of {len(truth)}"


def _show(panel: Axes, picture: Picture, colour: str, dash: Any) -> None:
    show_picture(panel, picture)
    look = {"fill": False, "edgecolor": colour, "linewidth": 2.4, "linestyle": dash, "clip_on": False}
    panel.add_patch(Rectangle((0, 0), 1, 1, transform=panel.transAxes, **look))
