"""Light, scale and colour of a dataset's pictures, as in figures 3 and 7 of the IDF paper."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from tapetum.plots.style import INK, MUTED, PRIMARIES, SHADES, legend_below, line_style, new_panels, styled

Values = NDArray[Any]
Panel = Literal["light", "scale", "colour"]
LIGHT_BOUNDS = (25.5, 51.0)  # mean lightness 0..255: low below the first, high above the second
SIZE_BOUNDS = (100.0, 200.0)  # height in pixels: small below the first, big above the second
LIGHT_LEVELS = ("low", "medium", "high")
SIZE_LEVELS = ("small", "medium", "big")
TITLES: dict[Panel, str] = {"light": "Light", "scale": "Scale", "colour": "Colour"}
PANELS = tuple(TITLES)


class PictureArrays(Protocol):
    """What the histograms need of a dataset's statistics: one value a picture, (N,) each."""

    @property
    def lightness(self) -> Values:
        """Mean, 0..255."""

    @property
    def height(self) -> Values:
        """In pixels."""

    @property
    def red(self) -> Values:
        """Mean of the channel, 0..255."""

    @property
    def green(self) -> Values:
        """Likewise."""

    @property
    def blue(self) -> Values:
        """Likewise."""


@styled
def draw_histograms(stats: PictureArrays, *, shown: Sequence[Panel] = PANELS, titles: bool = True) -> Figure:
    """Histograms of mean lightness, height and mean red, green, blue."""
    figure, axes = new_panels(len(shown), 3, 3.6, 2.9)
    for panel, name in zip(axes, shown, strict=True):
        if name == "light":
            _draw_levels(panel, stats.lightness, LIGHT_BOUNDS, LIGHT_LEVELS, "mean lightness, 0 to 255")
        elif name == "scale":
            _draw_levels(panel, stats.height, SIZE_BOUNDS, SIZE_LEVELS, "height, pixels")
        else:
            _draw_colour(panel, stats)
        if titles:
            panel.set_title(TITLES[name])
        panel.set_ylabel("pictures")
    return figure


@styled
def draw_side_by_side(stats: Mapping[str, PictureArrays]) -> Figure:
    """Light and scale of several datasets over each other, in percent of each one's pictures; colour one by one."""
    figure, axes = new_panels(2 + len(stats), 3, 3.6, 2.9, 0.4)
    light, scale, *colours = axes
    _overlay(light, {name: each.lightness for name, each in stats.items()}, LIGHT_BOUNDS, 3, "mean lightness, 0 to 255")
    _overlay(scale, {name: each.height for name, each in stats.items()}, SIZE_BOUNDS, 5, "height, pixels")
    light.set_title(TITLES["light"])
    scale.set_title(TITLES["scale"])
    for panel, (name, each) in zip(colours, stats.items(), strict=True):
        _draw_colour(panel, each)
        panel.set_title(f"{TITLES['colour']}, {name}")
        panel.set_ylabel("pictures")
    legend_below(figure, [light])
    return figure


def describe_side_by_side(stats: Mapping[str, PictureArrays]) -> str:
    """Several datasets in words, one after the other."""
    return " ".join(f"{name}: {describe_histograms(each)}" for name, each in stats.items())


def _overlay(panel: Axes, values: Mapping[str, Values], bounds: tuple[float, float], bins: int, label: str) -> None:
    """An outline a dataset, over so many bins a level that no level's bound divides one."""
    top = max([bounds[1] * 1.25, *(float(np.max(each, initial=0.0)) for each in values.values())])
    width = bounds[0] / bins
    edges = np.arange(0, top + width, width)
    for number, (name, each) in enumerate(values.items()):
        shares = 100 * np.histogram(each, edges)[0] / max(1, len(each))
        panel.stairs(shares, edges, linewidth=1.8, label=name, **line_style(number))
    for bound in bounds:
        panel.axvline(bound, color=MUTED, linewidth=1, linestyle="--")
    panel.set_xlim(0, edges[-1])
    panel.set_ylim(bottom=0)
    panel.set_xlabel(label)
    panel.set_ylabel("% of pictures")


def describe_histograms(stats: PictureArrays, *, shown: Sequence[Panel] = PANELS) -> str:
    """The histograms in words: share of every level, mean of every channel."""
    parts = []
    if "light" in shown:
        parts.append("Light: " + _shares(stats.lightness, LIGHT_BOUNDS, LIGHT_LEVELS))
    if "scale" in shown:
        parts.append("Scale: " + _shares(stats.height, SIZE_BOUNDS, SIZE_LEVELS))
    if "colour" in shown:
        means = ", ".join(
            f"{name} {float(np.mean(values)):.1f}"
            for name, values in (("red", stats.red), ("green", stats.green), ("blue", stats.blue))
            if len(values)
        )
        parts.append(f"Colour, mean of 0 to 255: {means}")
    return f"Histograms of {len(stats.lightness)} pictures. " + ". ".join(parts) + "."


def _draw_levels(
    panel: Axes, values: Values, bounds: tuple[float, float], levels: tuple[str, str, str], label: str
) -> None:
    """One histogram whose bars are shaded by level, with each level's share above."""
    values = np.asarray(values, dtype=np.float64)
    top = max(float(values.max(initial=0.0)), bounds[1] * 1.25)
    edges = np.linspace(0, top, 41)
    edges = np.unique(np.concatenate([edges, bounds]))  # no bar may straddle two levels
    counts, _ = np.histogram(values, edges)
    heights = counts / np.diff(edges) * (top / 40)  # equal areas for unequal widths
    level = np.digitize(edges[:-1], bounds)
    panel.bar(edges[:-1], heights, np.diff(edges), align="edge", color=[SHADES[i] for i in level], linewidth=0)
    shares = _count(values, bounds) / max(1, len(values))
    limits = (0.0, *bounds, top)
    ceiling = 1.2 * max(1.0, float(heights.max(initial=1.0)))
    panel.set_ylim(0, ceiling)
    panel.set_xlim(0, top)
    for place, name in enumerate(levels):
        middle = (limits[place] + limits[place + 1]) / 2
        words = f"{name}\n{100 * shares[place]:.0f} %"
        panel.text(middle, 0.995 * ceiling, words, ha="center", va="top", fontsize=9, color=INK)
    for bound in bounds:
        panel.axvline(bound, color=MUTED, linewidth=1, linestyle="--")
    panel.set_xlabel(label)


def _draw_colour(panel: Axes, stats: PictureArrays) -> None:
    """Three outlines over one axis, named at their peaks rather than in a legend."""
    channels = [np.asarray(values, dtype=np.float64) for values in (stats.red, stats.green, stats.blue)]
    top = max(32.0, *(float(values.max(initial=0.0)) for values in channels))
    edges = np.linspace(0, top, 41)
    for values, colour, dash, name in zip(channels, PRIMARIES, ("-", "--", ":"), ("red", "green", "blue"), strict=True):
        counts, _ = np.histogram(values, edges)
        label = f"{name} {np.mean(values) if len(values) else 0:.0f}"
        panel.stairs(counts, edges, color=colour, linewidth=1.8, linestyle=dash, label=label)
    panel.set_xlim(0, top)
    panel.set_ylim(bottom=0)
    panel.set_xlabel("channel mean, 0 to 255")
    panel.legend(loc="upper right", title="mean of", alignment="left", handlelength=2.2)


def _count(values: Values, bounds: tuple[float, float]) -> NDArray[np.int64]:
    """Pictures of the three levels; a value on a bound belongs to the middle."""
    values = np.asarray(values, dtype=np.float64)
    low, high = values < bounds[0], values > bounds[1]
    return np.array([low.sum(), len(values) - low.sum() - high.sum(), high.sum()], dtype=np.int64)


def _shares(values: Values, bounds: tuple[float, float], levels: tuple[str, str, str]) -> str:
    counts = _count(values, bounds)
    return ", ".join(f"{100 * n / max(1, len(values)):.0f} % {name}" for name, n in zip(levels, counts, strict=True))
