"""A gallery in a folder: what storing, searching, changing and opening cost as it grows.

The people are those of `benchmarks.bench_gallery`, in the same proportions: of a million rows, 18,000 people are seen
fifty times and 100,000 others once. More rows than `SHARD_ROWS` are several galleries of equal size, one after the
other on the disk: the times of a question are added up, and its answers put together by similarity, as one machine
would do that keeps them all.
"""

import shutil
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.bench_gallery import BATCH, DIMENSION, FILTERS, MODEL, People, Real, describe
from benchmarks.growth.subject import GIB, Knee, Needs, Panel, Row, Subject, in_child
from benchmarks.measure import once
from tapetum.core.memory import forget_peak, read_peak
from tapetum.gallery.opening import open_gallery
from tapetum.gallery.schema import Run, SearchResult
from tapetum.gallery.store import Store

SHARD_ROWS = 3_000_000  # compacting holds new vectors in memory, and their table twice on the disk
APPROXIMATE_ABOVE = 1_000  # so that every size has an approximate index
QUERIES, K, AT = 64, 20, 10
ROUNDS = 5
ADDED = 64  # rows at once, as indexing stores them
VECTOR_BYTES = 4 * DIMENSION
Answers = list[list[tuple[float, str]]]  # (similarity, row) of each query


def build() -> Subject:
    """See the module."""
    return Subject(
        counted="rows",
        sizes=(10_000, 30_000, 100_000, 300_000, 1_000_000, 3_000_000, 10_000_000),
        needs=lambda size: Needs(
            memory=GIB + 2 * VECTOR_BYTES * rows_of(size), disk=GIB // 4 + 4 * VECTOR_BYTES * rows_of(size)
        ),
        measure=measure,
        panels=(
            Panel(
                "Search, ms a query",
                {"exact": "exact_ms", "exact, 64 at once": "exact_64_ms", "approximate": "approximate_ms"},
                Knee("exact_ms", lambda slope: slope >= 0.8, "exact search takes longer in proportion to the rows"),
            ),
            Panel(
                "Storing and opening, s",
                {
                    "insert all": "insert_seconds",
                    "compact with index": "compact_seconds",
                    "delete 0.1 %": "delete_seconds",
                    "start to first answer": "start_seconds",
                },
                Knee("delete_seconds", lambda slope: slope >= 0.8, "a deletion writes the whole gallery again"),
            ),
            Panel("Disk and memory, GiB", {"disk": "disk_gib", "building": "build_gib", "searching": "search_gib"}),
            Panel("64 more rows, ms", {"insert 64": "insert_64_ms"}),
        ),
        beyond="the approximate index; then several galleries, by camera or week, and beyond one machine Milvus",
        settings={"dimension": DIMENSION, "shard_rows": SHARD_ROWS, "queries": QUERIES, "k": K},
    )


def rows_of(size: int) -> int:
    """Of each shard."""
    return size // -(-size // SHARD_ROWS)


def measure(size: int, folder: Path) -> Row:
    """Each shard is built, searched and changed by processes of their own, and removed."""
    rows = rows_of(size)
    costs: list[Row] = []
    exact, approximate = [], []
    for number in range(size // rows):
        place = folder / f"shard{number}"
        cost, queries = in_child(build_shard, place, rows, number)
        found, answers = in_child(search_shard, place, queries)
        costs.append(cost | found | in_child(change_shard, place))
        exact.append(answers[0])
        approximate.append(answers[1])
        shutil.rmtree(place)
    total: Row = {key: sum(cost[key] for cost in costs) for key in costs[0] if not key.endswith("build_gib")}
    total["insert_64_ms"] /= len(costs)  # new rows go into one of them
    total["build_gib"] = max(cost["build_gib"] for cost in costs)  # one after the other
    right, some = merge(exact), merge(approximate)
    shared = sum(len(one & other) for one, other in zip(right, some, strict=True))
    return total | {
        "shards": len(costs),
        "recall_at_10": shared / sum(map(len, right)),
        "insert_rows_per_second": rows * len(costs) / total["insert_seconds"],
        "bytes_per_row": total["disk_gib"] * GIB / (rows * len(costs)),
        "exact_ms_per_million": total["exact_ms"] / (rows * len(costs)) * 1e6,
    }


def merge(answers: list[Answers]) -> list[set[tuple[int, str]]]:
    """The best rows of each query, from all shards."""
    best = []
    for parts in zip(*answers, strict=True):
        found = [(near, (shard, row)) for shard, part in enumerate(parts) for near, row in part]
        best.append({row for _, row in sorted(found)[-AT:]})
    return best


def build_shard(place: Path, rows: int, number: int) -> tuple[Row, Real]:
    """The gallery, compacted; its cost and the queries.

    Args:
        number: of the shard: the people are the same in each, their sightings are not.
    """
    people = rows * 9 // 500
    world = People(people, rows - 50 * people)
    world.rng = np.random.default_rng([3, number])
    run = Run(MODEL.id, "numpy", "fp32", "growth")
    forget_peak()
    seconds = 0.0
    with open_gallery(place, MODEL, approximate_above=APPROXIMATE_ABOVE) as store:
        for first in range(0, rows, BATCH):
            some = slice(first, min(first + BATCH, rows))
            vectors = world.draw(world.who[some], world.camera[some], world.modality[some])
            lines = [describe(world, row, run) for row in range(some.start, some.stop)]
            seconds += once(partial(store.upsert, lines, vectors))[0]  # type: ignore[arg-type]
        compacting, _ = once(store.compact)
    size = sum(path.stat().st_size for path in place.rglob("*") if path.is_file())
    cost = {"insert_seconds": seconds, "compact_seconds": compacting, "disk_gib": size / GIB, "build_gib": peak_gib()}
    return cost, world.ask(QUERIES).numpy()


def search_shard(place: Path, queries: Real) -> tuple[Row, tuple[Answers, Answers]]:
    """What questions cost, and the answers of the exact and the approximate search."""
    start = time.perf_counter()
    with open_gallery(place, approximate_above=APPROXIMATE_ABOVE) as store:
        store.search(queries[:1], K, exact=True)
        started = time.perf_counter() - start
        exact = partial(ask, store, queries, exact=True)
        seconds = {
            "exact_ms": median(lambda: store.search(queries[:1], K, exact=True)),
            "exact_64_ms": median(exact) / QUERIES,
            "approximate_ms": median(lambda: [ask(store, query[None], exact=False) for query in queries]) / QUERIES,
        }
        answers = exact(), [ask(store, query[None], exact=False)[0] for query in queries]
    cost = {key: 1000 * value for key, value in seconds.items()}
    return cost | {"start_seconds": started, "search_gib": peak_gib()}, answers


def ask(store: Store, queries: Real, *, exact: bool) -> Answers:
    found: SearchResult = store.search(queries, K, exact=exact)  # type: ignore[arg-type]
    return [[(hit.similarity, hit.row.sighting.id) for hit in hits[:AT]] for hits in found.hits]


def change_shard(place: Path) -> Row:
    """What a few more rows cost, and a deletion of a thousandth, spread over all files."""
    with open_gallery(place, approximate_above=APPROXIMATE_ABOVE) as store:
        entries = store.fetch(["row00000000"])
        row, vectors = entries.rows[0], np.repeat(entries.matrix, ADDED, axis=0)
        times = []
        for turn in range(ROUNDS):
            lines = [replace(row, sighting=replace(row.sighting, id=f"new{turn}-{number}")) for number in range(ADDED)]
            times.append(once(partial(store.upsert, lines, vectors))[0])  # type: ignore[arg-type]
        seconds, _ = once(partial(store.delete, FILTERS["0.1 %"]))
    return {"insert_64_ms": 1000 * statistics.median(times), "delete_seconds": seconds}


def median(question: Callable[[], Any]) -> float:
    """Seconds, after one unmeasured round."""
    question()
    return statistics.median(once(question)[0] for _ in range(ROUNDS))


def peak_gib() -> float:
    return (read_peak() or 0) / GIB
