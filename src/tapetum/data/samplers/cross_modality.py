"""P people and, of each, K visible and then K infrared pictures, drawn with replacement.

Names may be made wrong on purpose, to study methods that bear it: of each modality a stated share of the pictures,
drawn by a seed of its own, goes by another person's name, any with the same chance.

Source: the releases of DEEN and AGW. Each batch draws P people at random; an epoch has floor(N / PK) + 1 batches, N the
larger modality's pictures. The noise in the names is that of DART's release, which draws it by other numbers.
"""

from collections.abc import Sequence
from dataclasses import MISSING, dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tapetum.core.errors import DataError, RecipeError
from tapetum.core.options import option
from tapetum.core.seeding import numpy_generator
from tapetum.core.types import Modality
from tapetum.data.sampler import BatchOptions, BatchSampler, Rows, Share, check_identities

Unpaired = Literal["error", "drop"]
_NAMED = 5  # identities that an error names


@dataclass(frozen=True, kw_only=True)
class Options(BatchOptions):
    """P and K."""

    ids: int = option(MISSING, "P, people in a global batch", least=1)
    pictures: int = option(MISSING, "K, visible and as many infrared pictures of each", least=1)
    unpaired: Unpaired = option("error", "people with pictures in one modality only: an error, or drop leaves them out")
    label_noise: float = option(
        0.0, "share of each modality's training pictures that go by a wrong name, for studies", least=0, below=1
    )
    label_seed: int = option(0, "which pictures these are, and which names they get", least=0)


def count_pictures(options: Options) -> tuple[int, ...]:
    """Visible and infrared pictures in a global batch."""
    return (options.ids * options.pictures, options.ids * options.pictures)


def find_usable(
    options: Options, identities: Sequence[int] | Rows, modalities: Sequence[int] | Rows
) -> NDArray[np.bool_]:
    """(N,) bool: pictures of people who are in both modalities.

    Raises:
        DataError: a modality is missing, or people are unpaired and the options do not leave them out.
    """
    return find_paired(identities, modalities, options.unpaired)


class Sampler(BatchSampler):
    """P x K of each modality.

    Slices hold whole people where each receives at least two of them and all receive as many; otherwise pairs of a
    visible and an infrared picture of one person. So batch norm sees both modalities in equal parts in every slice.

    Raises:
        DataError: a modality is missing, an identity is unpaired, or there are fewer identities than P.
        RecipeError: the batch cannot be shared, or a slice would show one person only.
    """

    def __init__(self, options: Options, labels: Rows, modalities: Rows, share: Share) -> None:
        super().__init__(options, modalities, share)
        self.ids = options.ids
        self.pictures = options.pictures
        # whom the noise has left in one modality only is not drawn: the data are as they should be
        rows = np.flatnonzero(find_paired(labels, modalities, "drop" if options.label_noise else options.unpaired))
        known, codes = np.unique(labels[rows], return_inverse=True)
        check_identities(len(known), self.ids)
        if self.ids * self.pictures % share.slices:
            raise RecipeError(
                f"sampler: a batch of {self.ids} x {self.pictures} pairs cannot be shared by {share.world} processes x "
                f"{share.parts} parts; choose sampler.ids as a multiple of {share.slices}"
            )
        self._check_slices(share)
        # one list of rows, by modality and then by person: person c's pictures of modality m start at _starts[c, m]
        groups = (modalities[rows] != Modality.VISIBLE) * len(known) + codes
        self._order = rows[np.argsort(groups, kind="stable")]
        sizes = np.bincount(groups, minlength=2 * len(known))
        self._sizes = sizes.reshape(2, -1).T
        self._starts = (np.cumsum(sizes) - sizes).reshape(2, -1).T

    def slice_positions(self, index: int, count: int) -> Rows:
        """Whole people index, index + count, ... or, where that leaves a slice fewer than two, pairs so."""
        visible = np.arange(self.pictures)
        if self.ids % count == 0 and (count == 1 or self.ids >= 2 * count):
            people = np.arange(index, self.ids, count)
            return (people[:, None] * 2 * self.pictures + np.arange(2 * self.pictures)).ravel()
        people, visible = np.divmod(np.arange(index, self.ids * self.pictures, count), self.pictures)
        first = people * 2 * self.pictures + visible
        return np.sort(np.concatenate([first, first + self.pictures]))

    def _check_slices(self, share: Share) -> None:
        """A loss compares the people of one slice, so each must show two of them."""
        count = share.slices
        shares = [self.slice_positions(index, count) // (2 * self.pictures) for index in range(count)]
        if any(len(np.unique(people)) < 2 for people in shares):
            where, less = "is a batch of one person", ""
            if count > 1:
                where = (
                    f"leaves one person to some of {count} slices "
                    f"(training.devices {share.world} x accumulate {share.parts})"
                )
                less = ", or lower training.accumulate or training.devices"
            raise RecipeError(
                f"sampler: sampler.ids {self.ids} with sampler.pictures {self.pictures} {where}, but losses compare "
                f"people; set sampler.ids to {2 * count}{less}"
            )

    def _draw_round(self, epoch: int, number: int) -> Rows:
        generator = numpy_generator(self.share.seed, "sampler", "cross_modality", epoch, number)
        steps = int(self._sizes.sum(0).max()) // (self.ids * self.pictures) + 1
        people = np.stack([generator.choice(len(self._sizes), self.ids, replace=False) for _ in range(steps)])
        shape = (steps, self.ids, 2, self.pictures)
        within = generator.integers(np.broadcast_to(self._sizes[people][..., None], shape))
        rows: Rows = self._order[self._starts[people][..., None] + within]
        return rows.reshape(steps, -1)


def rename(options: Options, labels: Rows, modalities: Rows) -> Rows:
    """(N,) class indices, of which a share of each modality's is wrong.

    Raises:
        DataError: there is noise to make, and one person only.
    """
    if not options.label_noise:
        return labels
    count = int(labels.max()) + 1
    if count < 2:
        raise DataError("sampler: label_noise needs two training identities, there is one; set it to 0")
    wrong = labels.copy()
    for modality in Modality:
        own = np.flatnonzero(modalities == modality)
        generator = numpy_generator(options.label_seed, "label noise", modality.name)
        chosen = generator.permutation(own)[: round(options.label_noise * len(own))]
        wrong[chosen] = (labels[chosen] + generator.integers(1, count, len(chosen))) % count
    return wrong


def find_paired(
    identities: Sequence[int] | Rows, modalities: Sequence[int] | Rows, unpaired: Unpaired
) -> NDArray[np.bool_]:
    """Which pictures show a person of whom there are pictures in both modalities.

    Args:
        unpaired: "error" demands that all do.
    Raises:
        DataError: one modality is missing altogether, nobody is in both, or identities are unpaired and `unpaired`
            says "error".
    """
    known, codes = np.unique(np.asarray(identities, dtype=np.int64), return_inverse=True)
    infrared = np.asarray(modalities, dtype=np.int64) != Modality.VISIBLE
    if not infrared.any() or infrared.all():
        there, missing = ("infrared", "visible") if infrared.any() else ("visible", "infrared")
        raise DataError(
            f"sampler: cross_modality needs visible and infrared training pictures, but all {len(codes)} are {there}; "
            f"add the {missing} ones, or set sampler.name to pk"
        )
    sees = [np.bincount(codes[mask], minlength=len(known)) > 0 for mask in (~infrared, infrared)]
    in_both = sees[0] & sees[1]
    alone = np.flatnonzero(~in_both)
    if not in_both.any():
        raise DataError(
            f"sampler: none of {len(known)} training identities has pictures in both modalities; "
            "check that visible and infrared pictures number the people alike"
        )
    if len(alone) and unpaired == "error":
        first = alone[:_NAMED].tolist()
        examples = ", ".join(f"{known[code]} ({'visible' if sees[0][code] else 'infrared'})" for code in first)
        raise DataError(
            f"sampler: {len(alone)} of {len(known)} training identities have pictures in one modality only: {examples}"
            f"{', ...' if len(alone) > _NAMED else ''}; set sampler.unpaired to drop to leave them out"
        )
    return in_both[codes]
