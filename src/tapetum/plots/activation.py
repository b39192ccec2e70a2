"""Where networks look: pictures beside heat maps laid over them, figures 5 and 9 of the IDF paper."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from tapetum.plots.style import MUTED, Array, Picture, brighten, new_figure, show_picture, styled

COLOURS = "magma"  # of matplotlib: dark to bright also in grey and under every common colour blindness
OPACITY = 0.55  # of the map over the picture
CELL, CAPTION, LINE, MARGIN = (0.9, 1.8), 0.36, 0.15, 0.12  # inches
GAPS = (0.06, 0.18, 0.4)  # inches behind a map of several, behind a run, behind a dataset
BANDS = ("upper", "middle", "lower")


@dataclass(frozen=True)
class RunMaps:
    """What one run looks at in N pictures."""

    title: str  # e.g. the run's name
    rules: Sequence[str]  # of each of its K maps: how it was computed and of which layer
    names: Sequence[str]  # of each map, e.g. "night" and "enhanced"; "" where there is one only
    pictures: Sequence[Picture]  # N as the run received them, (H, W, 3) uint8 RGB each
    heat: Sequence[Array]  # K maps of all pictures, (N, H, W) in 0..1 each
    scores: Sequence[str]  # of each picture, what the maps explain, e.g. "class score 7.1"; "" where nothing


@dataclass(frozen=True)
class Activations:
    """Some pictures of one dataset under several runs."""

    title: str  # "" where there is one dataset only
    pictures: Sequence[Picture]  # N, (h, w, 3) uint8 RGB each
    captions: Sequence[str]  # one a picture
    runs: Sequence[RunMaps]


@styled
def draw_activation(sheets: Sequence[Activations], *, exponent: float = 1.0) -> Figure:
    """A row a picture; for each dataset a column of pictures, then the maps of each run, all side by side.

    Args:
        exponent: of each value between black and white of the pictures; 0.5 lets the eye see a night picture.
    """
    rows = max([1, *(len(sheet.pictures) for sheet in sheets)])
    columns = [column for sheet in sheets for column in _columns_of(sheet, exponent)]
    lefts = MARGIN + np.cumsum([0.0, *(CELL[0] + column.gap for column in columns)])
    rules = _rules(sheets)
    head = LINE * max([1, *(column.title.count("\n") + 1 for column in columns)]) + MARGIN
    foot = LINE * len(rules) + MARGIN
    width, height = float(lefts[-1]) - GAPS[2] + MARGIN, head + rows * (CELL[1] + CAPTION) + foot
    figure = new_figure(width, height)
    figure.set_layout_engine("none")  # all sizes are known
    for left, column in zip(lefts, columns, strict=False):
        for row, (picture, caption) in enumerate(zip(column.pictures, column.captions, strict=True)):
            bottom = height - head - row * (CELL[1] + CAPTION) - CELL[1]
            panel = figure.add_axes((left / width, bottom / height, CELL[0] / width, CELL[1] / height))
            show_picture(panel, picture)
            panel.set_xlabel(caption, fontsize=7, color=MUTED, loc="left")
            if row == 0:
                panel.set_title(column.title, fontsize=8, loc="left", pad=3)
    figure.text(MARGIN / width, MARGIN / height / 2, "\n".join(rules), fontsize=7, color=MUTED, va="bottom")
    return figure


@dataclass(frozen=True)
class _Column:
    title: str
    pictures: Sequence[Picture]
    captions: Sequence[str]
    gap: float  # behind it, in inches


def _columns_of(sheet: Activations, exponent: float) -> list[_Column]:
    palette = mpl.colormaps[COLOURS]
    bright = [brighten(picture, exponent) for picture in sheet.pictures]
    columns = [_Column(_broken(sheet.title) or "picture", bright, sheet.captions, GAPS[1])]
    for run in sheet.runs:
        for part, (heat, name) in enumerate(zip(run.heat, run.names, strict=True)):
            title = "\n".join(filter(None, [_broken(run.title) if part == 0 else "", name]))
            laid = [
                _overlay(brighten(picture, exponent), palette(values)[..., :3])
                for picture, values in zip(run.pictures, heat, strict=True)
            ]
            captions = run.scores if part == 0 else [""] * len(laid)
            columns.append(_Column(title, laid, captions, GAPS[0] if part + 1 < len(run.heat) else GAPS[1]))
    return [*columns[:-1], replace(columns[-1], gap=GAPS[2])]


def describe_activation(sheets: Sequence[Activations]) -> str:
    """The maps in words: how each was computed, of what scores, and in which third of the height its warmth lies."""
    parts = []
    for sheet in sheets:
        for run in sheet.runs:
            for rule, name, heat in zip(run.rules, run.names, run.heat, strict=True):
                name_of_all = ", ".join(filter(None, [sheet.title, run.title, name]))
                parts.append(f"{name_of_all}: {rule}; {_describe_warmth(np.asarray(heat))}")
        scores = [
            f"{caption}: {', '.join(run.scores[row] or 'no score' for run in sheet.runs)}"
            for row, caption in enumerate(sheet.captions)
        ]
        parts.append("; ".join(each.replace("\n", ", ") for each in scores))
    return "Where the networks look. " + ". ".join(parts) + "."


def share_of_bands(heat: Array) -> Array:
    """(3,) how much of some maps' warmth lies in the upper, middle and lower third; NaN where all are empty.

    Args:
        heat: (N, H, W).
    """
    by_row = heat.sum((0, 2))
    edges = np.linspace(0, len(by_row), len(BANDS) + 1)
    places = np.arange(len(by_row) + 1)
    below = np.interp(edges, places, np.concatenate([[0.0], np.cumsum(by_row)]))
    total = below[-1]
    shares: Array = np.diff(below) / (total if total > 0 else np.nan)
    return shares


def _describe_warmth(heat: Array) -> str:
    silent = int((heat.reshape(len(heat), -1).max(1) == 0).sum())
    if silent == len(heat):
        return "it is empty"
    spread = zip(share_of_bands(heat), BANDS, strict=True)
    words = "of its warmth " + ", ".join(f"{100 * share:.0f} % {band}" for share, band in spread) + " third"
    return words + (f"; {silent} of {len(heat)} are empty" if silent else "")


def _overlay(picture: Picture, colours: Array) -> Picture:
    mixed = (1 - OPACITY) * picture / 255 + OPACITY * colours
    return (255 * mixed).round().astype(np.uint8)


def _rules(sheets: Sequence[Activations]) -> list[str]:
    """How the maps of each run were computed, a line a run."""
    return list(dict.fromkeys(f"{run.title}: {', '.join(run.rules)}" for sheet in sheets for run in sheet.runs))


def _broken(title: str) -> str:
    """A long name on several lines, broken at underscores."""
    lines = [""]
    for part in title.replace("_", "_\0").split("\0"):
        if lines[-1] and len(lines[-1]) + len(part) > 12:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)
