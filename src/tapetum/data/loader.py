"""Batches from records: read by row number, changed a batch at a time."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch

from tapetum.core.errors import DataError
from tapetum.core.seeding import numpy_generator
from tapetum.core.types import Batch, Record
from tapetum.data.pictures import PictureOptions, Pictures, drop_corrupt, open_pictures, to_float
from tapetum.data.sampler import Rows, SampledBatch, Sampling, build_sampler, name_pictures, repeat_views
from tapetum.data.threads import map_in_threads
from tapetum.data.transforms import BatchPosition, Operation, augment_batch, to_tensor

_BLOCK = 64  # pictures whose changes are drawn together by `TrainLoader.all_pictures`


def class_labels(records: Sequence[Record]) -> tuple[Rows, list[int]]:
    """Class index of each record, that is the position of its pid among the sorted pids; and the pid of each class."""
    pids, labels = np.unique(np.array([record.pid for record in records], dtype=np.int64), return_inverse=True)
    return labels.astype(np.int64), pids.tolist()


def modality_values(records: Sequence[Record]) -> Rows:
    """(N,) values of `Modality` of the records."""
    return np.array([int(record.modality) for record in records], dtype=np.int64)


def outfit_values(records: Sequence[Record]) -> Rows:
    """(N,) who wears the same clothes; -1 where nothing is known."""
    return np.array([record.outfit for record in records], dtype=np.int64)


def drop_unpaired(records: Sequence[Record], sampler: Sampling) -> list[Record]:
    """The training pictures that a sampler can use: "cross_modality" needs each person in both modalities.

    Raises:
        DataError: a modality is missing, or people are unpaired and `sampler` does not leave them out.
    """
    find_usable = getattr(sampler.module, "find_usable", None)
    if find_usable is None:
        return list(records)
    usable = find_usable(sampler.options, [record.pid for record in records], modality_values(records))
    return [record for record, keep in zip(records, usable.tolist(), strict=True) if keep]


def _all_facts(records: Sequence[Record], labels: Rows | None) -> Batch:
    """What a batch says about its pictures, of all records; without labels they are not to train on."""
    none = torch.full((len(records),), -1)
    return Batch(
        images=torch.empty(len(records), 0),
        labels=none if labels is None else torch.from_numpy(labels),
        pids=torch.tensor([record.pid for record in records], dtype=torch.int64),
        camids=torch.tensor([record.camid for record in records], dtype=torch.int64),
        modalities=torch.from_numpy(modality_values(records)),
        rows=none if labels is None else torch.arange(len(records)),
    )


class TrainLoader:
    """Training batches of one process; iterate once per epoch after `set_epoch`.

    Args:
        pictures: how they are read.
        augment: changes to the pictures, in their order.
        parts: pieces of a process's share of a batch, one after the other (gradient accumulation).
        pinned: give batches in pinned memory, for a GPU.
    Attributes:
        records: the pictures that the sampler can use.
        labels: (N,) class index by which each record is drawn and learnt; the sampler may have made some wrong.
        pids: pid of each class.
        sampler: draws the batches; `sampler.start_batch` restores a place within an epoch.
    Raises:
        DataError: no picture, an unreadable picture, or fewer identities, pictures or modalities than a batch needs.
    """

    def __init__(
        self,
        records: Sequence[Record],
        pictures: PictureOptions,
        *,
        augment: Sequence[Operation],
        sampler: Sampling,
        seed: int,
        rank: int = 0,
        world: int = 1,
        parts: int = 1,
        pinned: bool = False,
    ) -> None:
        if not records:
            raise DataError("loader: no training picture; check the dataset's root and its split")
        self.records = drop_unpaired(records, sampler)
        self._modalities = modality_values(self.records)
        labels, self.pids = class_labels(self.records)
        self.labels = name_pictures(sampler, labels, self._modalities)
        self._facts = _all_facts(self.records, self.labels)
        self.sampler = build_sampler(
            sampler,
            self.labels,
            self._modalities,
            outfits=outfit_values(self.records),
            seed=seed,
            rank=rank,
            world=world,
            parts=parts,
        )
        self._read = open_pictures(self.records, pictures)  # may take its time, so after all that can fail
        self._augment = tuple(augment)
        self._seed = seed
        self._num_workers = pictures.num_workers
        self._pinned = pinned

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of an epoch."""
        self.sampler.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[Batch]:
        yield from map_in_threads(self._build, self.sampler, self._num_workers, ahead=2)

    def all_pictures(self, epoch: int, batch: int, *, augmented: bool = False) -> Iterator[Batch]:
        """This process's share of all training pictures, each once.

        Pictures as they are come in the order of their rows. Augmented ones may be for networks in training mode, whose
        norms look at a whole batch: they come in an order of the epoch in which each batch has of either modality as
        large a share as all pictures have.

        What is done to a picture depends on the seed, the epoch and which pictures there are, neither on `batch` nor on
        the number of processes, and has nothing to do with what the batches of training show.

        Args:
            epoch: which draws `augmented` pictures depend on.
            batch: pictures of all processes together that are seen at once, each with all its views.
            augmented: every view of each picture, changed as in training; else one view, as it is.
        """
        share, count = self.sampler.share, len(self.records)
        order = self._mix(epoch) if augmented else np.arange(count)
        # side by side, as every other one of an order that alternates may be of one modality
        chunks = [
            np.array_split(np.arange(start, min(start + batch, count)), share.world)[share.rank]
            for start in range(0, count, batch)
        ]

        def build(places: Rows) -> Batch:
            rows = order[places]
            if not augmented:
                images = to_tensor(to_float(self._read(rows)))
                return self._finish(replace(self._facts.select(torch.from_numpy(rows)), images=images, epoch=epoch))
            rows_of_views, views, _ = repeat_views(rows, self.sampler.repeats[rows])
            blocks = np.split(places, np.flatnonzero(np.diff(places // _BLOCK)) + 1)
            images = torch.cat([self._augment_block(block, order, epoch) for block in blocks])
            batch = replace(
                self._facts.select(torch.from_numpy(rows_of_views)),
                images=images.contiguous(memory_format=torch.channels_last),
                views=torch.from_numpy(views),
                epoch=epoch,
            )
            return self._finish(batch)

        yield from map_in_threads(build, [places for places in chunks if len(places)], self._num_workers, ahead=2)

    def _mix(self, epoch: int) -> Rows:
        """(N,) rows in an order in which the modalities alternate, as far as they are equally many."""
        generator = numpy_generator(self._seed, "all pictures", epoch)
        rows = generator.permutation(len(self.records))
        shares = np.empty(len(rows))  # how much of its modality has come with each
        for modality in np.unique(self._modalities):
            own = self._modalities[rows] == modality
            shares[own] = (np.arange(own.sum()) + 0.5) / own.sum()
        return rows[np.argsort(shares, kind="stable")]

    def _augment_block(self, places: Rows, order: Rows, epoch: int) -> torch.Tensor:
        """Every view of some pictures of one block, which is to `all_pictures` what a global batch is to training."""
        number, rows = int(places[0]) // _BLOCK, order[places]
        whole = order[number * _BLOCK : (number + 1) * _BLOCK]
        in_block, views, firsts = repeat_views(whole, self.sampler.repeats[whole])
        position = BatchPosition(self._seed, epoch, number, self._modalities[in_block], views, "augment all")
        twice, within, _ = repeat_views(np.arange(len(rows)), self.sampler.repeats[rows])
        positions = firsts[places[twice] - number * _BLOCK] + within
        return augment_batch(self._read(rows)[twice], self._augment, position, positions)

    def _build(self, sampled: SampledBatch) -> Batch:
        rows, views = sampled.rows[sampled.positions], sampled.views[sampled.positions]
        place = BatchPosition(self._seed, sampled.epoch, sampled.number, self._modalities[sampled.rows], sampled.views)
        batch = replace(
            self._facts.select(torch.from_numpy(rows)),
            images=augment_batch(self._read_once(rows), self._augment, place, sampled.positions),
            views=torch.from_numpy(views),
            lots=torch.from_numpy(sampled.lots[sampled.positions]),
            epoch=sampled.epoch,
            step=sampled.number,
        )
        return self._finish(batch)

    def _finish(self, batch: Batch) -> Batch:
        """A batch in the memory it is wanted in; done where the batch is made, so in the loader's threads."""
        return batch.pin() if self._pinned else batch

    def _read_once(self, rows: Rows) -> Pictures:
        """Pictures by row; the views of one, which stand side by side, are decoded once."""
        new = np.append(True, rows[1:] != rows[:-1])
        pictures = self._read(rows[new])
        return pictures if new.all() else pictures[np.cumsum(new) - 1]


class EvalLoader:
    """Pictures in the order of the records, unchanged but for their size; the last batch may be smaller.

    Args:
        skip_corrupt: leave out pictures that cannot be decoded (see `skipped`) instead of stopping.
        pinned: as for `TrainLoader`.
    Attributes:
        skipped: one message for each picture left out.
    Raises:
        DataError: no picture, or an unreadable one.
    """

    def __init__(
        self,
        records: Sequence[Record],
        pictures: PictureOptions,
        *,
        batch_size: int = 128,
        skip_corrupt: bool = False,
        pinned: bool = False,
    ) -> None:
        self.records, self.skipped = list(records), list[str]()
        if skip_corrupt:
            self.records, self.skipped = drop_corrupt(records, num_workers=pictures.num_workers)
        if not self.records:
            raise DataError("loader: no picture to read; check the dataset's root and its split")
        self._facts = _all_facts(self.records, None)
        self._read = open_pictures(self.records, pictures)
        self._starts = range(0, len(self.records), batch_size)
        self._num_workers = pictures.num_workers
        self._pinned = pinned

    def __len__(self) -> int:
        return len(self._starts)

    def __iter__(self) -> Iterator[Batch]:
        yield from map_in_threads(self._build, self._starts, self._num_workers, ahead=2)

    def _build(self, start: int) -> Batch:
        rows = np.arange(start, min(start + self._starts.step, len(self.records)))
        batch = replace(self._facts.select(torch.from_numpy(rows)), images=to_tensor(to_float(self._read(rows))))
        return batch.pin() if self._pinned else batch
