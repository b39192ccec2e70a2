"""Evaluation of as many queries as gallery pictures, from vectors to all metrics."""

import statistics
import time
from functools import partial
from pathlib import Path

from benchmarks.bench_evaluation import PROTOCOL, build_sets
from benchmarks.growth.subject import GIB, Knee, Needs, Panel, Row, Subject, in_child
from benchmarks.measure import once
from tapetum.core.memory import forget_peak, read_peak
from tapetum.evaluation.metrics import evaluate

DIMENSION = 512
PICTURES_A_PERSON = 5
REPEATED_SECONDS = 5.0  # shorter evaluations are repeated, five times at most


def build() -> Subject:
    """See the module."""
    return Subject(
        counted="pictures",
        sizes=(1_000, 3_000, 10_000, 30_000, 100_000),
        needs=lambda size: Needs(memory=2 * GIB + 20 * DIMENSION * size),
        measure=measure,
        panels=(
            Panel(
                "Time, s",
                {"by the clock": "seconds", "of processors": "processor_seconds"},
                Knee("seconds", lambda slope: slope >= 1.5, "time grows nearly with the square"),
            ),
            Panel("Memory, GiB", {"the process": "peak_gib", "one matrix of distances": "matrix_gib"}),
        ),
        beyond="a random share of the queries: the gallery stays whole",
        settings={"dimension": DIMENSION, "pictures_a_person": PICTURES_A_PERSON, "protocol": PROTOCOL.name},
    )


def measure(size: int, folder: Path) -> Row:  # noqa: ARG001
    """Seconds and the most memory of a process that does nothing else."""
    return in_child(evaluate_once, size)


def evaluate_once(size: int) -> Row:
    query, gallery = build_sets(size, size, DIMENSION, people=max(2, size // PICTURES_A_PERSON))
    evaluate(*build_sets(64, 64, DIMENSION, people=8), PROTOCOL)  # what is imported and compiled once
    forget_peak()
    times: list[float] = []
    working = time.process_time()
    while not times or (sum(times) < REPEATED_SECONDS and len(times) < 5):
        times.append(once(partial(evaluate, query, gallery, PROTOCOL))[0])
    working = (time.process_time() - working) / len(times)
    seconds, peak = statistics.median(times), read_peak()
    return {
        "seconds": seconds,
        "processor_seconds": working,
        "million_pairs_per_second": size * size / seconds / 1e6,
        "peak_gib": None if peak is None else peak / GIB,
        "matrix_gib": 4 * size * size / GIB,
    }
