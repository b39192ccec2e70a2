"""A detector as an operator asks for it, with what brightens dark frames before it looks at them."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tapetum.core.errors import RecipeError
from tapetum.data.image_io import Picture
from tapetum.footage.dark import is_dark
from tapetum.footage.detect import BrighteningDetector, Detector
from tapetum.footage.detectors import FALLBACK, ChosenDetector, build_detector

_BRIGHTEN = {"auto": None, "gamma": True, "off": False}
_LONGEST_SIDE = 640  # pixels of frames that an enhancer brightens: more than detectors look at, and its time is bounded


def choose_finder(
    asked: str,
    chosen: ChosenDetector,
    *,
    layout: str | None,
    person_class: int | None,
    weights: Path | None,
    brighten: str,
    precision: str,
) -> Callable[[], Detector]:
    """Builds what was chosen, here or in another process; a layout, class or file of "auto" is an error when it does.

    Args:
        asked: the name as the operator gave it.
        layout, person_class, weights, brighten, precision: as for `build_finder`.
    """
    of_one_detector = layout is not None or person_class is not None or weights is not None
    return partial(
        build_finder,
        asked if of_one_detector else chosen.name,
        layout=layout,
        person_class=person_class,
        weights=weights,
        brighten=brighten,
        precision=precision,
    )


def build_finder(
    name: str,
    *,
    layout: str | None = None,
    person_class: int | None = None,
    weights: Path | None = None,
    brighten: str = "auto",
    precision: str = "fp32",
) -> Detector:
    """The detector of a name, told how dark frames are brightened.

    Args:
        name: as for `build_detector`, as are the next three.
        brighten: "auto" (by gamma for fetched detectors, others see frames as they are), "gamma", "off", or what
            `build_enhancer` takes: an enhancer's name, or a run that brightens.
        precision: as for `build_detector`.
    Raises:
        TapetumError: as `build_detector` and `build_enhancer` say.
    """
    build = partial(
        build_detector, name, layout=layout, person_class=person_class, weights=weights, precision=precision
    )
    if brighten in _BRIGHTEN:
        return build(brighten=_BRIGHTEN[brighten])
    from tapetum.enhancers import build_enhancer  # PyTorch takes longer to be imported than the rest needs to index

    enhance, facts = build_enhancer(brighten)
    detector = build(brighten=False)
    if name == FALLBACK:
        raise RecipeError(f"detector {name}: brightens dark scenes by itself; leave --brighten {brighten} out")

    def brighten_dark(picture: Picture) -> Picture:
        return enhance(picture) if is_dark(picture) else picture

    return BrighteningDetector(
        detector,
        brighten_dark,
        name=str(facts["enhancer"]),
        key=json.dumps(facts, sort_keys=True),
        longest_side=_LONGEST_SIDE,
    )
