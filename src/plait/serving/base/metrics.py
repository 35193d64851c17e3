"""Prometheus metrics of one worker. Names and meanings: docs/serving.md."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

CONTENT_TYPE = CONTENT_TYPE_LATEST

_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_ROWS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0)


class Metrics:
    """What is counted; also the `plait.serving.queue.scheduler.Observer`.

    Args:
        pending: tells how many inputs wait or are computed now.
        held: tells how many bytes of bodies are held now.
        restarts: how often the worker before this one had to be replaced.
    """

    def __init__(
        self, *, pending: Callable[[], float], held: Callable[[], float], restarts: int = 0
    ) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self.requests = self._counter("plait_requests", "Requests answered.", ("path", "status"))
        self.seconds = self._histogram(
            "plait_request_seconds", "From the request's head to its answer.", _SECONDS, ("path",)
        )
        self.inputs = self._counter("plait_inputs", "Inputs computed.", ("lane",))
        self.cost = self._counter("plait_cost", "Tokens or pixels computed, unpadded.", ("lane",))
        self.padded = self._counter(
            "plait_padded_cost", "Tokens or pixels computed, padding included.", ("lane",)
        )
        self.batches = self._histogram("plait_batch_rows", "Inputs of a pass.", _ROWS, ("lane",))
        self.run_seconds = self._histogram(
            "plait_inference_seconds", "Of one forward pass.", _SECONDS, ("lane",)
        )
        self.prepare_seconds = self._counter(
            "plait_prepare_seconds", "Spent on decoding or tokenising.", ("lane",)
        )
        self.wait_seconds = self._histogram(
            "plait_queue_seconds",
            "That a pass's oldest input was in the queue.",
            _SECONDS,
            ("lane",),
        )
        self.drops = self._counter(
            "plait_dropped_inputs", "Inputs that nobody waited for any more.", ("lane", "reason")
        )
        self.closed = self._counter(
            "plait_closed_connections", "Connections ended or not taken.", ("reason",)
        )
        self._gauge("plait_pending_inputs", "Inputs not answered yet.").set_function(pending)
        self._gauge("plait_held_bytes", "Bytes of the bodies in hand.").set_function(held)
        self.ready = self._gauge("plait_ready", "1 when /readyz says so.")
        self._gauge("plait_worker_restarts", "Workers replaced so far.").set(restarts)

    def text(self) -> bytes:
        """All of them in the text format."""
        return generate_latest(self.registry)

    def answered(self, path: str, status: int, seconds: float) -> None:
        """A request was answered; ``path`` is a route, so that labels stay few."""
        self.requests.labels(path, str(status)).inc()
        self.seconds.labels(path).observe(seconds)

    def prepared(self, lane: str, count: int, seconds: float) -> None:
        """See `Observer.prepared`."""
        self.prepare_seconds.labels(lane).inc(seconds)

    def ran(self, lane: str, lengths: Sequence[int], seconds: float, waited: float) -> None:
        """See `Observer.ran`."""
        self.inputs.labels(lane).inc(len(lengths))
        self.cost.labels(lane).inc(sum(lengths))
        self.padded.labels(lane).inc(max(lengths) * len(lengths))
        self.batches.labels(lane).observe(len(lengths))
        self.run_seconds.labels(lane).observe(seconds)
        self.wait_seconds.labels(lane).observe(waited)

    def dropped(self, lane: str, count: int, reason: str) -> None:
        """See `Observer.dropped`."""
        self.drops.labels(lane, reason).inc(count)

    def _counter(self, name: str, about: str, labels: tuple[str, ...]) -> Counter:
        return Counter(name, about, labels, registry=self.registry)

    def _histogram(
        self, name: str, about: str, buckets: Sequence[float], labels: tuple[str, ...]
    ) -> Histogram:
        return Histogram(name, about, labels, buckets=tuple(buckets), registry=self.registry)

    def _gauge(self, name: str, about: str) -> Gauge:
        return Gauge(name, about, registry=self.registry)
