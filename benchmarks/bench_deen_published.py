"""A training step of DEEN with the published batch, 6 people x 4 pictures x 2 modalities: as `bench_deen` else."""

from collections.abc import Iterator
from typing import Any

from benchmarks.bench_deen import agreeing, measure_steps

LONG = True
PEOPLE = 6


def run() -> Iterator[dict[str, Any]]:
    with agreeing(PEOPLE):
        pass
    yield from measure_steps(PEOPLE)
