"""Work in threads, for decoding releases Python's lock; results come in order."""

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

Progress = Callable[[int, int], None]  # (done, total)
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
_REPORT_EVERY = 256


def map_in_threads(
    function: Callable[[_Item], _Result],
    items: Iterable[_Item],
    num_workers: int,
    *,
    ahead: int = 4,
    weigh: Callable[[_Item], int] | None = None,
    heaviest: int = 0,
) -> Generator[_Result, None, None]:
    """Like ``map``, with a bounded number of results waiting; an exception is raised where its result would have come.

    Args:
        num_workers: threads; 0 works in the caller.
        ahead: items a worker may be ahead.
        weigh: bytes of an item; None bounds their number alone.
        heaviest: bytes of items from which no further one is begun before a result was taken.
    """
    if num_workers <= 0:
        yield from map(function, items)
        return
    waiting: deque[tuple[Future[_Result], int]] = deque()
    weight = 0
    pool = ThreadPoolExecutor(num_workers, thread_name_prefix="tapetum-data")
    try:
        for item in items:
            waiting.append((pool.submit(function, item), weigh(item) if weigh else 0))
            weight += waiting[-1][1]
            while waiting and (len(waiting) >= num_workers * ahead or (weigh and weight >= heaviest)):
                first, own = waiting.popleft()
                yield first.result()
                weight -= own
        while waiting:
            yield waiting.popleft()[0].result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def read_ahead(
    items: Iterable[_Item], ahead: int, *, weigh: Callable[[_Item], int], heaviest: int
) -> Generator[_Item, None, None]:
    """The items, which a thread takes before they are asked for; an exception is raised where its item would be.

    Whoever closes it early waits until the thread has ended; a generator's own end is then run by that thread.

    Args:
        ahead: items that may wait, besides the one at hand.
        weigh: bytes of an item.
        heaviest: bytes of waiting items from which no further one is taken.
    """
    waiting: deque[_Item] = deque()
    changed = threading.Condition()
    weight, closed, ended = 0, False, False
    failure: BaseException | None = None

    def has_room() -> bool:
        return closed or (len(waiting) < ahead and weight < heaviest)

    def take() -> None:
        nonlocal weight, ended, failure
        source: Any = iter(items)
        try:
            try:
                for item in source:
                    with changed:
                        waiting.append(item)
                        weight += weigh(item)
                        changed.notify_all()
                        changed.wait_for(has_room)
                    if closed:
                        break
            finally:
                if hasattr(source, "close"):
                    source.close()
        except BaseException as error:
            failure = error
        with changed:
            ended = True
            changed.notify_all()

    thread = threading.Thread(target=take, name="tapetum-ahead", daemon=True)
    thread.start()
    try:
        while True:
            with changed:
                changed.wait_for(lambda: waiting or ended)
                if not waiting:
                    break
                item = waiting.popleft()
                weight -= weigh(item)
                changed.notify_all()
            yield item
            del item  # whoever took it decides how long it stays in memory
        if failure is not None:
            raise failure
    finally:
        with changed:
            closed = True
            changed.notify_all()
        thread.join()


def report(
    results: Iterable[_Result], total: int, progress: Progress | None, *, every: int = _REPORT_EVERY
) -> Iterator[_Result]:
    """The results; now and then, and at the end, `progress` hears how many have been dealt with."""
    for done, result in enumerate(results, start=1):
        yield result
        if progress and (done % every == 0 or done == total):
            progress(done, total)
