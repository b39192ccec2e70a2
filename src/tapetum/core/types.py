"""The plain values that travel from pictures to vectors; CONTRIBUTING lists all that travel between stages.

pictures -> data -> [Record] -> loader -> Batch -> method -> EmbeddingSet; a search among these gives [Match]
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:  # records and modalities are also named where nothing is computed by PyTorch
    import torch
    from torch import Tensor

UNKNOWN_CAMERA = -1  # the camid of a picture of which nobody says which camera took it


class Modality(IntEnum):
    """What the camera's sensor saw: visible light, or infrared (near-infrared and thermal alike)."""

    VISIBLE = 0
    INFRARED = 1


@dataclass(frozen=True)
class Record:
    """One picture of one person, as its dataset describes it.

    Attributes:
        pid: identity as the dataset writes it; -1 is junk, 0 may be a distractor (the protocol says).
        camid: camera as the dataset writes it.
        split: "train", "query" or "gallery"; "test" where the protocol's modalities and cameras say on which side a
            picture is; a dataset without roles of its own says "train" throughout.
        person: the identity's name where the dataset writes no number, of which `pid` is made; "" otherwise.
        outfit: the same number for people known to wear the same clothes; -1 where nothing is known.
    """

    path: Path
    pid: int
    camid: int
    modality: Modality = Modality.VISIBLE
    split: str = "train"
    person: str = ""
    outfit: int = -1


@dataclass(frozen=True)
class Batch:
    """Pictures ready for a method, in any order.

    Attributes:
        images: (B, 3, H, W) float32 in 0..1, RGB, not normalised: a method applies its own named normalisation.
        labels: (B,) int64 class index in 0..num_ids-1, or -1 where a picture has no training class.
        pids: (B,) int64 identity as the dataset writes it.
        camids: (B,) int64 camera as the dataset writes it; `UNKNOWN_CAMERA` where nobody says.
        modalities: (B,) int64 values of `Modality`.
        rows: (B,) int64 row of each picture among the training pictures, the place of whatever a method remembers of
            it; -1 where it has none. Left out, it is -1 throughout.
        views: (B,) int64 which view of its picture each is, where a sampler gives several. Left out, it is 0.
        epoch: complete epochs behind the batch.
        step: optimiser steps of this epoch behind it.
        lots: (B,) int64 which of a step's independent batches each is of, where a sampler draws several. Left out, it
            is 0.
    """

    images: "Tensor"
    labels: "Tensor"
    pids: "Tensor"
    camids: "Tensor"
    modalities: "Tensor"
    rows: "Tensor" = None  # type: ignore[assignment]  # filled below
    views: "Tensor" = None  # type: ignore[assignment]
    epoch: int = 0
    step: int = 0
    lots: "Tensor" = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        for name, value in (("rows", -1), ("views", 0), ("lots", 0)):
            if getattr(self, name) is None:
                object.__setattr__(self, name, self.labels.new_full(self.labels.shape, value))

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: "torch.device | str") -> "Batch":
        """The same batch with every tensor on `device`."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def pin(self) -> "Batch":
        """The same batch in memory from which `to` copies to a GPU without waiting; for processes that use one."""
        return self._map(lambda tensor: tensor.pin_memory())

    def select(self, rows: "Tensor") -> "Batch":
        """Some of the pictures, in the order given.

        Args:
            rows: (b,) int64 positions in the batch, or (B,) bool.
        """
        return self._map(lambda tensor: tensor[rows])

    def _map(self, change: "Callable[[Tensor], Tensor]") -> "Batch":
        changes: dict[str, Any] = {
            name: change(value) for name, value in vars(self).items() if not isinstance(value, int)
        }
        return replace(self, **changes)


@dataclass(frozen=True)
class EmbeddingSet:
    """Embeddings of N pictures; row i of every field describes the same picture.

    Attributes:
        vectors: (N, D) float32 with unit L2 norm.
        paths: N picture files.
        pids, camids, modalities: (N,) int64, as in `Record`.
    """

    vectors: "Tensor"
    paths: tuple[Path, ...]
    pids: "Tensor"
    camids: "Tensor"
    modalities: "Tensor"

    def __len__(self) -> int:
        return len(self.paths)

    def select(self, rows: "Tensor") -> "EmbeddingSet":
        """The rows named by an int64 index or a bool mask, in that order.

        Args:
            rows: (n,) int64 row numbers, or (N,) bool.
        """
        return EmbeddingSet(
            vectors=self.vectors[rows],
            paths=tuple(self.paths[i] for i in np.arange(len(self))[rows.cpu().numpy()].tolist()),
            pids=self.pids[rows],
            camids=self.camids[rows],
            modalities=self.modalities[rows],
        )


@dataclass(frozen=True)
class Match:
    """One answer of a search.

    Attributes:
        path, pid, camid: of the gallery picture.
        similarity: cosine in [-1, 1].
        rank: counted from 1.
    """

    path: Path
    pid: int
    camid: int
    similarity: float
    rank: int
