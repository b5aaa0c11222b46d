"""Prometheus metrics of the model's failures and of the circuit breaker; see docs/metrics.md."""

from __future__ import annotations

from typing import get_args

from prometheus_client import CollectorRegistry, Counter, Gauge

from stt_server.cascade.breaker import CircuitState
from stt_server.engine.health.failures import FailureKind

FAILURE_KINDS: tuple[FailureKind, ...] = get_args(FailureKind)
CIRCUIT_STATES: tuple[CircuitState, ...] = get_args(CircuitState)


class FailureMetrics:
    """Counts engine failures, and exports the state of the circuit to the fallback.

    Args:
        registry: receives the metrics.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self.circuit: CircuitState | None = None
        """None: no fallback is configured."""
        self._state = Gauge(
            "stt_fallback_circuit_state",
            "1 for the current state of the circuit to the fallback, 0 for the others.",
            ("state",),
            registry=registry,
        )
        self._transitions = Counter(
            "stt_fallback_circuit_transitions",
            "Changes of the circuit, by its new state.",
            ("state",),
            registry=registry,
        )
        for state in CIRCUIT_STATES:
            self._state.labels(state)
            self._transitions.labels(state)
        self._failures = Counter(
            "stt_engine_failures",
            "Chunks that the service's own model failed on, by kind.",
            ("kind",),
            registry=registry,
        )
        for kind in FAILURE_KINDS:
            self._failures.labels(kind)

    def engine_failed(self, kind: FailureKind) -> None:
        """Count one failure of the service's own model."""
        self._failures.labels(kind).inc()

    def circuit_changed(self, state: CircuitState | None) -> None:
        """Export a new state of the circuit. The initial state of a new circuit does not count as a change."""
        if self.circuit is not None and state is not None and state != self.circuit:
            self._transitions.labels(state).inc()
        self.circuit = state
        for each in CIRCUIT_STATES:
            self._state.labels(each).set(each == state)
