"""A detector by its name, as an operator writes it."""

from pathlib import Path
from typing import cast

from tapetum.core.errors import RecipeError
from tapetum.footage.detect import BackgroundDetector, Detector, TorchvisionDetector

FALLBACK = "background"
TORCHVISION = "torchvision:"


def build_detector(
    name: str = FALLBACK, *, layout: str | None = None, person_class: int | None = None, weights: Path | None = None
) -> Detector:
    """The detector of a name.

    Args:
        name: "background", "torchvision:NAME", or an ONNX file.
        layout: of an ONNX file's output; None tells by its shape.
        person_class: of an ONNX file; None takes the layout's usual one.
        weights: of a torchvision detector; None lets torchvision fetch them.
    Raises:
        RecipeError: an unknown name, or an option that this detector does not have.
        DataError: a file that is no such detector.
    """
    is_file = name != FALLBACK and not name.startswith(TORCHVISION)
    if not is_file and (layout is not None or person_class is not None):
        raise RecipeError(f"detector {name}: layout and person class are for ONNX files; leave them out")
    if weights is not None and not name.startswith(TORCHVISION):
        raise RecipeError(f"detector {name}: weights are for {TORCHVISION}NAME; leave them out")
    if name == FALLBACK:
        return BackgroundDetector()
    if name.startswith(TORCHVISION):
        return TorchvisionDetector(name.removeprefix(TORCHVISION), weights)
    if not Path(name).is_file():
        raise RecipeError(
            f"detector {name}: is no file and no known name; give FILE.onnx, {TORCHVISION}NAME or {FALLBACK}"
        )
    from tapetum.footage.onnx import Layout, OnnxDetector, OnnxDetectorOptions

    return OnnxDetector(
        Path(name), OnnxDetectorOptions(layout=cast("Layout | None", layout), person_class=person_class)
    )
