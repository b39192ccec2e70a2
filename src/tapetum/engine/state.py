"""Everything an unfinished training needs to go on as if it had never stopped.

All random numbers of a training step derive from (seed, epoch, step), so beside weights, optimiser and scaler only
the place in the training is kept. Read with ``weights_only=True``: no code in the file is executed.
"""

import dataclasses
import io
import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from tapetum.core.atomic import make_folder, write_bytes
from tapetum.core.errors import CheckpointError

FORMAT = 1


@dataclass
class Place:
    """Where a training stands; plain values only.

    Attributes:
        epoch, step: the next optimiser step, counted from 0; `step` is within the epoch.
        steps: optimiser steps behind, over all epochs; epochs need not be equally long.
        seconds: spent so far, over all sittings.
        epoch_seconds: of that, training steps of the current epoch.
        sums: loss name -> sum over the steps of the current epoch.
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
    best_score: float = -1.0
    best_epoch: int = 0
    history: list[dict[str, float]] = field(default_factory=list)


@dataclass(frozen=True)
class State:
    """A training caught between two optimiser steps.

    Attributes:
        place: where it stands.
        network, optimiser, scaler: their state dictionaries.
    """

    place: Place
    network: dict[str, Any]
    optimiser: dict[str, Any]
    scaler: dict[str, Any]


def save_state(path: Path, state: State) -> None:
    """Write a state, whole or not at all.

    Args:
        path: the file.
        state: what to keep.
    Raises:
        OutputError: it cannot be written; the state before stays.
    """
    make_folder(path.parent)
    content = {
        "format": FORMAT,
        "place": dataclasses.asdict(state.place),
        "network": state.network,
        "optimiser": state.optimiser,
        "scaler": state.scaler,
    }
    packed = io.BytesIO()  # PyTorch's writer would turn a full disk into an error of its own kind
    torch.save(content, packed)
    write_bytes(path, packed.getvalue())


def load_state(path: Path) -> State:
    """Read a state.

    Args:
        path: the file.
    Raises:
        CheckpointError: it is damaged or of another format.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        if content["format"] != FORMAT:
            raise CheckpointError(f"{path}: format {content['format']}, this version reads {FORMAT}; start afresh")
        return State(Place(**content["place"]), content["network"], content["optimiser"], content["scaler"])
    except (OSError, RuntimeError, EOFError, KeyError, TypeError, ValueError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{path}: cannot be read ({reason}); delete the run folder to start afresh") from None
