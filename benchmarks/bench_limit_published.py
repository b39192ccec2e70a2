"""As `bench_limit`, with as many pictures a step as the methods are published with."""

from collections.abc import Iterator
from typing import Any

from benchmarks.bench_limit import SUBJECTS, measure
from tapetum.core.memory import keep_freed_memory

LONG = True


def run() -> Iterator[dict[str, Any]]:
    keep_freed_memory()
    for subject in SUBJECTS:
        yield from measure(subject, *subject.published)
