"""Many clients at once against a real process, for a few seconds; how fast is a matter of the benchmark."""

from pathlib import Path

import pytest


@pytest.mark.slow
def test_32_clients_get_no_error_and_memory_stays_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[2])
    from benchmarks.bench_service import measure

    found = measure(clients=32, seconds=8, warm=3, rows=2000)
    assert found.errors == []
    assert len(found.seconds) >= 32
    assert found.mib_end - found.mib_start < 200, found
