"""Light, size, colour and noise of pictures, measured once and kept.

Light levels by mean lightness M in 0..255 and size levels by the height of the picture file: the IDF paper, Fig. 3.
The paper does not say how lightness is computed; here it is the mean of 0.299 R + 0.587 G + 0.114 B.
"""

import zipfile
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, fields
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from tapetum.core.atomic import make_folder, write_with
from tapetum.core.errors import OutputError
from tapetum.core.pixels import LIGHTNESS_WEIGHTS
from tapetum.core.types import Record
from tapetum.data.catalog import order_key
from tapetum.data.image_io import Picture, read_picture
from tapetum.data.pictures import default_cache_dir
from tapetum.data.threads import Progress, map_in_threads, report

Values = NDArray[np.float64]

LIGHT_LEVELS = ("low", "medium", "high")
LIGHT_BOUNDS = (25.5, 51.0)  # low < 25.5 <= medium <= 51 < high
SIZE_LEVELS = ("small", "medium", "big")
SIZE_BOUNDS = (100, 200)  # small < 100 <= medium <= 200 < big, pixels high
_SECOND_DIFFERENCES = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
_FORMAT = 1  # another number wherever a picture is measured in another way


@dataclass(frozen=True)
class PictureStatistics:
    """One value a picture, in the order of the records."""

    lightness: Values  # (N,) mean lightness, 0..255
    height: Values  # (N,) pixels
    width: Values
    red: Values  # (N,) channel means, 0..255
    green: Values
    blue: Values
    noise: Values  # (N,) deviation of the noise in the grey picture, 0..255

    def __len__(self) -> int:
        return len(self.lightness)


def measure_pictures(
    records: Sequence[Record],
    *,
    cache_file: Path | None = None,
    num_workers: int = 2,
    progress: Progress | None = None,
) -> PictureStatistics:
    """Statistics of every picture at its own size.

    Args:
        cache_file: an ``.npz`` that is read where it belongs to these pictures, and written otherwise; None keeps one
            a set of pictures in the user's folder for caches, as far as that can be written.
    Raises:
        DataError: a picture cannot be read.
    """
    key = order_key(records)
    path = cache_file or default_cache_dir() / f"measurements-{_FORMAT}-{key}.npz"
    earlier = _read_cache(path, key)
    if earlier is not None:
        return earlier
    rows = np.empty((len(records), len(fields(PictureStatistics))))
    results = map_in_threads(lambda record: measure_picture(read_picture(record.path)), records, num_workers)
    for number, row in enumerate(report(results, len(records), progress)):
        rows[number] = row
    statistics = PictureStatistics(*np.ascontiguousarray(rows.T))
    with nullcontext() if cache_file else suppress(OutputError):  # nobody asked for the file in the folder for caches
        _write_cache(path, key, statistics)
    return statistics


def measure_picture(picture: Picture) -> tuple[float, ...]:
    """The fields of `PictureStatistics` for one picture, in their order."""
    red, green, blue = (float(value) for value in cv2.mean(picture)[:3])
    lightness = float(np.dot((red, green, blue), LIGHTNESS_WEIGHTS))
    return lightness, *picture.shape[:2], red, green, blue, estimate_noise(picture)


def estimate_noise(picture: Picture) -> float:
    """Deviation of the noise in the grey picture, from second differences, to which plain surfaces add nothing.

    Args:
        picture: (H, W, 3) uint8 RGB; at least 3 x 3 pixels, smaller ones have no noise (0).
    Source: Immerkaer, Fast noise variance estimation, CVIU 1996.
    """
    height, width = picture.shape[:2]
    if height < 3 or width < 3:
        return 0.0
    grey = picture.astype(np.float32) @ np.array(LIGHTNESS_WEIGHTS, np.float32)
    response = cv2.filter2D(grey, -1, _SECOND_DIFFERENCES)[1:-1, 1:-1]
    return float(np.sqrt(np.pi / 2) * np.abs(response).mean() / 6)


def light_levels(lightness: ArrayLike) -> NDArray[np.str_]:
    """ "low", "medium" or "high" for each value."""
    return _levels(lightness, LIGHT_BOUNDS, LIGHT_LEVELS)


def size_levels(height: ArrayLike) -> NDArray[np.str_]:
    """ "small", "medium" or "big" for each value."""
    return _levels(height, SIZE_BOUNDS, SIZE_LEVELS)


def _levels(values: ArrayLike, bounds: tuple[float, float], names: tuple[str, ...]) -> NDArray[np.str_]:
    """A value on a bound belongs to the middle level."""
    array = np.asarray(values)
    levels: NDArray[np.str_] = np.array(names)[(array >= bounds[0]).astype(int) + (array > bounds[1]).astype(int)]
    return levels


def _read_cache(path: Path, key: str) -> PictureStatistics | None:
    """What the file holds, if it is whole and belongs to these pictures."""
    try:
        with path.open("rb") as file, np.load(file) as content:
            if str(content["key"]) != key:
                return None
            return PictureStatistics(*(content[field.name] for field in fields(PictureStatistics)))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def _write_cache(path: Path, key: str, statistics: PictureStatistics) -> None:
    arrays = {field.name: getattr(statistics, field.name) for field in fields(PictureStatistics)}
    make_folder(path.parent)
    write_with(path, lambda file: np.savez(file, key=np.array(key), allow_pickle=False, **arrays))
