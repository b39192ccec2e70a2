"""`tapetum serve` under more and more clients; see `benchmarks.bench_service` for the gallery and what they ask."""

from functools import partial
from pathlib import Path

from benchmarks.bench_service import ROWS, WARM_SECONDS
from benchmarks.bench_service import measure as measure_load
from benchmarks.growth.subject import GIB, Knee, Needs, Panel, Row, Subject, in_child
from tapetum.core.errors import DataError

SECONDS = 30.0


def build(seconds: float = SECONDS, rows: int = ROWS) -> Subject:
    """See the module.

    Args:
        seconds: that clients ask, after warming up.
        rows: of the gallery.
    """
    return Subject(
        counted="clients",
        sizes=(1, 2, 4, 8, 16, 32, 64, 128, 256),
        needs=lambda size: Needs(memory=2 * GIB + size * 2**22, disk=GIB),
        measure=partial(measure, seconds=seconds, rows=rows),
        panels=(
            Panel(
                "Answers a second",
                {"answers": "answers_per_second", "told to wait": "refused_per_second"},
                Knee(
                    "answers_per_second",
                    lambda slope: slope <= 0.2,
                    "more clients get no more answers, they wait, and from some number on are told to",
                    counts=lambda row: not row["refused_per_second"],  # who is sent away at once costs little
                ),
            ),
            Panel("Time to an answer, s", {"median": "median_seconds", "95th percentile": "p95_seconds"}),
        ),
        beyond="several servers with copies of the gallery, or with one Milvus behind them; a GPU for the model alone",
        settings={"seconds": seconds, "rows": rows},
    )


def measure(size: int, folder: Path, *, seconds: float, rows: int) -> Row:  # noqa: ARG001
    """Clients and server share this machine."""
    load = in_child(measure_load, clients=size, seconds=seconds, warm=min(WARM_SECONDS, seconds), rows=rows)
    if not load.seconds:
        raise DataError(f"{size} clients: no answer within {seconds:g} s; give it longer with --seconds")
    return {
        "answers_per_second": len(load.seconds) / load.wall_seconds,
        "refused_per_second": load.refused / load.wall_seconds,
        "errors": len(load.errors),
        "median_seconds": load.percentile(50),
        "p95_seconds": load.percentile(95),
        "server_mib": max(load.mib_start, load.mib_end),
    }
