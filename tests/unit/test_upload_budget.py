"""The memory limit of unary calls in progress, and the order in which their messages are read."""

from __future__ import annotations

import asyncio

import pytest

from stt_server.admission import upload_budget
from stt_server.admission.upload_budget import FULL_SIZE_MESSAGES, MAX_READERS, UploadBudget
from stt_server.errors import InvalidArgument, Overloaded
from tests.support.services import until

LARGEST = 100


class Sender:
    """A message that arrives when `sent` is set."""

    def __init__(self, message: bytes = b"x") -> None:
        self.message = message
        self.reading = False
        self.sent = asyncio.Event()

    async def read(self) -> bytes:
        self.reading = True
        await self.sent.wait()
        return self.message


class Call:
    """A call that holds its message until `answered` is set."""

    def __init__(self, budget: UploadBudget, sender: Sender) -> None:
        self.sender = sender
        self.held = False
        self.answered = asyncio.Event()
        self.task = asyncio.ensure_future(self._run(budget))

    async def _run(self, budget: UploadBudget) -> bytes:
        async with budget.hold(self.sender.read, bytes) as request:
            self.held = True
            await self.answered.wait()
            return bytes(request)

    async def end(self) -> bytes:
        self.sender.sent.set()
        self.answered.set()
        return await self.task


@pytest.fixture
def short_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload_budget, "SLOW_AFTER_S", 0.01)
    monkeypatch.setattr(upload_budget, "MAX_SLOW_READERS", 2)


async def test_a_limited_number_of_messages_is_read_at_a_time() -> None:
    budget = UploadBudget(LARGEST)
    calls = [Call(budget, Sender()) for _ in range(MAX_READERS + 3)]
    await until(lambda: sum(call.sender.reading for call in calls) == MAX_READERS)
    calls[0].sender.sent.set()
    await until(lambda: sum(call.sender.reading for call in calls) == MAX_READERS + 1)
    assert [await call.end() for call in calls] == [b"x"] * len(calls)


async def test_held_messages_are_limited_to_a_number_of_bytes() -> None:
    budget = UploadBudget(LARGEST)
    calls = [Call(budget, Sender(bytes(LARGEST))) for _ in range(FULL_SIZE_MESSAGES)]
    for call in calls:
        call.sender.sent.set()
    await until(lambda: all(call.held for call in calls))
    with pytest.raises(Overloaded) as refused:
        await Call(budget, Sender()).end()
    assert refused.value.reason == "uploads"
    await calls[0].end()
    assert await Call(budget, Sender(bytes(LARGEST))).end() == bytes(LARGEST), "an answer releases its bytes"
    for call in calls[1:]:
        await call.end()


async def test_cancelled_calls_release_readers_and_bytes() -> None:
    budget = UploadBudget(LARGEST)
    for _ in range(3):
        unsent = [Call(budget, Sender()) for _ in range(MAX_READERS * 2)]
        read = Call(budget, Sender(bytes(LARGEST)))
        await until(lambda calls=unsent: sum(call.sender.reading for call in calls) == MAX_READERS)  # type: ignore[misc]
        for call in (*unsent, read):
            call.task.cancel()
        await asyncio.wait([call.task for call in (*unsent, read)])
    full = [Call(budget, Sender(bytes(LARGEST))) for _ in range(FULL_SIZE_MESSAGES)]
    for call in full:
        call.sender.sent.set()
    await until(lambda: all(call.held for call in full))
    for call in full:
        await call.end()


async def test_slow_senders_do_not_delay_others(short_limits: None) -> None:
    budget = UploadBudget(LARGEST)
    slow = [Call(budget, Sender()) for _ in range(MAX_READERS)]
    assert await Call(budget, Sender(b"quick")).end() == b"quick"
    for call in slow:
        call.task.cancel()
    await asyncio.wait([call.task for call in slow])
    again = [Call(budget, Sender()) for _ in range(MAX_READERS)]
    await until(lambda: all(call.sender.reading for call in again))
    assert [await call.end() for call in again] == [b"x"] * MAX_READERS


async def test_the_slowest_of_too_many_slow_senders_is_cut_off(short_limits: None) -> None:
    budget = UploadBudget(LARGEST)
    first, second, third = (Call(budget, Sender()) for _ in range(3))
    with pytest.raises(Overloaded) as refused:
        await first.task
    assert refused.value.reason == "uploads"
    assert [await second.end(), await third.end()] == [b"x", b"x"]


async def test_a_message_that_is_never_sent_releases_its_reader() -> None:
    async def read_nothing() -> bytes:
        raise InvalidArgument("the call ended without a message")

    budget = UploadBudget(LARGEST)
    for _ in range(MAX_READERS + 1):
        with pytest.raises(InvalidArgument):
            async with budget.hold(read_nothing, bytes):
                pass


async def test_a_message_that_cannot_be_parsed_holds_nothing() -> None:
    def parse(raw: bytes) -> bytes:
        raise InvalidArgument("the message can't be parsed")

    budget = UploadBudget(LARGEST)
    for _ in range(FULL_SIZE_MESSAGES + 1):
        sender = Sender(bytes(LARGEST))
        sender.sent.set()
        with pytest.raises(InvalidArgument):
            async with budget.hold(sender.read, parse):
                pass
