"""Metrics of a server for Prometheus, in a registry of their own."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from refinenet._version import __version__

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_PIXELS = (1e4, 1e5, 3e5, 1e6, 3e6, 1e7, 2.5e7, 5e7)


class Metrics:
    """Counters and histograms of one server.

    Args:
        pending: Returns the number of requests that wait or are computed.
        is_ready: Returns whether the server takes requests.
    """

    def __init__(self, pending: Callable[[], int], is_ready: Callable[[], bool]) -> None:
        self.registry = CollectorRegistry()

        def histogram(name: str, text: str, buckets: tuple[float, ...] = _SECONDS) -> Histogram:
            return Histogram(f"refinenet_{name}", text, buckets=buckets, registry=self.registry)

        self.requests = Counter("refinenet_requests", "Answered requests", ["code"], registry=self.registry)
        self.rejected = Counter("refinenet_rejected", "Refused requests", ["reason"], registry=self.registry)
        self.decoder_restarts = Counter(
            "refinenet_decoder_restarts", "Ended processes that decoded an image", registry=self.registry
        )
        self.model_restarts = Counter(
            "refinenet_model_restarts", "Ended processes that ran the model", registry=self.registry
        )
        self.request_seconds = histogram("request_seconds", "From the head of a request to the end of its answer")
        self.queue_seconds = histogram("queue_seconds", "Waiting for a thread")
        self.decode_seconds = histogram("decode_seconds", "Reading images")
        self.infer_seconds = histogram("infer_seconds", "Running the network, with labels and values")
        self.image_pixels = histogram("image_pixels", "Pixels of images", _PIXELS)
        self.add_gauge("queue_length", "Requests that wait or are computed", pending)
        self.add_gauge("ready", "1 if the server takes requests", is_ready)
        info = Gauge("refinenet_build_info", "Version of the package", ["version"], registry=self.registry)
        info.labels(__version__).set(1)

    def add_gauge(self, name: str, text: str, function: Callable[[], float]) -> None:
        """Add a number that a function returns."""
        Gauge(f"refinenet_{name}", text, registry=self.registry).set_function(function)

    def count_refusal(self, reason: str) -> None:
        """Count a refused request."""
        self.rejected.labels(reason).inc()

    def render(self) -> bytes:
        """Return all metrics in Prometheus's text format."""
        return generate_latest(self.registry)
