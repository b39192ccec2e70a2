"""Pictures of datasets: a row a person, a column a camera; figure 6 of the IDF paper, 4 and 5 of the DEEN poster."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from tapetum.plots.style import MUTED, Picture, brighten, new_figure, show_picture, styled


@dataclass(frozen=True)
class Samples:
    """Some people of one dataset, from those in the dark to those in the light."""

    title: str
    people: Sequence[str]  # P names
    cameras: Sequence[str]  # C names, infrared ones last
    pictures: Sequence[Sequence[Picture | None]]  # P x C, (h, w, 3) uint8 RGB; None where a camera saw nothing of one
    lightness: Sequence[Sequence[float]]  # P x C, mean of each picture, 0..255; NaN where there is none


@styled
def draw_samples(sheets: Sequence[Samples], *, exponent: float = 1.0) -> Figure:
    """One block a dataset, below each other; the mean lightness stands under each picture.

    Args:
        exponent: of each value between black and white when shown; 0.5 lets the eye see what a night picture holds.
    """
    columns = max([1, *(len(sheet.cameras) for sheet in sheets)])
    heights = [1.75 * max(1, len(sheet.people)) + 0.45 for sheet in sheets]
    figure = new_figure(0.85 * columns + 0.6, sum(heights))
    blocks = figure.subfigures(max(1, len(sheets)), 1, squeeze=False, height_ratios=heights or [1])[:, 0]
    for block, sheet in zip(blocks, sheets, strict=False):
        block.suptitle(sheet.title, x=0.01, ha="left", fontsize=11, fontweight="bold")
        grid = block.add_gridspec(max(1, len(sheet.people)), columns)
        for row, person in enumerate(sheet.people):
            for column, camera in enumerate(sheet.cameras):
                panel = block.add_subplot(grid[row, column])
                picture = sheet.pictures[row][column]
                blank = np.full((2, 1, 3), 255, np.uint8)
                show_picture(panel, blank if picture is None else brighten(picture, exponent))
                if picture is not None:
                    panel.set_xlabel(f"light {sheet.lightness[row][column]:.0f}", fontsize=7, color=MUTED)
                if row == 0:
                    panel.set_title(camera.replace(" infrared", "\ninfrared"), fontsize=8, loc="center", pad=3)
                if column == 0:
                    panel.set_ylabel(person, fontsize=8)
    return figure


def describe_samples(sheets: Sequence[Samples]) -> str:
    """The pictures in words: who is seen by which cameras, and how bright."""
    parts = []
    for sheet in sheets:
        rows = [
            f"{person} "
            + ", ".join(
                f"{light:.0f} under {camera}"
                for camera, light in zip(sheet.cameras, lightness, strict=True)
                if not np.isnan(light)
            )
            for person, lightness in zip(sheet.people, sheet.lightness, strict=True)
        ]
        parts.append(f"{sheet.title}, mean lightness of 0 to 255: {'; '.join(rows)}")
    return f"Pictures of people, dark ones first. {'. '.join(parts)}."
