"""Prometheus metrics. Every name, label and unit is explained in docs/metrics.md.

The values of every label come from a closed set that is known before a request arrives; a value from outside it is
counted under the set's catch-all or not at all, so that no caller can add a series or have a text shown in one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from protos.stt.v1.errors import ERRORS
from protos.stt.v1.speech_pb2 import RouteReason
from stt_server.audio.sandbox.worker import EXIT_REASONS, ExitReason
from stt_server.engine.hallucination import REASONS as SUPPRESSED_REASONS
from stt_server.errors import Refused
from stt_server.observability.call_record import STREAM, TRANSCRIBE, Call
from stt_server.request import Trace

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""Of `Metrics.exposition`."""

SECONDS_BUCKETS = (
    *(0.005, 0.01, 0.025, 0.05, 0.075),
    *(0.1, 0.15, 0.25, 0.35, 0.5, 0.75),
    *(1.0, 1.5, 2.0, 3.0, 5.0, 7.5),
    *(10.0, 15.0, 30.0, 60.0, 120.0),
)
"""Upper bounds in seconds. Steps of at most two (but for the first ones), so that a quantile read from them is near;
1.0 is one of them because the objective p95 < 1 s is."""

FACTOR_BUCKETS = (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0)
"""Upper bounds of the real-time factor; above 1.0 the service is slower than speech."""

ENDPOINTS = (TRANSCRIBE, STREAM)
FALLBACK_RESULTS = ("used", "skipped", "failed")
REFUSALS = get_args(Refused)
ROUTE_REASONS = tuple(name.removeprefix("ROUTE_REASON_").lower() for name, number in RouteReason.items() if number != 0)
"""From the contract's own enum, so that a reason added there is counted here."""

NO_KEY = "none"
UNLISTED_KEY = "other"


class Metrics:
    """The metrics of one service, in a registry of its own.

    Args:
        registry: where the metrics are registered; nothing else need be in it.
        key_names: names of the configured keys, for `stt_key_requests_total`.
    """

    def __init__(self, registry: CollectorRegistry, key_names: Collection[str] = ()) -> None:
        self._registry = registry
        self._add_counters()
        self._add_histograms()
        self.set_key_names(key_names)
        ProcessCollector(registry=registry)

    def _add_counters(self) -> None:
        def counter(name: str, meaning: str, labels: tuple[str, ...] = ()) -> Counter:
            return Counter(name, meaning, labels, registry=self._registry)

        self._requests = counter("stt_requests", "Requests finished, whatever came of them.", ("endpoint",))
        self._exceptions = counter(
            "stt_requests_exceptions",
            "Requests that ended in an error, by the type of the error table.",
            ("endpoint", "type"),
        )
        self._refusals = counter(
            "stt_refusals", "Requests that a busy service refused as overloaded, by why.", ("reason",)
        )
        for refused in REFUSALS:
            self._refusals.labels(refused)
        self._fallback = counter(
            "stt_fallback",
            "Routing decisions: the fallback was used, skipped, or wanted and failed.",
            ("result",),
        )
        self._reasons = counter("stt_route_reasons", "Why requests were sent to the fallback.", ("reason",))
        self._suppressed = counter("stt_suppressed_texts", "Texts dropped as invented, by why.", ("reason",))
        for suppressed in SUPPRESSED_REASONS:
            self._suppressed.labels(suppressed)
        self._keys = counter("stt_key_requests", "Requests finished, by the name of the caller's key.", ("key_name",))
        self._audio = counter("stt_audio_seconds", "Seconds of audio decoded.")
        self._deaths = counter("stt_decode_children_died", "Decoding children that died, by why.", ("reason",))
        for death in EXIT_REASONS:
            self._deaths.labels(death)
        # A series that appears with its first event hides that event from rate(): these start at 0.
        for endpoint in ENDPOINTS:
            self._requests.labels(endpoint)
            for kind in ERRORS.values():
                if kind.status:  # the others only a gateway can say
                    self._exceptions.labels(endpoint, kind.type)
        for result in FALLBACK_RESULTS:
            self._fallback.labels(result)
        for reason in ROUTE_REASONS:
            self._reasons.labels(reason)

    def _add_histograms(self) -> None:
        def histogram(name: str, meaning: str, buckets: tuple[float, ...] = SECONDS_BUCKETS) -> Histogram:
            return Histogram(name, meaning, registry=self._registry, buckets=buckets)

        self._total = histogram("stt_request_total_seconds", "Arrival to answer of a Transcribe.")
        self._primary_infer = histogram("stt_primary_infer_seconds", "Inference of the service's own model.")
        self._fallback_infer = histogram("stt_fallback_infer_seconds", "The fallback's answer as the primary saw it.")
        self._queue_wait = histogram("stt_queue_wait_seconds", "Waiting for a free inference slot.")
        self._factor = histogram("stt_real_time_factor", "Inference time over length of the audio.", FACTOR_BUCKETS)

    def set_key_names(self, names: Collection[str]) -> None:
        """Takes up the names of the keys that are configured now."""
        self._key_names = frozenset(names)
        for name in names:
            self._keys.labels(name)

    def observe(self, call: Call) -> None:
        """Counts one finished call. Call it once for each, from any thread."""
        endpoint = STREAM if call.endpoint == STREAM else TRANSCRIBE
        self._requests.labels(endpoint).inc()
        if call.failure is not None:
            self._exceptions.labels(endpoint, call.failure).inc()
        if call.refused in REFUSALS:
            self._refusals.labels(call.refused).inc()
        if call.fallback_result in FALLBACK_RESULTS:
            self._fallback.labels(call.fallback_result).inc()
        for reason in set(call.route_reasons).intersection(ROUTE_REASONS):
            self._reasons.labels(reason).inc()
        for suppressed in call.suppressed:
            if suppressed in SUPPRESSED_REASONS:
                self._suppressed.labels(suppressed).inc()
        self._keys.labels(self._key_label(call.key_name)).inc()
        if call.audio_seconds is not None and endpoint != STREAM:  # a stream's is counted as it comes
            self._audio.inc(call.audio_seconds)
        for histogram, value in (
            (self._total, call.latency),
            (self._primary_infer, call.primary_infer),
            (self._fallback_infer, call.fallback_infer),
            (self._queue_wait, call.queue_wait),
            (self._factor, call.real_time_factor),
        ):
            if value is not None:
                histogram.observe(value)

    def observe_death(self, death: ExitReason) -> None:
        """Counts a decoding child that died before its time."""
        self._deaths.labels(death).inc()

    def observe_audio(self, seconds: float) -> None:
        """Adds audio of a live stream."""
        self._audio.inc(seconds)

    def observe_utterance(self, trace: Trace) -> None:
        """Adds one utterance of a live stream to the metrics of models; `stt_fallback_total` counts requests alone."""
        for reason in trace.reasons:
            self._reasons.labels(reason.value).inc()
        for suppressed in trace.suppressed:
            if suppressed in SUPPRESSED_REASONS:
                self._suppressed.labels(suppressed).inc()
        for histogram, value in (
            (self._primary_infer, trace.primary_infer),
            (self._fallback_infer, trace.fallback_infer),
            (self._queue_wait, trace.queue_wait),
        ):
            if value is not None:
                histogram.observe(value)

    def _key_label(self, name: str | None) -> str:
        if name is None:
            return NO_KEY
        return name if name in self._key_names else UNLISTED_KEY

    def watch_queue(
        self, depth: Callable[[], float], in_flight: Callable[[], float], expected_wait: Callable[[], float]
    ) -> None:
        """Adds the gauges of the concurrency gate; all are asked at every scrape, so they must not block.

        Raises:
            ValueError: the gauges are there already.
        """
        queue = Gauge("stt_queue_depth", "Requests waiting for an inference slot.", registry=self._registry)
        queue.set_function(depth)
        running = Gauge("stt_in_flight", "Requests arrived and not yet answered.", registry=self._registry)
        running.set_function(in_flight)
        wait = Gauge(
            "stt_expected_wait_seconds", "Until a request that came now would be recognized.", registry=self._registry
        )
        wait.set_function(expected_wait)

    def exposition(self) -> tuple[str, str]:
        """The Prometheus text of now, and its content type.

        Blocks for some milliseconds where a `GpuCollector` is registered: call it off the event loop there.
        """
        return generate_latest(_WithoutCreated(self._registry)).decode(), CONTENT_TYPE


class _WithoutCreated(Collector):
    """The registry without the `_created` series that prometheus_client adds to each counter and histogram.

    Its own switch for them is global to the process; leaving them out here touches nobody else's metrics.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        for metric in self._registry.collect():
            created = f"{metric.name}_created"
            kept = Metric(metric.name, metric.documentation, metric.type)
            kept.samples = [sample for sample in metric.samples if sample.name != created]
            yield kept
