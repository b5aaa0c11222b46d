"""What `GET /v1/metrics` shows: counts since the start, and latency quantiles of the latest calls."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from stt_server.cascade.breaker import CircuitState
from stt_server.observability.call_record import Call, FallbackResult
from stt_server.observability.gpu import GpuReading

WINDOW = 2048
"""Calls that the quantiles are taken over."""

QUANTILES = {"p50": 0.50, "p95": 0.95, "p99": 0.99}
TIMES = ("total", "primary_infer", "fallback_infer", "queue_wait")
RESULTS: tuple[FallbackResult, ...] = ("used", "skipped", "failed")


class Snapshot:
    """Counts and quantiles of one service. Thread-safe.

    Args:
        server_commit: `SERVER_COMMIT`.
        model: `MODEL_NAME`.
        service: `"primary"` or `"fallback"`.
        clock: monotonic seconds; uptime counts from now.
    """

    def __init__(
        self,
        server_commit: str,
        model: str,
        service: Literal["primary", "fallback"],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._identity = {"service": service, "model": model, "server_commit": server_commit}
        self._clock = clock
        self._started = clock()
        self._lock = threading.Lock()
        self._requests = 0
        self._errors: Counter[str] = Counter()
        self._fallback: Counter[str] = Counter()
        self._window: deque[tuple[float | None, ...]] = deque(maxlen=WINDOW)

    def observe(self, call: Call) -> None:
        """Counts one finished call. Call it once for each."""
        with self._lock:
            self._requests += 1
            if call.failure is not None:
                self._errors[call.failure] += 1
            if call.fallback_result is not None:
                self._fallback[call.fallback_result] += 1
            # In the order of TIMES.
            self._window.append((call.latency, call.primary_infer, call.fallback_infer, call.queue_wait))

    def as_dict(
        self, queue_depth: int, in_flight: int, gpu: GpuReading | None, circuit: CircuitState | None = None
    ) -> dict[str, Any]:
        """The snapshot, ready for `json.dumps`. `gpu`: None without one; what it can't tell is null. `circuit`: to the
        fallback; None without one."""
        with self._lock:
            requests, errors, fallback = (
                self._requests,
                dict(sorted(self._errors.items())),
                dict(self._fallback),
            )
            rows = list(self._window)
        columns = zip(*rows, strict=True) if rows else ((),) * len(TIMES)
        return {
            **self._identity,
            "uptime_s": round(self._clock() - self._started, 1),
            "requests": {"total": requests, "errors": errors},
            "fallback": {result: fallback.get(result, 0) for result in RESULTS},
            "circuit": circuit,
            "latency_ms": {name: _quantiles(column) for name, column in zip(TIMES, columns, strict=True)},
            "queue": {"depth": queue_depth, "in_flight": in_flight},
            "gpu": None if gpu is None else gpu.as_dict(),
        }


def _quantiles(seconds: tuple[float | None, ...]) -> dict[str, float | None]:
    """Quantiles in milliseconds by nearest rank: each is a time that a call really took. None of no calls."""
    known = [value for value in seconds if value is not None]
    if not known:
        return dict.fromkeys(QUANTILES)
    found = np.quantile(known, list(QUANTILES.values()), method="inverted_cdf")
    return {name: round(float(value) * 1000, 1) for name, value in zip(QUANTILES, found, strict=True)}
