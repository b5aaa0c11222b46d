"""Replacing the fallback between calls; the old one is closed once its calls have ended."""

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
    """Answers with its name once released."""

    def __init__(self, name: str) -> None:
        self.answer = Answer(name, (), name, "en", None, 0.9, ())
        self.released = asyncio.Event()
        self.released.set()
        self.closed = False

    async def transcribe(self, request: Request, timeout_s: float) -> Answer:
        await self.released.wait()
        assert not self.closed
        return self.answer

    async def close(self) -> None:
        self.closed = True


async def test_calls_end_on_the_fallback_they_began_on() -> None:
    first, second, swap = Fake("first"), Fake("second"), HotSwap()
    swap.replace(first)
    first.released.clear()
    early = asyncio.ensure_future(swap.transcribe(REQUEST, 1))
    await asyncio.sleep(0)
    swap.replace(second)
    assert (await swap.transcribe(REQUEST, 1)).model == "second"
    assert not first.closed
    first.released.set()
    assert (await early).model == "first"
    await until(lambda: first.closed)
    assert not second.closed
    await swap.close()
    assert second.closed


async def test_replaced_idle_fallback_is_closed_at_once() -> None:
    first, swap = Fake("first"), HotSwap()
    swap.replace(first)
    swap.replace(Fake("second"))
    await until(lambda: first.closed)


async def test_cancelled_call_releases_a_replaced_fallback() -> None:
    first, swap = Fake("first"), HotSwap()
    swap.replace(first)
    first.released.clear()
    early = asyncio.ensure_future(swap.transcribe(REQUEST, 1))
    await asyncio.sleep(0)
    swap.replace(Fake("second"))
    early.cancel()
    await until(lambda: first.closed)


async def test_removed_fallback_lingers_for_admitted_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hot_swap, "LINGER_S", 0.05)
    first, swap = Fake("first"), HotSwap()
    swap.replace(first)
    swap.replace(None)
    assert (await swap.transcribe(REQUEST, 1)).model == "first"
    await until(lambda: first.closed)
    with pytest.raises(FallbackError, match="unavailable"):
        await swap.transcribe(REQUEST, 1)


async def test_fallback_added_again_is_a_new_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hot_swap, "LINGER_S", 0.05)
    first, again, swap = Fake("first"), Fake("again"), HotSwap()
    swap.replace(first)
    swap.replace(None)
    swap.replace(again)
    await until(lambda: first.closed)
    await asyncio.sleep(0.1)
    assert not again.closed
    assert (await swap.transcribe(REQUEST, 1)).model == "again"
