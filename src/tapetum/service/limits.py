"""How much one client may ask for, and how much the machine does at a time."""

import asyncio
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from tapetum.service.errors import OverloadError, RateError

P = ParamSpec("P")
T = TypeVar("T")
MOST_SEARCHES = 32  # kept of one user, so that nobody pushes out everybody's
SEARCH_HOURS = 1  # that a search is kept
MOST_REMEMBERED = 10_000  # principals or addresses; the ones seen longest ago are forgotten


class RateLimit:
    """So many a minute, some of them at once: a bucket a name, of a principal or an address, that fills again.

    Args:
        what: for the message, e.g. "requests".
    """

    def __init__(self, per_minute: float, burst: int, what: str) -> None:
        self.per_second, self.burst, self.what = per_minute / 60, burst, what
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # name -> left, when
        self._guard = threading.Lock()

    def take(self, name: str) -> None:
        """Count one.

        Raises:
            RateError: none is left.
        """
        now = time.monotonic()
        with self._guard:
            left, when = self._buckets.pop(name, (float(self.burst), now))
            left = min(self.burst, left + (now - when) * self.per_second)
            self._buckets[name] = (left - 1 if left >= 1 else left, now)
            if len(self._buckets) > MOST_REMEMBERED:
                self._buckets.popitem(last=False)
        if left < 1:
            wait = (1 - left) / self.per_second
            raise RateError(f"too many {self.what}; wait {wait:.0f} s", retry_after=wait)

    def forget(self, name: str) -> None:
        """Start anew, e.g. after a password that was right."""
        with self._guard:
            self._buckets.pop(name, None)


class WorkPool:
    """A few threads for what would keep the event loop waiting, and a queue that does not grow without end."""

    def __init__(self, threads: int, queue: int, name: str) -> None:
        self.most = threads + queue
        self.pending = 0
        self._guard = threading.Lock()
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix=name)

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function in one of the threads.

        Raises:
            OverloadError: too many calls wait already.
        """
        with self._guard:
            if self.pending >= self.most:
                raise OverloadError("the service is busy; try again in a moment", retry_after=2)
            self.pending += 1
        try:
            future = self._executor.submit(function, *args, **kwargs)
        except BaseException:
            self._done()
            raise
        future.add_done_callback(lambda _: self._done())
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        """Finish what is at work, drop what waits."""
        self._executor.shutdown(wait=True, cancel_futures=True)

    def _done(self) -> None:
        with self._guard:
            self.pending -= 1
