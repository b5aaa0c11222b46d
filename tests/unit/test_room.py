"""What the messages of unary calls may hold together, and who reads first."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from stt_server.admission import upload_budget as rooms
from stt_server.admission.upload_budget import FULL_SIZE_MESSAGES, READ_AT_A_TIME, Room
from stt_server.errors import InvalidArgument, Overloaded
from tests.support.services import until

LARGEST = 100


class Sender:
    """One call's message, sent when the test says so."""

    def __init__(self, message: bytes = b"x") -> None:
        self.message = message
        self.asked = False
        self.sent = asyncio.Event()

    async def messages(self) -> AsyncIterator[bytes]:
        self.asked = True
        await self.sent.wait()
        yield self.message


class Call:
    """A call in the room: it holds its message until it is answered."""

    def __init__(self, room: Room, sender: Sender) -> None:
        self.sender = sender
        self.read = False
        self.answered = asyncio.Event()
        self.task = asyncio.ensure_future(self._run(room))

    async def _run(self, room: Room) -> bytes:
        async with room.message(self.sender.messages(), bytes) as request:
            self.read = True
            await self.answered.wait()
            return bytes(request)

    async def end(self) -> bytes:
        self.sender.sent.set()
        self.answered.set()
        return await self.task


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rooms, "LEFT_ALONE_S", 0.01)
    monkeypatch.setattr(rooms, "SLOW_AT_A_TIME", 2)


async def test_so_many_messages_are_read_at_a_time_and_the_others_wait() -> None:
    room = Room(LARGEST)
    calls = [Call(room, Sender()) for _ in range(READ_AT_A_TIME + 3)]
    await until(lambda: sum(call.sender.asked for call in calls) == READ_AT_A_TIME)
    calls[0].sender.sent.set()
    await until(lambda: sum(call.sender.asked for call in calls) == READ_AT_A_TIME + 1)
    assert [await call.end() for call in calls] == [b"x"] * len(calls)


async def test_messages_hold_no_more_than_so_many_of_the_largest() -> None:
    room = Room(LARGEST)
    calls = [Call(room, Sender(bytes(LARGEST))) for _ in range(FULL_SIZE_MESSAGES)]
    for call in calls:
        call.sender.sent.set()
    await until(lambda: all(call.read for call in calls))
    with pytest.raises(Overloaded) as refused:
        await Call(room, Sender()).end()
    assert refused.value.reason == "uploads"
    await calls[0].end()
    assert await Call(room, Sender(bytes(LARGEST))).end() == bytes(LARGEST), "an answer makes room"
    for call in calls[1:]:
        await call.end()


async def test_callers_who_leave_give_back_turns_and_room() -> None:
    room = Room(LARGEST)
    for _ in range(3):
        unsent = [Call(room, Sender()) for _ in range(READ_AT_A_TIME * 2)]
        read = Call(room, Sender(bytes(LARGEST)))
        await until(lambda calls=unsent: sum(call.sender.asked for call in calls) == READ_AT_A_TIME)  # type: ignore[misc]
        for call in (*unsent, read):
            call.task.cancel()
        await asyncio.wait([call.task for call in (*unsent, read)])
    full = [Call(room, Sender(bytes(LARGEST))) for _ in range(FULL_SIZE_MESSAGES)]
    for call in full:
        call.sender.sent.set()
    await until(lambda: all(call.read for call in full))
    for call in full:
        await call.end()


async def test_slow_senders_keep_nobody_waiting(impatient: None) -> None:
    room = Room(LARGEST)
    slow = [Call(room, Sender()) for _ in range(READ_AT_A_TIME)]
    assert await Call(room, Sender(b"quick")).end() == b"quick"
    for call in slow:
        call.task.cancel()
    await asyncio.wait([call.task for call in slow])
    again = [Call(room, Sender()) for _ in range(READ_AT_A_TIME)]
    await until(lambda: all(call.sender.asked for call in again))
    assert [await call.end() for call in again] == [b"x"] * READ_AT_A_TIME


async def test_the_slowest_of_too_many_slow_senders_is_cut_off(impatient: None) -> None:
    room = Room(LARGEST)
    first, second, third = (Call(room, Sender()) for _ in range(3))
    with pytest.raises(Overloaded) as refused:
        await first.task
    assert refused.value.reason == "uploads"
    assert [await second.end(), await third.end()] == [b"x", b"x"]


async def test_what_is_no_message_holds_nothing() -> None:
    async def nothing() -> AsyncIterator[bytes]:
        return
        yield b""

    room = Room(LARGEST)
    for _ in range(READ_AT_A_TIME + 1):
        with pytest.raises(InvalidArgument):
            async with room.message(nothing(), bytes):
                pass
