"""Numbers for Prometheus."""

import threading
import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
ROWS_EVERY_SECONDS = 10.0  # the gallery is asked for its size


class ServiceMetrics:
    """The numbers of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = Counter(
            "tapetum_requests", "Requests answered.", ("method", "route", "status"), registry=self.registry
        )
        self.seconds = Histogram(
            "tapetum_request_seconds", "Time until a request was answered.", ("route",), registry=self.registry
        )
        self.searches = Counter("tapetum_searches", "Searches, by kind.", ("kind",), registry=self.registry)
        self.refused = Counter("tapetum_refused_logins", "Attempts to log in that failed.", registry=self.registry)
        self.deleted = Counter("tapetum_deleted_rows", "Rows removed.", registry=self.registry)
        self._pending = Gauge("tapetum_pending_work", "Calls at work or waiting for a thread.", registry=self.registry)
        self._rows = Gauge("tapetum_gallery_rows", "Rows in the gallery.", registry=self.registry)
        self._jobs = Gauge("tapetum_jobs", "Index jobs, by state.", ("state",), registry=self.registry)
        self._looked = -ROWS_EVERY_SECONDS
        self._guard = threading.Lock()

    def show(self, pending: int, jobs: dict[str, int], rows: Callable[[], int]) -> bytes:
        """The text that Prometheus reads.

        Args:
            pending: calls at work or waiting.
            rows: asks the gallery for its size.
        """
        with self._guard:
            if time.monotonic() - self._looked >= ROWS_EVERY_SECONDS:
                self._rows.set(rows())
                self._looked = time.monotonic()
        self._pending.set(pending)
        for state, number in jobs.items():
            self._jobs.labels(state).set(number)
        return generate_latest(self.registry)
