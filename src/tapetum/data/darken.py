"""Turn a daytime dataset into a night one: the same tree and names, darker pictures.

"sensor" undoes the display gamma and takes the picture again with the night scene's camera model (light, noise, lost
colours); "gamma" is the plain power of the IDF paper's Market1501-N, which has no noise.

A picture's random numbers hang on its content and the seed.
"""

import hashlib
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from tapetum.core.seeding import numpy_generator
from tapetum.data.image_io import Picture
from tapetum.data.rewrite import JPEG_QUALITY, Change, RewriteResult, rewrite_dataset
from tapetum.data.threads import Progress
from tapetum.synth.sensor import DarkenOptions, darken_picture, gamma_darken

Model = Literal["sensor", "gamma"]


def darken_dataset(
    src: Path,
    dst: Path,
    *,
    model: Model = "sensor",
    gamma: float = 3.0,
    seed: int = 0,
    options: DarkenOptions | None = None,
    skip_corrupt: bool = False,
    num_workers: int = 2,
    progress: Progress | None = None,
) -> RewriteResult:
    """Darken every picture below a folder; as `rewrite_dataset`.

    Args:
        gamma: exponent of "gamma"; the paper does not state its own.
        seed: of lamp colour, fall-off, exposure and noise of "sensor".
    """
    settings = options or DarkenOptions()
    own: dict[str, Any] = {"gamma": gamma} if model == "gamma" else asdict(settings)
    return rewrite_dataset(
        src,
        dst,
        _build_change(model, gamma, seed, settings),
        verb="darken",
        settings={"model": model, "seed": seed, **own},
        skip_corrupt=skip_corrupt,
        num_workers=num_workers,
        progress=progress,
    )


def _build_change(model: Model, gamma: float, seed: int, options: DarkenOptions) -> Change:
    if model == "gamma":
        return lambda picture: (gamma_darken(picture, gamma), JPEG_QUALITY)

    def darken(picture: Picture) -> tuple[Picture, int]:
        digest = hashlib.sha256(picture.tobytes()).hexdigest()
        return darken_picture(picture, options, numpy_generator(seed, "darken", digest)), options.sensor.jpeg_quality

    return darken
