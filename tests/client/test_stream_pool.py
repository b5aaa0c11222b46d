"""Streams of a pool: another service takes over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from stt_client import StreamEvent, SttPool
from stt_client.streaming import resume
from tests.client.test_stream_resume import SPEECH, Breaks, collect
from tests.support.contract_script import Failure, Script
from tests.support.contract_service import serving, start
from tests.support.letter_stream import FORMAT, WAIT_S, Letters, chunks, endless, finals
from tests.support.services import until


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stt_client.streaming.stream.RESUME", resume.Backoff(first_s=0.001, most_s=0.002, rounds=4))


async def collected(stream: AsyncIterator[StreamEvent]) -> list[StreamEvent]:
    return [event async for event in stream]


async def test_a_pool_stream_continues_at_another_service() -> None:
    async with AsyncExitStack() as stack:
        dying, living = Letters(break_at=Breaks(*[("events", 4)] * 100)), Letters()
        targets = [
            (await stack.enter_async_context(serving(Script(stream=letters)))).target for letters in (dying, living)
        ]
        pool = await stack.enter_async_context(SttPool(targets))
        events = [event async for event in pool.stream(chunks(SPEECH), encoding=FORMAT, resume=True)]
        assert finals(events) == finals(await collect(SPEECH, letters=Letters()))
        assert len(dying.received) == len(living.received) == 1


async def test_a_pool_stream_skips_a_service_that_is_not_ready() -> None:
    async with AsyncExitStack() as stack:
        letters = Letters()
        draining = await stack.enter_async_context(serving(Script(failure=Failure("not_ready", "draining"))))
        living = await stack.enter_async_context(serving(Script(stream=letters)))
        pool = await stack.enter_async_context(SttPool([draining.target, living.target]))
        events = [event async for event in pool.stream(chunks("ab"), encoding=FORMAT, resume=True)]
    assert finals(events) == ["ab"]
    assert len(draining.script.streams) == 1


@pytest.mark.parametrize("resume", [False, True])
async def test_a_pool_stream_skips_an_unreachable_service(resume: bool) -> None:
    gone = await start(Script(), with_health=False)
    async with serving(Script(stream=Letters())) as living, SttPool([gone.target, living.target]) as pool:
        pool._members._settled = True  # Otherwise the health watches exclude it beforehand.
        await gone.stop()
        events = [event async for event in pool.stream(chunks("ab"), encoding=FORMAT, resume=resume)]
        assert all(member.in_flight == 0 for member in pool._members)
    assert finals(events) == ["ab"]


async def test_a_stream_waits_for_a_restarting_service(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("stt_client.streaming.stream.RESUME", resume.RESUME)
    async with AsyncExitStack() as stack:
        stopping = await stack.enter_async_context(serving(Script(stream=Letters())))
        restarting = await start(Script(stream=Letters()))
        pool = await stack.enter_async_context(SttPool([stopping.target, restarting.target]))
        await pool.wait_ready(WAIT_S, at_least=2)
        await restarting.stop()
        stopping.script.failure = Failure("not_ready")
        await stopping.set_serving(False)
        stream = pool.stream(chunks("ab"), encoding=FORMAT, resume=True)
        events = asyncio.create_task(collected(stream))
        await until(lambda: stopping.script.streams)
        again = await start(Script(stream=Letters()), restarting.target)
        stack.push_async_callback(again.stop)
        assert finals(await asyncio.wait_for(events, WAIT_S)) == ["ab"]


async def test_open_streams_are_spread_over_the_services() -> None:
    closed = asyncio.Event()
    async with AsyncExitStack() as stack:
        streams = [Letters(), Letters()]
        targets = [(await stack.enter_async_context(serving(Script(stream=letters)))).target for letters in streams]
        pool = await stack.enter_async_context(SttPool(targets))

        async def listen() -> None:
            _ = [event async for event in pool.stream(endless(closed), encoding=FORMAT, interim_results=False)]

        tasks = [asyncio.create_task(listen()) for _ in streams]
        for letters in streams:
            await asyncio.wait_for(letters.got_audio.wait(), WAIT_S)
        assert [member.in_flight for member in pool._members] == [1, 1]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert [member.in_flight for member in pool._members] == [0, 0]
