"""Training curves: one panel a quantity, one line a run."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from tapetum.plots.style import Array, legend_below, line_style, new_panels, styled


@styled
def draw_curves(
    runs: Mapping[str, Mapping[str, Array]], *, quantities: Sequence[str] | None = None, titles: bool = True
) -> Figure:
    """Every logged quantity against the epoch.

    Args:
        runs: label of a run -> quantity -> (E,) values, NaN where nothing was logged; "epoch" is the common axis,
            counted from 0 where it is missing.
        quantities: in the order of the panels; None takes all but "epoch" and "step".
    """
    names = list(quantities) if quantities is not None else list_quantities(runs)
    figure, axes = new_panels(len(names), 2, 3.3, 2.5, 0.3)
    for panel, name in zip(axes, names, strict=True):
        for number, (label, log) in enumerate(runs.items()):
            epochs, values = _points(log, name)
            if len(values):  # where there are none, the colour stays the run's own in the next panel
                marker = "o" if len(epochs) <= 12 else ""
                panel.plot(epochs, values, label=label, marker=marker, markersize=4, **line_style(number))
        if titles:
            panel.set_title(name)
        panel.set_xlabel("epoch")
        panel.margins(x=0.02)
        panel.yaxis.set_major_formatter(lambda value, _: f"{value:.4g}")
        panel.xaxis.get_major_locator().set_params(integer=True)  # type: ignore[call-arg]
    legend_below(figure, axes)
    return figure


def describe_curves(runs: Mapping[str, Mapping[str, Array]], *, quantities: Sequence[str] | None = None) -> str:
    """`draw_curves` in words: first and last value of every line."""
    parts = []
    for name in quantities if quantities is not None else list_quantities(runs):
        for label, log in runs.items():
            epochs, values = _points(log, name)
            if len(values):
                parts.append(f"{name} of {label} goes from {values[0]:.3g} to {values[-1]:.3g} by epoch {epochs[-1]:g}")
    return "Line chart over epochs. " + ("; ".join(parts) + "." if parts else "Nothing was logged.")


def list_quantities(runs: Mapping[str, Mapping[str, Array]]) -> list[str]:
    """All quantities that some run logged, in order of first appearance, without the axes."""
    names = dict.fromkeys(name for log in runs.values() for name in log)
    return [name for name in names if name not in ("epoch", "step")]


def _points(log: Mapping[str, Array], name: str) -> tuple[Array, Array]:
    """Epochs and values where the quantity was logged."""
    values = np.asarray(log.get(name, ()), dtype=np.float64)
    epochs = np.asarray(log.get("epoch", np.arange(len(values))), dtype=np.float64)[: len(values)]
    there = np.isfinite(values)
    return epochs[there], values[there]
