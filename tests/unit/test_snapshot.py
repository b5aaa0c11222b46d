from __future__ import annotations

import json
from dataclasses import replace

from stt_server.observability.call_record import STREAM
from stt_server.observability.gpu import GpuReading
from stt_server.observability.snapshot import WINDOW, Snapshot
from tests.support.call_records import a_call, refused

UNKNOWN = {"p50": None, "p95": None, "p99": None}


def test_an_unused_service_shows_zeros_and_nulls() -> None:
    now = [100.0]
    snapshot = Snapshot("prod-2025-08-18", "whisper-small-ct2", "primary", clock=lambda: now[0])
    now[0] = 161.26
    assert snapshot.as_dict(queue_depth=0, in_flight=0, gpu=None) == {
        "service": "primary",
        "model": "whisper-small-ct2",
        "server_commit": "prod-2025-08-18",
        "uptime_s": 61.3,
        "requests": {"total": 0, "errors": {}},
        "fallback": {"used": 0, "skipped": 0, "failed": 0},
        "circuit": None,
        "latency_ms": dict.fromkeys(("total", "primary_infer", "fallback_infer", "queue_wait"), UNKNOWN),
        "queue": {"depth": 0, "in_flight": 0},
        "gpu": None,
    }


def test_requests_errors_and_routing_are_counted() -> None:
    snapshot = Snapshot("c", "m", "primary")
    snapshot.observe(a_call())
    snapshot.observe(a_call(fallback_result="used", fallback_infer=0.9))
    snapshot.observe(refused("rate_limited", "RESOURCE_EXHAUSTED", 429))
    snapshot.observe(refused("rate_limited", "RESOURCE_EXHAUSTED", 429))
    snapshot.observe(refused("KeyError", "UNKNOWN", 500))
    shown = snapshot.as_dict(queue_depth=3, in_flight=2, gpu=None, circuit="open")
    assert shown["requests"] == {"total": 5, "errors": {"internal": 1, "rate_limited": 2}}
    assert shown["fallback"] == {"used": 1, "skipped": 1, "failed": 0}
    assert shown["circuit"] == "open"
    assert shown["queue"] == {"depth": 3, "in_flight": 2}


def test_quantiles_are_measured_values() -> None:
    snapshot = Snapshot("c", "m", "primary")
    for ms in range(100, 0, -1):
        snapshot.observe(a_call(total=ms / 1000, queue_wait=None if ms > 1 else 0.25))
    latency = snapshot.as_dict(0, 0, None)["latency_ms"]
    assert latency["total"] == {"p50": 50.0, "p95": 95.0, "p99": 99.0}
    assert latency["queue_wait"] == {"p50": 250.0, "p95": 250.0, "p99": 250.0}
    assert latency["fallback_infer"] == UNKNOWN


def test_quantiles_cover_the_latest_calls_only() -> None:
    snapshot = Snapshot("c", "m", "primary")
    snapshot.observe(a_call(total=60.0, fallback_infer=30.0))
    slow = snapshot.as_dict(0, 0, None)["latency_ms"]
    assert slow["total"]["p50"] == 60_000
    for _ in range(WINDOW):
        snapshot.observe(a_call(total=0.1))
    shown = snapshot.as_dict(0, 0, None)
    assert shown["latency_ms"]["total"] == {"p50": 100.0, "p95": 100.0, "p99": 100.0}
    assert shown["latency_ms"]["fallback_infer"] == UNKNOWN
    assert shown["requests"]["total"] == WINDOW + 1


def test_the_length_of_a_stream_is_no_latency() -> None:
    snapshot = Snapshot("c", "m", "primary")
    snapshot.observe(replace(a_call(total=3600.0), endpoint=STREAM))
    assert snapshot.as_dict(0, 0, None)["latency_ms"]["total"] == UNKNOWN


def test_gpu_values_that_cannot_be_read_are_null() -> None:
    snapshot = Snapshot("c", "m", "fallback")
    assert snapshot.as_dict(0, 0, GpuReading())["gpu"] is None
    reading = GpuReading(mem_used_mb=512.0, mem_total_mb=24564.0)
    assert snapshot.as_dict(0, 0, reading)["gpu"] == {
        "utilization_pct": None,
        "mem_used_mb": 512.0,
        "mem_total_mb": 24564.0,
    }


def test_the_snapshot_is_valid_json() -> None:
    snapshot = Snapshot("c", "m", "primary")
    snapshot.observe(a_call())
    shown = snapshot.as_dict(1, 1, GpuReading(50.0, 1.0, 2.0))
    assert json.loads(json.dumps(shown, allow_nan=False)) == shown
