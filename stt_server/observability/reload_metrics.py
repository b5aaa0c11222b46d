"""Prometheus metrics of the configuration; see docs/metrics.md."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge

RESULTS = ("applied", "unchanged", "refused")


class ReloadMetrics:
    """How the service's file, and the certificates that it names, were taken up.

    Args:
        registry: where the metrics are registered.
        clock: seconds since 1970.
    """

    def __init__(self, registry: CollectorRegistry, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._reloads = Counter(
            "stt_config_reloads",
            "Readings of a changed configuration, by what came of them.",
            ("result",),
            registry=registry,
        )
        for result in RESULTS:
            self._reloads.labels(result)
        self._successful = Gauge(
            "stt_config_last_reload_successful",
            "1: what is in the file is in effect (but for keys that wait for a restart); 0: it is refused.",
            registry=registry,
        )
        self._at = Gauge(
            "stt_config_last_reload_success_timestamp_seconds",
            "When the configuration that is in effect was read, in seconds since 1970.",
            registry=registry,
        )
        self._waiting = Gauge(
            "stt_config_keys_awaiting_restart", "Changed keys that wait for a restart.", registry=registry
        )
        self._succeeded()

    def read(self, result: Literal["applied", "unchanged"], waiting: int) -> None:
        """Counts a file that is in effect.

        Args:
            waiting: changed keys that wait for a restart.
        """
        self._reloads.labels(result).inc()
        self._waiting.set(waiting)
        self._succeeded()

    def refused(self) -> None:
        """Counts a file, or one that it names, that changes nothing."""
        self._reloads.labels("refused").inc()
        self._successful.set(0)

    def _succeeded(self) -> None:
        self._successful.set(1)
        self._at.set(self._clock())
