"""Prometheus metrics of what fails behind a service; see docs/metrics.md."""

from __future__ import annotations

from typing import get_args

from prometheus_client import CollectorRegistry, Counter, Gauge

from stt_server.cascade.breaker import CircuitState
from stt_server.engine.health.failures import FailureKind

FAILURE_KINDS: tuple[FailureKind, ...] = get_args(FailureKind)
CIRCUIT_STATES: tuple[CircuitState, ...] = get_args(CircuitState)


class FaultMetrics:
    """Counts faults, and shows the state of the circuit to the fallback.

    Args:
        registry: where the metrics are registered.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self.circuit: CircuitState | None = None
        """None: there is no fallback."""
        self._state = Gauge(
            "stt_fallback_circuit_state",
            "1 for the state that the circuit to the fallback is in.",
            ("state",),
            registry=registry,
        )
        self._transitions = Counter(
            "stt_fallback_circuit_transitions",
            "Changes of that state, by the new one.",
            ("state",),
            registry=registry,
        )
        for state in CIRCUIT_STATES:
            self._state.labels(state)
            self._transitions.labels(state)
        self._failures = Counter(
            "stt_engine_failures",
            "Chunks that the own model failed on, by how.",
            ("kind",),
            registry=registry,
        )
        for kind in FAILURE_KINDS:
            self._failures.labels(kind)

    def engine_failed(self, kind: FailureKind) -> None:
        """Counts one failure of the service's own model."""
        self._failures.labels(kind).inc()

    def circuit_moved(self, state: CircuitState | None) -> None:
        """Takes up the state of the circuit; the first one, of a circuit that is new, is no change."""
        if self.circuit is not None and state is not None and state != self.circuit:
            self._transitions.labels(state).inc()
        self.circuit = state
        for each in CIRCUIT_STATES:
            self._state.labels(each).set(each == state)
