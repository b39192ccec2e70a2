"""How far each method is above each other one, and which of the differences are real."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from tapetum.plots.style import GRID, INK, MUTED, RIGHT, SURFACE, WIDTH, WRONG, Array, new_figure, styled

CELL = 0.62  # inches


@styled
def draw_differences(
    labels: Sequence[str], differences: Array, real: NDArray[np.bool_], *, quantity: str = "mAP"
) -> Figure:
    """A square of differences between R rows: blue where the row is above the column, orange below, grey for none.

    Args:
        labels: of the R rows.
        differences: (R, R) fractions, row minus column.
        real: (R, R), whether the difference is more than chance.
        quantity: what the differences are of.
    """
    count, longest = len(labels), max(map(len, labels))
    figure = new_figure(max(WIDTH, CELL * count + 0.1 * longest), CELL * 0.7 * count + 0.1 * longest + 0.5)
    panel = figure.add_subplot()
    for row in range(count):
        for column in range(count):
            points = 100 * float(differences[row, column])
            if row == column:
                continue
            colour, ink = (RIGHT if points > 0 else WRONG, SURFACE) if real[row, column] else (GRID, MUTED)
            panel.fill_between([column - 0.48, column + 0.48], row - 0.46, row + 0.46, color=colour, linewidth=0)
            panel.text(column, row, f"{points:+.1f}", ha="center", va="center", color=ink, fontsize=9)
    panel.set_xlim(-0.5, count - 0.5)
    panel.set_ylim(count - 0.5, -0.5)
    panel.set_xticks(range(count), labels, rotation=60, ha="left", rotation_mode="anchor", color=INK)
    panel.set_yticks(range(count), labels, color=INK)
    panel.xaxis.tick_top()
    panel.grid(visible=False)
    for spine in panel.spines.values():
        spine.set_visible(False)
    panel.set_xlabel(f"row minus column, points of {quantity}; grey: none", fontsize=9)
    return figure


def describe_differences(
    labels: Sequence[str], differences: Array, real: NDArray[np.bool_], *, quantity: str = "mAP"
) -> str:
    """The differences in words: each real one, once."""
    above = np.argwhere(np.asarray(real) & (np.asarray(differences) > 0)).tolist()
    parts = [
        f"{labels[row]} is {100 * float(differences[row, column]):.1f} above {labels[column]}" for row, column in above
    ]
    return f"Differences in {quantity} in points. " + ("; ".join(parts) if parts else "None is real") + "."
