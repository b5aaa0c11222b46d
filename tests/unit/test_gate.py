"""The door, with a scripted clock."""

from __future__ import annotations

import pytest

from stt_server.errors import Overloaded
from stt_server.gate import Gate


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_queue_is_bounded_and_a_place_is_freed_on_leaving() -> None:
    gate = Gate(1, 1)
    with gate.admit():
        with gate.admit():
            assert gate.depth == 2
            with pytest.raises(Overloaded), gate.admit():
                pass
        with gate.admit():
            pass


def test_a_place_is_freed_by_an_error_too() -> None:
    gate = Gate(1, 0)
    with pytest.raises(ZeroDivisionError), gate.admit():
        _ = 1 // 0
    with gate.admit():
        assert gate.depth == 1


def test_time_is_told_apart_into_waiting_and_running() -> None:
    clock = Clock()
    with Gate(2, 5, clock=clock).admit() as ticket:
        ticket.moved(waiting=2)
        clock.now = 3.0
        ticket.moved(waiting=-1, running=1)  # one of two runs: the request is no longer waiting
        clock.now = 7.0
        ticket.moved(waiting=-1, running=1)
        clock.now = 8.0
        ticket.moved(running=-2)
        clock.now = 20.0
        assert (ticket.queue_wait, ticket.busy) == (3.0, 5.0)


def test_depth_leaves_out_what_runs() -> None:
    gate = Gate(2, 5)
    with gate.admit() as first, gate.admit() as second:
        first.moved(waiting=1)
        second.moved(running=1)
        assert gate.depth == 1


def test_a_ticket_that_never_asked_knows_no_times() -> None:
    with Gate(1, 0).admit() as ticket:
        assert (ticket.queue_wait, ticket.busy) == (None, None)
