"""The circuit breaker, without a network: what opens it, what closes it, and what is none of its business."""

from __future__ import annotations

import pytest

from stt_server.cascade.breaker import COOL_DOWN_S, FAILURES_TO_OPEN, Admission, Breaker, Health, Outcome
from tests.support.clock import ManualClock


class Circuit:
    """A breaker, its clock, and the states that it went through."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.moves: list[str] = []
        self.reasons: list[str] = []
        self.breaker = Breaker(self.clock, self._moved)

    def _moved(self, state: str, why: str) -> None:
        self.moves.append(state)
        self.reasons.append(why)

    def admitted(self) -> Admission:
        admission = self.breaker.admit()
        assert admission is not None
        return admission

    def call(self, outcome: Outcome, times: int = 1) -> None:
        for _ in range(times):
            self.breaker.record_call(self.admitted(), outcome, "internal")

    def checked(self, *healths: Health) -> None:
        for health in healths:
            self.breaker.record_check(health)


@pytest.fixture
def circuit() -> Circuit:
    return Circuit()


@pytest.mark.parametrize("health", ["away", "silent"])
def test_two_missed_health_checks_open_it_and_one_that_serves_closes_it(circuit: Circuit, health: Health) -> None:
    circuit.checked(health)
    assert circuit.moves == []
    circuit.checked(health)
    assert circuit.moves == ["open"]
    assert circuit.breaker.admit() is None
    circuit.checked(health, health, "serving")
    assert circuit.moves == ["open", "closed"]
    assert circuit.breaker.admit() is not None


def test_a_single_missed_check_between_good_ones_is_nothing(circuit: Circuit) -> None:
    circuit.checked("silent", "serving", "silent", "serving")
    circuit.checked("silent")
    circuit.call("answered")
    circuit.checked("silent")
    assert circuit.moves == []


def test_a_call_that_found_nobody_there_is_the_first_miss_however_many_they_are(circuit: Circuit) -> None:
    assert not circuit.breaker.needs_check
    circuit.call("unavailable", 3)
    assert circuit.breaker.needs_check, "a health check is wanted at once"
    assert circuit.moves == [], "one lost connection fails many calls"
    circuit.checked("away")
    assert circuit.moves == ["open"]


def test_wrong_answers_in_a_row_open_it_although_its_health_is_fine(circuit: Circuit) -> None:
    circuit.call("wrong", FAILURES_TO_OPEN - 1)
    circuit.call("answered")
    circuit.checked("serving")
    circuit.call("wrong", FAILURES_TO_OPEN - 1)
    assert circuit.moves == []
    circuit.call("wrong")
    assert circuit.moves == ["open"]
    assert "internal" in circuit.reasons[0]


def failing(circuit: Circuit) -> None:
    circuit.call("wrong", FAILURES_TO_OPEN)
    circuit.checked("serving")
    assert circuit.moves == ["open"], "its health says nothing of its answers"
    circuit.clock.now += COOL_DOWN_S
    circuit.checked("serving")
    assert circuit.moves == ["open", "half_open"]


def test_after_a_pause_one_call_tries_it_and_the_others_are_refused_meanwhile(circuit: Circuit) -> None:
    failing(circuit)
    trial = circuit.admitted()
    assert circuit.breaker.admit() is None
    circuit.breaker.record_call(trial, "answered")
    assert circuit.moves == ["open", "half_open", "closed"]


def test_a_trial_that_fails_opens_it_for_another_pause(circuit: Circuit) -> None:
    failing(circuit)
    circuit.call("wrong")
    circuit.checked("serving")
    assert circuit.moves == ["open", "half_open", "open"]
    circuit.clock.now += COOL_DOWN_S
    circuit.checked("serving")
    assert circuit.breaker.state == "half_open"


def test_a_trial_whose_caller_left_leaves_its_place_to_another(circuit: Circuit) -> None:
    failing(circuit)
    circuit.call("nothing")
    circuit.call("answered")
    assert circuit.breaker.state == "closed"


def test_what_says_nothing_of_the_fallback_never_opens_it(circuit: Circuit) -> None:
    circuit.call("nothing", 100)
    assert circuit.moves == []


def test_calls_that_began_before_it_opened_say_nothing_of_later(circuit: Circuit) -> None:
    early = [circuit.admitted() for _ in range(10)]
    circuit.checked("silent", "silent", "serving")
    for admission in early:
        circuit.breaker.record_call(admission, "wrong", "unavailable")
    assert circuit.moves == ["open", "closed"]
    assert not circuit.breaker.needs_check


def test_one_that_failed_and_then_went_away_is_taken_back_when_it_serves(circuit: Circuit) -> None:
    circuit.call("wrong", FAILURES_TO_OPEN)
    circuit.checked("away", "away", "serving")
    assert circuit.breaker.state == "closed", "it was started anew"


def test_one_that_goes_away_while_it_is_tried_is_away(circuit: Circuit) -> None:
    failing(circuit)
    trial = circuit.admitted()
    circuit.checked("silent", "silent")
    circuit.breaker.record_call(trial, "unavailable", "unavailable")
    circuit.checked("serving")
    assert circuit.moves == ["open", "half_open", "open", "closed"]
