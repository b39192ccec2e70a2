"""P people and, of each, K visible and K infrared pictures, as `cross_modality` has them, but no picture comes twice.

Of whoever has more pictures of one modality than of the other, only as many are drawn in an epoch, others in each.
They make groups of K pairs, what is left over is not drawn, and an epoch ends where fewer than P people have a group
left. Whoever has fewer than K pictures of both modalities is one group, drawn with replacement.

Source: the release of MPANet, which fails on whoever has fewer than K pictures of one modality alone; here
``unpaired`` says what happens to them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tapetum.core.errors import DataError
from tapetum.core.options import option
from tapetum.core.seeding import numpy_generator
from tapetum.core.types import Modality
from tapetum.data.sampler import Rows, Share, check_identities
from tapetum.data.samplers import cross_modality
from tapetum.data.samplers.cross_modality import Unpaired

_NAMED = 5  # identities that an error names

count_pictures = cross_modality.count_pictures
rename = cross_modality.rename


@dataclass(frozen=True, kw_only=True)
class Options(cross_modality.Options):
    """P and K."""

    unpaired: Unpaired = option(
        "error", "people with fewer than K pictures of one modality alone, or none: an error, or drop leaves them out"
    )


def find_usable(
    options: Options, identities: Sequence[int] | Rows, modalities: Sequence[int] | Rows
) -> NDArray[np.bool_]:
    """(N,) bool: pictures of people who have K pictures of both modalities, or fewer of both.

    Raises:
        DataError: a modality is missing, or the options do not leave others out.
    """
    paired = cross_modality.find_usable(options, identities, modalities)
    known, codes = np.unique(np.asarray(identities, dtype=np.int64), return_inverse=True)
    infrared = np.asarray(modalities, dtype=np.int64) != Modality.VISIBLE
    enough = [np.bincount(codes[mask], minlength=len(known)) >= options.pictures for mask in (~infrared, infrared)]
    short = enough[0] != enough[1]
    short[codes[~paired]] = False  # they are left out already
    first = np.flatnonzero(short)
    if len(first) and options.unpaired == "error":
        examples = ", ".join(
            f"{known[code]} ({'infrared' if enough[0][code] else 'visible'})" for code in first[:_NAMED]
        )
        raise DataError(
            f"sampler: {len(first)} of {len(known)} training identities have fewer than sampler.pictures = "
            f"{options.pictures} pictures of one modality alone: {examples}{', ...' if len(first) > _NAMED else ''}; "
            "set sampler.unpaired to drop to leave them out, or take cross_modality, which draws them again"
        )
    usable: NDArray[np.bool_] = paired & ~short[codes]
    return usable


class Sampler(cross_modality.Sampler):
    """P x K of each modality, sliced as `cross_modality` slices them.

    Raises:
        DataError: a modality is missing, somebody cannot be drawn, or there are fewer identities than P.
        RecipeError: the batch cannot be shared, or a slice would show one person only.
    """

    def __init__(self, options: Options, labels: Rows, modalities: Rows, share: Share) -> None:
        super().__init__(options, labels, modalities, share)
        if not options.label_noise:
            find_usable(options, labels, modalities)
        enough = self._sizes >= self.pictures
        self._drawable = np.flatnonzero(enough[:, 0] == enough[:, 1])
        check_identities(len(self._drawable), self.ids)

    def _draw_round(self, epoch: int, number: int) -> Rows:
        generator = numpy_generator(self.share.seed, "sampler", "cross_modality_once", epoch, number)
        groups = np.zeros(len(self._sizes), np.int64)
        groups[self._drawable] = np.maximum(self._sizes[self._drawable].min(1) // self.pictures, 1)
        drawn, people, turns = np.zeros_like(groups), [], []
        while len(left := np.flatnonzero(drawn < groups)) >= self.ids:
            people.append(generator.choice(left, self.ids, replace=False))
            turns.append(drawn[people[-1]])
            drawn[people[-1]] += 1
        chosen = np.stack(people)  # (steps, P)
        # every person's pictures of each modality in an order of this round, where they lay before
        place = np.lexsort((generator.random(len(self._order)), self._groups()))
        within = np.stack(turns)[..., None, None] * self.pictures + np.arange(self.pictures)
        sizes = self._sizes[chosen][..., None]  # (steps, P, 2, 1)
        again = generator.integers(np.broadcast_to(sizes, (*sizes.shape[:3], self.pictures)))
        rows: Rows = self._order[place][
            self._starts[chosen][..., None] + np.where(sizes < self.pictures, again, within)
        ]
        return rows.reshape(len(chosen), -1)

    def _groups(self) -> Rows:
        """(N,) of whom and of which modality each row of `_order` is."""
        sizes = self._sizes.T.ravel()
        return np.repeat(np.arange(len(sizes)), sizes)
