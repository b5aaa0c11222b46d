"""The circuit breaker's state machine: what opens it, what closes it and what it ignores."""

from __future__ import annotations

import pytest

from stt_server.cascade.breaker import COOL_DOWN_S, FAILURES_TO_OPEN, Admission, Breaker, Health, Outcome
from tests.support.clock import ManualClock


class Circuit:
    """A breaker with its clock and its state changes."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.states: list[str] = []
        self.reasons: list[str] = []
        self.breaker = Breaker(self.clock, self._changed)

    def _changed(self, state: str, reason: str) -> None:
        self.states.append(state)
        self.reasons.append(reason)

    def admit(self) -> Admission:
        admission = self.breaker.admit()
        assert admission is not None
        return admission

    def call(self, outcome: Outcome, times: int = 1) -> None:
        for _ in range(times):
            self.breaker.record_call(self.admit(), outcome, "internal")

    def check(self, *healths: Health) -> None:
        for health in healths:
            self.breaker.record_check(health)


@pytest.fixture
def circuit() -> Circuit:
    return Circuit()


@pytest.mark.parametrize("health", ["away", "silent"])
def test_two_failed_checks_open_and_one_success_closes(circuit: Circuit, health: Health) -> None:
    circuit.check(health)
    assert circuit.states == []
    circuit.check(health)
    assert circuit.states == ["open"]
    assert circuit.breaker.admit() is None
    circuit.check(health, health, "serving")
    assert circuit.states == ["open", "closed"]
    assert circuit.breaker.admit() is not None


def test_single_failed_check_is_ignored(circuit: Circuit) -> None:
    circuit.check("silent", "serving", "silent", "serving")
    circuit.check("silent")
    circuit.call("answered")
    circuit.check("silent")
    assert circuit.states == []


def test_unavailable_calls_count_as_one_failed_check(circuit: Circuit) -> None:
    assert not circuit.breaker.needs_check
    circuit.call("unavailable", 3)
    assert circuit.breaker.needs_check, "a health check is due at once"
    assert circuit.states == [], "one lost connection fails many calls"
    circuit.check("away")
    assert circuit.states == ["open"]


def test_failed_calls_in_a_row_open_despite_good_health(circuit: Circuit) -> None:
    circuit.call("wrong", FAILURES_TO_OPEN - 1)
    circuit.call("answered")
    circuit.check("serving")
    circuit.call("wrong", FAILURES_TO_OPEN - 1)
    assert circuit.states == []
    circuit.call("wrong")
    assert circuit.states == ["open"]
    assert "internal" in circuit.reasons[0]


def half_open(circuit: Circuit) -> None:
    circuit.call("wrong", FAILURES_TO_OPEN)
    circuit.check("serving")
    assert circuit.states == ["open"], "health checks do not close it"
    circuit.clock.now += COOL_DOWN_S
    circuit.check("serving")
    assert circuit.states == ["open", "half_open"]


def test_half_open_lets_one_trial_call_through(circuit: Circuit) -> None:
    half_open(circuit)
    trial = circuit.admit()
    assert circuit.breaker.admit() is None
    circuit.breaker.record_call(trial, "answered")
    assert circuit.states == ["open", "half_open", "closed"]


def test_failed_trial_opens_for_another_cool_down(circuit: Circuit) -> None:
    half_open(circuit)
    circuit.call("wrong")
    circuit.check("serving")
    assert circuit.states == ["open", "half_open", "open"]
    circuit.clock.now += COOL_DOWN_S
    circuit.check("serving")
    assert circuit.breaker.state == "half_open"


def test_cancelled_trial_leaves_its_place_to_another_call(circuit: Circuit) -> None:
    half_open(circuit)
    circuit.call("nothing")
    circuit.call("answered")
    assert circuit.breaker.state == "closed"


def test_inconclusive_outcomes_never_open(circuit: Circuit) -> None:
    circuit.call("nothing", 100)
    assert circuit.states == []


def test_calls_from_an_earlier_state_are_ignored(circuit: Circuit) -> None:
    early = [circuit.admit() for _ in range(10)]
    circuit.check("silent", "silent", "serving")
    for admission in early:
        circuit.breaker.record_call(admission, "wrong", "unavailable")
    assert circuit.states == ["open", "closed"]
    assert not circuit.breaker.needs_check


def test_outage_after_failed_calls_closes_on_recovery(circuit: Circuit) -> None:
    circuit.call("wrong", FAILURES_TO_OPEN)
    circuit.check("away", "away", "serving")
    assert circuit.breaker.state == "closed"


def test_outage_during_a_trial_opens_the_circuit(circuit: Circuit) -> None:
    half_open(circuit)
    trial = circuit.admit()
    circuit.check("silent", "silent")
    circuit.breaker.record_call(trial, "unavailable", "unavailable")
    circuit.check("serving")
    assert circuit.states == ["open", "half_open", "open", "closed"]
