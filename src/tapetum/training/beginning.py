"""What a method sees at the beginning of an epoch: its training pictures, and what other processes found in theirs."""

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor

from tapetum.core.processes import add_up
from tapetum.core.types import Batch
from tapetum.data.loader import TrainLoader


class Beginning:
    """The beginning of one epoch; see `tapetum.core.method.EpochStart`.

    Args:
        epoch: complete epochs behind.
        losses: name -> mean over the epoch before.
        loader: of this process.
        batch: pictures seen at once.
        move: takes a batch to the device.
    """

    def __init__(
        self,
        epoch: int,
        losses: Mapping[str, float],
        loader: TrainLoader,
        batch: int,
        move: Callable[[Batch], Batch],
    ) -> None:
        self.epoch = epoch
        self.losses = losses
        self._loader = loader
        self._batch = batch
        self._move = move

    def pictures(self, *, augmented: bool = False) -> Iterator[Batch]:
        """This process's share of the training pictures, each once.

        Args:
            augmented: as training sees them, with every view.
        """
        return map(self._move, self._loader.all_pictures(self.epoch, self._batch, augmented=augmented))

    def gather(self, rows: Tensor, values: Tensor, views: Tensor | None = None) -> Tensor:
        """What all processes found, by row.

        Args:
            rows: (b,) int64.
            values: (b, ...).
            views: (b,) int64, where each view has a value of its own.
        Returns:
            (num_pictures, ...), or (num_pictures, most views, ...); zero where nothing was said.
        """
        size = [len(self._loader.records), *values.shape[1:]]
        if views is not None:
            size.insert(1, int(self._loader.sampler.repeats.max()))
        found = torch.zeros(size, dtype=values.dtype, device=values.device)
        found[rows if views is None else (rows, views)] = values
        return add_up(found)
