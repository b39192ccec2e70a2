"""Several batches a step, each P x K as `cross_modality` draws them, for networks that learn side by side.

Networks that judge each other's names should not see the same pictures; a method tells the batches apart by
`Batch.lots`. In the first epochs a batch is of visible and of infrared pictures of whomever; the lots are the same
pictures then, each changed by itself.

Source: the release of DART, whose two networks have batches of their own, and which warms both up with the same
shuffled pictures. What it repeats of the smaller modality, and to fill the last batch, are the first pictures; here
they are drawn.
"""

from dataclasses import dataclass

import numpy as np

from tapetum.core.options import option
from tapetum.core.seeding import numpy_generator
from tapetum.core.types import Modality
from tapetum.data.sampler import Rows, Share
from tapetum.data.samplers import cross_modality

find_usable = cross_modality.find_usable
rename = cross_modality.rename


@dataclass(frozen=True, kw_only=True)
class Options(cross_modality.Options):
    """P and K, and how often."""

    lots: int = option(2, "independent batches of P x K in a step, for a method of as many networks", least=1)
    shuffled_epochs: int = option(
        1,
        "at first, of all pictures by chance, whomever they show; as many as a method warms up without pairs",
        least=0,
    )


def count_pictures(options: Options) -> tuple[int, ...]:
    """Visible and infrared pictures in a global batch, of all lots."""
    return tuple(options.lots * count for count in cross_modality.count_pictures(options))


class Sampler(cross_modality.Sampler):
    """Lots of P x K of each modality; of each lot every slice has what `cross_modality` gives it.

    Raises:
        DataError: a modality is missing, an identity is unpaired, or there are fewer identities than P.
        RecipeError: a lot cannot be shared, or a slice of one would show one person only.
    """

    def __init__(self, options: Options, labels: Rows, modalities: Rows, share: Share) -> None:
        super().__init__(options, labels, modalities, share)  # checks the slices of one lot
        self.lots, self.shuffled_epochs = options.lots, options.shuffled_epochs
        self._of_modality = [np.flatnonzero(modalities == modality) for modality in Modality]

    def slice_positions(self, index: int, count: int) -> Rows:
        """The same of each lot."""
        own, size = super().slice_positions(index, count), 2 * self.ids * self.pictures
        return (np.arange(self.lots)[:, None] * size + own).ravel()

    def _draw_round(self, epoch: int, number: int) -> Rows:
        if epoch < self.shuffled_epochs:
            return np.tile(self._shuffle(epoch, number), (1, self.lots))
        return np.concatenate(
            [super(Sampler, self)._draw_round(epoch, number * self.lots + lot) for lot in range(self.lots)], axis=1
        )

    def _shuffle(self, epoch: int, number: int) -> Rows:
        """(steps, pictures) all pictures of the larger modality, and as many of the other, by chance."""
        generator = numpy_generator(self.share.seed, "sampler", "shuffled lots", epoch, number)
        size = self.ids * self.pictures
        steps = -(-max(map(len, self._of_modality)) // size)
        sides = [
            generator.permutation(np.resize(generator.permutation(rows), steps * size)) for rows in self._of_modality
        ]
        return np.stack([side.reshape(steps, self.ids, self.pictures) for side in sides], axis=2).reshape(steps, -1)
