"""Work in threads, for decoding releases Python's lock; results come in order."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Progress = Callable[[int, int], None]  # (done, total)
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
_REPORT_EVERY = 256


def map_in_threads(
    function: Callable[[_Item], _Result], items: Iterable[_Item], num_workers: int, *, ahead: int = 4
) -> Iterator[_Result]:
    """Like ``map``, with a bounded number of results waiting; an exception is raised where its result would have come.

    Args:
        num_workers: threads; 0 works in the caller.
        ahead: items a worker may be ahead.
    """
    if num_workers <= 0:
        yield from map(function, items)
        return
    waiting: deque[Future[_Result]] = deque()
    pool = ThreadPoolExecutor(num_workers, thread_name_prefix="tapetum-data")
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) >= num_workers * ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def report(
    results: Iterable[_Result], total: int, progress: Progress | None, *, every: int = _REPORT_EVERY
) -> Iterator[_Result]:
    """The results; now and then, and at the end, `progress` hears how many have been dealt with."""
    for done, result in enumerate(results, start=1):
        yield result
        if progress and (done % every == 0 or done == total):
            progress(done, total)
