"""Every picture once an epoch in random order; an incomplete last batch is left out."""

from dataclasses import MISSING, dataclass

import numpy as np

from tapetum.core.errors import DataError, RecipeError
from tapetum.core.options import option
from tapetum.core.seeding import numpy_generator
from tapetum.data.sampler import BatchOptions, BatchSampler, Rows, Share


@dataclass(frozen=True, kw_only=True)
class Options(BatchOptions):
    """The size of a batch."""

    batch: int = option(MISSING, "pictures in a global batch", least=1)


def count_pictures(options: Options) -> tuple[int, ...]:
    """Pictures in a global batch, whatever their modality."""
    return (options.batch,)


class Sampler(BatchSampler):
    """Shuffled pictures.

    Raises:
        DataError: fewer pictures than a batch needs.
        RecipeError: the batch cannot be shared evenly.
    """

    def __init__(self, options: Options, labels: Rows, modalities: Rows, share: Share) -> None:
        super().__init__(options, modalities, share)
        if len(labels) < options.batch:
            raise DataError(
                f"sampler: {len(labels)} training pictures do not fill a batch of {options.batch}; lower sampler.batch"
            )
        if options.batch % share.slices:
            raise RecipeError(
                f"sampler: a batch of {options.batch} cannot be shared by {share.world} processes x {share.parts} "
                f"parts; choose sampler.batch as a multiple of {share.slices}"
            )
        self.num_pictures = len(labels)
        self.batch = options.batch

    def slice_positions(self, index: int, count: int) -> Rows:
        """Positions index, index + count, ... of a global batch."""
        return np.arange(index, self.batch, count)

    def _draw_round(self, epoch: int, number: int) -> Rows:
        order = numpy_generator(self.share.seed, "sampler", "uniform", epoch, number).permutation(self.num_pictures)
        steps = self.num_pictures // self.batch
        return order[: steps * self.batch].reshape(steps, self.batch)
