"""Checkpoints in the layouts of released code: strict renaming, in both directions."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tapetum.core.errors import CheckpointError
from tapetum.layers.weights import check_names, check_shapes

Renaming = tuple[tuple[str, str], ...]  # (our prefix, their prefix), the first that fits counts

# Inside the classifier head.
HEAD: Renaming = (("reduce.", "add_block.0."), ("norm.", "add_block.1."), ("classifier.", "classifier.0."))
DEAD_CLASSIFIER = {"fc.weight": (1000, 2048), "fc.bias": (1000,)}  # torchvision's, carried but never used


class Converted(NamedTuple):
    """A checkpoint of released code in our terms.

    Attributes:
        method: the method's name.
        options: its options, complete.
        num_ids: classes of the checkpoint.
        state: the method's state.
        camids: cameras that it was trained on, where it keeps something of each.
        size: (height, width) of its pictures, where only such fit it.
    """

    method: str
    options: dict[str, Any]
    num_ids: int
    state: dict[str, Tensor]
    camids: tuple[int, ...] = ()
    size: tuple[int, int] | None = None


@dataclass(frozen=True)
class OfficialFormat:
    """How one released layout is read and written.

    Attributes:
        read: from its tensors to ours; refuses unknown and missing ones.
        write: from our options and state to its tensors.
        recipe: under which its weights were trained: how pictures are prepared is part of what they mean.
        recipes_by_ids: another one where the number of identities tells the data set.
        key: under which its files keep the tensors; empty where they are the file.
    """

    read: Callable[[Mapping[str, Tensor]], Converted]
    write: Callable[[Mapping[str, Any], Mapping[str, Tensor]], dict[str, Tensor]]
    recipe: str
    recipes_by_ids: Mapping[int, str] = field(default_factory=dict)
    key: str = ""


def head_renaming(ours: str, theirs: str) -> Renaming:
    """Renaming of one classifier head.

    Args:
        ours: prefix of the head here, with its dot.
        theirs: prefix of the head there, with its dot.
    """
    return tuple((ours + a, theirs + b) for a, b in HEAD)


def read_tensor_size(state: Mapping[str, Tensor], name: str, place: str) -> int:
    """First size of a tensor which tells an architecture's width.

    Args:
        state: tensors of the file.
        name: of the tensor.
        place: the format, for the message.
    Raises:
        CheckpointError: there is no such tensor.
    """
    if name not in state or state[name].ndim == 0:
        raise CheckpointError(f"{place}: there is no tensor {name!r}; supply a checkpoint in this layout")
    return int(state[name].shape[0])


def to_ours(
    state: Mapping[str, Tensor],
    expected: Mapping[str, Tensor],
    renaming: Renaming,
    dead: Iterable[str],
    place: str,
) -> dict[str, Tensor]:
    """Rename a released state after checking that it has exactly the expected tensors.

    Args:
        state: tensors of the file.
        expected: our network's state (shapes are enough).
        renaming: prefixes.
        dead: prefixes of the backbones whose dead classifier is left out.
        place: the format, for messages.
    Raises:
        CheckpointError: a tensor is unknown, missing, or has another shape.
    """
    theirs = {_renamed(name, renaming): tensor for name, tensor in expected.items()}
    check_names(state, [*theirs, *(prefix + name for prefix in dead for name in DEAD_CLASSIFIER)], place)
    check_shapes(state, theirs, place)
    return {name: state[_renamed(name, renaming)].clone() for name in expected}


def to_theirs(state: Mapping[str, Tensor], renaming: Renaming, dead: Iterable[str]) -> dict[str, Tensor]:
    """Rename our state; the dead classifiers, which we do not keep, are written as zeros.

    Args:
        state: our network's state.
        renaming: prefixes.
        dead: prefixes of the backbones that carry a dead classifier.
    """
    theirs = {_renamed(name, renaming): tensor.clone() for name, tensor in state.items()}
    zeros = {prefix + name: torch.zeros(shape) for prefix in dead for name, shape in DEAD_CLASSIFIER.items()}
    return theirs | zeros


def _renamed(name: str, renaming: Renaming) -> str:
    for ours, theirs in renaming:
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    raise CheckpointError(f"tensor {name!r} has no place in the released layout; only the released network fits it")
