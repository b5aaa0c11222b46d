"""Admission, with a scripted clock."""

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


def test_queue_is_bounded_and_leaving_frees_a_place() -> None:
    gate = Gate(1, 1)
    with gate.admit(ONE):
        with gate.admit(ONE):
            assert gate.depth == 2
            with pytest.raises(Overloaded), gate.admit(ONE):
                pass
        with gate.admit(ONE):
            pass


def test_error_frees_a_place() -> None:
    gate = Gate(1, 0)
    with pytest.raises(ZeroDivisionError), gate.admit(ONE):
        _ = 1 // 0
    with gate.admit(ONE):
        assert gate.depth == 1


def test_ticket_separates_waiting_from_running() -> None:
    clock = ManualClock(0.0)
    with Gate(2, 5, clock=clock).admit(ONE) as ticket:
        ticket.adjust(waiting=2)
        clock.now = 3.0
        ticket.adjust(waiting=-1, running=1)  # one of two runs, so the request no longer waits
        clock.now = 7.0
        ticket.adjust(waiting=-1, running=1)
        clock.now = 8.0
        ticket.adjust(running=-2)
        clock.now = 20.0
        assert (ticket.queue_wait, ticket.busy) == (3.0, 5.0)


def test_depth_excludes_running_requests() -> None:
    gate = Gate(2, 5)
    with gate.admit(ONE) as first, gate.admit(ONE) as second:
        first.adjust(waiting=1)
        second.adjust(running=1)
        assert gate.depth == 1


def test_ticket_without_chunks_has_no_times() -> None:
    with Gate(1, 0).admit(ONE) as ticket:
        assert (ticket.queue_wait, ticket.busy) == (None, None)


def test_requeued_chunk_is_not_done() -> None:
    with Gate(1, 5).admit(Load(3, 30.0)) as ticket:
        ticket.adjust(waiting=3)
        ticket.adjust(waiting=-2, running=2)
        ticket.adjust(running=-1)
        ticket.adjust(running=-1, waiting=1)
        assert ticket.remaining == Load(2, 20.0)


class Admission:
    """A gate of two slots, with a clock, measured inferences of one second per chunk, and requests that stay."""

    def __init__(self, max_queue: int = 100) -> None:
        self.clock = ManualClock(0.0)
        self.service_time = ServiceTime(self.clock)
        self.gate = Gate(2, max_queue, self.service_time, clock=self.clock)
        self._admitted = contextlib.ExitStack()

    def measure(self) -> None:
        for seconds in (3.0, 9.0, 6.0):
            self.service_time.observe(Load(1, seconds), 1.0)

    def admit(self, load: Load = ONE, *, within: float | None = None) -> Ticket:
        """Admit a request that stays, with `within` seconds to its deadline."""
        deadline = None if within is None else self.clock() + within
        return self._admitted.enter_context(self.gate.admit(load, deadline))

    def clear(self) -> None:
        self._admitted.close()


@pytest.fixture
def admission() -> Iterator[Admission]:
    admission = Admission()
    yield admission
    admission.clear()


def test_deadlines_are_not_checked_before_measurements(admission: Admission) -> None:
    for _ in range(50):
        admission.admit(within=0.01)
    assert admission.gate.expected_wait == 0.0


def test_late_request_is_refused_with_retry_after(admission: Admission) -> None:
    admission.measure()
    for _ in range(8):
        admission.admit()
    assert admission.gate.expected_wait == pytest.approx(4.0)
    admission.admit(within=SAFETY * 5.0 + 0.1)
    with pytest.raises(Overloaded) as refusal:
        admission.admit(within=SAFETY * 5.0)
    assert refusal.value.reason == "deadline"
    assert refusal.value.retry_after_s == pytest.approx(SAFETY * 0.5)
    admission.admit()  # without a deadline


def test_retry_after_the_stated_time_is_admitted(admission: Admission) -> None:
    admission.measure()
    waiting = [admission.admit() for _ in range(8)]
    with pytest.raises(Overloaded) as refusal:
        admission.admit(within=3.0)
    for _ in range(math.ceil((refusal.value.retry_after_s or 0.0) / SAFETY)):
        for ticket in waiting[:2]:
            ticket.adjust(running=1)
            ticket.adjust(running=-1)
        del waiting[:2]
    admission.admit(within=3.0)


def test_idle_service_admits_any_request(admission: Admission) -> None:
    admission.measure()
    admission.admit(Load(1000, 9000.0), within=0.1)
    with pytest.raises(Overloaded):
        admission.admit(within=0.1)
    admission.clear()
    ticket = admission.admit(within=0.1)
    admission.gate.reassess(ticket, Load(1000, 9000.0))


def test_short_recording_waits_for_one_chunk_of_long_ones(admission: Admission) -> None:
    admission.measure()
    for _ in range(4):
        admission.admit(Load(100, 900.0))
    assert admission.gate.expected_wait == pytest.approx(2.0)
    admission.admit(within=SAFETY * 3.0 + 0.1)
    with pytest.raises(Overloaded):
        admission.admit(Load(50, 450.0), within=60.0)


def test_longer_recording_than_forecast_is_reassessed(admission: Admission) -> None:
    admission.measure()
    admission.admit()
    admission.admit()
    ticket = admission.admit(within=5.0)
    admission.gate.reassess(ticket, Load(1, 5.0))
    with pytest.raises(Overloaded) as refusal:
        admission.gate.reassess(ticket, Load(8, 40.0))
    assert refusal.value.reason == "deadline"


def test_later_requests_do_not_count_against_earlier_ones(admission: Admission) -> None:
    admission.measure()
    first = [admission.admit(within=4.0) for _ in range(2)]
    for _ in range(20):
        later = admission.admit()
    admission.gate.reassess(first[1], Load(2, 12.0))
    later.adjust(waiting=1)  # except one that was decoded sooner
    admission.gate.reassess(first[1], Load(2, 12.0))
    with pytest.raises(Overloaded):
        admission.admit(within=4.0)


def test_recognized_chunks_leave_the_expected_wait(admission: Admission) -> None:
    admission.measure()
    tickets = [admission.admit(Load(4, 20.0)) for _ in range(2)]
    for ticket in tickets:
        ticket.adjust(waiting=4)
        ticket.adjust(waiting=-3, running=3)
        assert admission.gate.expected_wait == pytest.approx(1.0)
        ticket.adjust(running=-3)
    assert admission.gate.expected_wait == pytest.approx(1.0)
    tickets[0].adjust(waiting=-1, running=1)
    tickets[0].adjust(running=-1)
    assert admission.gate.expected_wait == 0.0  # one slot is free


def test_full_queue_states_when_to_retry() -> None:
    admission = Admission(max_queue=4)
    admission.measure()
    for _ in range(6):
        admission.admit()
    with pytest.raises(Overloaded) as refusal:
        admission.admit()
    assert refusal.value.reason == "queue_full"
    assert refusal.value.retry_after_s == pytest.approx(3.0)
    admission.clear()


def test_new_queue_limit_applies_to_new_requests() -> None:
    gate = Gate(1, 1)
    with gate.admit(ONE), gate.admit(ONE):
        gate.set_max_queue(2)
        with gate.admit(ONE):
            gate.set_max_queue(0)
            with pytest.raises(Overloaded), gate.admit(ONE):
                pass
            assert gate.depth == 3
