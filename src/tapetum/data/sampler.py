"""Which pictures make a batch: what all samplers share. Each way to draw is a file of `tapetum.data.samplers`.

Every process draws the same global batch and takes its slice, so the number of processes changes nothing. An epoch is
a function of (seed, epoch): a sampler can be put back to any batch of any epoch.

A file has

- ``Options``: a frozen dataclass, its fields written with `tapetum.core.options.option`; two of them are ``steps`` and
  ``views``, as in `BatchOptions`, which it derives from;
- ``Sampler``: a `BatchSampler`, built as ``Sampler(options, labels, modalities, share)``;
- ``count_pictures(options)``: in a global batch, of visible and of infrared ones, or of both without distinction;
- where wanted ``NEEDS_OUTFITS = True``: its ``Sampler`` is also given ``outfits``, (N,) `Record.outfit`;
- where wanted ``find_usable(options, identities, modalities)``: which training pictures it can draw;
- where wanted ``rename(options, labels, modalities)``: class indices in the place of the true ones, wrong on purpose.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tapetum.core import discovery
from tapetum.core.errors import DataError, RecipeError
from tapetum.core.options import option, plain_options, read_options
from tapetum.core.types import Modality

PACKAGE = "tapetum.data.samplers"
DEFAULT = "uniform"
Rows = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class BatchOptions:
    """What every sampler can be told."""

    steps: int | None = option(None, "batches in an epoch; null takes as many as the pictures fill", least=1)
    views: tuple[int, int] = option(
        (1, 1), "times that a visible and that an infrared picture is in the batch, each changed by itself", least=1
    )


@dataclass(frozen=True)
class Share:
    """Which slices of the global batches a process takes.

    Attributes:
        parts: pieces in which a process handles its share of a batch (gradient accumulation), one after the other.
    """

    seed: int
    rank: int = 0
    world: int = 1
    parts: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.world or self.parts < 1:
            raise RecipeError(
                f"sampler: rank {self.rank} of {self.world} with {self.parts} parts cannot be; ranks count from 0"
            )

    @property
    def slices(self) -> int:
        """Of each global batch, over all processes and parts."""
        return self.world * self.parts


@dataclass(frozen=True)
class Sampling:
    """Which sampler, and what its file's ``Options`` say."""

    name: str  # of the file, or a dotted module name
    options: Any

    @property
    def module(self) -> ModuleType:
        """Its file."""
        return discovery.load(PACKAGE, self.name)

    @property
    def views(self) -> tuple[int, int]:
        """Of a visible and of an infrared picture."""
        views: tuple[int, int] = self.options.views
        return views

    @property
    def global_batch(self) -> int:
        """Pictures in a global batch, each view counted; where the modalities of a batch vary, of the larger number."""
        counts = self.module.count_pictures(self.options)
        if len(counts) == 1:
            return int(counts[0]) * max(self.views)
        return sum(int(count) * views for count, views in zip(counts, self.views, strict=True))


@dataclass(frozen=True)
class SampledBatch:
    """One process's part of a global batch."""

    epoch: int
    number: int  # of the global batch within its epoch, from 0
    rows: Rows  # (B,) all pictures of the global batch; the views of a picture stand side by side
    views: Rows  # (B,) which view of its picture each is
    lots: Rows  # (B,) which of the step's independent batches each picture is of
    positions: Rows  # (b,) which of `rows` belong to this part


class BatchSampler(ABC):
    """Base of all samplers: iteration, views, slices, restoring.

    Attributes:
        repeats: (N,) views of each picture.
        lots: independent batches that a global batch consists of, equally long and one behind the other.
    """

    def __init__(self, options: BatchOptions, modalities: Rows, share: Share) -> None:
        self.steps = options.steps
        self.lots = 1
        self.share = share
        self.epoch = 0
        self.start_batch = 0
        self.repeats = np.array(options.views)[(modalities != Modality.VISIBLE).astype(np.int64)]  # (N,)
        self._drawn: tuple[int, Rows] | None = None

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of an epoch."""
        self.epoch = epoch
        self.start_batch = 0

    def batches(self, epoch: int) -> Rows:
        """All global batches of an epoch, each picture once.

        Returns:
            (steps, pictures) row numbers.
        """
        if self._drawn is None or self._drawn[0] != epoch:
            rounds = [self._draw_round(epoch, 0)]
            while self.steps is not None and sum(map(len, rounds)) < self.steps:
                rounds.append(self._draw_round(epoch, len(rounds)))
            self._drawn = (epoch, np.concatenate(rounds)[: self.steps])
        return self._drawn[1]

    def __len__(self) -> int:
        """Parts of the current epoch: steps times `parts`, whatever `start_batch` says."""
        return len(self.batches(self.epoch)) * self.share.parts

    def __iter__(self) -> Iterator[SampledBatch]:
        """This process's parts of the batches from `start_batch` on."""
        share, batches = self.share, self.batches(self.epoch)
        for number in range(self.start_batch, len(batches)):
            pictures = batches[number]
            rows, views, firsts = repeat_views(pictures, self.repeats[pictures])
            lots = np.repeat(np.arange(len(pictures)) * self.lots // len(pictures), self.repeats[pictures])
            for part in range(share.parts):
                own = self.slice_positions(part * share.world + share.rank, share.slices)
                positions, within, _ = repeat_views(firsts[own], self.repeats[pictures[own]])
                yield SampledBatch(self.epoch, number, rows, views, lots, positions + within)

    @abstractmethod
    def slice_positions(self, index: int, count: int) -> Rows:
        """Positions of one of `count` slices within a global batch, each picture counted once."""

    @abstractmethod
    def _draw_round(self, epoch: int, number: int) -> Rows:
        """(n, pictures) batches: one pass through the pictures."""


def repeat_views(rows: Rows, counts: Rows) -> tuple[Rows, Rows, Rows]:
    """Each row as often as it has views, side by side.

    Returns:
        (B,) the numbers, (B,) which view each is, and (n,) the place of each first view.
    """
    firsts = np.cumsum(counts) - counts
    views = np.arange(int(counts.sum())) - np.repeat(firsts, counts)
    return np.repeat(rows, counts), views, firsts


def read_sampling(values: Mapping[str, Any], *, place: str = "sampler") -> Sampling:
    """A sampler and its options from what a recipe says under `sampler:`.

    Args:
        values: the name (left out, "uniform") and the sampler's own options.
    Raises:
        RecipeError: the sampler or an option is unknown or wrong, or its file breaks the contract.
    """
    own = dict(values)
    name = own.pop("name", DEFAULT)
    if not isinstance(name, str):
        raise RecipeError(
            f"{place}.name is {name!r}, expected a name; known: {', '.join(discovery.list_names(PACKAGE))}"
        )
    module = discovery.load(PACKAGE, name)
    for part in ("Options", "Sampler", "count_pictures"):
        if not callable(getattr(module, part, None)):
            raise RecipeError(
                f"sampler {name!r}: its file has no {part}; see docs/augmentations.md for one of your own"
            )
    if not issubclass(module.Options, BatchOptions):
        raise RecipeError(f"sampler {name!r}: its Options lack steps and views; derive them from BatchOptions")
    return Sampling(name, read_options(module.Options, own, place=place))


def name_pictures(sampling: Sampling, labels: Rows, modalities: Rows) -> Rows:
    """(N,) the class indices by which pictures are drawn and learnt; wrong ones where the sampler makes noise.

    Args:
        labels: (N,) the true ones.
        modalities: (N,) values of `Modality`.
    """
    rename = getattr(sampling.module, "rename", None)
    named: Rows = labels if rename is None else rename(sampling.options, labels, modalities)
    return named


def write_sampling(sampling: Sampling) -> dict[str, Any]:
    """Plain values that `read_sampling` makes the same of, every default written out."""
    return {"name": sampling.name} | plain_options(sampling.options)


def build_sampler(
    sampling: Sampling,
    labels: Sequence[int] | Rows,
    modalities: Sequence[int] | Rows | None = None,
    *,
    outfits: Sequence[int] | Rows | None = None,
    seed: int,
    rank: int = 0,
    world: int = 1,
    parts: int = 1,
) -> BatchSampler:
    """The sampler that a recipe names.

    Args:
        modalities: (N,) values of `Modality`; None: all are visible.
        outfits: (N,) `Record.outfit`; None: of nobody it is known who is dressed alike.
    Raises:
        DataError: fewer identities, pictures or modalities than a batch needs.
        RecipeError: the batch cannot be shared evenly.
    """
    seen = np.zeros(len(labels), np.int64) if modalities is None else np.asarray(modalities, np.int64)
    share = Share(seed, rank, world, parts)
    facts: dict[str, Rows] = {}
    if getattr(sampling.module, "NEEDS_OUTFITS", False):
        facts["outfits"] = np.full(len(labels), -1) if outfits is None else np.asarray(outfits, np.int64)
    sampler: BatchSampler = sampling.module.Sampler(
        sampling.options, np.asarray(labels, np.int64), seen, share, **facts
    )
    views, unlike = sampling.views, len(np.unique(seen)) > 1
    if (
        share.slices > 1
        and views[0] != views[1]
        and unlike
        and len(sampling.module.count_pictures(sampling.options)) == 1
    ):
        raise RecipeError(
            f"sampler: {sampling.name} leaves the modalities of a batch to chance, so with sampler.views {list(views)} "
            f"{share.slices} slices would differ in size; take cross_modality, or as many views of both"
        )
    return sampler


def check_identities(num_ids: int, ids: int) -> None:
    """Refuse more people in a batch than there are.

    Raises:
        DataError: fewer than P.
    """
    if num_ids < ids:
        raise DataError(
            f"sampler: {num_ids} training identities are fewer than P = {ids} (sampler.ids); "
            f"lower sampler.ids to {num_ids} or add identities"
        )
