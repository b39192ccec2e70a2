"""The weights that a training begins with: looked for before its pictures are made or read, and filled in."""

import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import torch

from tapetum.core.errors import CheckpointError
from tapetum.core.method import Method
from tapetum.layers.weight_packages import find_weights
from tapetum.layers.weights import read_state
from tapetum.methods import build_method, layouts_of, write_options
from tapetum.runs.checkpoint import is_checkpoint, load_checkpoint
from tapetum.runs.recipe import Recipe

_WITHOUT_FILE = ("imagenet", "random", "none")  # timm's hub says for itself what it cannot do


def require_start_weights(recipe: Recipe) -> None:
    """Look for the file or package that `init.weights` names; whether it fits the network is seen when that is built.

    Raises:
        CheckpointError: it is missing or damaged.
    """
    source = recipe.init.weights
    if source == "package":
        for backbone in _backbones(write_options(recipe.method.name, recipe.method.options)):
            find_weights(backbone)
    elif source not in _WITHOUT_FILE and not is_checkpoint(Path(source)):
        read_state(source)


def check_start(recipe: Recipe) -> None:
    """A training's network can be built and its start weights can be had, told without any picture.

    No number is drawn or kept. How many people there are, and which cameras, is not known yet.

    Raises:
        RecipeError: the method cannot work with its options, or with pictures of this size.
        CheckpointError: the weights cannot be had, or do not fit.
    """
    method, weights = recipe.method, Path(recipe.init.weights)
    with torch.device("meta"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*copying from a non-meta parameter")
        network = build_method(method.name, method.options, 2, camids=(1, 2), size=recipe.data.size, num_pictures=2)
        if not is_checkpoint(weights):
            load_pretrained(cast(Method, network), recipe.init.weights)
    if is_checkpoint(weights):
        load_checkpoint(weights, method=method.name)


def load_pretrained(method: Method, source: str) -> None:
    """Fill a method's backbones, and what its own options name.

    Args:
        source: `init.weights` of a recipe, but for a checkpoint of ours.
    Raises:
        CheckpointError: the weights cannot be had or do not fit; a released checkpoint is called by its layout.
    """
    try:
        method.load_pretrained("none" if source == "random" else source)
    except CheckpointError as error:
        layouts = layouts_of(read_state(source)) if Path(source).is_file() else []
        if not layouts:
            raise
        raise CheckpointError(
            f"{error} (this file has the layout {' or '.join(layouts)}; begin with what `tapetum convert --from` that "
            "makes of it)"
        ) from None


def _backbones(options: Mapping[str, Any]) -> Iterator[str]:
    """Those that a method's options name, also within an extractor's."""
    for name, value in options.items():
        if isinstance(value, Mapping):
            yield from _backbones(value)
        elif name == "backbone":
            yield str(value)
