"""Prometheus metrics of live streams, and spans of their utterances; see docs/metrics.md and docs/tracing.md."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from protos.stt.v1.spans import SpanSink
from stt_server.observability.call_spans import spans_of_utterance
from stt_server.observability.metrics import SECONDS_BUCKETS, ModelMetrics
from stt_server.streaming.events import Final

RESULTS = ("used", "skipped", "failed", "unrouted")
"""Results of an utterance's routing; `unrouted` on a service that never escalates."""


class StreamMetrics:
    """Exports the measurements of live streams; a `stt_server.streaming.events.StreamObserver`."""

    def __init__(self, registry: CollectorRegistry, models: ModelMetrics, spans: SpanSink | None = None) -> None:
        """
        Args:
            models: also receives each utterance.
            spans: receives those of each utterance.
        """

        def histogram(name: str, meaning: str) -> Histogram:
            return Histogram(name, meaning, registry=registry, buckets=SECONDS_BUCKETS)

        self._models = models
        self._spans = spans
        self._active = Gauge("stt_streams_active", "Open live streams.", registry=registry)
        self._utterances = Counter(
            "stt_utterances", "Finals of live streams, by the result of their routing.", ("result",), registry=registry
        )
        for result in RESULTS:
            self._utterances.labels(result)
        self._interims = Counter("stt_stream_interims", "Interims sent.", registry=registry)
        self._thinned = Counter("stt_stream_interims_thinned", "Interims skipped or replaced.", registry=registry)
        self._first = histogram("stt_stream_first_interim_seconds", "From the start of speech to the first interim.")
        self._lag = histogram("stt_stream_lag_seconds", "Age of the newest audio in an interim when it is sent.")
        self._after_speech = histogram("stt_stream_final_seconds", "From the end of speech to the final.")
        self._after_endpoint = histogram(
            "stt_stream_final_after_endpoint_seconds", "From the detected end of an utterance to the final."
        )

    def opened(self) -> None:
        self._active.inc()

    def closed(self) -> None:
        self._active.dec()

    def audio_processed(self, seconds: float) -> None:
        self._models.observe_audio(seconds)

    def interim_sent(self, lag: float, first_after: float | None) -> None:
        self._interims.inc()
        self._lag.observe(lag)
        if first_after is not None:
            self._first.observe(first_after)

    def interim_thinned(self) -> None:
        self._thinned.inc()

    def final_sent(self, final: Final, after_speech: float, after_endpoint: float) -> None:
        self._utterances.labels(final.trace.fallback_result or "unrouted").inc()
        self._after_speech.observe(after_speech)
        self._after_endpoint.observe(after_endpoint)
        self._models.observe_utterance(final.trace)
        if self._spans is not None:
            for span in spans_of_utterance(final):
                self._spans.add(span)
