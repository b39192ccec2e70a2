"""CMC, mean average precision and mINP of a ranking, under any protocol, with memory bounded by a chunk.

Distances arrive some queries at a time and nothing of a block outlives it but a few numbers a query. The distance of
a match is read from the very block in which it is compared with the others, so no entry is ever compared with itself
rounded in another way.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from tapetum.core.errors import ProtocolError
from tapetum.core.protocol import APRule, Protocol
from tapetum.core.types import EmbeddingSet
from tapetum.core.vectors import one_thread
from tapetum.evaluation.calibration import Calibration
from tapetum.evaluation.ranking import Candidates, count_nearer, distinct_keys, farthest, find_candidates, select_sides

if TYPE_CHECKING:
    from tapetum.evaluation.rerank import RerankOptions

PIECE_ENTRIES = 2**21  # entries of a block counted at a time, 8 MiB of float32


@dataclass(frozen=True)
class Metrics:
    """The numbers of an evaluation: fractions in [0, 1]."""

    cmc: Tensor  # (R,) float64, cmc[k-1] is the fraction of queries with a right answer in the first k ranks
    mean_ap: float
    mean_inp: float
    num_queries: int  # that stand in the denominator
    num_dropped: int  # queries without any match in the gallery that the protocol left out
    protocol: Protocol

    def rank(self, k: int) -> float:
        """CMC at rank k (counted from 1), a fraction; ranks past the stored ones repeat the last."""
        return float(self.cmc[min(k, len(self.cmc)) - 1])


@dataclass(frozen=True)
class Evaluation:
    """Metrics and what each query contributed to them; query i of every field is query `query_rows[i]` as given."""

    metrics: Metrics
    per_query_ap_step: Tensor  # (Nq,) float64 average precision; 0 without a match
    per_query_ap_trapezoid: Tensor  # by the other rule
    per_query_inp: Tensor  # (Nq,) float64 inverse negative penalty, matches / rank of the last; 0 without a match
    per_query_first_rank: Tensor  # (Nq,) int64 of the first match in the list that the CMC uses, from 1; -1 without
    matched: Tensor  # (Nq,) bool, the query has a match that is not junk
    num_matches: Tensor  # (Nq,) int64 matches in the ranking
    num_ranked: Tensor  # (Nq,) int64 entries in the ranking, junk taken out
    query_rows: Tensor  # (Nq,) int64 row of each query in the set as given (a protocol may admit one modality only)

    @property
    def per_query_ap(self) -> Tensor:
        """(Nq,) float64 average precision by the protocol's own rule; 0 without a match."""
        return self.ap_by(self.metrics.protocol.ap)

    @property
    def counted(self) -> Tensor:
        """(Nq,) bool, the query stands in the denominator."""
        return self.matched if self.metrics.protocol.unmatched == "drop" else torch.ones_like(self.matched)

    def ap_by(self, rule: APRule) -> Tensor:
        """(Nq,) float64 average precision by a named rule."""
        return self.per_query_ap_step if rule == "step" else self.per_query_ap_trapezoid


def average_precision(ranks: Tensor, valid: Tensor, rule: APRule = "step") -> Tensor:
    """Average precision from the ranks of the matches.

    Args:
        ranks: (Nq, M) int64 ascending, counted from 1, junk already out.
        valid: (Nq, M) bool, False where a query has fewer than M matches.
        rule: "step" takes the precision at each match; "trapezoid" averages it with the precision one rank before.
    Returns:
        (Nq,) float64 in [0, 1]; 0 without a match. One match at rank 2 gives 0.5 ("step") or 0.25 ("trapezoid").
    Source: "step": torchreid, DEEN and most others; "trapezoid": the Market-1501 toolkit and the IDF release.
    """
    hits = torch.arange(1, ranks.shape[1] + 1, dtype=torch.float64, device=ranks.device)
    place = ranks.double()
    precision = hits / place
    if rule == "trapezoid":
        before = torch.where(place > 1, (hits - 1) / (place - 1).clamp(min=1), 1.0)  # rank 0 counts as precision 1
        precision = (precision + before) / 2
    # a running sum: zeros behind the last match change no bit, however wide the padding is
    total = (precision * valid).cumsum(1)[:, -1] if ranks.shape[1] else precision.sum(1)
    return total / valid.sum(1).clamp(min=1)


def evaluate(
    query: EmbeddingSet,
    gallery: EmbeddingSet,
    protocol: Protocol,
    *,
    rerank: "RerankOptions | None" = None,
    calibration: Calibration | None = None,
    chunk_size: int | None = None,
) -> Evaluation:
    """Rank the gallery for every query by cosine similarity and count.

    Args:
        rerank: re-rank by k-reciprocal encoding first; None ranks by similarity alone.
        calibration: rank by its evidence, which differs from similarity where a query meets entries of both
            modalities; not of re-ranked distances.
        chunk_size: queries at a time (rounded up to whole tiles, see `core.vectors.similarity_blocks`); the result
            does not depend on it.
    Raises:
        ProtocolError: a side is empty, vectors do not fit together or hold NaN, no query has a match, or a pair of
            modalities that occurs is not calibrated.
    """
    sides = select_sides(query, gallery, protocol, calibration)
    if rerank is not None:
        from tapetum.evaluation.rerank import rerank_blocks

        blocks = rerank_blocks(sides.query, sides.gallery, rerank, chunk_size=chunk_size)
    else:
        blocks = sides.distances(chunk_size)
    return _count(blocks, sides.candidates, sides.query_rows)


@dataclass(frozen=True)
class Sides:
    """Both sides of a test, and its rules.

    Attributes:
        filling: numbers at the end of each vector that only fill it up, see `tapetum.inference.filling`; 0 where both
            sides go without.
    """

    query: EmbeddingSet
    gallery: EmbeddingSet
    protocol: Protocol
    filling: int = field(default=0, kw_only=True)

    @cached_property
    def evaluation(self) -> Evaluation:
        """Of all queries against the whole gallery, nothing drawn."""
        return evaluate(self.query, self.gallery, self.protocol)


def evaluate_distances(
    distances: Tensor | np.ndarray,
    query_pids: Tensor | np.ndarray,
    gallery_pids: Tensor | np.ndarray,
    query_camids: Tensor | np.ndarray,
    gallery_camids: Tensor | np.ndarray,
    protocol: Protocol,
    *,
    chunk_size: int | None = None,
) -> Evaluation:
    """Count from distances that somebody else computed, of any real type: none is rounded, so none becomes a tie.

    Args:
        distances: (Nq, Ng), smaller is closer, may be negative; not changed. Pids and camids are whole numbers.
        protocol: its modalities are not looked at.
        chunk_size: queries at a time, None takes what stays in the cache; the result does not depend on it.
    Raises:
        ProtocolError: shapes do not fit, distances are no real numbers, one is NaN, a match is at infinity (of whole
            numbers: at the largest of 64 bits), a pid or camid is no whole number, or no query has a match.
    """
    matrix = distances if isinstance(distances, Tensor) else np.asarray(distances)
    query, gallery, query_cameras, gallery_cameras = (
        _read_numbers(numbers, name, protocol)
        for name, numbers in (
            ("query pids", query_pids),
            ("gallery pids", gallery_pids),
            ("query camids", query_camids),
            ("gallery camids", gallery_camids),
        )
    )
    shape = tuple(matrix.shape)
    if shape != (len(query), len(gallery)) or shape != (len(query_cameras), len(gallery_cameras)):
        raise ProtocolError(
            f"protocol {protocol.name}: distances are {shape} for {len(query)} query pids, {len(query_cameras)} query "
            f"camids, {len(gallery)} gallery pids and {len(gallery_cameras)} gallery camids; give (Nq, Ng) distances"
        )
    candidates = find_candidates(query, gallery, query_cameras, gallery_cameras, protocol)
    every = torch.arange(len(query))

    def blocks() -> Iterator[tuple[Tensor, Tensor]]:
        for rows in torch.split(every, chunk_size or piece_rows(len(gallery))):
            block = _read_exactly(matrix[int(rows[0]) : int(rows[-1]) + 1], "distances", protocol)
            yield rows, block if len(candidates.kept) == len(gallery) else block[:, candidates.kept]

    return _count(blocks(), candidates, every)


def _read_exactly(values: Tensor | np.ndarray, name: str, protocol: Protocol) -> Tensor:
    """A copy in float32, float64 or int64, whichever holds every value of the given type; unsigned 64 bits shifted."""
    kind, fresh = values.dtype, isinstance(values, np.ndarray)
    if isinstance(values, np.ndarray) and values.dtype.kind in "biuf" and values.dtype.itemsize <= 8:
        values = torch.from_numpy(np.array(values, dtype=values.dtype.newbyteorder("="), order="C"))
    if isinstance(values, np.ndarray) or values.dtype.is_complex:
        raise ProtocolError(f"protocol {protocol.name}: {name} are {kind}; give float64 or whole numbers")
    if values.dtype == torch.uint64:
        return values.contiguous().view(torch.int64) ^ torch.iinfo(torch.int64).min  # in the same order
    wide = torch.float32 if values.dtype.is_floating_point else torch.int64
    wide = values.dtype if values.dtype == torch.float64 else wide
    return values.to(wide, copy=not fresh, memory_format=torch.contiguous_format)


def _read_numbers(values: Tensor | np.ndarray, name: str, protocol: Protocol) -> Tensor:
    """(N,) int64 pids or camids."""
    array = values if isinstance(values, Tensor) else np.asarray(values)
    numbers = _read_exactly(array, name, protocol)
    wrong = torch.zeros_like(numbers, dtype=torch.bool)
    if numbers.is_floating_point():
        # From 2 / eps on, whole numbers are rounded.
        wrong = (numbers != numbers.round()) | (numbers.abs() >= 2 / torch.finfo(numbers.dtype).eps)
    elif str(array.dtype).endswith("uint64"):
        numbers = numbers ^ torch.iinfo(torch.int64).min
        wrong = numbers < 0
    if wrong.any():
        raise ProtocolError(
            f"protocol {protocol.name}: {name} are {array.dtype}, and not all of them whole; give int64"
        )
    return numbers.long()


@dataclass(frozen=True)
class _Counts:  # of one block of rows: fields as in `Evaluation`, and which rows must be counted again
    ap_step: Tensor
    ap_trapezoid: Tensor
    inp: Tensor
    first_rank: Tensor
    num_matches: Tensor
    tied: Tensor  # (n,) bool: a match equals another entry, so that the order of ties matters


class Tally:
    """Counts blocks of distances as they come and forgets them; knows what each query contributes in the end."""

    def __init__(self, candidates: Candidates, query_rows: Tensor) -> None:
        self.candidates = candidates
        self.query_rows = query_rows
        count, device = len(query_rows), candidates.query_pids.device
        self.ap_step, self.ap_trapezoid, self.inp = (
            torch.zeros(count, dtype=torch.float64, device=device) for _ in range(3)
        )
        self.first_rank, self.num_matches, self.num_ranked = (
            torch.zeros(count, dtype=torch.int64, device=device) for _ in range(3)
        )

    def add(self, queries: Tensor, distances: Tensor) -> None:
        """Count some queries.

        Args:
            queries: (n,) int64 their numbers.
            distances: (n, Ng) to the kept entries; changed in place.
        """
        rows = piece_rows(distances.shape[1])
        with one_thread():
            for piece in zip(torch.split(queries, rows), torch.split(distances, rows), strict=True):
                self._add_piece(*piece)

    def _add_piece(self, queries: Tensor, distances: Tensor) -> None:
        candidates = self.candidates
        pairs = candidates.pairs(queries)
        self.num_ranked[queries] = candidates.remove_junk(distances, queries, pairs)
        columns, valid = _match_columns(candidates, pairs, len(distances))
        counts = _count_rows(distances, columns, valid, candidates)
        self._store(queries, counts)
        tied = counts.tied.nonzero().squeeze(1)
        if len(tied):  # whole numbers in place of distances: the same order, without ties
            keys = distinct_keys(distances[tied], candidates.protocol)
            self._store(queries[tied], _count_rows(keys, columns[tied], valid[tied], candidates))

    def _store(self, rows: Tensor, counts: "_Counts") -> None:
        self.ap_step[rows], self.ap_trapezoid[rows], self.inp[rows] = counts.ap_step, counts.ap_trapezoid, counts.inp
        self.first_rank[rows], self.num_matches[rows] = counts.first_rank, counts.num_matches

    def finish(self) -> Evaluation:
        """What was counted, once every query was added.

        Raises:
            ProtocolError: no query stands in the denominator.
        """
        protocol = self.candidates.protocol
        longest = self.candidates.num_identities if protocol.cmc == "identities" else len(self.candidates.kept)
        evaluation = Evaluation(
            metrics=Metrics(torch.empty(0), 0.0, 0.0, 0, 0, protocol),
            per_query_ap_step=self.ap_step.cpu(),
            per_query_ap_trapezoid=self.ap_trapezoid.cpu(),
            per_query_inp=self.inp.cpu(),
            per_query_first_rank=self.first_rank.cpu(),
            matched=(self.num_matches > 0).cpu(),
            num_matches=self.num_matches.cpu(),
            num_ranked=self.num_ranked.cpu(),
            query_rows=self.query_rows.cpu(),
        )
        return replace(evaluation, metrics=summarise(evaluation, cmc_length=min(protocol.max_rank, longest)))


def _count(blocks: Iterable[tuple[Tensor, Tensor]], candidates: Candidates, query_rows: Tensor) -> Evaluation:
    """Evaluate blocks of (queries, distances (n, Ng) of the kept entries), every query once, changed in place."""
    tally = Tally(candidates, query_rows)
    for rows, distances in blocks:
        tally.add(rows, distances)
    return tally.finish()


def summarise(evaluation: Evaluation, mask: Tensor | None = None, *, cmc_length: int | None = None) -> Metrics:
    """The numbers of some of the queries, each against the whole gallery.

    Args:
        mask: (Nq,) bool; None takes all.
        cmc_length: ranks to store; None stores as many as `evaluation` does.
    Raises:
        ProtocolError: no query stands in the denominator.
    """
    groups = torch.zeros(len(evaluation.matched), dtype=torch.int64) if mask is None else mask.long() - 1
    (found,) = summarise_groups(evaluation, groups, 1, cmc_length=cmc_length)
    if found is None:
        raise ProtocolError(
            f"protocol {evaluation.metrics.protocol.name}: none of {int((groups == 0).sum())} queries has a match in "
            "the gallery after junk removal; check that query and gallery share identities (and differ in camera)"
        )
    return found


def summarise_groups(
    evaluation: Evaluation, groups: Tensor, count: int, *, cmc_length: int | None = None
) -> list[Metrics | None]:
    """The numbers of each group of queries, each query against the whole gallery.

    Args:
        groups: (Nq,) int64 in 0..count-1; -1 for a query of none.
        cmc_length: as of `summarise`.
    Returns:
        One a group; None where no query stands in the denominator.
    """
    protocol, first = evaluation.metrics.protocol, evaluation.per_query_first_rank
    length = len(evaluation.metrics.cmc) if cmc_length is None else cmc_length
    inside = groups >= 0
    counted = inside & evaluation.counted
    sizes = torch.bincount(groups[counted], minlength=count).tolist()
    dropped = torch.bincount(groups[inside & ~evaluation.counted], minlength=count).tolist()
    order = counted.nonzero().squeeze(1)[groups[counted].argsort(stable=True)]  # a group's queries side by side
    precisions, penalties = (
        torch.split(values[order], sizes) for values in (evaluation.per_query_ap, evaluation.per_query_inp)
    )
    right = counted & evaluation.matched & (first <= length)
    hits = torch.bincount(groups[right] * length + first[right] - 1, minlength=count * length).view(count, length)
    cmc = hits.cumsum(1).double()
    return [
        Metrics(
            cmc=cmc[number] / size,
            mean_ap=float(precisions[number].mean()),
            mean_inp=float(penalties[number].mean()),
            num_queries=size,
            num_dropped=dropped[number],
            protocol=protocol,
        )
        if size
        else None
        for number, size in enumerate(sizes)
    ]


def pick(evaluation: Evaluation, rows: Tensor) -> Evaluation:
    """The evaluation of some of the queries, (n,) int64 in their order, each still against the whole gallery.

    Raises:
        ProtocolError: no query stands in the denominator.
    """
    columns = [field.name for field in fields(evaluation) if field.name != "metrics"]
    some = replace(evaluation, **{name: getattr(evaluation, name)[rows] for name in columns})
    return replace(some, metrics=summarise(some))


def piece_rows(columns: int) -> int:
    """Rows of so many columns that stay in the cache while they are sorted and searched."""
    return max(16, PIECE_ENTRIES // max(1, columns))


def _match_columns(candidates: Candidates, pairs: tuple[Tensor, Tensor, Tensor], count: int) -> tuple[Tensor, Tensor]:
    """Columns of each query's matches, (count, M) padded, and which of them are real."""
    rows, columns, junk = pairs
    rows, columns = rows[~junk], columns[~junk]
    matches = torch.bincount(rows, minlength=count)
    width = candidates.most_matches
    place = torch.arange(len(rows), device=rows.device) - (matches.cumsum(0) - matches)[rows]
    table = rows.new_zeros(count, width)
    table[rows, place] = columns
    return table, torch.arange(width, device=rows.device) < matches.unsqueeze(1)


def _count_rows(distances: Tensor, columns: Tensor, valid: Tensor, candidates: Candidates) -> _Counts:
    """Count one block.

    Args:
        distances: (n, Ng), junk at infinity; or `distinct_keys` of them.
        columns: (n, M) matches of each row, padded.
        valid: (n, M) bool, the real ones; they stand first in their row.
    """
    protocol = candidates.protocol
    behind = farthest(distances.dtype)
    values = distances.gather(1, columns).masked_fill_(~valid, behind).sort(dim=1).values
    if distances.amax().isnan() or ((values.isinf() | (values == behind)) & valid).any():
        raise ProtocolError(
            f"protocol {protocol.name}: a distance is NaN or infinite; the embeddings are damaged, extract them again"
        )
    num_matches = valid.sum(1)
    nearer, within = count_nearer(distances, values, num_matches)
    tied = ((within - nearer > 1) & valid).any(1)
    ranks = nearer + 1
    if columns.shape[1] == 0:
        nothing = torch.zeros(len(distances), dtype=torch.float64, device=distances.device)
        return _Counts(nothing, nothing, nothing, num_matches - 1, num_matches, tied)
    first_rank = ranks[:, 0]
    if protocol.cmc == "identities":  # rank among the best entries of each identity
        best = minima_by_identity(distances, candidates)
        first_rank = (best < values[:, :1]).sum(1) + 1
    last_rank = ranks.gather(1, (num_matches - 1).clamp(min=0).unsqueeze(1)).squeeze(1)
    return _Counts(
        ap_step=average_precision(ranks, valid, "step"),
        ap_trapezoid=average_precision(ranks, valid, "trapezoid"),
        inp=num_matches.double() / last_rank,
        first_rank=torch.where(num_matches > 0, first_rank, -1),
        num_matches=num_matches,
        tied=tied,
    )


def minima_by_identity(distances: Tensor, candidates: Candidates) -> Tensor:
    """(n, num_identities) distances of the nearest entry of each identity, from (n, Ng) distances."""
    columns = distances.T.contiguous()  # many times faster to reduce row by row than inside a row
    best = columns.new_empty(candidates.num_identities, len(distances))
    identities = candidates.identities.unsqueeze(1).expand_as(columns)
    return best.scatter_reduce_(0, identities, columns, "amin", include_self=False).T
