"""How much one client may ask for, and how much runs at once."""

import asyncio
import threading

import pytest

from tapetum.service import limits
from tapetum.service.errors import OverloadError, RateError
from tapetum.service.limits import RateLimit, WorkPool


def test_a_bucket_gives_its_burst_and_then_its_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("tapetum.service.limits.time.monotonic", lambda: now)
    limit = RateLimit(60, 3, "requests")
    for _ in range(3):
        limit.take("anna")
    with pytest.raises(RateError, match="too many requests") as refused:
        limit.take("anna")
    assert refused.value.retry_after == pytest.approx(1.0)
    limit.take("otto")  # not his fault
    now = 1.0
    limit.take("anna")
    with pytest.raises(RateError):
        limit.take("anna")
    now = 100.0
    for _ in range(3):
        limit.take("anna")
    with pytest.raises(RateError):
        limit.take("anna")


def test_many_names_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MOST_REMEMBERED", 10)
    limit = RateLimit(1e-3, 1, "requests")
    for number in range(100):
        limit.take(f"address {number}")
    assert len(limit._buckets) == 10
    with pytest.raises(RateError):
        limit.take("address 90")  # the tenth from the end is remembered
    limit.take("address 89")


def test_the_pool_bounds_what_waits_and_takes_up_again() -> None:
    pool = WorkPool(1, 1, "test")
    gate = threading.Event()

    async def fill() -> None:
        first = asyncio.ensure_future(pool.run(gate.wait, 30))
        second = asyncio.ensure_future(pool.run(gate.wait, 30))
        await asyncio.sleep(0)
        with pytest.raises(OverloadError, match="busy"):
            await pool.run(int)
        gate.set()
        assert await first
        assert await second
        assert await pool.run(int, "7") == 7

    asyncio.run(fill())
    assert pool.pending == 0
    pool.close()


def test_whoever_goes_away_gives_the_place_in_the_queue_back() -> None:
    pool = WorkPool(1, 1, "test")
    gate, entered = threading.Event(), threading.Event()

    def work() -> None:
        entered.set()
        gate.wait(30)

    async def leave() -> None:
        first = asyncio.ensure_future(pool.run(work))
        await asyncio.to_thread(entered.wait, 30)
        second = asyncio.ensure_future(pool.run(int))
        await asyncio.sleep(0)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        assert pool.pending == 1
        gate.set()
        await first

    asyncio.run(leave())
    pool.close()


def test_an_error_of_the_work_is_the_callers() -> None:
    pool = WorkPool(1, 1, "test")
    with pytest.raises(ValueError, match="invalid literal"):
        asyncio.run(pool.run(int, "x"))
    assert pool.pending == 0
    pool.close()
