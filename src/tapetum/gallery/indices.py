"""The indices of a gallery's table: of ids, and in a large gallery an approximate one of vectors with what it finds.

What the approximate index finds is measured once, in searches of all rows. A filter can change that beyond any measure:
the rows that pass may all lie in partitions that are not probed, as those of one modality do for a query of the other.
So no search with a filter goes through it.
"""

import contextlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tapetum.core.arrays import Real, Whole
from tapetum.core.atomic import write_bytes
from tapetum.gallery.schema import REALS, TEXTS, WHOLES, Hit, unflatten
from tapetum.gallery.store import RECALL_AT, WANTED_RECALL, recall_at_ten

FILE = "approximate.json"
IDS_INDEXED_ABOVE = 50_000  # rows; a look at so many takes as long as one into an index of their ids
# LanceDB looks through rows that an index does not cover with their vectors, and beyond the 2 GiB that its reader keeps
# ready at a time such a look can wait for itself, for ever.
MOST_BYTES_OUTSIDE = 2**30
EFFORTS = ((20, 5), (50, 5), (100, 10), (200, 50))  # (probed partitions, refinement) until the recall is as wanted


@dataclass(frozen=True)
class Measurement:
    """What the approximate index finds of the rows that it was built from.

    Attributes:
        recall: share of the ten nearest rows.
        probes: partitions that a search looks into.
        refine: so many times the wanted answers are compared by their whole vectors.
        stamps: what tells those rows from others, of `fingerprint`.
    """

    recall: float
    probes: int
    refine: int
    stamps: list[int]


def index_ids(table: Any, row_bytes: int | None = None) -> None:
    """Let a few rows be found by their ids without a look at all.

    Args:
        row_bytes: of a vector; where given, an index that leaves out too many rows for a look is built anew.
    """
    from lancedb.index import BTree

    names = {column: index.name for index in table.list_indices() for column in index.columns}
    if "id" not in names:
        needed = table.count_rows() > IDS_INDEXED_ABOVE
    elif row_bytes is None:
        needed = False
    else:
        needed = table.index_stats(names["id"]).num_unindexed_rows * row_bytes > MOST_BYTES_OUTSIDE
    if needed:
        table.create_index("id", config=BTree())


def index_vectors(table: Any) -> None:
    """Build the approximate index."""
    from lancedb.index import IvfSq  # people come in clusters: as quick as a graph, built in a tenth of its time

    table.create_index("vector", config=IvfSq(distance_type="cosine"))


def drop_indices(folder: Path, table: Any, *columns: str) -> None:
    """Indices keep codes of deleted vectors, and ids: they go with them, and compacting builds the next.

    Args:
        folder: of the gallery.
        columns: whose; without one, all.
    """
    (folder / FILE).unlink(missing_ok=True)
    for index in table.list_indices():
        if not columns or not set(columns).isdisjoint(index.columns):
            table.drop_index(index.name)


def search_index(table: Any, queries: Real, k: int, probes: int, refine: int) -> list[tuple[Hit, ...]]:
    """The k most similar rows of each query, as far as the approximate index finds them.

    Args:
        queries: (Nq, D) with unit norm.
        probes, refine: as in `Measurement`.
    """
    answers = []
    for query in queries:
        question = table.search(query, vector_column_name="vector").distance_type("cosine").nprobes(probes)
        lines = question.refine_factor(refine).limit(k).select([*TEXTS, *WHOLES, *REALS, "_distance"]).to_list()
        answers.append(
            tuple(
                Hit(unflatten(values), min(1.0, max(-1.0, 1.0 - values["_distance"])), rank)
                for rank, values in enumerate(lines, start=1)
            )
        )
    return answers


def measure_index(
    folder: Path, table: Any, queries: Real, right: Sequence[Sequence[Hit]], stamps: list[int]
) -> Measurement:
    """What the index finds, with the least effort that finds as much as is wanted; it is kept in the folder.

    Args:
        folder: of the gallery.
        queries: (Nq, D) with unit norm.
        right: of each query, what exact search finds.
        stamps: of `fingerprint`.
    """
    for probes, refine in EFFORTS:
        recall = recall_at_ten(search_index(table, queries, RECALL_AT, probes, refine), right)
        if recall >= WANTED_RECALL:
            break
    content = {"recall_at_10": recall, "probes": probes, "refine": refine, "stamps": stamps}
    write_bytes(folder / FILE, json.dumps(content).encode())
    return Measurement(recall, probes, refine, stamps)


def read_measurement(folder: Path) -> Measurement | None:
    """What the approximate index finds; None where there is none, or its file is damaged."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        told = json.loads((folder / FILE).read_bytes())
        return Measurement(
            float(told["recall_at_10"]), int(told["probes"]), int(told["refine"]), list(map(int, told["stamps"]))
        )
    return None


def has_index(table: Any) -> bool:
    """Whether the table has an approximate index."""
    return "vector_idx" in {index.name for index in table.list_indices()}


def fingerprint(stamps: Whole) -> list[int]:
    """What tells some rows from others by their stamps: how many, and all of them together."""
    return [len(stamps), int(np.bitwise_xor.reduce(stamps)) if len(stamps) else 0]
