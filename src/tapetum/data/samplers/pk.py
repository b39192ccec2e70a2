"""P people and K pictures of each; the K pictures of a person stand together in the batch.

Source: P x K as in the BoT release and torchreid. Each person's pictures are shuffled and cut into groups of K (what is
left over is not used; a person with fewer than K is drawn with replacement); batches take P people at random until
fewer than P have a group left.
"""

from dataclasses import MISSING, dataclass

import numpy as np

from tapetum.core.errors import RecipeError
from tapetum.core.options import option
from tapetum.core.seeding import numpy_generator
from tapetum.data.sampler import BatchOptions, BatchSampler, Rows, Share, check_identities


@dataclass(frozen=True, kw_only=True)
class Options(BatchOptions):
    """P and K."""

    ids: int = option(MISSING, "P, people in a global batch", least=1)
    pictures: int = option(MISSING, "K, pictures of each", least=1)


def count_pictures(options: Options) -> tuple[int, ...]:
    """Pictures in a global batch, whatever their modality."""
    return (options.ids * options.pictures,)


class Sampler(BatchSampler):
    """P x K.

    Slices hold whole people where the people can be shared evenly (so that each process finds positive pairs),
    otherwise single pictures.

    Raises:
        DataError: fewer identities than P.
        RecipeError: the batch cannot be shared evenly.
    """

    def __init__(self, options: Options, labels: Rows, modalities: Rows, share: Share) -> None:
        super().__init__(options, modalities, share)
        self.ids = options.ids
        self.pictures = options.pictures
        _, self._codes, self._sizes = np.unique(labels, return_inverse=True, return_counts=True)
        check_identities(len(self._sizes), self.ids)
        if self.ids * self.pictures % share.slices:
            raise RecipeError(
                f"sampler: a batch of {self.ids} x {self.pictures} cannot be shared by {share.world} processes x "
                f"{share.parts} parts; choose sampler.ids as a multiple of {share.slices}"
            )

    def slice_positions(self, index: int, count: int) -> Rows:
        """Whole people index, index + count, ... or, where P is not a multiple of `count`, single pictures so."""
        if self.ids % count:
            return np.arange(index, self.ids * self.pictures, count)
        return (np.arange(index, self.ids, count)[:, None] * self.pictures + np.arange(self.pictures)).ravel()

    def _draw_round(self, epoch: int, number: int) -> Rows:
        generator = numpy_generator(self.share.seed, "sampler", "pk", epoch, number)
        groups, owners = self._draw_groups(generator)
        # groups of one person stand together: the next one to use is first[person] + used[person]
        counts = np.bincount(owners, minlength=len(self._sizes))
        first = np.cumsum(counts) - counts
        used = np.zeros_like(counts)
        batches = []
        available = np.flatnonzero(counts)
        while len(available) >= self.ids:
            people = self._choose_people(generator, available)
            batches.append(groups[first[people] + used[people]].ravel())
            used[people] += 1
            available = np.flatnonzero(used < counts)
        return np.stack(batches)

    def _choose_people(self, generator: np.random.Generator, available: Rows) -> Rows:
        """P of the people who have pictures left."""
        return generator.choice(available, self.ids, replace=False)

    def _draw_groups(self, generator: np.random.Generator) -> tuple[Rows, Rows]:
        """(G, K) rows, and (G,) the person of each group, sorted by person."""
        size = self.pictures
        order = np.lexsort((generator.random(len(self._codes)), self._codes))  # by person, shuffled within
        starts = np.cumsum(self._sizes) - self._sizes
        whole = self._sizes // size
        owners = np.repeat(np.arange(len(self._sizes)), whole)
        within = np.arange(len(owners)) - np.repeat(np.cumsum(whole) - whole, whole)
        columns = starts[owners][:, None] + within[:, None] * size + np.arange(size)
        groups = order[columns]
        small = np.flatnonzero(whole == 0)
        draws = (generator.random((len(small), size)) * self._sizes[small][:, None]).astype(np.int64)
        groups = np.concatenate([groups, order[starts[small][:, None] + draws]])
        owners = np.concatenate([owners, small])
        by_person = np.argsort(owners, kind="stable")
        return groups[by_person], owners[by_person]
