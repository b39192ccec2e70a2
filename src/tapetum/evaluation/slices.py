"""Where it fails: the same evaluation for some of the queries, each still against the whole gallery.

Masks and labels are arrays over the queries that were evaluated (`Evaluation.query_rows` says which of the given ones
those are); what a label means, light or size or noise, is the caller's knowledge.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from tapetum.core.errors import ProtocolError
from tapetum.core.protocol import Protocol
from tapetum.core.types import EmbeddingSet, Metrics
from tapetum.evaluation.metrics import Evaluation, evaluate, summarise
from tapetum.evaluation.ranking import admitted_rows


def subset(evaluation: Evaluation, query_mask: Tensor) -> Metrics:
    """The metrics of some of the queries, each against the whole gallery.

    Args:
        evaluation: of all queries.
        query_mask: (Nq,) bool, the queries wanted.
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
    """Metrics of each group of queries.

    Args:
        evaluation: of all queries.
        labels: Nq names, e.g. each query's light level.
    Returns:
        Group name to metrics, in the order of first appearance; a group without any match in the gallery is left out.
    Raises:
        ProtocolError: the number of labels is not the number of queries.
    """
    if len(labels) != len(evaluation.matched):
        raise ProtocolError(f"{len(labels)} labels for {len(evaluation.matched)} queries; give one label a query")
    names = list(dict.fromkeys(labels))
    numbers = {name: number for number, name in enumerate(names)}
    groups = torch.tensor([numbers[label] for label in labels])
    masks = {name: groups == number for name, number in numbers.items()}
    return {name: summarise(evaluation, mask) for name, mask in masks.items() if (mask & evaluation.counted).any()}


def thirds(values: Tensor) -> list[str]:
    """Labels "low", "medium", "high" that cut the queries into three parts of about the same number.

    Args:
        values: (Nq,) a measure of each query, e.g. its noise.
    """
    measure = torch.as_tensor(values).double()
    edges = torch.quantile(measure, torch.tensor([1 / 3, 2 / 3], dtype=torch.float64))
    return [("low", "medium", "high")[level] for level in torch.bucketize(measure, edges).tolist()]


def by_camera_pair(query: EmbeddingSet, gallery: EmbeddingSet, protocol: Protocol) -> dict[str, Metrics]:
    """Metrics of each query camera against each gallery camera alone; all pairs cost as much as one evaluation.

    Args:
        query: the searching set.
        gallery: the searched set.
        protocol: the rules.
    Returns:
        "camera 2 to camera 5" and so on to metrics, for the pairs in which some query has a match.
    """
    queries = query.select(admitted_rows(query, protocol, "query"))
    entries = gallery.select(admitted_rows(gallery, protocol, "gallery"))
    ignored = torch.tensor(protocol.ignored_pids, dtype=torch.int64, device=entries.pids.device)
    entries = entries.select(~torch.isin(entries.pids, ignored))
    found = {}
    for ours in sorted(set(queries.camids.tolist())):
        for theirs in sorted(set(entries.camids.tolist())):
            asking = queries.select(queries.camids == ours)
            asked = entries.select(entries.camids == theirs)
            own = protocol.junk == "same_pid_same_camid" and ours == theirs
            junk = own or (ours, theirs) in protocol.junk_camera_pairs
            if not junk and torch.isin(asking.pids, asked.pids).any():
                found[f"camera {ours} to camera {theirs}"] = evaluate(asking, asked, protocol).metrics
    return found


def worst_queries(evaluation: Evaluation, count: int) -> Tensor:
    """The queries with the lowest average precision.

    Args:
        evaluation: of all queries.
        count: how many at most.
    Returns:
        (n,) int64 row numbers in the query set as given, worst first; only queries that have a match.
    """
    candidates = evaluation.matched.nonzero().squeeze(1)
    order = evaluation.per_query_ap[candidates].argsort(stable=True)
    return evaluation.query_rows[candidates[order[:count]]]
