"""The JSON of `GET /v1/metrics`: counts since the start, and latency quantiles of the latest requests."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from stt_server.cascade.breaker import CircuitState
from stt_server.observability.call_record import CallRecord, FallbackResult
from stt_server.observability.gpu import GpuReading

WINDOW = 2048
"""Number of latest requests that the quantiles cover."""

QUANTILES = {"p50": 0.50, "p95": 0.95, "p99": 0.99}
LATENCIES = ("total", "primary_infer", "fallback_infer", "queue_wait")
RESULTS: tuple[FallbackResult, ...] = ("used", "skipped", "failed")


class Snapshot:
    """Counts and latency quantiles of one service. Thread-safe.

    Args:
        server_commit: `SERVER_COMMIT`.
        model: `MODEL_NAME`.
        service: `"primary"` or `"fallback"`.
        clock: monotonic seconds; uptime counts from construction.
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

    def observe(self, call: CallRecord) -> None:
        """Count one finished request."""
        with self._lock:
            self._requests += 1
            if call.failure is not None:
                self._errors[call.failure] += 1
            if call.fallback_result is not None:
                self._fallback[call.fallback_result] += 1
            # In the order of LATENCIES
            self._window.append((call.latency, call.primary_infer, call.fallback_infer, call.queue_wait))

    def observe_refusals(self, type_: str, count: int) -> None:
        """Count requests that the gateway refused by itself."""
        with self._lock:
            self._requests += count
            self._errors[type_] += count

    def as_dict(
        self, queue_depth: int, in_flight: int, gpu: GpuReading | None, circuit: CircuitState | None = None
    ) -> dict[str, Any]:
        """Snapshot as a dict for `json.dumps`; unknown values are None.

        Args:
            queue_depth: requests waiting for an inference slot.
            in_flight: requests arrived and not yet answered.
            gpu: None: the model runs on the CPU.
            circuit: state of the circuit to the fallback; None: no fallback is configured.
        """
        with self._lock:
            requests, errors, fallback = self._requests, dict(sorted(self._errors.items())), dict(self._fallback)
            rows = list(self._window)
        columns = zip(*rows, strict=True) if rows else ((),) * len(LATENCIES)
        return {
            **self._identity,
            "uptime_s": round(self._clock() - self._started, 1),
            "requests": {"total": requests, "errors": errors},
            "fallback": {result: fallback.get(result, 0) for result in RESULTS},
            "circuit": circuit,
            "latency_ms": {name: _quantiles(column) for name, column in zip(LATENCIES, columns, strict=True)},
            "queue": {"depth": queue_depth, "in_flight": in_flight},
            "gpu": None if gpu is None else gpu.as_dict(),
        }


def _quantiles(seconds: tuple[float | None, ...]) -> dict[str, float | None]:
    """Quantiles in milliseconds by nearest rank, so that each is a measured value; None without values."""
    known = [value for value in seconds if value is not None]
    if not known:
        return dict.fromkeys(QUANTILES)
    quantiles = np.quantile(known, list(QUANTILES.values()), method="inverted_cdf")
    return {name: round(float(value) * 1000, 1) for name, value in zip(QUANTILES, quantiles, strict=True)}
