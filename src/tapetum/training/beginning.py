"""What a method sees at the beginning of an epoch: its training pictures, and what other processes found in theirs."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from tapetum.core.processes import add_up
from tapetum.core.types import Batch
from tapetum.data.loader import TrainLoader


@dataclass
class Beginning:
    """The `tapetum.core.method.EpochStart` of a training."""

    epoch: int
    losses: Mapping[str, float]
    loader: TrainLoader  # of this process
    batch: int  # pictures seen at once
    move: Callable[[Batch], Batch]  # to the device

    def pictures(self, *, augmented: bool = False) -> Iterator[Batch]:
        """This process's share of the training pictures, each once; augmented with every view."""
        return map(self.move, self.loader.all_pictures(self.epoch, self.batch, augmented=augmented))

    def gather(self, rows: Tensor, values: Tensor, views: Tensor | None = None) -> Tensor:
        """What all processes found, by row (and view); zero where nothing was said."""
        size = [len(self.loader.records), *values.shape[1:]]
        if views is not None:
            size.insert(1, int(self.loader.sampler.repeats.max()))
        by_row = torch.zeros(size, dtype=values.dtype, device=values.device)
        by_row[rows if views is None else (rows, views)] = values
        return add_up(by_row)
