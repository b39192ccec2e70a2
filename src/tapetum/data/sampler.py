"""Which pictures make a batch: shuffled uniformly, or P people with K pictures of each (of each modality).

Every process draws the same global batch and takes its slice, so the number of processes changes nothing. An epoch is
a function of (seed, epoch): a sampler can be put back to any batch of any epoch.

Source: P x K as in the BoT release and torchreid. Each person's pictures are shuffled and cut into groups of K (what is
left over is not used; a person with fewer than K is drawn with replacement); batches take P people at random until
fewer than P have a group left.

Source of "cross_modality": the releases of DEEN and AGW. Each batch draws P people at random, and of each K visible and
K infrared pictures with replacement; an epoch has floor(N / PK) + 1 batches, N the larger modality's pictures.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tapetum.core.errors import DataError, RecipeError
from tapetum.core.seeding import numpy_generator
from tapetum.core.types import Modality

Rows = NDArray[np.int64]
Unpaired = Literal["error", "drop"]
_NAMED = 5  # identities that an error names


@dataclass(frozen=True)
class SamplerOptions:
    """How batches are drawn.

    Attributes:
        name: "uniform", "pk" or "cross_modality".
        batch: pictures in a global batch, for "uniform".
        ids: P, for "pk" and "cross_modality".
        pictures: K, for "pk"; K of each modality, for "cross_modality".
        steps: batches in an epoch; None takes as many as the pictures fill.
        unpaired: what "cross_modality" does with identities that have pictures in one modality only: "error", or
            "drop" leaves them out.
    """

    name: Literal["uniform", "pk", "cross_modality"] = "uniform"
    batch: int = 32
    ids: int = 16
    pictures: int = 4
    steps: int | None = None
    unpaired: Unpaired = "error"


@dataclass(frozen=True)
class SampledBatch:
    """One process's part of a global batch.

    Attributes:
        epoch: of the global batch.
        number: of the global batch within its epoch, from 0.
        rows: (B,) all pictures of the global batch.
        positions: (b,) which of `rows` belong to this part.
    """

    epoch: int
    number: int
    rows: Rows
    positions: Rows


class Sampler(ABC):
    """Base of all samplers: iteration, slices, restoring.

    Args:
        seed: of the run.
        steps: batches in an epoch; None takes as many as the pictures fill.
        rank: this process, from 0.
        world: number of processes.
        parts: pieces in which a process handles its share of a batch (gradient accumulation), one after the other.
    """

    def __init__(self, *, seed: int, steps: int | None, rank: int, world: int, parts: int) -> None:
        if not 0 <= rank < world or parts < 1:
            raise RecipeError(f"sampler: rank {rank} of {world} with {parts} parts cannot be; ranks count from 0")
        self.seed = seed
        self.steps = steps
        self.rank = rank
        self.world = world
        self.parts = parts
        self.epoch = 0
        self.start_batch = 0
        self._drawn: tuple[int, Rows] | None = None

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of an epoch.

        Args:
            epoch: from 0.
        """
        self.epoch = epoch
        self.start_batch = 0

    def batches(self, epoch: int) -> Rows:
        """All global batches of an epoch.

        Args:
            epoch: from 0.
        Returns:
            (steps, B) row numbers.
        """
        if self._drawn is None or self._drawn[0] != epoch:
            rounds = [self._draw_round(epoch, 0)]
            while self.steps is not None and sum(map(len, rounds)) < self.steps:
                rounds.append(self._draw_round(epoch, len(rounds)))
            self._drawn = (epoch, np.concatenate(rounds)[: self.steps])
        return self._drawn[1]

    def __len__(self) -> int:
        """Parts of the current epoch: steps times `parts`, whatever `start_batch` says."""
        return len(self.batches(self.epoch)) * self.parts

    def __iter__(self) -> Iterator[SampledBatch]:
        """This process's parts of the batches from `start_batch` on."""
        batches = self.batches(self.epoch)
        for number in range(self.start_batch, len(batches)):
            for part in range(self.parts):
                positions = self.slice_positions(part * self.world + self.rank, self.world * self.parts)
                yield SampledBatch(self.epoch, number, batches[number], positions)

    @abstractmethod
    def slice_positions(self, index: int, count: int) -> Rows:
        """Positions of one of `count` slices within a global batch.

        Args:
            index: which slice.
            count: number of slices; together they hold every position once.
        """

    @abstractmethod
    def _draw_round(self, epoch: int, number: int) -> Rows:
        """(n, B) batches: one pass through the pictures."""


class UniformSampler(Sampler):
    """Every picture once an epoch in random order; an incomplete last batch is left out.

    Args:
        num_pictures: N.
        batch: pictures in a global batch.
        seed: of the run.
        steps: batches in an epoch; None: N // batch.
        rank: this process, from 0.
        world: number of processes.
        parts: pieces of a process's share.
    Raises:
        DataError: fewer pictures than a batch needs.
    """

    def __init__(
        self,
        num_pictures: int,
        batch: int,
        *,
        seed: int,
        steps: int | None = None,
        rank: int = 0,
        world: int = 1,
        parts: int = 1,
    ) -> None:
        super().__init__(seed=seed, steps=steps, rank=rank, world=world, parts=parts)
        if num_pictures < batch:
            raise DataError(
                f"sampler: {num_pictures} training pictures do not fill a batch of {batch}; lower sampler.batch"
            )
        if batch % (world * parts):
            raise RecipeError(
                f"sampler: a batch of {batch} cannot be shared by {world} processes x {parts} parts; "
                f"choose sampler.batch as a multiple of {world * parts}"
            )
        self.num_pictures = num_pictures
        self.batch = batch

    def slice_positions(self, index: int, count: int) -> Rows:
        """Positions index, index + count, ... of a global batch.

        Args:
            index: which slice.
            count: number of slices.
        """
        return np.arange(index, self.batch, count)

    def _draw_round(self, epoch: int, number: int) -> Rows:
        order = numpy_generator(self.seed, "sampler", "uniform", epoch, number).permutation(self.num_pictures)
        steps = self.num_pictures // self.batch
        return order[: steps * self.batch].reshape(steps, self.batch)


class PKSampler(Sampler):
    """P people and K pictures of each; the K pictures of a person stand together in the batch.

    Slices hold whole people where the people can be shared evenly (so that each process finds positive pairs),
    otherwise single pictures.

    Args:
        labels: (N,) identity of each picture.
        ids: P.
        pictures: K.
        seed: of the run.
        steps: batches in an epoch; None: as many as the groups fill.
        rank: this process, from 0.
        world: number of processes.
        parts: pieces of a process's share.
    Raises:
        DataError: fewer identities than P.
    """

    def __init__(
        self,
        labels: Sequence[int] | Rows,
        ids: int,
        pictures: int,
        *,
        seed: int,
        steps: int | None = None,
        rank: int = 0,
        world: int = 1,
        parts: int = 1,
    ) -> None:
        super().__init__(seed=seed, steps=steps, rank=rank, world=world, parts=parts)
        self.labels = np.asarray(labels, dtype=np.int64)
        self.ids = ids
        self.pictures = pictures
        _, self._codes, self._sizes = np.unique(self.labels, return_inverse=True, return_counts=True)
        _check_identities(len(self._sizes), ids)
        if ids * pictures % (world * parts):
            raise RecipeError(
                f"sampler: a batch of {ids} x {pictures} cannot be shared by {world} processes x {parts} parts; "
                f"choose sampler.ids as a multiple of {world * parts}"
            )

    def slice_positions(self, index: int, count: int) -> Rows:
        """Whole people index, index + count, ... or, where P is not a multiple of `count`, single pictures so.

        Args:
            index: which slice.
            count: number of slices.
        """
        if self.ids % count:
            return np.arange(index, self.ids * self.pictures, count)
        return (np.arange(index, self.ids, count)[:, None] * self.pictures + np.arange(self.pictures)).ravel()

    def _draw_round(self, epoch: int, number: int) -> Rows:
        generator = numpy_generator(self.seed, "sampler", "pk", epoch, number)
        groups, owners = self._draw_groups(generator)
        # groups of one person stand together: the next one to use is first[person] + used[person]
        counts = np.bincount(owners, minlength=len(self._sizes))
        first = np.cumsum(counts) - counts
        used = np.zeros_like(counts)
        batches = []
        available = np.flatnonzero(counts)
        while len(available) >= self.ids:
            people = generator.choice(available, self.ids, replace=False)
            batches.append(groups[first[people] + used[people]].ravel())
            used[people] += 1
            available = np.flatnonzero(used < counts)
        return np.stack(batches)

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


class CrossModalitySampler(Sampler):
    """P people and, of each, K visible and then K infrared pictures, drawn with replacement.

    Slices hold whole people where each receives at least two of them and all receive as many; otherwise pairs of a
    visible and an infrared picture of one person. So batch norm sees both modalities in equal parts in every slice.

    Args:
        labels: (N,) identity of each picture.
        modalities: (N,) values of `Modality`.
        ids: P.
        pictures: K, of each modality.
        unpaired: identities with pictures in one modality only are an "error", or left out ("drop").
        seed: of the run.
        steps: batches in an epoch; None: floor(n / PK) + 1 with n pictures in the larger modality.
        rank: this process, from 0.
        world: number of processes.
        parts: pieces of a process's share.
    Raises:
        DataError: a modality is missing, an identity is unpaired, or there are fewer identities than P.
        RecipeError: the batch cannot be shared, or a slice would show one person only.
    """

    def __init__(
        self,
        labels: Sequence[int] | Rows,
        modalities: Sequence[int] | Rows,
        ids: int,
        pictures: int,
        *,
        unpaired: Unpaired = "error",
        seed: int,
        steps: int | None = None,
        rank: int = 0,
        world: int = 1,
        parts: int = 1,
    ) -> None:
        super().__init__(seed=seed, steps=steps, rank=rank, world=world, parts=parts)
        self.labels = np.asarray(labels, dtype=np.int64)
        self.modalities = np.asarray(modalities, dtype=np.int64)
        self.ids = ids
        self.pictures = pictures
        rows = np.flatnonzero(find_paired(self.labels, self.modalities, unpaired))
        known, codes = np.unique(self.labels[rows], return_inverse=True)
        _check_identities(len(known), ids)
        if ids * pictures % (world * parts):
            raise RecipeError(
                f"sampler: a batch of {ids} x {pictures} pairs cannot be shared by {world} processes x {parts} parts; "
                f"choose sampler.ids as a multiple of {world * parts}"
            )
        self._check_slices(world, parts)
        # one list of rows, by modality and then by person: person c's pictures of modality m start at _starts[c, m]
        groups = (self.modalities[rows] != Modality.VISIBLE) * len(known) + codes
        self._order = rows[np.argsort(groups, kind="stable")]
        sizes = np.bincount(groups, minlength=2 * len(known))
        self._sizes = sizes.reshape(2, -1).T
        self._starts = (np.cumsum(sizes) - sizes).reshape(2, -1).T

    def slice_positions(self, index: int, count: int) -> Rows:
        """Whole people index, index + count, ... or, where that leaves a slice fewer than two, pairs so.

        Args:
            index: which slice.
            count: number of slices.
        """
        visible = np.arange(self.pictures)
        if self.ids % count == 0 and (count == 1 or self.ids >= 2 * count):
            people = np.arange(index, self.ids, count)
            return (people[:, None] * 2 * self.pictures + np.arange(2 * self.pictures)).ravel()
        people, visible = np.divmod(np.arange(index, self.ids * self.pictures, count), self.pictures)
        first = people * 2 * self.pictures + visible
        return np.sort(np.concatenate([first, first + self.pictures]))

    def _check_slices(self, world: int, parts: int) -> None:
        """A loss compares the people of one slice, so each must show two of them."""
        count = world * parts
        shares = [self.slice_positions(index, count) // (2 * self.pictures) for index in range(count)]
        if any(len(np.unique(people)) < 2 for people in shares):
            where, less = "is a batch of one person", ""
            if count > 1:
                where = f"leaves one person to some of {count} slices (training.devices {world} x accumulate {parts})"
                less = ", or lower training.accumulate or training.devices"
            raise RecipeError(
                f"sampler: sampler.ids {self.ids} with sampler.pictures {self.pictures} {where}, but losses compare "
                f"people; set sampler.ids to {2 * count}{less}"
            )

    def _draw_round(self, epoch: int, number: int) -> Rows:
        generator = numpy_generator(self.seed, "sampler", "cross_modality", epoch, number)
        steps = int(self._sizes.sum(0).max()) // (self.ids * self.pictures) + 1
        people = np.stack([generator.choice(len(self._sizes), self.ids, replace=False) for _ in range(steps)])
        shape = (steps, self.ids, 2, self.pictures)
        within = generator.integers(np.broadcast_to(self._sizes[people][..., None], shape))
        rows: Rows = self._order[self._starts[people][..., None] + within]
        return rows.reshape(steps, -1)


def find_paired(
    identities: Sequence[int] | Rows, modalities: Sequence[int] | Rows, unpaired: Unpaired
) -> NDArray[np.bool_]:
    """Which pictures show a person of whom there are pictures in both modalities.

    Args:
        identities: (N,) identity of each picture.
        modalities: (N,) values of `Modality`.
        unpaired: "error" demands that all do.
    Returns:
        (N,) bool.
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
    paired = sees[0] & sees[1]
    alone = np.flatnonzero(~paired)
    if not paired.any():
        raise DataError(
            f"sampler: none of {len(known)} training identities has pictures in both modalities; "
            "check that visible and infrared pictures number the people alike"
        )
    if len(alone) and unpaired == "error":
        first = alone[:_NAMED].tolist()
        named = ", ".join(f"{known[code]} ({'visible' if sees[0][code] else 'infrared'})" for code in first)
        raise DataError(
            f"sampler: {len(alone)} of {len(known)} training identities have pictures in one modality only: {named}"
            f"{', ...' if len(alone) > _NAMED else ''}; set sampler.unpaired to drop to leave them out"
        )
    return paired[codes]


def _check_identities(found: int, ids: int) -> None:
    if found < ids:
        raise DataError(
            f"sampler: {found} training identities are fewer than P = {ids} (sampler.ids); "
            f"lower sampler.ids to {found} or add identities"
        )


def build_sampler(
    options: SamplerOptions,
    labels: Sequence[int] | Rows,
    modalities: Sequence[int] | Rows | None = None,
    *,
    seed: int,
    rank: int = 0,
    world: int = 1,
    parts: int = 1,
) -> Sampler:
    """The sampler which `options` names.

    Args:
        options: name and sizes.
        labels: (N,) identity of each picture.
        modalities: (N,) values of `Modality`, for "cross_modality"; None: all are visible.
        seed: of the run.
        rank: this process, from 0.
        world: number of processes.
        parts: pieces of a process's share.
    Raises:
        DataError: fewer identities, pictures or modalities than a batch needs.
        RecipeError: the batch cannot be shared evenly.
    """
    share = {"rank": rank, "world": world, "parts": parts}
    if options.name == "pk":
        return PKSampler(labels, options.ids, options.pictures, seed=seed, steps=options.steps, **share)
    if options.name == "cross_modality":
        return CrossModalitySampler(
            labels,
            np.zeros(len(labels), np.int64) if modalities is None else modalities,
            options.ids,
            options.pictures,
            unpaired=options.unpaired,
            seed=seed,
            steps=options.steps,
            **share,
        )
    return UniformSampler(len(labels), options.batch, seed=seed, steps=options.steps, **share)
