"""Prometheus metrics of live streams; see docs/metrics.md."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from stt_server.observability.metrics import SECONDS_BUCKETS, Metrics
from stt_server.streaming.events import Final

RESULTS = ("used", "skipped", "failed", "unrouted")
"""Of an utterance's routing; `unrouted` by a service that never routes."""


class StreamMetrics:
    """A `stt_server.streaming.events.Watch`.

    Args:
        registry: where the metrics are registered.
        metrics: of all requests; utterances add to those of models and routing.
    """

    def __init__(self, registry: CollectorRegistry, metrics: Metrics) -> None:
        def histogram(name: str, meaning: str) -> Histogram:
            return Histogram(name, meaning, registry=registry, buckets=SECONDS_BUCKETS)

        self._metrics = metrics
        self._active = Gauge("stt_streams_active", "Live streams that are open.", registry=registry)
        self._utterances = Counter(
            "stt_utterances", "Finals of live streams, by what came of their routing.", ("result",), registry=registry
        )
        for result in RESULTS:
            self._utterances.labels(result)
        self._interims = Counter("stt_stream_interims", "Interims sent.", registry=registry)
        self._thinned = Counter("stt_stream_interims_thinned", "Interims left out.", registry=registry)
        self._first = histogram("stt_stream_first_interim_seconds", "Speech begins to the first interim.")
        self._lag = histogram("stt_stream_lag_seconds", "Age of the newest audio in an interim that is sent.")
        self._after_speech = histogram("stt_stream_final_seconds", "Speech ends to the final.")
        self._after_endpoint = histogram(
            "stt_stream_final_after_endpoint_seconds", "The end of an utterance is heard to the final."
        )

    def opened(self) -> None:
        self._active.inc()

    def closed(self) -> None:
        self._active.dec()

    def heard(self, seconds: float) -> None:
        self._metrics.observe_audio(seconds)

    def interim(self, lag: float, first_after: float | None) -> None:
        self._interims.inc()
        self._lag.observe(lag)
        if first_after is not None:
            self._first.observe(first_after)

    def thinned(self) -> None:
        self._thinned.inc()

    def final(self, final: Final, after_speech: float, after_endpoint: float) -> None:
        self._utterances.labels(final.trace.fallback_result or "unrouted").inc()
        self._after_speech.observe(after_speech)
        self._after_endpoint.observe(after_endpoint)
        self._metrics.observe_utterance(final.trace)
