"""What all figures share: colours that survive colour blindness and print, one font size, ways out of matplotlib.

Figures are `matplotlib.figure.Figure` objects on an Agg canvas; pyplot and its global state are never used. Colours
are named once here, so that the report can swap each for a variable of its style sheet and follow a dark scheme.
"""

import io
import re
from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from string import ascii_lowercase
from typing import Any, ParamSpec

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Figure
from numpy.typing import NDArray

from tapetum.core.errors import OutputError

Array = NDArray[np.float64]
Picture = NDArray[np.uint8]  # (H, W, 3) RGB
INK = "#17202a"
MUTED = "#5b6672"
GRID = "#dde3e9"
SURFACE = "#fdfefe"
RIGHT = "#1667b7"  # blue and orange stay apart under every common colour blindness
WRONG = "#c4410c"
SERIES = ("#8a5a00", "#0b6fa4", "#6d4bb0", "#1f7a4d", "#a62b5a")
PRIMARIES = ("#c0392b", "#2e8b57", "#2f6fd0")  # red, green, blue channel
SHADES = ("#2b3a55", "#6f86ad", "#c9d5ea")  # low, medium, high; small, medium, big
MARKERS = ("o", "s", "^", "D", "v")
DASHES = ("-", "-", "--", "-.", ":")
VARIABLES = {  # colour -> variable of the report's style sheet
    INK: "--ink",
    MUTED: "--muted",
    GRID: "--line",
    SURFACE: "--surface",
    RIGHT: "--right",
    WRONG: "--wrong",
    **{colour: f"--series-{number}" for number, colour in enumerate(SERIES, 1)},
    **{colour: f"--channel-{name}" for colour, name in zip(PRIMARIES, ("red", "green", "blue"), strict=True)},
    **{colour: f"--shade-{number}" for number, colour in enumerate(SHADES, 1)},
}
WIDTH = 4.0  # inches of a figure of one column: on a phone its text stays about 11 pixels high
SUFFIXES = (".png", ".svg", ".pdf")
SETTINGS: dict[str, object] = {
    "font.family": ["DejaVu Sans"],
    "font.size": 10.0,
    "axes.titlesize": 11.0,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 8.0,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.titlecolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0.0,
    "ytick.major.size": 0.0,
    "legend.frameon": False,
    "lines.linewidth": 2.0,
    "lines.solid_capstyle": "round",
    "svg.fonttype": "none",
    "svg.hashsalt": "tapetum",
}

P = ParamSpec("P")


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """A drawing function that runs under the house's settings and leaves matplotlib's own as they were."""

    @wraps(draw)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with mpl.rc_context(SETTINGS):  # type: ignore[arg-type]
            return draw(*args, **kwargs)

    return wrapped


def new_figure(width: float, height: float) -> Figure:
    """An empty figure with its own canvas, unknown to pyplot; sizes are in inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def new_panels(
    count: int, columns: int, width: float, height: float, legend: float = 0, *, wider: float = 0
) -> tuple[Figure, list[Axes]]:
    """A figure of some axes in a grid, row by row.

    Args:
        columns: in a row at most; a single one is `WIDTH` inches wide.
        width: of one of several columns, in inches, as all lengths.
        height: of a row.
        legend: height below the panels.
        wider: than the columns are.
    """
    columns = max(1, min(columns, count))
    rows = max(1, -(-count // columns))
    figure = new_figure((WIDTH if columns == 1 else width * columns) + wider, height * rows + legend)
    return figure, [figure.add_subplot(rows, columns, place + 1) for place in range(count)]


def letter_panels(labels: Iterable[str]) -> list[str]:
    """Titles that a text can point at: (a), (b), ... before each, where there are several panels."""
    titles = list(labels)
    if not 1 < len(titles) <= len(ascii_lowercase):
        return titles
    return [f"({letter}) {title}" for letter, title in zip(ascii_lowercase, titles, strict=False)]


def show_picture(panel: Axes, picture: Picture) -> None:
    """A picture without axes, twice as high as wide."""
    panel.imshow(picture, aspect="auto", interpolation="antialiased")
    panel.set_xticks([])
    panel.set_yticks([])
    panel.set_box_aspect(2.0)
    panel.grid(visible=False)
    for spine in panel.spines.values():
        spine.set_visible(False)


def brighten(picture: Picture, exponent: float) -> Picture:
    """The picture with each value between black and white raised to a power; 1 leaves it alone."""
    if exponent == 1.0:
        return picture
    values = 255 * (np.arange(256) / 255) ** exponent
    return values.round().astype(np.uint8)[picture]


def line_style(number: int) -> dict[str, Any]:
    """Colour and dash of the line with this number."""
    return {"color": SERIES[number % len(SERIES)], "linestyle": DASHES[number % len(DASHES)]}


def legend_below(figure: Figure, axes: Sequence[Axes], *, columns: int = 3) -> None:
    """One legend for the whole figure, under the panels; each label once, whichever panel it is in."""
    entries = {
        label: handle for panel in axes for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)
    }
    if entries:
        longest = max(map(len, entries))
        fitting = int(figure.get_figwidth() / (0.5 + 0.085 * longest))  # inches of a handle, and of a letter
        places = max(1, min(columns, len(entries), fitting))
        figure.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=places, handlelength=1.6)


def svg_text(figure: Figure, prefix: str) -> str:
    """The figure as an ``<svg>`` element for a page: house colours as style variables, the page's font, own ids.

    Args:
        prefix: put before every id, so that several figures live on one page.
    """
    buffer = io.StringIO()
    with mpl.rc_context(SETTINGS):  # type: ignore[arg-type]
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r' (?:xmlns:xlink|xmlns)="[^"]*"', "", text).replace("xlink:href=", "href=")
    text = re.sub(r'\bid="', f'id="{prefix}-', text)
    text = re.sub(r'href="#', f'href="#{prefix}-', text)
    text = re.sub(r"url\(#", f"url(#{prefix}-", text)
    text = re.sub(r"'DejaVu Sans'(?:, '[^']*')*(?:, [a-z-]+)?", "var(--font)", text)
    for colour, variable in VARIABLES.items():
        text = text.replace(colour, f"var({variable})")
    return re.sub(r"\n\s*", "\n", text).strip()


def figure_bytes(figure: Figure, ending: str, *, dots_per_inch: int = 160) -> bytes:
    """The figure on white as the content of a file; the same figure gives the same bytes.

    Args:
        ending: ".png", ".svg" or ".pdf".
        dots_per_inch: of a PNG.
    Raises:
        OutputError: the ending is none of these.
    """
    if ending not in SUFFIXES:
        raise OutputError(
            f"a figure cannot be written as {ending or 'a file without ending'}; use {', '.join(SUFFIXES)}"
        )
    metadata: dict[str, dict[str, None]] = {".png": {}, ".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
    buffer = io.BytesIO()
    with mpl.rc_context(SETTINGS):  # type: ignore[arg-type]
        figure.savefig(buffer, format=ending[1:], dpi=dots_per_inch, facecolor="white", metadata=metadata[ending])
    return buffer.getvalue()
