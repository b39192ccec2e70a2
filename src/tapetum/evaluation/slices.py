"""Where it fails: the same evaluation for some of the queries, each still against the whole gallery.

Masks and labels are arrays over the queries that were evaluated (`Evaluation.query_rows` says which of the given ones
those are); what a label means, light or size or noise, is the caller's knowledge.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from tapetum.core.errors import ProtocolError
from tapetum.core.protocol import Protocol
from tapetum.core.types import EmbeddingSet, Modality
from tapetum.evaluation.bootstrap import combine
from tapetum.evaluation.calibration import Calibration
from tapetum.evaluation.metrics import Evaluation, Metrics, evaluate, summarise, summarise_groups
from tapetum.evaluation.ranking import admitted_rows, select_sides
from tapetum.evaluation.trials import evaluate_trials

LOOKALIKES = "lookalikes"  # the property, its levels, and the figure that stands beside the first
LOOKALIKE_LEVELS = ("look-alike in the gallery", "no look-alike")
FIRST_WRONG = "first_wrong_lookalike"
MODALITY = "modality"  # the property, and the figures that stand beside its levels
OWN_FIRST, OWN_SHARE, BIAS = "own_modality_first", "own_modality_share", "modality_bias"


def subset(evaluation: Evaluation, query_mask: Tensor) -> Metrics:
    """The metrics of some of the queries, a (Nq,) bool, each against the whole gallery.

    Raises:
        ProtocolError: the mask does not fit, or none of the queries has a match.
    """
    mask = torch.as_tensor(query_mask)
    if mask.dtype != torch.bool or mask.shape != evaluation.matched.shape:
        raise ProtocolError(
            f"query mask is {tuple(mask.shape)} {mask.dtype}, expected ({len(evaluation.matched)},) bool; "
            "index it with evaluation.query_rows if the protocol admits one modality only"
        )
    return summarise(evaluation, mask)


def by_label(evaluation: Evaluation, labels: Sequence[str]) -> dict[str, Metrics]:
    """Metrics of each group of queries, in the order of first appearance; one without any match is left out.

    Args:
        labels: Nq names, e.g. each query's light level.
    Raises:
        ProtocolError: the number of labels is not the number of queries.
    """
    if len(labels) != len(evaluation.matched):
        raise ProtocolError(f"{len(labels)} labels for {len(evaluation.matched)} queries; give one label a query")
    numbers = {name: number for number, name in enumerate(dict.fromkeys(labels))}
    groups = torch.tensor([numbers[label] for label in labels], dtype=torch.int64)
    found = zip(numbers, summarise_groups(evaluation, groups, len(numbers)), strict=True)
    return {name: metrics for name, metrics in found if metrics is not None}


def thirds(values: Tensor) -> list[str]:
    """Labels "low", "medium", "high" that cut the queries by a measure of each into parts of about the same number."""
    measure = torch.as_tensor(values).double()
    edges = torch.quantile(measure, torch.tensor([1 / 3, 2 / 3], dtype=torch.float64))
    return [("low", "medium", "high")[level] for level in torch.bucketize(measure, edges).tolist()]


def first_wrong_rows(
    query: EmbeddingSet, gallery: EmbeddingSet, protocol: Protocol, calibration: Calibration | None = None
) -> Tensor:
    """(Nq,) int64 gallery row of each query's nearest entry of another person; -1 where there is none.

    Args:
        calibration: what is nearest is told by its evidence, as in `evaluate`.
    """
    sides = select_sides(query, gallery, protocol, calibration)
    reverse = protocol.ties == "larger_index_first"
    found = torch.full((len(query),), -1, dtype=torch.int64)
    for part, distances in sides.distances():
        pairs = sides.candidates.pairs(part)
        sides.candidates.remove_junk(distances, part, pairs)
        distances[pairs[0], pairs[1]] = torch.inf
        columns = _first_columns(distances, reverse=reverse)
        there = distances.gather(1, columns.unsqueeze(1)).squeeze(1).isfinite()
        found[sides.query_rows[part].cpu()] = torch.where(there, sides.gallery_rows[columns], -1).cpu()
    return found


def _first_columns(distances: Tensor, *, reverse: bool) -> Tensor:
    """(n,) int64 of the smallest entry in each row of (n, Ng); of equal ones the last where `reverse`."""
    return distances.shape[1] - 1 - distances.flip(1).argmin(1) if reverse else distances.argmin(1)


def by_modality(
    query: EmbeddingSet, gallery: EmbeddingSet, protocol: Protocol, calibration: Calibration | None = None
) -> tuple[list[str], dict[str, dict[str, float]]]:
    """How much more often a picture finds one of its own modality first than their share would have it.

    Args:
        calibration: what is nearest is told by its evidence, as in `evaluate`.
    Returns:
        The modality of each query; and for each modality `OWN_FIRST`, the share of its queries whose nearest entry,
        whoever it shows, is of it too, `OWN_SHARE`, what part of their ranked entries is of it, and `BIAS`, the first
        divided by the second: 1 where the modality plays no part. Empty where the gallery has one modality only.
    """
    names = [Modality(value).name.lower() for value in query.modalities.tolist()]
    sides = select_sides(query, gallery, protocol, calibration)
    theirs = sides.modalities[1]
    if len(torch.unique(theirs)) < 2:
        return names, {}
    reverse = protocol.ties == "larger_index_first"
    first, share = (torch.full((len(query),), torch.nan, dtype=torch.float64) for _ in range(2))
    for part, distances in sides.distances():
        sides.candidates.remove_junk(distances, part)
        rows = sides.query_rows[part]
        ranked = distances.isfinite()
        own = theirs == query.modalities.to(theirs.device)[rows].unsqueeze(1)
        share[rows.cpu()] = ((own & ranked).sum(1) / ranked.sum(1)).double().cpu()
        nearest = _first_columns(distances, reverse=reverse).unsqueeze(1)
        first[rows.cpu()] = own.gather(1, nearest).squeeze(1).double().cpu()
    figures = {}
    for modality in torch.unique(query.modalities).tolist():
        asked = (query.modalities.cpu() == modality) & (share > 0)
        if asked.any():
            values = {OWN_FIRST: float(first[asked].mean()), OWN_SHARE: float(share[asked].mean())}
            figures[Modality(modality).name.lower()] = {**values, BIAS: values[OWN_FIRST] / values[OWN_SHARE]}
    return names, figures


def by_lookalikes(
    query: EmbeddingSet,
    gallery: EmbeddingSet,
    protocol: Protocol,
    outfits: tuple[Tensor, Tensor],
    calibration: Calibration | None = None,
) -> tuple[list[str], float | None]:
    """Which queries meet somebody in the same clothes, and whether it is they who are taken for the person.

    Args:
        outfits: (Nq,) and (Ng,) int64, equal for people in the same clothes; -1 where nothing is known.
        calibration: what is nearest is told by its evidence, as in `evaluate`.
    Returns:
        One of `LOOKALIKE_LEVELS` for each query, and the share of those with a look-alike in the gallery whose nearest
        entry of another person shows one; None where no query has any.
    """
    ours, theirs = outfits
    worn = torch.stack([theirs, gallery.pids.cpu()])[:, protocol.ranks(gallery.pids.cpu()) & (theirs >= 0)]
    outfit, wearer = torch.unique(worn, dim=1)
    meets = ((outfit == ours.unsqueeze(1)) & (wearer != query.pids.cpu().unsqueeze(1))).any(1)
    levels = [LOOKALIKE_LEVELS[0] if each else LOOKALIKE_LEVELS[1] for each in meets.tolist()]
    wrong = first_wrong_rows(query, gallery, protocol, calibration)
    asked = meets & (wrong >= 0)
    taken = (theirs[wrong[asked]] == ours[asked]).double()
    return levels, float(taken.mean()) if len(taken) else None


def by_camera_pair(
    query: EmbeddingSet,
    gallery: EmbeddingSet,
    protocol: Protocol,
    drawn: Sequence[Tensor] | None = None,
    calibration: Calibration | None = None,
) -> dict[str, Metrics]:
    """Metrics of each query camera against each gallery camera alone: one evaluation a gallery camera, then its parts.

    Args:
        drawn: one (n,) int64 a trial, the rows it took of the side that the protocol draws; None where it draws none.
        calibration: ranks by its evidence, as in `evaluate`.
    Returns:
        "camera 2 to camera 5" and so on to metrics, for the pairs in which some query has a match.
    """
    searching = _mask(admitted_rows(query, protocol, "query"), len(query))
    admitted = _mask(admitted_rows(gallery, protocol, "gallery"), len(gallery)) & protocol.ranks(gallery.pids.cpu())
    if drawn is not None:
        side = searching if protocol.drawn == "query" else admitted
        side &= _mask(torch.cat(list(drawn)), len(side))
    query_pids, query_camids = query.pids.cpu(), query.camids.cpu()
    gallery_pids, gallery_camids = gallery.pids.cpu(), gallery.camids.cpu()
    results = {}
    for theirs in torch.unique(gallery_camids[admitted]):
        entries = admitted & (gallery_camids == theirs)
        asking = searching & ~protocol.person_junk(query_camids, theirs)
        cameras = torch.unique(query_camids[asking & torch.isin(query_pids, gallery_pids[entries])])
        if not len(cameras):
            continue
        queries = asking & torch.isin(query_camids, cameras)
        sides = query.select(queries.to(query.pids.device)), gallery.select(entries.to(gallery.pids.device))
        if drawn is None:
            trials: Sequence[Evaluation] = [evaluate(*sides, protocol, calibration=calibration)]
        else:
            rows = [_among(each.cpu(), queries if protocol.drawn == "query" else entries) for each in drawn]
            trials = evaluate_trials(*sides, protocol, drawn=rows, calibration=calibration).each
        groups = torch.searchsorted(cameras, query_camids[queries])
        each = [summarise_groups(trial, groups[trial.query_rows], len(cameras)) for trial in trials]
        for ours, *parts in zip(cameras.tolist(), *each, strict=True):
            there = [part for part in parts if part is not None]
            if there:
                results[ours, int(theirs)] = there[0] if drawn is None else combine(there).metrics
    return {f"camera {ours} to camera {theirs}": results[ours, theirs] for ours, theirs in sorted(results)}


def _mask(rows: Tensor, size: int) -> Tensor:
    """(size,) bool, true at the rows; on the CPU."""
    mask = torch.zeros(size, dtype=torch.bool)
    mask[rows.cpu()] = True
    return mask


def _among(rows: Tensor, mask: Tensor) -> Tensor:
    """The rows that a mask keeps, counted among those that it keeps."""
    return (mask.cumsum(0) - 1)[rows[mask[rows]]]


def worst_queries(evaluation: Evaluation, count: int) -> Tensor:
    """Rows, in the query set as given, of the matched queries with the lowest average precision, worst first."""
    return mean_precisions([evaluation])[0][:count]


def mean_precisions(trials: Sequence[Evaluation]) -> tuple[Tensor, Tensor]:
    """Each query's average precision, meaned over the trials that asked it.

    Returns:
        (rows, precisions): (n,) int64 row numbers in the query set as given, and (n,) float64, worst first; only
        queries that have a match.
    """
    rows = torch.cat([trial.query_rows[trial.matched] for trial in trials])
    values = torch.cat([trial.per_query_ap[trial.matched] for trial in trials])
    queries, place, counts = torch.unique(rows, return_inverse=True, return_counts=True)
    means = torch.zeros(len(queries), dtype=torch.float64).index_add_(0, place, values) / counts
    order = means.argsort(stable=True)
    return queries[order], means[order]
