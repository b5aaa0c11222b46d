"""The door, with a scripted clock."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator

import pytest

from stt_server.admission.gate import SAFETY, Gate, Ticket
from stt_server.admission.service_time import Load, ServiceTime
from stt_server.errors import Overloaded
from tests.support.clock import ManualClock

ONE = Load(1, 5.0)


def test_the_queue_is_bounded_and_a_place_is_freed_on_leaving() -> None:
    gate = Gate(1, 1)
    with gate.admit(ONE):
        with gate.admit(ONE):
            assert gate.depth == 2
            with pytest.raises(Overloaded), gate.admit(ONE):
                pass
        with gate.admit(ONE):
            pass


def test_a_place_is_freed_by_an_error_too() -> None:
    gate = Gate(1, 0)
    with pytest.raises(ZeroDivisionError), gate.admit(ONE):
        _ = 1 // 0
    with gate.admit(ONE):
        assert gate.depth == 1


def test_time_is_told_apart_into_waiting_and_running() -> None:
    clock = ManualClock(0.0)
    with Gate(2, 5, clock=clock).admit(ONE) as ticket:
        ticket.adjust(waiting=2)
        clock.now = 3.0
        ticket.adjust(waiting=-1, running=1)  # one of two runs: the request is no longer waiting
        clock.now = 7.0
        ticket.adjust(waiting=-1, running=1)
        clock.now = 8.0
        ticket.adjust(running=-2)
        clock.now = 20.0
        assert (ticket.queue_wait, ticket.busy) == (3.0, 5.0)


def test_depth_leaves_out_what_runs() -> None:
    gate = Gate(2, 5)
    with gate.admit(ONE) as first, gate.admit(ONE) as second:
        first.adjust(waiting=1)
        second.adjust(running=1)
        assert gate.depth == 1


def test_a_ticket_that_never_asked_knows_no_times() -> None:
    with Gate(1, 0).admit(ONE) as ticket:
        assert (ticket.queue_wait, ticket.busy) == (None, None)


def test_what_waits_again_is_not_done() -> None:
    with Gate(1, 5).admit(Load(3, 30.0)) as ticket:
        ticket.adjust(waiting=3)
        ticket.adjust(waiting=-2, running=2)
        ticket.adjust(running=-1)
        ticket.adjust(running=-1, waiting=1)
        assert ticket.remaining == Load(2, 20.0)


class Door:
    """A gate of two slots whose inferences take a second a chunk."""

    def __init__(self, max_queue: int = 100) -> None:
        self.clock = ManualClock(0.0)
        self.service_time = ServiceTime(self.clock)
        self.gate = Gate(2, max_queue, self.service_time, clock=self.clock)
        self._inside = contextlib.ExitStack()

    def measure(self) -> None:
        for seconds in (3.0, 9.0, 6.0):
            self.service_time.observe(Load(1, seconds), 1.0)

    def enter(self, load: Load = ONE, *, within: float | None = None) -> Ticket:
        """Lets one in who stays, with so many seconds to its deadline."""
        deadline = None if within is None else self.clock() + within
        return self._inside.enter_context(self.gate.admit(load, deadline))

    def leave(self) -> None:
        self._inside.close()


@pytest.fixture
def door() -> Iterator[Door]:
    door = Door()
    yield door
    door.leave()


def test_as_long_as_nothing_was_measured_all_are_let_in(door: Door) -> None:
    for _ in range(50):
        door.enter(within=0.01)
    assert door.gate.expected_wait == 0.0


def test_what_cannot_be_in_time_is_refused_and_told_when_to_come_back(door: Door) -> None:
    door.measure()
    for _ in range(8):
        door.enter()
    assert door.gate.expected_wait == pytest.approx(4.0)
    door.enter(within=SAFETY * 5.0 + 0.1)
    with pytest.raises(Overloaded) as refusal:
        door.enter(within=SAFETY * 5.0)
    assert refusal.value.reason == "deadline"
    assert refusal.value.retry_after_s == pytest.approx(SAFETY * 0.5)
    door.enter()  # no deadline, no hurry


def test_whoever_comes_back_when_told_is_let_in(door: Door) -> None:
    door.measure()
    inside = [door.enter() for _ in range(8)]
    with pytest.raises(Overloaded) as refusal:
        door.enter(within=3.0)
    for _ in range(math.ceil((refusal.value.retry_after_s or 0.0) / SAFETY)):
        for ticket in inside[:2]:
            ticket.adjust(running=1)
            ticket.adjust(running=-1)
        del inside[:2]
    door.enter(within=3.0)


def test_an_idle_service_takes_whatever_comes(door: Door) -> None:
    door.measure()
    door.enter(Load(1000, 9000.0), within=0.1)
    with pytest.raises(Overloaded):
        door.enter(within=0.1)
    door.leave()
    ticket = door.enter(within=0.1)
    door.gate.reassess(ticket, Load(1000, 9000.0))


def test_a_short_recording_waits_for_one_turn_of_a_long_one_only(door: Door) -> None:
    door.measure()
    for _ in range(4):
        door.enter(Load(100, 900.0))
    assert door.gate.expected_wait == pytest.approx(2.0)
    door.enter(within=SAFETY * 3.0 + 0.1)
    with pytest.raises(Overloaded):
        door.enter(Load(50, 450.0), within=60.0)


def test_what_turns_out_to_be_longer_than_guessed_is_looked_at_again(door: Door) -> None:
    door.measure()
    door.enter()
    door.enter()
    ticket = door.enter(within=5.0)
    door.gate.reassess(ticket, Load(1, 5.0))
    with pytest.raises(Overloaded) as refusal:
        door.gate.reassess(ticket, Load(8, 40.0))
    assert refusal.value.reason == "deadline"


def test_nobody_is_refused_for_those_who_came_later(door: Door) -> None:
    door.measure()
    first = [door.enter(within=4.0) for _ in range(2)]
    for _ in range(20):
        later = door.enter()
    door.gate.reassess(first[1], Load(2, 12.0))
    later.adjust(waiting=1)  # but for those who are decoded sooner
    door.gate.reassess(first[1], Load(2, 12.0))
    with pytest.raises(Overloaded):
        door.enter(within=4.0)


def test_what_is_recognized_is_waited_for_no_more(door: Door) -> None:
    door.measure()
    tickets = [door.enter(Load(4, 20.0)) for _ in range(2)]
    for ticket in tickets:
        ticket.adjust(waiting=4)
        ticket.adjust(waiting=-3, running=3)
        assert door.gate.expected_wait == pytest.approx(1.0)
        ticket.adjust(running=-3)
    assert door.gate.expected_wait == pytest.approx(1.0)
    tickets[0].adjust(waiting=-1, running=1)
    tickets[0].adjust(running=-1)
    assert door.gate.expected_wait == 0.0  # one slot is free


def test_a_full_queue_is_told_when_it_will_be_worked_off() -> None:
    door = Door(max_queue=4)
    door.measure()
    for _ in range(6):
        door.enter()
    with pytest.raises(Overloaded) as refusal:
        door.enter()
    assert refusal.value.reason == "queue_full"
    assert refusal.value.retry_after_s == pytest.approx(3.0)
    door.leave()


def test_another_limit_holds_for_those_who_come() -> None:
    gate = Gate(1, 1)
    with gate.admit(ONE), gate.admit(ONE):
        gate.set_max_queue(2)
        with gate.admit(ONE):
            gate.set_max_queue(0)
            with pytest.raises(Overloaded), gate.admit(ONE):
                pass
            assert gate.depth == 3
