"""The fallback is replaced between calls, and let go of once they are done."""

from __future__ import annotations

import asyncio

import pytest

from stt_server.audio import AudioFormat
from stt_server.cascade import hot_swap
from stt_server.cascade.fallback import FallbackError
from stt_server.cascade.hot_swap import HotSwap
from stt_server.engine.types import DecodeOptions
from stt_server.request import Answer, Request, Upload
from tests.support.services import until

REQUEST = Request(Upload(b"a", AudioFormat()), DecodeOptions(), "r")


class Fake:
    """Answers with its name once it may."""

    def __init__(self, name: str) -> None:
        self.answer = Answer(name, (), name, "en", None, 0.9, ())
        self.may = asyncio.Event()
        self.may.set()
        self.closed = False

    async def transcribe(self, request: Request, timeout_s: float) -> Answer:
        await self.may.wait()
        assert not self.closed
        return self.answer

    async def close(self) -> None:
        self.closed = True


async def test_calls_go_to_the_one_of_now_and_end_where_they_began() -> None:
    first, second, swap = Fake("first"), Fake("second"), HotSwap()
    swap.replace(first)
    first.may.clear()
    early = asyncio.ensure_future(swap.transcribe(REQUEST, 1))
    await asyncio.sleep(0)
    swap.replace(second)
    assert (await swap.transcribe(REQUEST, 1)).model == "second"
    assert not first.closed
    first.may.set()
    assert (await early).model == "first"
    await until(lambda: first.closed)
    assert not second.closed
    await swap.close()
    assert second.closed


async def test_one_that_nobody_asks_is_closed_at_once() -> None:
    first, swap = Fake("first"), HotSwap()
    swap.replace(first)
    swap.replace(Fake("second"))
    await until(lambda: first.closed)


async def test_a_call_that_is_given_up_lets_go_too() -> None:
    first, swap = Fake("first"), HotSwap()
    swap.replace(first)
    first.may.clear()
    early = asyncio.ensure_future(swap.transcribe(REQUEST, 1))
    await asyncio.sleep(0)
    swap.replace(Fake("second"))
    early.cancel()
    await until(lambda: first.closed)


async def test_without_a_fallback_the_last_ones_may_still_ask_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hot_swap, "LINGER_S", 0.05)
    first, swap = Fake("first"), HotSwap()
    swap.replace(first)
    swap.replace(None)
    assert (await swap.transcribe(REQUEST, 1)).model == "first"
    await until(lambda: first.closed)
    with pytest.raises(FallbackError, match="unavailable"):
        await swap.transcribe(REQUEST, 1)


async def test_one_that_comes_back_in_time_is_another_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hot_swap, "LINGER_S", 0.05)
    first, again, swap = Fake("first"), Fake("again"), HotSwap()
    swap.replace(first)
    swap.replace(None)
    swap.replace(again)
    await until(lambda: first.closed)
    await asyncio.sleep(0.1)
    assert not again.closed
    assert (await swap.transcribe(REQUEST, 1)).model == "again"
