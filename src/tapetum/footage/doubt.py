"""Is there one person on a picture to search with? Simple tests that say what looks wrong; it is searched all the same.

A network gives a vector for anything, and the gallery always has a nearest row. These tests know nothing of people:
they look at shape, noise, a line right across, and whether the middle differs from the sides. How often they are right
and wrong on generated crops is in docs/searching.md; `python -m benchmarks calibration` measures it.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from tapetum.core.pixels import LIGHTNESS_WEIGHTS
from tapetum.data.image_io import Picture

SIZE = 128, 64  # at which a picture is measured
CELLS = 16, 8  # (rows, columns) in whose means noise is small
SHAPES = 1.2, 3.2  # height over width; generated crops of people lie in 1.6 to 2.8, also where they are badly cut
NOISE = 0.07  # share of the variance that is left in the cells, below which the rest is noise; people keep 0.1 or more
STEP = 4.0  # times as much as is usual in its column: a step from one row to the next
ACROSS = 0.8  # share of the columns that step at one height
ALIKE = 0.55, 0.2  # middle against sides: over the contrast, and over what changes along the sides; both below

SHAPE_HIGH = "so much higher than wide that it may show two people, one above the other"
SHAPE_LOW = "hardly higher than wide, so that it may show more than one person, or part of one"
NOISY = "noise, in which nobody can be seen"
SEAM = "cut by a line right across, so that it may show two people, one above the other"
EMPTY = "alike in the middle and at the sides, so that it may show nobody"


def doubt_picture(crop: Picture) -> tuple[str, ...]:
    """What makes it doubtful that a picture shows one person; empty where nothing does.

    Args:
        crop: (H, W, 3) uint8 RGB, cut to the person.
    """
    height, width = crop.shape[:2]
    small = cv2.resize(crop, SIZE[::-1], interpolation=cv2.INTER_AREA).astype(np.float32)
    grey: NDArray[np.float32] = small @ np.array(LIGHTNESS_WEIGHTS, np.float32)
    cells = np.asarray(cv2.resize(small, CELLS[::-1], interpolation=cv2.INTER_AREA), np.float32)
    doubts = []
    if not SHAPES[0] <= height / width <= SHAPES[1]:
        doubts.append(SHAPE_HIGH if height > width * SHAPES[1] else SHAPE_LOW)
    if _kept_variance(grey) < NOISE:
        return (*doubts, NOISY)
    if _stepping_share(grey) > ACROSS:
        doubts.append(SEAM)
    over_contrast, over_sides = _middle_against_sides(cells)
    if over_contrast < ALIKE[0] and over_sides < ALIKE[1]:
        doubts.append(EMPTY)
    return tuple(doubts)


def say_doubts(doubts: tuple[str, ...]) -> str:
    """For people; empty where there is none."""
    return f"doubtful because it is {' and '.join(doubts)}" if doubts else ""


def _kept_variance(grey: NDArray[np.float32]) -> float:
    """The share of the variance that is left in the means of cells: towards 1 / pixels of a cell for pure noise."""
    cells = cv2.resize(grey, CELLS[::-1], interpolation=cv2.INTER_AREA)
    return float(np.var(cells)) / max(float(np.var(grey)), 1e-6)


def _stepping_share(grey: NDArray[np.float32]) -> float:
    """The greatest share of the columns that step at one height, in the middle half; a small step counts in part."""
    steps = np.abs(np.diff(grey, axis=0))
    usual = np.median(steps, axis=0) + 1
    share = np.minimum(steps / usual / STEP, 1).mean(1)
    return float(share[SIZE[0] // 4 : 3 * SIZE[0] // 4].max())


def _middle_against_sides(cells: NDArray[np.float32]) -> tuple[float, float]:
    """How far the middle differs from the sides at its height: over the contrast, and over what changes along them."""
    sides = cells[:, [0, -1]]
    middle = cells[:, CELLS[1] // 2 - 1 : CELLS[1] // 2 + 1].mean(1)
    differs = float(np.abs(middle - sides.mean(1))[2:-2].mean())
    contrast = float((cells @ np.array(LIGHTNESS_WEIGHTS, np.float32)).std())
    changes = float(np.abs(np.diff(sides, axis=0)).mean() + np.abs(sides[:, 0] - sides[:, 1]).mean())
    return differs / (contrast + 1), differs / (changes + 1)
