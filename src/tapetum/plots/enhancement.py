"""Night pictures beside their enhancement, each with its mean lightness."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from tapetum.plots.style import MUTED, Picture, new_figure, show_picture, styled


@styled
def draw_enhancement(
    night: Sequence[Picture], enhanced: Sequence[Picture], *, captions: Sequence[str] | None = None
) -> Figure:
    """Two rows: the pictures as they are, and as the enhancer makes them.

    Args:
        night: N pictures, (H, W, 3) uint8 RGB each.
        enhanced: the same pictures enhanced, in the same order.
        captions: under each pair.
    """
    count = max(1, len(night))
    figure = new_figure(max(4.8, 0.85 * count), 4.0)
    grid = figure.add_gridspec(2, count)
    for column, pair in enumerate(zip(night, enhanced, strict=True)):
        for row, picture in enumerate(pair):
            panel = figure.add_subplot(grid[row, column])
            show_picture(panel, picture)
            panel.set_title(f"{np.mean(picture):.0f}", fontsize=8, loc="center", pad=3, color=MUTED)
            if column == 0:
                panel.set_ylabel(("night", "enhanced")[row], fontsize=10)
            if row == 1 and captions:
                panel.set_xlabel(captions[column], fontsize=7)
    return figure


def describe_enhancement(night: Sequence[Picture], enhanced: Sequence[Picture]) -> str:
    """The pairs in words: mean lightness before and after."""
    pairs = [f"{np.mean(dark):.0f} to {np.mean(bright):.0f}" for dark, bright in zip(night, enhanced, strict=True)]
    return f"{len(pairs)} night pictures and their enhancement; mean value of 0 to 255 goes from {', '.join(pairs)}."
