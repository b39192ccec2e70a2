"""The map of embeddings: one colour a person, one marker a modality, figure 5 (f to j) of DEEN."""

from collections.abc import Mapping
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from tapetum.core.types import Modality
from tapetum.plots.style import INK, MUTED, Array, letter_panels, new_panels, styled

SHAPES = {Modality.VISIBLE: "o", Modality.INFRARED: "^"}  # as the poster's caption says; the script marks the queries
NAMES = {Modality.VISIBLE: "visible", Modality.INFRARED: "infrared"}
COLOURS = "tab20"  # of matplotlib; further people begin again


@dataclass(frozen=True)
class EmbeddingMap:
    """Points of one method's embeddings."""

    points: Array  # (N, 2), each axis from 0 to 1
    pids: NDArray[np.int64]  # (N,)
    modalities: NDArray[np.int64]  # (N,) values of `Modality`


@styled
def draw_embedding(maps: Mapping[str, EmbeddingMap], *, titles: bool = True) -> Figure:
    """One panel a method; circles are visible, triangles infrared pictures, and a person has one colour in all."""
    figure, axes = new_panels(len(maps), 2, 4.4, 3.9, 0.4, wider=0.2)
    people = sorted({int(pid) for each in maps.values() for pid in each.pids})
    palette = np.asarray(mpl.colormaps[COLOURS].colors)  # type: ignore[attr-defined]
    colours = {pid: palette[place % len(palette)] for place, pid in enumerate(people)}
    modalities = _list_modalities(maps)
    for panel, title, each in zip(axes, letter_panels(maps), maps.values(), strict=True):
        for modality in modalities:
            rows = (each.modalities == int(modality)).nonzero()[0]
            panel.scatter(
                each.points[rows, 0],
                each.points[rows, 1],
                s=26,
                c=[colours[int(pid)] for pid in each.pids[rows]],
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
            panel.set_title(title)
    handles = [
        Line2D([], [], linestyle="", marker=SHAPES[each], color="none", markeredgecolor=MUTED, label=NAMES[each])
        for each in modalities
    ]
    if handles:
        figure.legend(handles=handles, loc="outside lower center", ncols=2, title="a colour is a person")
    return figure


def describe_embedding(maps: Mapping[str, EmbeddingMap]) -> str:
    """The maps in words: how many people and pictures, and how near a person's modalities lie to each other."""
    parts = []
    for label, each in maps.items():
        counts = [
            f"{int((each.modalities == int(modality)).sum())} {NAMES[modality]} pictures"
            for modality in _list_modalities({label: each})
        ]
        words = f"{label}: {len(set(each.pids.tolist()))} people, {' and '.join(counts)}"
        share = compute_agreement(each)
        if not np.isnan(share):
            other = "the other modality" if len(counts) > 1 else "another picture"
            words += f"; the nearest point of {other} shows the same person for {100 * share:.0f} %"
        parts.append(words)
    return "Map of embeddings in two dimensions (t-SNE). " + ". ".join(parts) + "."


def compute_agreement(plane: EmbeddingMap) -> float:
    """For what share of the points the nearest other point shows the same person; NaN where there is none.

    Where the map has two modalities, points of the same one are no neighbours.
    """
    apart = np.linalg.norm(plane.points[:, None] - plane.points[None], axis=2)
    two = len(set(plane.modalities.tolist())) > 1
    apart[(plane.modalities[:, None] == plane.modalities[None]) if two else np.eye(len(apart), dtype=bool)] = np.inf
    if apart.size == 0 or np.isinf(apart).all(1).any():
        return float("nan")
    return float((plane.pids[apart.argmin(1)] == plane.pids).mean())


def _list_modalities(maps: Mapping[str, EmbeddingMap]) -> list[Modality]:
    """Those that some map shows, visible first."""
    return [modality for modality in SHAPES if any((each.modalities == int(modality)).any() for each in maps.values())]
