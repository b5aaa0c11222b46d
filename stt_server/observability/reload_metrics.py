"""Prometheus metrics of configuration reloads; see docs/metrics.md."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge

RESULTS = ("applied", "unchanged", "refused")


class ReloadMetrics:
    """Counts reloads of the configuration file and of the PEM files that it names.

    Args:
        registry: receives the metrics.
        clock: seconds since 1970.
    """

    def __init__(self, registry: CollectorRegistry, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._reloads = Counter("stt_config_reloads", "Configuration reads, by result.", ("result",), registry=registry)
        for result in RESULTS:
            self._reloads.labels(result)
        self._successful = Gauge(
            "stt_config_last_reload_successful",
            "1: the file is in effect, except for keys that wait for a restart; 0: it was refused.",
            registry=registry,
        )
        self._loaded_at = Gauge(
            "stt_config_last_reload_success_timestamp_seconds",
            "When the configuration in effect was read, in seconds since 1970.",
            registry=registry,
        )
        self._waiting = Gauge(
            "stt_config_keys_awaiting_restart", "Changed keys that wait for a restart.", registry=registry
        )
        self._mark_successful()

    def read(self, result: Literal["applied", "unchanged"], waiting: int) -> None:
        """Count a reload that was accepted.

        Args:
            waiting: changed keys that wait for a restart.
        """
        self._reloads.labels(result).inc()
        self._waiting.set(waiting)
        self._mark_successful()

    def refused(self) -> None:
        """Count a reload that was refused; the configuration in effect stays."""
        self._reloads.labels("refused").inc()
        self._successful.set(0)

    def _mark_successful(self) -> None:
        self._successful.set(1)
        self._loaded_at.set(self._clock())
