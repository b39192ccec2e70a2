"""Everything an unfinished training needs to go on as if it had never stopped.

All random numbers of a training step derive from (seed, epoch, step), so beside weights, optimisers, scaler and what a
method remembers only the place in the training is kept. Read with ``weights_only=True``: no code in the file is run.
"""

import dataclasses
import io
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tapetum.core.atomic import make_folder, write_bytes
from tapetum.core.errors import CheckpointError, first_line

FORMAT = 2


@dataclass
class TrainingPosition:
    """Where a training stands; plain values only.

    Attributes:
        epoch, step: the next optimiser step, counted from 0; `step` is within the epoch.
        steps: optimiser steps behind, over all epochs; epochs need not be equally long.
        seconds: spent so far, over all sittings.
        epoch_seconds: of that, training steps of the current epoch.
        sums: loss name -> sum over the steps of the current epoch, in this process.
        means: loss name -> mean over the epoch before, over all processes.
        best_score, best_epoch: mAP on the held-out identities (rank-1 on the test set where that chooses) and the
            complete epochs behind it; -1 before the first.
        history: one row for each complete epoch, as in metrics.csv.
    """

    epoch: int = 0
    step: int = 0
    steps: int = 0
    seconds: float = 0.0
    epoch_seconds: float = 0.0
    sums: dict[str, float] = field(default_factory=dict)
    means: dict[str, float] = field(default_factory=dict)
    best_score: float = -1.0
    best_epoch: int = 0
    history: list[dict[str, float]] = field(default_factory=list)


@dataclass(frozen=True)
class State:
    """A training caught between two optimiser steps: its place, and state dictionaries."""

    place: TrainingPosition
    network: dict[str, Any]
    optimisers: tuple[dict[str, Any], ...]
    scaler: dict[str, Any]
    memory: dict[str, Tensor] = field(default_factory=dict)  # see `read_memory`
    sums: tuple[dict[str, float], ...] = ()  # those of `place` in each process; none in older files


def read_memory(network: nn.Module) -> dict[str, Tensor]:
    """What a method remembers of its training beside its weights: the buffers that are not persistent."""
    kept = network.state_dict().keys()
    return {name: buffer for name, buffer in network.named_buffers() if name not in kept}


def restore_memory(network: nn.Module, memory: Mapping[str, Tensor]) -> None:
    """Put back what `read_memory` gave.

    Raises:
        CheckpointError: the method remembers other things now.
    """
    own = read_memory(network)
    for name, values in memory.items():
        if name not in own or own[name].shape != values.shape:
            raise CheckpointError(
                f"the state to go on from remembers {name} {tuple(values.shape)}, the method does not"
            )
        own[name].copy_(values)


def save_state(path: Path, state: State) -> None:
    """Write a state, whole or not at all.

    Raises:
        OutputError: it cannot be written; the state before stays.
    """
    make_folder(path.parent)
    content = vars(state) | {
        "format": FORMAT,
        "place": dataclasses.asdict(state.place),
        "optimisers": list(state.optimisers),
        "sums": list(state.sums),
    }
    buffer = io.BytesIO()  # PyTorch's writer would turn a full disk into an error of its own kind
    torch.save(content, buffer)
    write_bytes(path, buffer.getvalue())


def load_state(path: Path) -> State:
    """Read a state.

    Raises:
        CheckpointError: it is damaged or of another format.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        if content["format"] not in (1, FORMAT):
            raise CheckpointError(f"{path}: format {content['format']}, this version reads {FORMAT}; start afresh")
        if content["format"] == 1:  # one optimiser, and nothing to remember
            content |= {"optimisers": [content["optimiser"]], "memory": {}}
        optimisers = tuple(content["optimisers"])
        place, sums = TrainingPosition(**content["place"]), tuple(content.get("sums", ()))
        return State(place, content["network"], optimisers, content["scaler"], content["memory"], sums)
    except (OSError, RuntimeError, EOFError, KeyError, TypeError, ValueError, pickle.UnpicklingError) as error:
        reason = first_line(error)
        raise CheckpointError(f"{path}: cannot be read ({reason}); delete the run folder to start afresh") from None
