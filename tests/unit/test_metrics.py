from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from protos.stt.v1.errors import ERRORS
from stt_server.audio.sandbox.worker import EXIT_REASONS
from stt_server.observability.call_record import STREAM
from stt_server.observability.failure_metrics import FailureMetrics
from stt_server.observability.gpu import Gpu, GpuCollector
from stt_server.observability.metrics import ROUTE_REASONS, SECONDS_BUCKETS, Metrics
from stt_server.observability.reload_metrics import ReloadMetrics
from stt_server.observability.stream_metrics import StreamMetrics
from tests.support.call_records import a_call, refused
from tests.support.nvml import FakeNvml

DOC = Path(__file__).resolve().parents[2] / "docs" / "metrics.md"
HISTOGRAMS = (
    "stt_request_total_seconds",
    "stt_clip_total_seconds",
    "stt_primary_infer_seconds",
    "stt_fallback_infer_seconds",
    "stt_queue_wait_seconds",
)


class Scrape:
    """The exposition, parsed as Prometheus does."""

    def __init__(self, metrics: Metrics) -> None:
        self.text, self.content_type = metrics.exposition()
        self.families: list[Metric] = list(text_string_to_metric_families(self.text))
        self._values = {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in self.families
            for sample in family.samples
        }

    def get(self, name: str, **labels: str) -> float | None:
        return self._values.get((name, tuple(sorted(labels.items()))))

    def label_values(self) -> Iterator[tuple[str, str]]:
        for _, labels in self._values:
            yield from labels


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(CollectorRegistry(), key_names=["web", "batch"])


def test_metric_names_types_and_labels() -> None:
    registry = CollectorRegistry()
    registry.register(GpuCollector(Gpu(FakeNvml())))
    metrics = Metrics(registry)
    metrics.watch_queue(lambda: 3, lambda: 2, lambda: 0)
    metrics.observe(refused("overloaded", "UNAVAILABLE", 503))
    scrape = Scrape(metrics)
    types = dict(re.findall(r"^# TYPE (\S+) (\S+)$", scrape.text, re.M))
    for name in ("stt_requests_total", "stt_requests_exceptions_total", "stt_fallback_total"):
        assert types[name] == "counter"
    for name in HISTOGRAMS:
        assert types[name] == "histogram"
        labels = {label for (sample, _), label in _labels_of(scrape) if sample.startswith(name)}
        assert labels == {"le"}
    gauges = (
        "stt_queue_depth",
        "stt_in_flight",
        "stt_expected_wait_seconds",
        "stt_gpu_utilization_pct",
        "stt_gpu_mem_used_mb",
        "stt_gpu_mem_total_mb",
    )
    for name in gauges:
        assert types[name] == "gauge"
        assert scrape.get(name) is not None
    assert scrape.get("stt_requests_total", endpoint="/v1/transcribe") == 1
    assert scrape.get("stt_requests_exceptions_total", endpoint="/v1/transcribe", type="overloaded") == 1


def _labels_of(scrape: Scrape) -> Iterator[tuple[tuple[str, str], str]]:
    for family in scrape.families:
        for sample in family.samples:
            for label, value in sample.labels.items():
                yield (sample.name, value), label


def test_counters_start_at_zero(metrics: Metrics) -> None:
    scrape = Scrape(metrics)
    for endpoint in ("/v1/transcribe", "/v1/stream"):
        assert scrape.get("stt_requests_total", endpoint=endpoint) == 0
        assert scrape.get("stt_requests_exceptions_total", endpoint=endpoint, type="out_of_memory") == 0
    for result in ("used", "skipped", "failed"):
        assert scrape.get("stt_fallback_total", result=result) == 0
    assert scrape.get("stt_key_requests_total", key_name="batch") == 0


def test_no_created_series_are_exposed(metrics: Metrics) -> None:
    metrics.observe(a_call())
    assert "_created" not in Scrape(metrics).text


def test_buckets_span_5_ms_to_120_s_and_include_1_s() -> None:
    assert (SECONDS_BUCKETS[0], SECONDS_BUCKETS[-1]) == (0.005, 120.0)
    assert 1.0 in SECONDS_BUCKETS
    assert list(SECONDS_BUCKETS) == sorted(set(SECONDS_BUCKETS))


def test_clips_are_answered_requests_of_at_most_10_s(metrics: Metrics) -> None:
    metrics.observe(a_call(audio_seconds=10.0, total=0.7))
    metrics.observe(a_call(audio_seconds=10.1, total=5.0))
    metrics.observe(a_call(audio_seconds=5.0, status="INTERNAL", error_type="internal", http=500))
    metrics.observe(a_call(audio_seconds=5.0, endpoint=STREAM))
    metrics.observe(refused("overloaded", "UNAVAILABLE", 503))
    scrape = Scrape(metrics)
    assert scrape.get("stt_clip_total_seconds_count") == 1
    assert scrape.get("stt_clip_total_seconds_sum") == 0.7


def test_routing_results_add_up_to_routed_requests(metrics: Metrics) -> None:
    metrics.observe(a_call(fallback_result="skipped"))
    metrics.observe(a_call(fallback_result="used", fallback_infer=1.0, route_reasons=("few_words", "low_logprob")))
    metrics.observe(
        a_call(fallback_result="failed", status="UNAVAILABLE", error_type="fallback_failed", http=502, total=2.0)
    )
    metrics.observe(refused("unauthenticated", "UNAUTHENTICATED", 401))
    scrape = Scrape(metrics)
    results = {result: scrape.get("stt_fallback_total", result=result) for result in ("used", "skipped", "failed")}
    assert results == {"used": 1, "skipped": 1, "failed": 1}
    assert scrape.get("stt_requests_total", endpoint="/v1/transcribe") == 4
    assert scrape.get("stt_route_reasons_total", reason="few_words") == 1
    assert scrape.get("stt_route_reasons_total", reason="low_logprob") == 1
    assert scrape.get("stt_route_reasons_total", reason="repetition") == 0


def test_unknown_durations_are_not_observed(metrics: Metrics) -> None:
    metrics.observe(a_call(total=0.5, primary_infer=0.4, fallback_infer=None, queue_wait=0.01, audio_seconds=4.0))
    metrics.observe(refused("rate_limited", "RESOURCE_EXHAUSTED", 429, total=0.001))
    scrape = Scrape(metrics)
    assert {name: scrape.get(f"{name}_count") for name in HISTOGRAMS} == {
        "stt_request_total_seconds": 2,
        "stt_clip_total_seconds": 1,
        "stt_primary_infer_seconds": 1,
        "stt_fallback_infer_seconds": 0,
        "stt_queue_wait_seconds": 1,
    }
    assert scrape.get("stt_primary_infer_seconds_sum") == pytest.approx(0.4)
    assert scrape.get("stt_audio_seconds_total") == 4.0
    assert scrape.get("stt_real_time_factor_sum") == pytest.approx(0.1)


def test_real_time_factor_counts_both_models(metrics: Metrics) -> None:
    metrics.observe(a_call(primary_infer=1.0, fallback_infer=3.0, audio_seconds=2.0))
    metrics.observe(a_call(primary_infer=1.0, audio_seconds=0.0))
    scrape = Scrape(metrics)
    assert scrape.get("stt_real_time_factor_sum") == pytest.approx(2.0)
    assert scrape.get("stt_real_time_factor_count") == 1


def test_the_length_of_a_stream_is_no_latency(metrics: Metrics) -> None:
    metrics.observe(a_call(endpoint=STREAM, total=3600.0))
    scrape = Scrape(metrics)
    assert scrape.get("stt_requests_total", endpoint="/v1/stream") == 1
    assert scrape.get("stt_request_total_seconds_count") == 0


@pytest.mark.parametrize("error_type", [error.type for error in ERRORS.values() if error.status])
def test_errors_are_counted_by_type(metrics: Metrics, error_type: str) -> None:
    error = ERRORS[error_type]
    metrics.observe(refused(error.type, error.status, error.http))
    assert Scrape(metrics).get("stt_requests_exceptions_total", endpoint="/v1/transcribe", type=error.type) == 1


@pytest.mark.parametrize(
    ("status", "error_type", "counted"),
    [
        ("UNKNOWN", "KeyError", "internal"),
        ("UNKNOWN", None, "internal"),
        ("CANCELLED", None, "cancelled"),
        ("OK", "overloaded", None),
    ],
)
def test_errors_outside_the_table_count_as_internal(
    metrics: Metrics, status: str, error_type: str | None, counted: str | None
) -> None:
    metrics.observe(a_call(status=status, error_type=error_type))
    scrape = Scrape(metrics)
    found = {
        kind for kind in ERRORS if scrape.get("stt_requests_exceptions_total", endpoint="/v1/transcribe", type=kind)
    }
    assert found == ({counted} if counted else set())


def test_keys_are_counted_by_configured_name(metrics: Metrics) -> None:
    for name in ("web", "stranger", None):
        metrics.observe(a_call(key_name=name))
    metrics.set_key_names(["stranger"])
    metrics.observe(a_call(key_name="stranger"))
    scrape = Scrape(metrics)
    for name in ("web", "other", "none", "stranger"):
        assert scrape.get("stt_key_requests_total", key_name=name) == 1


CLOSED = {
    "endpoint": {"/v1/transcribe", "/v1/stream", "other"},
    "type": set(ERRORS),
    "result": {"used", "skipped", "failed"},
    "reason": {"low_logprob", "low_language_probability", "few_words", "repetition", "primary_error", "requested"},
    "key_name": {"web", "batch", "none", "other"},
}
SUPPRESSED = {"no_speech", "low_logprob", "loop", "too_fast"}
DIED = {"killed", "memory", "cpu", "time", "abandoned", "crashed"}
REFUSED = {"queue_full", "deadline", "streams", "uploads"}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    text=st.text(max_size=40),
    choice=st.sampled_from(["endpoint", "method", "key_name", "error_type", "status"]),
)
def test_input_of_callers_never_becomes_a_label(metrics: Metrics, text: str, choice: str) -> None:
    hostile = {
        "request_id": text,
        "model": text,
        "language": text,
        "fallback_error": text,
        "error_message": text,
        "fallback_result": text,
        "route_reasons": (text, "few_words"),
        "suppressed": (text, "loop"),
        "refused": text,
        "error_type": text,
        "status": "UNKNOWN",
        choice: text,
    }
    metrics.observe(a_call(**hostile))
    for label, value in Scrape(metrics).label_values():
        if label == "le":
            float(value)
        else:
            assert value in CLOSED[label] | (SUPPRESSED | DIED | REFUSED if label == "reason" else set()), label


def test_decoder_deaths_are_counted_by_reason(metrics: Metrics) -> None:
    assert set(EXIT_REASONS) == DIED
    metrics.observe_death("memory")
    scrape = Scrape(metrics)
    counts = {reason: scrape.get("stt_decode_children_died_total", reason=reason) for reason in DIED}
    assert counts == {**dict.fromkeys(DIED, 0), "memory": 1}


def test_route_reasons_match_the_contract() -> None:
    assert set(ROUTE_REASONS) == CLOSED["reason"]


def test_refusals_are_counted_by_reason(metrics: Metrics) -> None:
    assert {Scrape(metrics).get("stt_refusals_total", reason=reason) for reason in REFUSED} == {0}
    metrics.observe(a_call(status="UNAVAILABLE", error_type="overloaded", refused="deadline"))
    assert [Scrape(metrics).get("stt_refusals_total", reason=reason) for reason in sorted(REFUSED)] == [1, 0, 0, 0]


def test_queue_gauges_are_read_at_each_scrape(metrics: Metrics) -> None:
    waiting = [1, 5]
    metrics.watch_queue(lambda: waiting[-1], lambda: 2, lambda: 0.5)
    assert Scrape(metrics).get("stt_queue_depth") == 5
    waiting.pop()
    assert Scrape(metrics).get("stt_queue_depth") == 1
    assert Scrape(metrics).get("stt_in_flight") == 2
    assert Scrape(metrics).get("stt_expected_wait_seconds") == 0.5


def test_circuit_states_and_transitions_are_exported() -> None:
    registry = CollectorRegistry()
    metrics, failures = Metrics(registry), FailureMetrics(registry)
    states = ("closed", "half_open", "open")

    def shown(name: str) -> dict[str, float | None]:
        return {state: Scrape(metrics).get(name, state=state) for state in states}

    assert shown("stt_fallback_circuit_state") == {"closed": 0, "half_open": 0, "open": 0}, "no fallback is configured"
    failures.circuit_changed("closed")
    assert shown("stt_fallback_circuit_transitions_total") == {"closed": 0, "half_open": 0, "open": 0}
    for state in states[::-1]:
        failures.circuit_changed(state)  # type: ignore[arg-type]
        assert shown("stt_fallback_circuit_state") == {each: float(each == state) for each in states}
    assert shown("stt_fallback_circuit_transitions_total") == {"closed": 1, "half_open": 1, "open": 1}


def test_the_content_type_is_prometheus_text(metrics: Metrics) -> None:
    assert Scrape(metrics).content_type == "text/plain; version=0.0.4; charset=utf-8"


def test_every_exported_metric_is_documented() -> None:
    registry = CollectorRegistry()
    registry.register(GpuCollector(Gpu(FakeNvml())))
    metrics = Metrics(registry)
    metrics.watch_queue(lambda: 0, lambda: 0, lambda: 0)
    StreamMetrics(registry, metrics.models)
    ReloadMetrics(registry)
    FailureMetrics(registry)
    exported = set(re.findall(r"^# TYPE (\S+)", metrics.exposition()[0], re.M))
    assert len(exported) > 15
    documented = set(re.findall(r"`([a-z_]+)(?:\{[^`]*\})?`", DOC.read_text()))
    assert exported - documented == set()
