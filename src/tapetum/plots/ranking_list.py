"""Rank lists: each query beside its first answers, right and wrong told apart by colour, line and sign."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from tapetum.plots.style import INK, MUTED, RIGHT, WRONG, Picture, brighten, new_figure, show_picture, styled

RIGHT_SIGN, WRONG_SIGN = "✓", "✗"


@dataclass(frozen=True)
class Answers:
    """What one method answers.

    Attributes:
        pictures: for each query (H, W, 3) uint8 RGB each, nearest first.
        right: for each query whether each of them shows the same person.
    """

    pictures: Sequence[Sequence[Picture]]
    right: Sequence[Sequence[bool]]


@styled
def draw_ranking_list(
    queries: Sequence[Picture],
    methods: Mapping[str, Answers],
    *,
    captions: Sequence[str] | None = None,
    modalities: Sequence[str] | None = None,
    title: str = "",
    exponent: float = 1.0,
) -> Figure:
    """One row a query: the query, then the answers of each method in order of rank, side by side.

    Args:
        queries: (H, W, 3) uint8 RGB each.
        methods: by their names, which stand above their answers where there are several.
        captions: under each query.
        modalities: above each query, "visible" or "infrared"; None where all pictures are of one.
        title: above everything.
        exponent: of each value between black and white when shown; 0.5 lets the eye see what a night picture holds.
    """
    depth = max([1, *(len(row) for each in methods.values() for row in each.pictures)])
    rows, several = max(1, len(queries)), len(methods) > 1
    height = (1.72 if modalities else 1.42) * rows + (0.35 if title else 0.05) + (0.3 if several else 0)
    figure = new_figure((0.62 * depth + 0.1) * max(1, len(methods)) + 1.12, height)
    widths = [1.0]
    for _ in methods:
        widths += [0.12 if len(widths) == 1 else 0.35, *[1] * depth]
    grid = figure.add_gridspec(rows, max(2, len(widths)), width_ratios=[*widths, *([0.12] if len(widths) == 1 else [])])
    for row, query in enumerate(queries):
        panel = figure.add_subplot(grid[row, 0])
        _show(panel, brighten(query, exponent), INK, "-")
        name = f"query\n{modalities[row]}" if modalities and modalities[row] else "query"
        panel.set_title(name, fontsize=8, loc="center", pad=3)
        if captions:
            panel.set_xlabel(captions[row], fontsize=7, color=MUTED)
        for number, (name, each) in enumerate(methods.items()):
            for place, (picture, is_right) in enumerate(zip(each.pictures[row], each.right[row], strict=True)):
                panel = figure.add_subplot(grid[row, number * (depth + 1) + place + 2])
                colour, sign = (RIGHT, RIGHT_SIGN) if is_right else (WRONG, WRONG_SIGN)
                _show(panel, brighten(picture, exponent), colour, "-" if is_right else (0, (3, 2)))
                panel.set_title(f"{place + 1} {sign}", fontsize=8, loc="center", pad=3, color=colour)
                if several and row == place == 0:
                    _write_above(panel, name)
    if title:
        figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
    return figure


def describe_ranking_list(
    methods: Mapping[str, Answers],
    *,
    captions: Sequence[str] | None = None,
    modalities: Sequence[str] | None = None,
) -> str:
    """The rank lists in words: which ranks of which query are right, by each method where there are several."""
    parts = []
    for row in range(min((len(each.right) for each in methods.values()), default=0)):
        query = captions[row] if captions else f"query {row + 1}"
        query += f", {modalities[row]}" if modalities and modalities[row] else ""
        words = [
            f"{name} {describe_ranks(each.right[row])}" if len(methods) > 1 else describe_ranks(each.right[row])
            for name, each in methods.items()
        ]
        parts.append(f"{query}: {', '.join(words)}")
    return "Rank lists. " + "; ".join(parts) + "."


def describe_ranks(truth: Sequence[bool]) -> str:
    """Which ranks are right, e.g. "right at ranks 1 and 4 of 10"."""
    ranks = [str(rank) for rank, is_right in enumerate(truth, 1) if is_right]
    if not ranks:
        return f"none of {len(truth)} answers is right"
    text = ranks[0] if len(ranks) == 1 else f"{', '.join(ranks[:-1])} and {ranks[-1]}"
    return f"right at rank{'s' if len(ranks) > 1 else ''} {text} of {len(truth)}"


def _write_above(panel: Axes, name: str) -> None:
    look: dict[str, Any] = {"textcoords": "offset points", "fontweight": "bold", "fontsize": 9}
    above = panel.annotate(name, (0, 1), (-4, 14), xycoords="axes fraction", annotation_clip=False, **look)
    above.set_in_layout(False)  # a long name may stand over the next columns


def _show(panel: Axes, picture: Picture, colour: str, dash: Any) -> None:
    show_picture(panel, picture)
    look = {"fill": False, "edgecolor": colour, "linewidth": 2.4, "linestyle": dash, "clip_on": False}
    panel.add_patch(Rectangle((0, 0), 1, 1, transform=panel.transAxes, **look))
