"""Several datasets side by side: Table I and figure 7 of the IDF paper, counted here, the paper's numbers beside."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tapetum.core.errors import RecipeError
from tapetum.data.catalog import numbers_anew, open_dataset
from tapetum.data.lighting import LIGHT_LEVELS, PictureStatistics, light_levels, measure_pictures
from tapetum.data.pictures import drop_corrupt
from tapetum.data.stats import DatasetSize, count_dataset, each_once
from tapetum.data.threads import Progress
from tapetum.experiments.published import TABLE_I
from tapetum.experiments.published_deen import TABLE_1
from tapetum.runs.sources import NamedRoot, label_roots

COUNTED = ("people", "cameras", "pictures", "mean lightness", *LIGHT_LEVELS, "median height, px")
PRINTED = ("people", "cameras", "pictures", "viewpoint", "labelling", "glimmer")
NOTE = (
    "Counted: people who train or are searched for, each picture once, light levels by share. *paper*: as Table I of "
    "the IDF paper or Table 1 of DEEN's poster (cameras: visible / infrared) prints it for the whole dataset, not "
    "counted here; - where it prints none."
)


@dataclass(frozen=True)
class Measured:
    """A dataset counted and measured.

    Attributes:
        skipped: one message for each damaged picture left out.
    """

    name: str
    size: DatasetSize
    statistics: PictureStatistics
    skipped: Sequence[str] = ()


def measure_datasets(
    sources: Sequence[NamedRoot],
    folder: Path,
    *,
    skip_corrupt: bool = False,
    num_workers: int = 2,
    progress: Progress | None = None,
) -> dict[str, Measured]:
    """Count and measure each dataset.

    Args:
        folder: for the kept measurements, a file a dataset.
        skip_corrupt: leave damaged pictures out instead of stopping.
        progress: called with (done, total) pictures of one dataset.
    Returns:
        Label -> what was found, in the order given.
    Raises:
        DataError: a dataset cannot be read, or a picture.
        RecipeError: two of the datasets are the same.
    """
    labels = label_roots(sources)
    measured = {}
    for label, source in zip(labels, sources, strict=True):
        if source.root is None:
            raise RecipeError(f"{source.name}: its folder is not given; write {source.name}=ROOT")
        dataset = open_dataset(source.name, source.root, options=source.options)
        records, skipped = list(dataset.records), list[str]()
        if skip_corrupt:
            records, skipped = drop_corrupt(records, num_workers=num_workers, progress=progress)
        file = folder / f"measurements-{re.sub(r'[^A-Za-z0-9]+', '-', label).strip('-')}.npz"
        statistics = measure_pictures(each_once(records), cache_file=file, num_workers=num_workers, progress=progress)
        size = count_dataset(records, one_person_a_number=not numbers_anew(dataset))
        measured[label] = Measured(source.name, size, statistics, tuple(skipped))
    return measured


def tabulate_datasets(measured: Mapping[str, Measured]) -> list[dict[str, Any]]:
    """A row a dataset: what was counted, and under "paper" what Table I prints, or None."""
    rows = []
    for label, each in measured.items():
        lightness = each.statistics.lightness
        levels = light_levels(lightness)
        printed = (TABLE_I | TABLE_1).get(each.name)
        rows.append(
            {
                "dataset": label,
                **asdict(each.size),
                "mean_lightness": round(float(lightness.mean()), 2),
                "light": {level: round(float((levels == level).mean()), 4) for level in LIGHT_LEVELS},
                "median_height": float(np.median(each.statistics.height)),
                "paper": asdict(printed) if printed else None,
            }
        )
    return rows


def format_datasets(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as a Markdown table; what the paper prints is in columns of its own, marked so.

    Beside a data set of the IDF paper's Table I stand the others that it prints, of which nothing is counted.
    """
    head = ["dataset", *COUNTED, *(f"*paper:* {column}" for column in PRINTED)]
    lines = [_line(head), _line(["---"] * len(head))]
    for row in rows:
        counted = [row["ids"], row["cameras"], f"{row['pictures']:,}", f"{row['mean_lightness']:.1f}"]
        counted += [f"{100 * row['light'][level]:.0f} %" for level in LIGHT_LEVELS]
        counted += [f"{row['median_height']:.0f}"]
        lines.append(_line([row["dataset"], *counted, *_write_printed(row["paper"])]))
    printed = {name: asdict(each) for name, each in TABLE_I.items()}
    beside = [row["paper"] for row in rows]
    if any(each in beside for each in printed.values()):
        lines += [
            _line([name, *["-"] * len(COUNTED), *_write_printed(each)])
            for name, each in printed.items()
            if each not in beside
        ]
    return "\n".join([*lines, "", NOTE]) + "\n"


def _write_printed(paper: Mapping[str, Any] | None) -> list[Any]:
    if paper is None:
        return ["-"] * len(PRINTED)
    counts = [paper["ids"], paper["cameras"], f"{paper['pictures']:,}"]
    return [*counts, paper["viewpoint"], paper["labelling"], "yes" if paper["glimmer"] else "no"]


def _line(cells: Sequence[Any]) -> str:
    return f"| {' | '.join(map(str, cells))} |"
