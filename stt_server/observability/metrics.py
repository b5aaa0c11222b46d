"""Prometheus metrics of requests and models. docs/metrics.md describes every name, label and unit.

Label values come from closed sets that are known before a request arrives. Any other value counts under the set's
catch-all or not at all, so that no caller can add a series or place a text in one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from typing import get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from protos.stt.v1.errors import ERRORS
from protos.stt.v1.speech_pb2 import RouteReason
from stt_server.audio.sandbox.worker import EXIT_REASONS, ExitReason
from stt_server.config import Role
from stt_server.engine.hallucination import REASONS as SUPPRESSED_REASONS
from stt_server.errors import Refused
from stt_server.observability.call_record import STREAM, TRANSCRIBE, CallRecord
from stt_server.request import Trace

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""Content type of `Metrics.exposition`."""

SECONDS_BUCKETS = (
    *(0.005, 0.01, 0.025, 0.05, 0.075),
    *(0.1, 0.15, 0.25, 0.35, 0.5, 0.75),
    *(1.0, 1.5, 2.0, 3.0, 5.0, 7.5),
    *(10.0, 15.0, 30.0, 60.0, 120.0),
)
"""Upper bounds in seconds. Each is at most twice its predecessor (the first ones excepted), so that quantiles are
precise; 1.0 is included because the objective is p95 < 1 s."""

FACTOR_BUCKETS = (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0)
"""Upper bounds of the real-time factor; above 1.0, inference is slower than speech."""

CLIP_SECONDS = 10.0
"""Longest audio of a clip, for which the latency objective holds (docs/slo.md)."""

OTHER = "other"
"""Endpoint of requests that the gateway refused at any other path."""
ENDPOINTS = (TRANSCRIBE, STREAM, OTHER)
FALLBACK_RESULTS = ("used", "skipped", "failed")
REFUSALS = get_args(Refused)
ROUTE_REASONS = tuple(name.removeprefix("ROUTE_REASON_").lower() for name, number in RouteReason.items() if number != 0)
"""Derived from the contract's enum, so that a reason added there is counted."""

NO_KEY = "none"
UNLISTED_KEY = "other"


class ModelMetrics:
    """Metrics of models and routing, for unary requests and utterances alike.

    Args:
        registry: receives the metrics.
        service: whose metrics they are. A trace of the fallback has its own model's time as `fallback_infer`, which the
            primary records too, as the time of a call.
    """

    def __init__(self, registry: CollectorRegistry, service: Role) -> None:
        self._service = service

        def histogram(name: str, documentation: str) -> Histogram:
            return Histogram(name, documentation, registry=registry, buckets=SECONDS_BUCKETS)

        self._audio = Counter("stt_audio_seconds", "Seconds of audio decoded.", registry=registry)
        self._reasons = Counter(
            "stt_route_reasons", "Requests sent to the fallback, by reason.", ("reason",), registry=registry
        )
        self._suppressed = Counter(
            "stt_suppressed_texts", "Texts dropped as hallucinations, by reason.", ("reason",), registry=registry
        )
        self._redecoded = Counter(
            "stt_redecoded_seconds",
            "Work of decoding again what was not acceptable at once, in seconds of encoded audio.",
            registry=registry,
        )
        self._primary_infer = histogram("stt_primary_infer_seconds", "Inference of the service's own model.")
        self._fallback_infer = histogram("stt_fallback_infer_seconds", "Calls to the fallback, network time included.")
        self._queue_wait = histogram("stt_queue_wait_seconds", "Waiting for a free inference slot.")
        for reason in ROUTE_REASONS:
            self._reasons.labels(reason)
        for suppressed in SUPPRESSED_REASONS:
            self._suppressed.labels(suppressed)

    def observe(self, work: CallRecord | Trace, route_reasons: Iterable[str]) -> None:
        """Record the inference times, routing reasons and suppressed texts of a request or an utterance."""
        for reason in set(route_reasons).intersection(ROUTE_REASONS):
            self._reasons.labels(reason).inc()
        for suppressed in work.suppressed:
            if suppressed in SUPPRESSED_REASONS:
                self._suppressed.labels(suppressed).inc()
        self._redecoded.inc(work.redecoded_seconds)
        own, call = work.primary_infer, work.fallback_infer
        if self._service == "fallback":
            own, call = call, None
        for histogram, value in (
            (self._primary_infer, own),
            (self._fallback_infer, call),
            (self._queue_wait, work.queue_wait),
        ):
            if value is not None:
                histogram.observe(value)

    def observe_utterance(self, trace: Trace) -> None:
        """Record an utterance of a live stream. It is no request: `stt_fallback_total` doesn't count it."""
        self.observe(trace, [reason.value for reason in trace.reasons])

    def observe_audio(self, seconds: float) -> None:
        """Count decoded audio."""
        self._audio.inc(seconds)


class Metrics:
    """The metrics of one service.

    Args:
        registry: receives the metrics.
        service: whose metrics they are.
        key_names: names of the configured keys, for `stt_key_requests_total`.
    """

    def __init__(self, registry: CollectorRegistry, service: Role = "primary", key_names: Collection[str] = ()) -> None:
        def counter(name: str, documentation: str, *labels: str) -> Counter:
            return Counter(name, documentation, labels, registry=registry)

        self.models = ModelMetrics(registry, service)
        self._registry = registry
        self._key_names: frozenset[str] = frozenset()
        self._requests = counter("stt_requests", "Requests finished, whatever their outcome.", "endpoint")
        self._exceptions = counter(
            "stt_requests_exceptions", "Requests that ended in an error, by error type.", "endpoint", "type"
        )
        self._refusals = counter("stt_refusals", "Requests refused as overloaded, by reason.", "reason")
        self._fallback = counter(
            "stt_fallback", "Routing decisions: the fallback was used, skipped, or needed and failed.", "result"
        )
        self._keys = counter("stt_key_requests", "Requests finished, by name of the API key.", "key_name")
        self._deaths = counter("stt_decode_children_died", "Decoder processes that died, by reason.", "reason")
        self._total = Histogram(
            "stt_request_total_seconds",
            "Arrival to answer of a Transcribe.",
            registry=registry,
            buckets=SECONDS_BUCKETS,
        )
        self._clip_total = Histogram(
            "stt_clip_total_seconds",
            f"Arrival to answer of an answered Transcribe of at most {CLIP_SECONDS:g} s of audio.",
            registry=registry,
            buckets=SECONDS_BUCKETS,
        )
        self._factor = Histogram(
            "stt_real_time_factor", "Inference time over audio length.", registry=registry, buckets=FACTOR_BUCKETS
        )
        self._start_at_zero()
        self.set_key_names(key_names)
        ProcessCollector(registry=registry)

    def _start_at_zero(self) -> None:
        """Create all series: one that appears with its first event hides that event from rate()."""
        for endpoint in ENDPOINTS:
            self._requests.labels(endpoint)
            for type_ in ERRORS:
                self._exceptions.labels(endpoint, type_)
        for counter, values in (
            (self._refusals, REFUSALS),
            (self._fallback, FALLBACK_RESULTS),
            (self._deaths, EXIT_REASONS),
        ):
            for value in values:
                counter.labels(value)

    def set_key_names(self, names: Collection[str]) -> None:
        """Replace the names of the configured API keys."""
        self._key_names = frozenset(names)
        for name in names:
            self._keys.labels(name)

    def observe(self, call: CallRecord) -> None:
        """Count one finished request, from any thread. Call exactly once per request."""
        endpoint = STREAM if call.endpoint == STREAM else TRANSCRIBE
        self._requests.labels(endpoint).inc()
        if call.failure is not None:
            self._exceptions.labels(endpoint, call.failure).inc()
        if call.refused in REFUSALS:
            self._refusals.labels(call.refused).inc()
        if call.fallback_result in FALLBACK_RESULTS:
            self._fallback.labels(call.fallback_result).inc()
        self._keys.labels(self._key_label(call.key_name)).inc()
        self.models.observe(call, call.route_reasons)
        if call.audio_seconds is not None and endpoint != STREAM:  # a stream's audio is counted as it arrives
            self.models.observe_audio(call.audio_seconds)
        if call.latency is not None:
            self._total.observe(call.latency)
            if call.failure is None and call.audio_seconds is not None and call.audio_seconds <= CLIP_SECONDS:
                self._clip_total.observe(call.latency)
        if call.real_time_factor is not None:
            self._factor.observe(call.real_time_factor)

    def observe_refusals(self, endpoint: str, type_: str, count: int) -> None:
        """Count requests that the gateway refused by itself. Of such a request nothing else is known.

        Args:
            endpoint: one of `ENDPOINTS`.
            type_: key of `ERRORS`.
        """
        self._requests.labels(endpoint).inc(count)
        self._exceptions.labels(endpoint, type_).inc(count)

    def observe_death(self, death: ExitReason) -> None:
        """Count a decoder process that died."""
        self._deaths.labels(death).inc()

    def _key_label(self, name: str | None) -> str:
        if name is None:
            return NO_KEY
        return name if name in self._key_names else UNLISTED_KEY

    def watch_queue(
        self, depth: Callable[[], float], in_flight: Callable[[], float], expected_wait: Callable[[], float]
    ) -> None:
        """Add the gauges of the queue. The functions are called at every scrape, so they must not block.

        Raises:
            ValueError: the gauges exist already.
        """
        for name, documentation, read in (
            ("stt_queue_depth", "Requests waiting for an inference slot.", depth),
            ("stt_in_flight", "Requests arrived and not yet answered.", in_flight),
            ("stt_expected_wait_seconds", "Time until a request arriving now would be recognized.", expected_wait),
        ):
            Gauge(name, documentation, registry=self._registry).set_function(read)

    def watch_slots(self, slots: Callable[[], float], busy_seconds: Callable[[], float]) -> None:
        """Add the metrics of the inference slots. The functions are called at every scrape, so they must not block.

        Args:
            slots: number of slots.
            busy_seconds: seconds that slots have been busy, all together.
        """
        documentation = "Inference slots: concurrent inferences at most."
        Gauge("stt_slots", documentation, registry=self._registry).set_function(slots)
        self._registry.register(_BusySlots(busy_seconds))

    def exposition(self) -> tuple[str, str]:
        """Current metrics in Prometheus' text format, and their content type.

        Blocks for milliseconds if a `GpuCollector` is registered: call it outside the event loop then.
        """
        return generate_latest(_WithoutCreated(self._registry)).decode(), CONTENT_TYPE


class _BusySlots(Collector):
    """Counter that is kept elsewhere."""

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds

    def collect(self) -> Iterator[Metric]:
        documentation = "Seconds that inference slots were busy; the rate is the number of busy slots."
        yield CounterMetricFamily("stt_slots_busy_seconds", documentation, value=self._seconds())


class _WithoutCreated(Collector):
    """A registry without the `_created` series that prometheus_client adds to each counter and histogram.

    prometheus_client's own switch for them would affect every registry of the process.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        for metric in self._registry.collect():
            created = f"{metric.name}_created"
            kept = Metric(metric.name, metric.documentation, metric.type)
            kept.samples = [sample for sample in metric.samples if sample.name != created]
            yield kept
