"""Figures for Prometheus: requests by route and status, and how long they took."""

from __future__ import annotations

from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """The figures of one application; nothing is shared with another one in the same process."""

    def __init__(self) -> None:
        self._all = CollectorRegistry()
        self._known: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        self._requests = Counter(
            "rankloom_requests",
            "Requests that were answered.",
            ["method", "route", "status"],
            registry=self._all,
        )
        self._seconds = Histogram(
            "rankloom_request_seconds",
            "Time from a request's first byte to its answer's last.",
            ["route"],
            buckets=_BUCKETS,
            registry=self._all,
        )
        self.in_progress = Gauge(
            "rankloom_requests_in_progress",
            "Requests that are being answered.",
            registry=self._all,
        )

        self._collections = Counter(
            "rankloom_collections",
            "Garbage collections by this process, and how they ended.",
            ["outcome"],
            registry=self._all,
        )
        self._collected = Counter(
            "rankloom_collected_bytes",
            "Bytes of blobs that this process deleted.",
            registry=self._all,
        )

    def note_collection(self, outcome: Literal["done", "failed"], nbytes: int) -> None:
        """Count one garbage collection that freed ``nbytes``."""
        self._collections.labels(outcome).inc()
        self._collected.inc(nbytes)

    def note(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one request.

        Args:
            method: as it was sent.
            route: the route's pattern, never the path itself, of which there is no end.
            status: of the answer.
            seconds: how long it took.
        """
        known = method if method in {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"} else "other"
        counter, histogram = self._of_request(known, route, status)
        counter.inc()
        histogram.observe(seconds)

    def _of_request(self, method: str, route: str, status: int) -> tuple[Counter, Histogram]:
        # Finding them by their labels takes longer than counting.
        key = method, route, status
        if key not in self._known:
            labelled = self._requests.labels(method, route, str(status))
            self._known[key] = labelled, self._seconds.labels(route)
        return self._known[key]

    def render(self) -> bytes:
        """Return all figures in Prometheus' text format."""
        return generate_latest(self._all)
