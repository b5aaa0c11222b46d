"""The Prometheus metric that states what runs; see docs/metrics.md."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Gauge

from stt_server import build


def state_build(registry: CollectorRegistry, commit: str, model: str) -> None:
    """Register `stt_build_info`, which is always 1: its labels are what it states.

    Args:
        commit: `SERVER_COMMIT`, or what the build recorded.
        model: `MODEL_NAME`.
    """
    info = Gauge("stt_build_info", "What runs; always 1.", ("version", "commit", "model"), registry=registry)
    info.labels(build.version(), commit, model).set(1)
