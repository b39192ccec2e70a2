"""A detector by its name, as an operator writes it, and the best that is there where no name is given."""

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from tapetum.core.errors import RecipeError, nearest_name
from tapetum.core.extras import install_hint
from tapetum.footage.detect import (
    TORCHVISION_DETECTORS,
    BackgroundDetector,
    BrighteningDetector,
    Detector,
    TorchvisionDetector,
)
from tapetum.footage.torchvision_file import torchvision_is_cached

AUTO = "auto"
FALLBACK = "background"
TORCHVISION = "torchvision:"
SUGGESTED = "ssd-mobilenet"  # of those that can be fetched: fast, and its licence is clear


@dataclass(frozen=True)
class ChosenDetector:
    """Which detector is taken, and why."""

    name: str  # as for `build_detector`
    reason: str  # for people; empty where it was asked for by name


def choose_detector(name: str = AUTO) -> ChosenDetector:
    """The detector that a name means: for "auto" the best that is there, and nothing is downloaded.

    First one that `tapetum detector get` fetched, of several the one that found most people on the pictures measured;
    then one of torchvision's whose weights lie in PyTorch's cache; then background subtraction.

    Args:
        name: as for `build_detector`, or "auto".
    Raises:
        DataError: what is written about a fetched detector is damaged.
    """
    if name != AUTO:
        return ChosenDetector(name, "")
    from tapetum.footage.fetched import fetched_names

    fetched, missing = fetched_names(), ""
    if fetched and importlib.util.find_spec("openvino") is None:
        missing = f"; {fetched[0]} was fetched, but needs OpenVINO: {install_hint('openvino')}"
    elif fetched:
        others = (
            f", before {', '.join(fetched[1:])}, by what they found on the pictures measured" if fetched[1:] else ""
        )
        return ChosenDetector(fetched[0], f"it was fetched{others}")
    for model in TORCHVISION_DETECTORS:
        if torchvision_is_cached(model):
            return ChosenDetector(
                f"{TORCHVISION}{model}", f"its weights lie in PyTorch's cache{missing or ', none was fetched'}"
            )
    advice = missing or f"; fetch one with: tapetum detector get {SUGGESTED}"
    return ChosenDetector(FALLBACK, f"no trained detector is there, so whatever moves is taken for a person{advice}")


def build_detector(
    name: str = AUTO,
    *,
    layout: str | None = None,
    person_class: int | None = None,
    weights: Path | None = None,
    brighten: bool | None = None,
    precision: str = "fp32",
) -> Detector:
    """The detector of a name.

    Args:
        name: "auto", "background", a fetched detector's, "torchvision:NAME", or an ONNX or TFLite file.
        layout: of a file's output; None tells by its shape, for ONNX.
        person_class: of a file; None takes the layout's usual one.
        weights: of a torchvision detector; None lets torchvision fetch them.
        brighten: whether dark frames are brightened by `brighten_for_detection`; None does so for fetched detectors.
        precision: "fp32", with the same boxes on every CPU; or "bf16", for what was fetched and for files with a layout
            of `footage.layouts`.
    Raises:
        RecipeError: an unknown name, one that was not fetched, or an option that this detector or this CPU does not
            have.
        DataError: a file that is no such detector.
        MissingLibraryError: what runs the file is not installed.
    """
    if weights is not None and not name.startswith(TORCHVISION):
        raise RecipeError(f"detector {name}: weights are for {TORCHVISION}NAME; leave them out")
    is_file = _is_file(name)
    if not is_file and (layout is not None or person_class is not None):
        raise RecipeError(f"detector {name}: layout and person class are for ONNX and TFLite files; leave them out")
    name = choose_detector(name).name
    if name == FALLBACK:
        if brighten:
            raise RecipeError(f"detector {name}: brightens dark scenes by itself; leave brightening out")
        _check_precision(name, precision)
        return BackgroundDetector()
    detector = _build_trained(name, layout, person_class, weights, precision)
    by_default = not is_file and not name.startswith(TORCHVISION)  # others: as galleries know what they have finished
    return BrighteningDetector(detector) if (by_default if brighten is None else brighten) else detector


def _build_trained(
    name: str, layout: str | None, person_class: int | None, weights: Path | None, precision: str
) -> Detector:
    if name.startswith(TORCHVISION):
        _check_precision(name, precision)
        return TorchvisionDetector(name.removeprefix(TORCHVISION), weights)
    if not _is_file(name):
        return _open_fetched(name, precision)
    if not Path(name).is_file():
        raise _unknown(name)
    from tapetum.footage.layouts import LAYOUTS

    if Path(name).suffix.lower() == ".tflite" or layout in LAYOUTS:
        return _open_network(Path(name), layout, person_class, precision)
    _check_precision(name, precision)
    from tapetum.footage.onnx import Layout, OnnxDetector, OnnxDetectorOptions

    return OnnxDetector(
        Path(name), OnnxDetectorOptions(layout=cast("Layout | None", layout), person_class=person_class)
    )


def _check_precision(name: str, precision: str) -> None:
    if precision != "fp32":
        raise RecipeError(f"detector {name}: computes in fp32 alone, not in {precision}; leave the precision out")


def _is_file(name: str) -> bool:
    return Path(name).suffix.lower() in (".onnx", ".tflite") or Path(name).is_file()


def _open_fetched(name: str, precision: str) -> Detector:
    from tapetum.footage.detector_catalogue import known_names
    from tapetum.footage.fetched import find_fetched

    if name not in known_names():
        raise _unknown(name)
    fetched = find_fetched(name)
    if fetched is None:
        raise RecipeError(f"detector {name}: was not fetched yet; type: tapetum detector get {name}")
    return fetched.open(precision=precision)


def _open_network(path: Path, layout: str | None, person_class: int | None, precision: str) -> Detector:
    from tapetum.footage.network import NetworkDetector, NetworkOptions

    if layout is None or person_class is None:
        raise RecipeError(
            f"detector {path}: a TFLite file says neither its layout nor which class is a person; "
            "add --detector-layout ssd --person-class N"
        )
    return NetworkDetector(path, NetworkOptions(layout, person_class, precision=precision))


def _unknown(name: str) -> RecipeError:
    from tapetum.footage.detector_catalogue import known_names

    hint = nearest_name(name.lower().replace("_", "-"), [*known_names(), FALLBACK])
    meant = f"{hint} Else " if hint.startswith("did you mean") else ""
    return RecipeError(
        f"detector {name}: is no file and no known name; {meant}give FILE.onnx, {TORCHVISION}NAME or {FALLBACK}, or "
        "one of `tapetum detector list`"
    )
