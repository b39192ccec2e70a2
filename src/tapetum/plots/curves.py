"""Training curves: one panel a quantity, one line a run."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from tapetum.plots.style import DASHES, SERIES, WIDTH, legend_below, new_figure, panels, styled

Array = NDArray[np.float64]


@styled
def draw_curves(
    runs: Mapping[str, Mapping[str, Array]],
    *,
    quantities: Sequence[str] | None = None,
    columns: int = 2,
    titles: bool = True,
) -> Figure:
    """Every logged quantity against the epoch.

    Args:
        runs: label of a run -> quantity -> (E,) values, NaN where nothing was logged; "epoch" is the common axis,
            counted from 0 where it is missing.
        quantities: which to draw and in which order; all but "epoch" and "step" where None.
        columns: panels in a row.
        titles: whether each panel names its quantity.
    """
    names = list(quantities) if quantities is not None else list_quantities(runs)
    columns = max(1, min(columns, len(names)))
    rows = max(1, -(-len(names) // columns))
    figure = new_figure(WIDTH if columns == 1 else 3.3 * columns, 2.5 * rows + 0.3)
    axes = panels(figure, rows, columns, len(names))
    for panel, name in zip(axes, names, strict=True):
        for number, (label, columns_of_run) in enumerate(runs.items()):
            epochs, values = _points(columns_of_run, name)
            if not len(values):
                continue  # the colour stays the run's own in every panel
            panel.plot(
                epochs,
                values,
                label=label,
                color=SERIES[number % len(SERIES)],
                linestyle=DASHES[number % len(DASHES)],
                marker="o" if len(epochs) <= 12 else "",
                markersize=4,
            )
        if titles:
            panel.set_title(name)
        panel.set_xlabel("epoch")
        panel.margins(x=0.02)
        panel.yaxis.set_major_formatter(lambda value, _: f"{value:.4g}")
        panel.xaxis.get_major_locator().set_params(integer=True)  # type: ignore[call-arg]
    legend_below(figure, axes)
    return figure


def describe_curves(runs: Mapping[str, Mapping[str, Array]], *, quantities: Sequence[str] | None = None) -> str:
    """What a reader who cannot see `draw_curves` should know: first and last value of every line.

    Args:
        runs: as for `draw_curves`.
        quantities: as for `draw_curves`.
    """
    parts = []
    for name in quantities if quantities is not None else list_quantities(runs):
        for label, columns_of_run in runs.items():
            epochs, values = _points(columns_of_run, name)
            if len(values):
                parts.append(f"{name} of {label} goes from {values[0]:.3g} to {values[-1]:.3g} by epoch {epochs[-1]:g}")
    return "Line chart over epochs. " + ("; ".join(parts) + "." if parts else "Nothing was logged.")


def list_quantities(runs: Mapping[str, Mapping[str, Array]]) -> list[str]:
    """All quantities that some run logged, in order of first appearance, without the axes.

    Args:
        runs: as for `draw_curves`.
    """
    names = dict.fromkeys(name for columns in runs.values() for name in columns)
    return [name for name in names if name not in ("epoch", "step")]


def _points(columns: Mapping[str, Array], name: str) -> tuple[Array, Array]:
    """Epochs and values where the quantity was logged."""
    values = np.asarray(columns.get(name, ()), dtype=np.float64)
    epochs = np.asarray(columns.get("epoch", np.arange(len(values))), dtype=np.float64)[: len(values)]
    logged = np.isfinite(values)
    return epochs[logged], values[logged]
