"""The concurrency gate, with real threads and a scripted clock."""

from __future__ import annotations

import asyncio
import contextlib
import threading

import pytest

from stt_server.errors import Overloaded
from stt_server.gate import Gate


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


async def test_no_more_run_at_a_time_than_there_are_slots_and_in_order() -> None:
    gate = Gate(2, 10)
    running, most, order = 0, 0, []
    lock = threading.Lock()

    def work(number: int) -> int:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
            order.append(number)
        threading.Event().wait(0.01)
        with lock:
            running -= 1
        return number

    async def request(number: int) -> int:
        with gate.admit() as ticket:
            return await ticket.run(work, number)

    results = await asyncio.gather(*(request(number) for number in range(8)))
    assert results == list(range(8))
    assert most == 2
    assert sorted(order[:2]) == [0, 1]
    assert all(abs(place - number) <= 1 for place, number in enumerate(order))


async def test_the_queue_is_bounded_and_a_place_is_freed_on_leaving() -> None:
    gate = Gate(1, 1)
    with gate.admit():
        with gate.admit():
            assert gate.depth == 2
            with pytest.raises(Overloaded), gate.admit():
                pass
        with gate.admit():
            pass


async def test_time_is_told_apart_into_waiting_and_running() -> None:
    clock = Clock()
    gate = Gate(1, 5, clock=clock)
    first_may_end = threading.Event()
    entered = threading.Event()

    def hold() -> None:
        entered.set()
        first_may_end.wait(10)

    with gate.admit() as first, gate.admit() as second:
        one = asyncio.ensure_future(first.run(hold))
        await asyncio.get_running_loop().run_in_executor(None, entered.wait)
        two = asyncio.ensure_future(second.run(lambda: None))
        await asyncio.sleep(0)
        assert (gate.depth, first.running, second.running) == (1, True, False)
        clock.now = 3.0
        first_may_end.set()
        await asyncio.gather(one, two)
        assert (first.queue_wait, first.busy) == (0.0, 3.0)
        assert second.queue_wait == 3.0


async def test_a_ticket_that_never_asked_knows_no_times() -> None:
    with Gate(1, 0).admit() as ticket:
        assert (ticket.queue_wait, ticket.busy) == (None, None)


async def test_a_cancelled_caller_leaves_its_slot_to_the_thread() -> None:
    gate = Gate(1, 5)
    entered, may_end = threading.Event(), threading.Event()

    def hold() -> None:
        entered.set()
        may_end.wait(10)

    with gate.admit() as ticket:
        task = asyncio.ensure_future(ticket.run(hold))
        await asyncio.get_running_loop().run_in_executor(None, entered.wait)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        assert gate.slots.locked()
        may_end.set()
        assert await ticket.run(lambda: "free again") == "free again"


async def test_an_error_in_the_thread_reaches_the_caller_and_frees_the_slot() -> None:
    gate = Gate(1, 0)
    with gate.admit() as ticket:
        with pytest.raises(ZeroDivisionError):
            await ticket.run(lambda: 1 // 0)
        assert await ticket.run(lambda: 1) == 1
