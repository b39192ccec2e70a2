"""A trained detector that lies in a package registry: where, what it becomes, how it is read, whose it is.

Each is a file of `footage.trained_detectors` with a `DETECTOR`, found by its name: `ssd-mobilenet` is
`ssd_mobilenet.py`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tapetum.core.discovery import list_names, load
from tapetum.core.errors import RecipeError, nearest_name
from tapetum.footage.packages import Package

_ROOM = "tapetum.footage.trained_detectors"


@dataclass(frozen=True)
class KnownDetector:
    """What `tapetum detector get` needs to know."""

    package: Package
    files: Mapping[str, int]  # within the package -> most bytes
    build: Callable[[Mapping[str, bytes]], bytes]  # the network's file out of these; raises DataError
    ending: str  # of that file: ".tflite" or ".onnx"
    layout: str  # of `footage.layouts`
    size: tuple[int, int]  # (height, width) of its input
    person_class: int
    min_score: float  # weaker detections are dropped
    max_iou: float  # overlap up to which two detections are two people
    licence: str  # and where it is not clear whose the weights are, that
    summary: str  # what network it is and what it was trained on
    # people found and boxes of nobody on the hand-checked pictures of docs/detectors.md; decides what `auto` prefers
    found: int
    wrong: int
    found_dark: int  # on the same pictures darkened to a mean lightness of 32 and of 16, brightened by gamma

    @property
    def worth(self) -> int:
        """People found by day and at night, less the boxes of nobody."""
        return self.found + self.found_dark - self.wrong


def known_names() -> list[str]:
    """Names of the detectors that can be fetched."""
    return [name.replace("_", "-") for name in list_names(_ROOM)]


def find_known(name: str) -> KnownDetector:
    """The detector of a name.

    Raises:
        RecipeError: there is none.
    """
    if name not in known_names():
        spelt = name.lower().replace("_", "-")  # case and dash are no reason to list all of them
        raise RecipeError(f"detector {name!r} cannot be fetched; {nearest_name(spelt, known_names())}")
    detector: KnownDetector = load(_ROOM, name.replace("-", "_")).DETECTOR
    return detector
