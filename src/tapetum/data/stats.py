"""A dataset in numbers: light, scale and colour as in the IDF paper's figures 3 and 7, and light by camera."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tapetum.core.types import Modality, Record
from tapetum.data.lighting import (
    LIGHT_BOUNDS,
    LIGHT_LEVELS,
    SIZE_BOUNDS,
    SIZE_LEVELS,
    PictureStatistics,
    Values,
    light_levels,
    size_levels,
)

LIGHT_BIN = 8.5  # a third of a light level, so that no bar straddles two levels
SIZE_BIN_PX = 20


@dataclass(frozen=True)
class DatasetSize:
    """What a dataset holds, as a row of the IDF paper's Table I counts it.

    Attributes:
        ids: people who train or are searched for; distractors, whom nobody searches for, are none.
        cameras: an infrared camera counts beside the visible one of its number.
        pictures: each once, also where a query lies in the gallery too; junk and distractors among them.
    """

    ids: int
    cameras: int
    pictures: int


def count_dataset(records: Sequence[Record], *, one_person_a_number: bool = True) -> DatasetSize:
    """Count people, cameras and pictures.

    Args:
        one_person_a_number: a number means the same person in training and testing.
    """
    people = {
        (one_person_a_number or record.split, record.pid)
        for record in records
        if record.pid >= 0 and record.split not in ("gallery", "multi_query")
    }
    cameras = {(record.camid, record.modality) for record in records if record.pid >= 0}
    return DatasetSize(len(people), len(cameras), len(each_once(records)))


def each_once(records: Sequence[Record]) -> list[Record]:
    """Records without those of pictures that an earlier one shows: a query that lies in the gallery too."""
    first = {_key(record): record for record in reversed(records)}
    return [record for record in records if first[_key(record)] is record]


def _key(record: Record) -> tuple[object, ...]:
    return record.split == "train", record.path.name, record.pid, record.camid, record.modality


def compute_histograms(records: Sequence[Record], statistics: PictureStatistics) -> dict[str, Any]:
    """Plain numbers for a JSON file or a table.

    Returns:
        "light", "scale" and "colour": bin edges and counts (and pictures per level); "noise": quartiles;
        "cameras": pictures and mean lightness of each, an infrared one as "3 infrared"; "splits": pictures and
        identities of each, by modality as well ("train infrared") where there are two, and there also "one_sided": of
        how many people a split has one modality only.
    """
    cameras = np.array([_camera_name(record) for record in records])
    order = sorted(set(zip((record.camid for record in records), cameras.tolist(), strict=True)))
    light_edges = np.arange(0, 255 + LIGHT_BIN, LIGHT_BIN)
    tallest = max(float(statistics.height.max(initial=0)), float(SIZE_BOUNDS[1]))
    size_edges = np.arange(0, tallest + 2 * SIZE_BIN_PX, SIZE_BIN_PX, dtype=float)
    return {
        "pictures": len(records),
        "light": {
            **_histogram(statistics.lightness, light_edges),
            "bounds": list(LIGHT_BOUNDS),
            "levels": _count(light_levels(statistics.lightness), LIGHT_LEVELS),
        },
        "scale": {
            **_histogram(statistics.height, size_edges),
            "bounds": list(SIZE_BOUNDS),
            "levels": _count(size_levels(statistics.height), SIZE_LEVELS),
        },
        "colour": {
            channel: {**_histogram(values, light_edges), "mean": round(float(values.mean()), 3) if len(values) else 0.0}
            for channel, values in (("red", statistics.red), ("green", statistics.green), ("blue", statistics.blue))
        },
        "noise": {
            "quartiles": np.quantile(statistics.noise, (0.25, 0.5, 0.75)).round(3).tolist() if len(records) else []
        },
        "cameras": {
            camera: {
                "pictures": int((cameras == camera).sum()),
                "mean_lightness": round(float(statistics.lightness[cameras == camera].mean()), 2),
            }
            for _, camera in order
        },
        "splits": _count_splits(records),
    }


def _camera_name(record: Record) -> str:
    """The camera's number; with the modality where that is infrared, for both may have one number."""
    return f"{record.camid} infrared" if record.modality is Modality.INFRARED else str(record.camid)


def _count_splits(records: Sequence[Record]) -> dict[str, dict[str, int]]:
    both = len({record.modality for record in records}) > 1
    counts: dict[str, dict[str, int]] = {}
    for split in sorted({record.split for record in records}):
        members = [record for record in records if record.split == split]
        people = {side: {r.pid for r in members if r.modality is side and r.pid >= 0} for side in Modality}
        visible, infrared = people[Modality.VISIBLE], people[Modality.INFRARED]
        counts[split] = {"pictures": len(members), "ids": len(visible | infrared)}
        if both:
            counts[split]["one_sided"] = len(visible ^ infrared)
            for side in Modality:
                count = sum(record.modality is side for record in members)
                counts[f"{split} {side.name.lower()}"] = {"pictures": count, "ids": len(people[side])}
    return counts


def _histogram(values: Values, edges: Values) -> dict[str, list[float]]:
    counts, _ = np.histogram(values, edges)
    return {"edges": edges.tolist(), "counts": counts.tolist()}


def _count(levels: np.ndarray[Any, np.dtype[np.str_]], names: Sequence[str]) -> dict[str, int]:
    return {name: int((levels == name).sum()) for name in names}
