"""Drawn galleries: which pictures each trial takes, and all trials evaluated from one product.

The visible-infrared data sets search in a gallery of one (or ten) pictures a person and camera, drawn anew for each of
ten trials whose numbers are averaged. A draw is the released codes' own: `random.Random(trial)`, people in ascending
order, cameras in the protocol's order, one `choice` (or `sample`) of the sorted file names of each person and camera.
SYSU-MM01 also comes with permutations of its file numbers, `rand_perm_cam.mat`, which then decide instead.

Source: the released codes of AGW, DEEN (one picture), CM-NAS (several) and MPANet (permutations).
"""

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tapetum.core.errors import ProtocolError
from tapetum.core.protocol import Protocol, Side
from tapetum.core.types import EmbeddingSet
from tapetum.evaluation.bootstrap import combine
from tapetum.evaluation.calibration import Calibration
from tapetum.evaluation.metrics import Evaluation, Metrics, Tally, evaluate, pick
from tapetum.evaluation.ranking import admitted_rows, find_candidates, select_sides
from tapetum.evaluation.rerank import RerankOptions

SEEDED = "drawn by the released codes' seeded choice"
FILE_NUMBER = re.compile(r"(\d+)\D*$")
Permutations = Mapping[tuple[int, int], NDArray[np.int64]]


@dataclass(frozen=True)
class Trials:
    """The trials of one evaluation."""

    metrics: Metrics  # means over the trials; the number of queries is that of one trial
    deviations: Mapping[str, float]  # quantity -> sample standard deviation over the trials
    each: tuple[Evaluation, ...]  # `query_rows` count in the query set as given
    drawn: tuple[Tensor, ...]  # (n,) int64 rows that each took of the drawn side as given, in the order of drawing
    side: Side  # that was drawn


def order_rows(
    pids: Tensor | NDArray[np.int64],
    camids: Tensor | NDArray[np.int64],
    names: Sequence[str],
    cameras: Sequence[int] | None = None,
) -> Tensor:
    """Rows in the order of the released codes: by person, then by camera, then by file name.

    Args:
        names: N file names.
        cameras: in their order; pictures of others are left out. None takes all, ascending.
    """
    people, theirs = np.asarray(pids, dtype=np.int64), np.asarray(camids, dtype=np.int64)
    sequence = sorted(set(theirs.tolist())) if cameras is None else list(cameras)
    places = {camid: place for place, camid in enumerate(sequence)}
    place = np.array([places.get(camid, -1) for camid in theirs.tolist()], dtype=np.int64)
    order = np.lexsort((np.asarray(names, dtype=np.str_), place, people)) if len(people) else place
    return torch.from_numpy(order[place[order] >= 0])


class Drawing:
    """The pictures that the trials of a protocol are drawn from, put in order once for all of them.

    Where a person has fewer than `protocol.shots` pictures under a camera, all of them are taken (the released codes
    stop there), and the random numbers go on as if that camera had been skipped.

    Args:
        pids: (N,) int64 of every picture of the drawn side; one modality.
        names: N file names, without folders.
        permutations: (camid, pid) -> (trials, n) file numbers from 1, of which the first `shots` are taken; None draws
            by the seed.
    Raises:
        ProtocolError: the protocol draws nothing, or there is nothing to draw from.
    """

    def __init__(
        self,
        pids: Tensor | NDArray[np.int64],
        camids: Tensor | NDArray[np.int64],
        names: Sequence[str],
        protocol: Protocol,
        permutations: Permutations | None = None,
    ) -> None:
        if protocol.drawn is None:
            raise ProtocolError(f"protocol {protocol.name} draws nothing; choose one with drawn galleries")
        self.protocol, self.permutations = protocol, permutations
        people, cameras = np.asarray(pids, dtype=np.int64), np.asarray(camids, dtype=np.int64)
        _, limits = protocol.limits(protocol.drawn)
        rows = order_rows(people, cameras, names, limits).numpy()
        if protocol.drawn == "gallery":
            rows = rows[protocol.ranks(torch.from_numpy(people[rows])).numpy()]
        if len(rows) == 0:
            raise ProtocolError(
                f"protocol {protocol.name}: there is no {protocol.drawn} picture to draw from; check the pictures of "
                f"that modality{'' if limits is None else f' under the cameras {list(limits)}'}"
            )
        self.rows, self.names, self.listed = rows, names, limits or ()
        keys = np.stack([people[rows], cameras[rows]])
        starts = np.flatnonzero(np.r_[True, (keys[:, 1:] != keys[:, :-1]).any(axis=0)])
        stops = np.append(starts[1:], len(rows))
        self.groups = [
            (int(pid), int(camid), int(start), int(stop))
            for pid, camid, start, stop in zip(*keys[:, starts], starts, stops, strict=True)
        ]

    def draw(self, trial: int) -> Tensor:
        """The pictures that one trial takes.

        Args:
            trial: counted from 0; the seed.
        Returns:
            (n,) int64 row numbers, by person, then camera.
        Raises:
            ProtocolError: the permutations do not fit the pictures.
        """
        orders = self.permutations
        places = self._by_seed(trial) if orders is None else self._by_permutation(trial, orders)
        return torch.from_numpy(self.rows[places])

    def draw_all(self) -> tuple[Tensor, ...]:
        """`draw` for each of the protocol's trials."""
        return tuple(map(self.draw, range(self.protocol.trials)))

    def _by_seed(self, trial: int) -> list[int]:
        rng, shots = random.Random(trial), self.protocol.shots  # noqa: S311  # the published draws
        places: list[int] = []
        for _, _, start, stop in self.groups:
            if shots == 1:
                places.append(rng.choice(range(start, stop)))
            else:
                places += rng.sample(range(start, stop), shots) if stop - start >= shots else range(start, stop)
        return places

    def _by_permutation(self, trial: int, permutations: Permutations) -> list[int]:
        name, shots = self.protocol.name, self.protocol.shots
        places: list[int] = []
        there = {(camid, pid) for pid, camid, _, _ in self.groups}
        people = {pid for pid, _, _, _ in self.groups}
        for camid, pid in sorted(permutations.keys() - there):
            if pid in people and camid in self.listed and permutations[camid, pid].size:
                raise ProtocolError(
                    f"protocol {name}: the permutations name pictures of person {pid} under camera {camid}, and there "
                    "is none; complete the data set"
                )
        for pid, camid, start, stop in self.groups:
            orders = permutations.get((camid, pid))
            if orders is None or len(orders) <= trial:
                missing = "no order" if orders is None else f"{len(orders)} orders"
                raise ProtocolError(
                    f"protocol {name}: the permutations hold {missing} for person {pid} under camera {camid}, trial "
                    f"{trial + 1} is wanted; remove the file of permutations to draw by seed"
                )
            numbers = {_file_number(self.names[self.rows[place]]): place for place in range(start, stop)}
            for number in orders[trial][:shots].tolist():
                if number not in numbers:
                    raise ProtocolError(
                        f"protocol {name}: trial {trial + 1} takes picture {number} of person {pid} under camera "
                        f"{camid}, which is missing; complete the data set"
                    )
                places.append(numbers[number])
        return places


def _file_number(name: str) -> int:
    number = FILE_NUMBER.search(name.rpartition(".")[0] or name)
    return int(number[1]) if number else -1


def evaluate_trials(
    query: EmbeddingSet,
    gallery: EmbeddingSet,
    protocol: Protocol,
    *,
    permutations: Permutations | None = None,
    drawn: Sequence[Tensor] | None = None,
    rerank: RerankOptions | None = None,
    calibration: Calibration | None = None,
    chunk_size: int | None = None,
) -> Trials:
    """Every trial of a protocol, from one product of all queries with all pictures that some trial takes.

    Args:
        permutations: see `Drawing`.
        drawn: one (n,) int64 a trial, rows of the drawn side as given, where they were drawn before (the set may
            then lack pictures that no trial takes); None draws them.
        rerank: re-rank each trial alone, by its own queries and gallery.
        calibration: ranks by its evidence, as in `evaluate`.
        chunk_size: queries at a time; the result does not depend on it.
    Raises:
        ProtocolError: nothing can be drawn, a side is empty, vectors are damaged or no query has a match.
    """
    side = protocol.drawn
    if side is None:
        raise ProtocolError(f"protocol {protocol.name} draws nothing; evaluate it with `evaluate`")
    if drawn is None:
        pictures = query if side == "query" else gallery
        rows = admitted_rows(pictures, protocol, side).cpu()
        names = [pictures.paths[row].name for row in rows.tolist()]
        drawing = Drawing(pictures.pids.cpu()[rows], pictures.camids.cpu()[rows], names, protocol, permutations)
        drawn = [rows[some] for some in drawing.draw_all()]
    drawn = [rows.cpu() for rows in drawn]
    if rerank is not None:
        each = tuple(
            _reindexed(evaluate(query.select(rows), gallery, protocol, rerank=rerank, chunk_size=chunk_size), rows)
            if side == "query"
            else evaluate(query, gallery.select(rows), protocol, rerank=rerank, chunk_size=chunk_size)
            for rows in drawn
        )
    elif side == "query":
        each = _evaluate_drawn_queries(query, gallery, protocol, drawn, calibration, chunk_size)
    else:
        each = _evaluate_drawn_galleries(query, gallery, protocol, drawn, calibration, chunk_size)
    averages = combine([trial.metrics for trial in each])
    return Trials(averages.metrics, averages.deviations, each, tuple(drawn), side)


def _reindexed(evaluation: Evaluation, rows: Tensor) -> Evaluation:
    """The rows of a selection counted in the set that it was taken from."""
    return replace(evaluation, query_rows=rows[evaluation.query_rows])


def _evaluate_drawn_queries(
    query: EmbeddingSet,
    gallery: EmbeddingSet,
    protocol: Protocol,
    drawn: Sequence[Tensor],
    calibration: Calibration | None,
    chunk_size: int | None,
) -> tuple[Evaluation, ...]:
    """A query's ranking is the same in every trial that takes it: each is ranked once."""
    union = torch.unique(torch.cat(list(drawn)))
    whole = evaluate(query.select(union), gallery, protocol, calibration=calibration, chunk_size=chunk_size)
    place = torch.full((len(query),), -1)
    place[union[whole.query_rows]] = torch.arange(len(whole.query_rows))
    places = [place[rows] for rows in drawn]
    return tuple(_reindexed(pick(whole, rows[rows >= 0]), union) for rows in places)


def _evaluate_drawn_galleries(
    query: EmbeddingSet,
    gallery: EmbeddingSet,
    protocol: Protocol,
    drawn: Sequence[Tensor],
    calibration: Calibration | None,
    chunk_size: int | None,
) -> tuple[Evaluation, ...]:
    union = torch.unique(torch.cat(list(drawn)))
    sides = select_sides(query, gallery.select(union), protocol, calibration)
    device = sides.gallery.device
    kept = union[sides.gallery_rows.cpu()]
    pids, camids = gallery.pids.to(device)[kept], gallery.camids.to(device)[kept]
    place = torch.full((len(gallery),), -1)
    place[kept] = torch.arange(len(kept))
    columns = [places[places >= 0].to(device) for places in (place[rows] for rows in drawn)]
    queries = sides.candidates
    tallies = [
        Tally(
            find_candidates(queries.query_pids, pids[some], queries.query_camids, camids[some], protocol),
            sides.query_rows,
        )
        for some in columns
    ]
    for rows, distances in sides.distances(chunk_size):
        for tally, some in zip(tallies, columns, strict=True):
            tally.add(rows, distances.index_select(1, some))
    return tuple(tally.finish() for tally in tallies)
