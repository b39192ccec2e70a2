"""What makes night pictures brighter before anybody compares them; one a file, and the file name is the registration.

A file has ``Options``, a frozen dataclass, and ``build(options)``, which gives a function from one picture to another
of the same size. A trained run whose method brightens (Zero-DCE, EnlightenGAN, IDF) is an enhancer as well.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tapetum.core import discovery
from tapetum.core.digest import digest_file
from tapetum.core.errors import DataError, MethodError, RecipeError
from tapetum.core.method import Enhancer
from tapetum.core.options import plain_options, read_options
from tapetum.data.image_io import Picture
from tapetum.enhancers._networks import enhance_by
from tapetum.runs.checkpoint import load_checkpoint
from tapetum.runs.header import find_checkpoint

__all__ = ["Enhance", "build_enhancer", "enhance_by"]

Enhance = Callable[[Picture], Picture]


def build_enhancer(name: str, options: Mapping[str, Any] | None = None) -> tuple[Enhance, dict[str, Any]]:
    """An enhancer, and what it is as plain values: equal values make equal pictures.

    Args:
        name: of a file here; a stranger's module by its dotted name; or the path of a run or a checkpoint. The name of
            a file here is never a path: a folder that is called alike is "./NAME".
        options: of the file; a run has none.
    Raises:
        RecipeError: there is no such file, an option is wrong, or the file breaks the contract.
        CheckpointError: weights are missing, damaged or of something else.
        MethodError: the run's method brightens nothing.
    """
    if name not in discovery.list_names(__name__) and Path(name).exists():
        return _of_run(Path(name), options)
    module = discovery.load(__name__, name)
    for part, needed in (("Options", "a frozen dataclass"), ("build", "a function (options) -> picture -> picture")):
        if not callable(getattr(module, part, None)):
            raise RecipeError(f"enhancer {name!r}: its file has no {part}; add {needed}, see docs/enhancement.md")
    settings = read_options(module.Options, options, place=f"enhancer {name}")
    enhance: Enhance = module.build(settings)
    facts = {"enhancer": name, **plain_options(settings)}
    for key, value in vars(settings).items():
        if isinstance(value, str) and Path(value).is_file():  # another file of this name makes other pictures
            facts[key] = digest_file(Path(value))[:16]
    return _checked(enhance, name), facts


def _of_run(place: Path, options: Mapping[str, Any] | None) -> tuple[Enhance, dict[str, Any]]:
    if options:
        raise RecipeError(f"{place}: a run brings its own settings; leave out {', '.join(options)}")
    checkpoint = load_checkpoint(place)
    network = checkpoint.network.eval()
    if not isinstance(network, Enhancer):
        raise MethodError(
            f"{place}: {checkpoint.header.method} brightens no pictures; give a run of zero_dce, enlighten_gan "
            f"or idf, or one of {', '.join(discovery.list_names(__name__))}"
        )
    facts = {"enhancer": checkpoint.header.method, "weights": digest_file(find_checkpoint(place))[:16]}
    return _checked(lambda picture: enhance_by(network, picture), str(place)), facts


def _checked(enhance: Enhance, name: str) -> Enhance:
    def checked(picture: Picture) -> Picture:
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
            raise DataError(
                f"enhancer {name}: a picture is {picture.shape} {picture.dtype}; give (H, W, 3) uint8 RGB, as "
                "tapetum.data.image_io.read_picture reads any file"
            )
        bright = enhance(picture)
        if bright.shape != picture.shape or bright.dtype != np.uint8:
            raise MethodError(
                f"enhancer {name}: made {bright.shape} {bright.dtype} of {picture.shape}; it must keep size and type"
            )
        return bright

    return checked
