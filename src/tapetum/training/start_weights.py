"""Whether the weights that a training begins with can be had, asked before its pictures are made or read."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tapetum.layers.weight_packages import find_weights
from tapetum.layers.weights import read_state
from tapetum.methods import write_options
from tapetum.runs.checkpoint import is_checkpoint
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


def _backbones(options: Mapping[str, Any]) -> Iterator[str]:
    """Those that a method's options name, also within an extractor's."""
    for name, value in options.items():
        if isinstance(value, Mapping):
            yield from _backbones(value)
        elif name == "backbone":
            yield str(value)
