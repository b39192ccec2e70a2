"""Who counts in a query's ranking: matches, junk, the order of ties; rank lists for looking at.

Ranks are counted, not sorted out: the rank of a match is one more than the number of entries that are nearer. No
entry behind the farthest match has a part in that, so a long row is cut there first; what is left is compared with each
match where that is little work, or else its *values* are sorted, which is several times faster than finding the
permutation. Rows in which a match ties with another entry are the only ones whose permutation is needed.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from tapetum.core.errors import ProtocolError
from tapetum.core.protocol import Protocol, Side
from tapetum.core.types import EmbeddingSet
from tapetum.core.vectors import normalise, similarity_blocks, smallest
from tapetum.evaluation.calibration import Calibration
from tapetum.evaluation.thresholds import pair_name

LONG_ROW = 4096  # entries from which on a row is worth a look of its own
FEW_MATCHES = 12  # up to which comparing a long row with each takes no longer than the fastest sort of it


@dataclass(frozen=True)
class Candidates:
    """Which gallery entries are a match or junk for which query, found through the sorted pids of the gallery."""

    kept: Tensor  # (Ng,) int64 rows of the gallery as given that are ranked at all; columns below count among these
    query_pids: Tensor  # (Nq,) int64
    query_camids: Tensor  # (Nq,) int64
    camids: Tensor  # (Ng,) int64 of the kept entries
    order: Tensor  # (Ng,) int64 columns sorted by pid
    start: Tensor  # (Nq,) int64; order[start[i]:stop[i]] are the entries with the pid of query i
    stop: Tensor
    identities: Tensor  # (Ng,) int64 number of each entry's identity, 0..num_identities-1
    num_identities: int
    most_matches: int  # of any query
    protocol: Protocol

    def pairs(self, queries: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Every (query, gallery) pair of one person, for some queries.

        Args:
            queries: (n,) int64 their numbers.
        Returns:
            (rows, columns, junk): place among the given queries, gallery column, and whether the protocol takes it out.
        """
        start, counts = self.start[queries], self.stop[queries] - self.start[queries]
        rows = torch.arange(len(queries), device=counts.device).repeat_interleave(counts)
        before = counts.cumsum(0) - counts  # pairs of earlier queries
        position = torch.arange(len(rows), device=counts.device) - before[rows] + start[rows]
        columns = self.order[position]
        return rows, columns, self.protocol.person_junk(self.query_camids[queries][rows], self.camids[columns])

    def remove_junk(
        self, distances: Tensor, queries: Tensor, pairs: tuple[Tensor, Tensor, Tensor] | None = None
    ) -> Tensor:
        """Put junk behind everything, in place.

        Args:
            distances: (n, Ng) of some queries.
            queries: (n,) int64 their numbers.
            pairs: of these queries, where they are at hand.
        Returns:
            (n,) int64 entries left to rank.
        """
        rows, columns, junk = pairs or self.pairs(queries)
        behind = farthest(distances.dtype)
        distances[rows[junk], columns[junk]] = behind
        left = torch.full_like(queries, distances.shape[1])
        if self.protocol.junk_camera_pairs:
            cameras = self.query_camids[queries]
            others = self.protocol.camera_junk(cameras.unsqueeze(1), self.camids)  # whoever they show
            distances.masked_fill_(others, behind)
            left -= others.sum(1)
            junk = junk & ~others[rows, columns]
        return left - torch.bincount(rows[junk], minlength=len(distances))


def find_candidates(
    query_pids: Tensor, gallery_pids: Tensor, query_camids: Tensor, gallery_camids: Tensor, protocol: Protocol
) -> Candidates:
    """Sort the gallery by pid once, so that the matches of any query are a slice; all numbers are int64.

    Raises:
        ProtocolError: nothing is left on one of the sides.
    """
    if len(query_pids) == 0:
        raise ProtocolError(f"protocol {protocol.name}: there is no query; check the query folder and the modality")
    kept = protocol.ranks(gallery_pids).nonzero().squeeze(1)
    if len(kept) == 0:
        raise ProtocolError(
            f"protocol {protocol.name}: nothing is left of a gallery of {len(gallery_pids)} entries after leaving out "
            f"pids {list(protocol.ignored_pids)}; check the gallery folder and the modality"
        )
    pids = gallery_pids[kept]
    ascending, order = pids.sort(stable=True)
    _, identities = torch.unique(pids, return_inverse=True)
    start, stop = (torch.searchsorted(ascending, query_pids, right=right) for right in (False, True))
    return Candidates(
        kept=kept,
        query_pids=query_pids,
        query_camids=query_camids,
        camids=gallery_camids[kept],
        order=order,
        start=start,
        stop=stop,
        identities=identities,
        num_identities=int(identities.max()) + 1,
        most_matches=int((stop - start).max()),
        protocol=protocol,
    )


def farthest(dtype: torch.dtype) -> float | int:
    """What stands for junk among distances: infinity, or the largest whole number."""
    return torch.inf if dtype.is_floating_point else torch.iinfo(dtype).max


def count_nearer(distances: Tensor, matches: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """For each match, how many entries of its row are nearer than it, and how many are nearer or as near.

    Args:
        distances: (n, Ng) without NaN.
        matches: (n, M) values of each row's matches, ascending; behind them `farthest`.
        counts: (n,) int64 matches of each row.
    Returns:
        (n, M) int64 twice; what stands where there is no match means nothing.
    """
    if distances.device.type != "cpu":
        ascending = distances.sort(dim=1).values
    elif distances.shape[1] < LONG_ROW:
        ascending = torch.from_numpy(np.sort(distances.numpy(), axis=1))
    else:
        return _count_row_by_row(distances, matches, counts)
    return torch.searchsorted(ascending, matches), torch.searchsorted(ascending, matches, right=True)


def _count_row_by_row(distances: Tensor, matches: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """`count_nearer` where most of the time would go into sorting entries that are behind every match."""
    nearer, within = torch.zeros_like(matches, dtype=torch.int64), torch.zeros_like(matches, dtype=torch.int64)
    rows = zip(distances.numpy(), matches.numpy(), counts.tolist(), nearer.numpy(), within.numpy(), strict=True)
    for row, values, count, before, upto in rows:
        if count == 0:
            continue
        values = values[:count]
        inside = row <= values[-1]
        left = np.count_nonzero(inside)
        if left < len(row) // 2:  # cutting the rest out costs about as much as sorting half a row, where that is fast
            row = row.compress(inside)
        if count <= FEW_MATCHES and len(row) >= LONG_ROW:
            before[:count] = [np.count_nonzero(row < value) for value in values]
            upto[:count] = [np.count_nonzero(row <= value) for value in values]
        else:
            row = np.sort(row)
            before[:count], upto[:count] = row.searchsorted(values), row.searchsorted(values, side="right")
    return nearer, within


def distinct_keys(values: Tensor, protocol: Protocol) -> Tensor:
    """Whole numbers in the order of the values, all distinct: equal values follow the protocol's order of ties.

    Args:
        values: (N, M) float32, float64 or int64.
    Returns:
        (N, M) int64.
    """
    width = values.shape[1]
    index = torch.arange(width, device=values.device)
    if protocol.ties == "larger_index_first":
        index = index.flip(0)
    if values.dtype == torch.float32:
        bits = (values + 0.0).view(torch.int32).long()  # + 0.0: minus zero equals zero
        bits = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits)  # the order of floats as whole numbers
        return (bits << 32) + index
    order = index.expand_as(values).argsort(dim=1)
    order = order.gather(1, values.gather(1, order).argsort(dim=1, stable=True))
    return torch.empty_like(order).scatter_(1, order, torch.arange(width, device=values.device).expand_as(order))


def admitted_rows(embeddings: EmbeddingSet, protocol: Protocol, side: Side) -> Tensor:
    """Rows that a protocol admits on one side, before anything is drawn, (n,) int64 ascending."""
    return protocol.admitted(side, embeddings.modalities, embeddings.camids).nonzero().squeeze(1)


@dataclass(frozen=True)
class AdmittedPairs:
    """What a protocol admits of two embedding sets."""

    query: Tensor  # (Nq, D) vectors
    gallery: Tensor  # (Ng, D) vectors
    query_rows: Tensor  # (Nq,) int64 rows of the query set as given
    gallery_rows: Tensor  # (Ng,) int64 rows of the gallery as given
    candidates: Candidates
    modalities: tuple[Tensor, Tensor]  # (Nq,) and (Ng,) int64
    calibration: Calibration | None = None  # ranks by its evidence; None ranks by similarity

    def distances(self, chunk_size: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """What the gallery is ranked by, smaller is closer, some queries at a time.

        Args:
            chunk_size: queries at a time, see `core.vectors.similarity_blocks`.
        Yields:
            (rows, block): `rows` (n,) int64 numbers of queries; block is (n, Ng), overwritten by the next one:
            -(a.b) in float32, for negation is exact, or the negated evidence in float64, which keeps the order of
            similarities within a pair of modalities.
        """
        for rows, block in similarity_blocks(self.query, self.gallery, chunk_size):
            nearness = block if self.calibration is None else self._evidence(self.calibration, rows, block)
            yield rows, nearness.neg_()

    def _evidence(self, calibration: Calibration, rows: Tensor, block: Tensor) -> Tensor:
        """(n, Ng) float64 from similarities, each by the curve of its pair of modalities."""
        ours, theirs = self.modalities[0][rows], self.modalities[1]
        evidence = torch.empty_like(block, dtype=torch.float64)
        for one in torch.unique(ours).tolist():
            queries = (ours == one).nonzero()
            for other in torch.unique(theirs).tolist():
                entries = (theirs == other).nonzero().squeeze(1)
                values = calibration.evidence(block[queries, entries].cpu().numpy(), pair_name(one, other))
                evidence[queries, entries] = torch.from_numpy(values).to(block.device)
        return evidence


def select_sides(
    query: EmbeddingSet, gallery: EmbeddingSet, protocol: Protocol, calibration: Calibration | None = None
) -> AdmittedPairs:
    """Apply a protocol's modalities, cameras and ignored pids; vectors are copied only where rows fall away.

    Args:
        calibration: rank by its evidence; None ranks by similarity.
    Raises:
        ProtocolError: a side is empty, the vectors have different lengths, or a pair of modalities that occurs is not
            calibrated.
    """
    if query.vectors.shape[1] != gallery.vectors.shape[1]:
        raise ProtocolError(
            f"protocol {protocol.name}: query vectors have {query.vectors.shape[1]} numbers, gallery vectors "
            f"{gallery.vectors.shape[1]}; extract both with the same checkpoint"
        )
    device = query.vectors.device
    query_rows = admitted_rows(query, protocol, "query").to(device)
    gallery_rows = admitted_rows(gallery, protocol, "gallery").to(device)
    candidates = find_candidates(
        query.pids.to(device)[query_rows],
        gallery.pids.to(device)[gallery_rows],
        query.camids.to(device)[query_rows],
        gallery.camids.to(device)[gallery_rows],
        protocol,
    )
    kept = gallery_rows[candidates.kept]
    modalities = query.modalities.to(device)[query_rows].long(), gallery.modalities.to(device)[kept].long()
    if calibration is not None:
        ours, theirs = (torch.unique(each).tolist() for each in modalities)
        calibration.check_ranks({pair_name(one, other) for one in ours for other in theirs})
    return AdmittedPairs(
        query=query.vectors if len(query_rows) == len(query) else query.vectors[query_rows],
        gallery=gallery.vectors if len(kept) == len(gallery) else gallery.vectors[kept],
        query_rows=query_rows,
        gallery_rows=kept,
        candidates=candidates,
        modalities=modalities,
        calibration=calibration,
    )


@dataclass(frozen=True)
class RankList:
    """The first k ranks of each query."""

    gallery_rows: Tensor  # (Nq, k) int64 rows of the gallery as given, junk taken out; -1 where the ranking has ended
    right: Tensor  # (Nq, k) bool, the entry shows the query's person
    similarities: Tensor  # (Nq, k) float32 cosines; minus infinity where the ranking has ended
    query_rows: Tensor  # (Nq,) int64 rows of the query set as given


def top_k(
    query: EmbeddingSet, gallery: EmbeddingSet, protocol: Protocol, k: int = 10, *, chunk_size: int | None = None
) -> RankList:
    """The first k ranks of every query, as the evaluation counts them.

    Args:
        chunk_size: queries at a time; the result does not depend on it.
    """
    sides = select_sides(query, gallery, protocol)
    query_rows, kept = sides.query_rows, sides.gallery_rows
    count, reverse = min(k, len(kept)), protocol.ties == "larger_index_first"
    rows = torch.full((len(query_rows), k), -1)
    similarities = torch.full((len(query_rows), k), -torch.inf)
    for part, distances in sides.distances(chunk_size):
        if distances.isnan().any():
            raise ProtocolError(f"protocol {protocol.name}: the embeddings hold NaN or infinity; extract them again")
        sides.candidates.remove_junk(distances, part)
        part = part.cpu()
        values, columns = smallest(distances.flip(1) if reverse else distances, count)
        columns = len(kept) - 1 - columns if reverse else columns
        rows[part, :count] = torch.where(values.isinf(), -1, kept[columns]).cpu()
        similarities[part, :count] = -values.cpu()
    right = (rows >= 0) & (gallery.pids.cpu()[rows] == query.pids.cpu()[query_rows.cpu()].unsqueeze(1))
    return RankList(rows, right, similarities, query_rows.cpu())


def multi_query(query: EmbeddingSet, extra: EmbeddingSet) -> EmbeddingSet:
    """Each query's vector replaced by the mean, of unit norm, of all pictures of its person under its camera.

    Args:
        extra: pictures to average (Market-1501: the folder of ground-truth boxes, which holds the queries too); a
            query with no picture there keeps its own vector.
    """
    keys = torch.stack([torch.cat([query.pids, extra.pids]), torch.cat([query.camids, extra.camids])])
    _, groups = torch.unique(keys, dim=1, return_inverse=True)
    ours, theirs = groups[: len(query)], groups[len(query) :]
    sums = query.vectors.new_zeros(int(groups.max()) + 1, query.vectors.shape[1])
    sums.index_add_(0, theirs, normalise(extra.vectors))
    present = torch.bincount(theirs, minlength=len(sums))[ours] > 0
    vectors = torch.where(present.unsqueeze(1), normalise(sums[ours]), query.vectors)
    return replace(query, vectors=vectors)
