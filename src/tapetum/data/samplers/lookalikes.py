"""P people and K pictures of each, as `pk` draws them, but whoever are dressed alike come together.

Losses over pairs then find, among the others of a batch, people who differ in body, head and gait alone. Whose clothes
are known to be the same stands in `Record.outfit`; the generated scene writes it.
"""

from dataclasses import dataclass

import numpy as np

from tapetum.core.errors import DataError
from tapetum.data.sampler import Rows, Share
from tapetum.data.samplers import pk

NEEDS_OUTFITS = True


@dataclass(frozen=True, kw_only=True)
class Options(pk.Options):
    """P and K."""


def count_pictures(options: Options) -> tuple[int, ...]:
    """Pictures in a global batch, whatever their modality."""
    return pk.count_pictures(options)


class Sampler(pk.Sampler):
    """P x K in whole groups of look-alikes; the last group of a batch is cut where P is no multiple of their size.

    Raises:
        DataError: fewer identities than P, or nobody is known to look like another.
        RecipeError: the batch cannot be shared evenly.
    """

    def __init__(self, options: Options, labels: Rows, modalities: Rows, share: Share, outfits: Rows) -> None:
        super().__init__(options, labels, modalities, share)
        worn = np.full(len(self._sizes), -1)
        worn[self._codes] = outfits
        alone = worn < 0
        worn[alone] = worn.max(initial=0) + 1 + np.arange(alone.sum())  # whose clothes are unknown is a group by itself
        _, self._groups = np.unique(worn, return_inverse=True)
        if self._groups.max() + 1 == len(worn):
            raise DataError(
                "sampler: lookalikes finds no two training identities who are known to be dressed alike; take sampler "
                "pk, or a generated scene with data.scene.lookalikes of 2 or more"
            )

    def _choose_people(self, generator: np.random.Generator, available: Rows) -> Rows:
        place = generator.permutation(self._groups.max() + 1)[self._groups[available]]
        return available[np.lexsort((generator.random(len(available)), place))[: self.ids]]
