"""The map of embeddings: one colour a person, one marker a modality, figure 5 (f to j) of DEEN."""

from collections.abc import Mapping
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from tapetum.core.types import Modality
from tapetum.plots.style import INK, MUTED, WIDTH, new_figure, panels, styled

SHAPES = {Modality.VISIBLE: "o", Modality.INFRARED: "^"}  # as the poster's caption says; the script marks the queries
NAMES = {Modality.VISIBLE: "visible", Modality.INFRARED: "infrared"}
COLOURS = "tab20"  # of matplotlib; further people begin again


@dataclass(frozen=True)
class EmbeddingMap:
    """Points of one method's embeddings.

    Attributes:
        points: (N, 2), each axis from 0 to 1.
        pids: (N,) whom each shows.
        modalities: (N,) values of `Modality`.
    """

    points: NDArray[np.float64]
    pids: NDArray[np.int64]
    modalities: NDArray[np.int64]


@styled
def draw_embedding(maps: Mapping[str, EmbeddingMap], *, columns: int = 2, titles: bool = True) -> Figure:
    """One panel a method; circles are visible, triangles infrared pictures, and a colour is a person.

    Args:
        maps: label of a method -> its map; a person has one colour in all of them.
        columns: panels in a row.
        titles: whether each panel names its method.
    """
    columns = max(1, min(columns, len(maps)))
    rows = max(1, -(-len(maps) // columns))
    figure = new_figure((WIDTH if columns == 1 else 4.4 * columns) + 0.2, 3.9 * rows + 0.4)
    axes = panels(figure, rows, columns, len(maps))
    people = sorted({int(pid) for each in maps.values() for pid in each.pids})
    palette = np.asarray(mpl.colormaps[COLOURS].colors)  # type: ignore[attr-defined]
    colours = {pid: palette[place % len(palette)] for place, pid in enumerate(people)}
    seen = list_modalities(maps)
    for panel, (label, each) in zip(axes, maps.items(), strict=True):
        for modality in seen:
            rows_of = (each.modalities == int(modality)).nonzero()[0]
            panel.scatter(
                each.points[rows_of, 0],
                each.points[rows_of, 1],
                s=26,
                c=[colours[int(pid)] for pid in each.pids[rows_of]],
                marker=SHAPES[modality],
                edgecolors=INK,
                linewidths=0.4,
            )
        panel.set_xlim(-0.04, 1.04)
        panel.set_ylim(-0.04, 1.04)
        panel.set_aspect("equal")
        panel.set_xticks([])
        panel.set_yticks([])
        panel.grid(visible=False)
        for spine in panel.spines.values():
            spine.set_visible(True)
        if titles:
            panel.set_title(label)
    handles = [
        Line2D(
            [], [], linestyle="", marker=SHAPES[modality], color="none", markeredgecolor=MUTED, label=NAMES[modality]
        )
        for modality in seen
    ]
    if handles:
        figure.legend(handles=handles, loc="outside lower center", ncols=2, title="a colour is a person")
    return figure


def describe_embedding(maps: Mapping[str, EmbeddingMap]) -> str:
    """The maps in words: how many people and pictures, and how near a person's modalities lie to each other.

    Args:
        maps: as for `draw_embedding`.
    """
    parts = []
    for label, each in maps.items():
        counts = [
            f"{int((each.modalities == int(modality)).sum())} {NAMES[modality]} pictures"
            for modality in list_modalities({label: each})
        ]
        share = compute_agreement(each)
        parts.append(
            f"{label}: {len(set(each.pids.tolist()))} people, {' and '.join(counts)}"
            + (
                ""
                if np.isnan(share)
                else f"; the nearest point of {_other(each)} shows the same person for {100 * share:.0f} %"
            )
        )
    return "Map of embeddings in two dimensions (t-SNE). " + ". ".join(parts) + "."


def compute_agreement(found: EmbeddingMap) -> float:
    """For what share of the points the nearest other point shows the same person; NaN where there is none.

    Args:
        found: a map; where it has two modalities, points of the same one are no neighbours.
    """
    apart = np.linalg.norm(found.points[:, None] - found.points[None], axis=2)
    two = len(set(found.modalities.tolist())) > 1
    apart[(found.modalities[:, None] == found.modalities[None]) if two else np.eye(len(apart), dtype=bool)] = np.inf
    if apart.size == 0 or np.isinf(apart).all(1).any():
        return float("nan")
    return float((found.pids[apart.argmin(1)] == found.pids).mean())


def list_modalities(maps: Mapping[str, EmbeddingMap]) -> list[Modality]:
    """The modalities that some map shows, visible first.

    Args:
        maps: as for `draw_embedding`.
    """
    return [modality for modality in SHAPES if any((each.modalities == int(modality)).any() for each in maps.values())]


def _other(found: EmbeddingMap) -> str:
    return "the other modality" if len(set(found.modalities.tolist())) > 1 else "another picture"
