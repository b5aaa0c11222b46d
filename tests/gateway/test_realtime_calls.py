"""Calls behind Realtime sessions: ended by silence, limited in number, lost."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection
from websockets.frames import Frame, Opcode

from gateway.http.server import GatewayServer
from gateway.openai.realtime.stretch import RecentAudio
from gateway.options import GatewayOptions
from tests.support.contract_script import Failure
from tests.support.contract_service import ContractService
from tests.support.letter_stream import LetterRecognizer, Letters
from tests.support.live_caller import PATIENCE_S
from tests.support.realtime_caller import TRANSCRIPTION, Event, realtime

pytestmark = pytest.mark.asyncio(loop_scope="session")

MANUAL = {"turn_detection": None}
IDLE = Failure("deadline_exceeded", "no message received for 30 s")
PAUSE_S = 1.0
"""Pause that stands for STREAM_IDLE_TIMEOUT_S; longer than those before it."""


class IdleOnCue:
    """Stream of letters that ends like an idle one once `cue` is set: the last final, then `deadline_exceeded`.

    What arrives while the end is held is not processed.
    """

    def __init__(self, service: ContractService) -> None:
        self.cue = asyncio.Event()
        self.ended = asyncio.Event()
        """Set once messages are ignored."""
        self.hold = asyncio.Event()
        self.hold.set()
        self.calls = 0
        self._service = service

    async def __call__(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        self.calls += 1
        recognizer = LetterRecognizer()
        while (request := await self._next(requests)) is not None:
            for response in recognizer.feed(request.audio):
                yield response
        for response in recognizer.finish():
            yield response
        if self.cue.is_set():
            self.ended.set()
            await self.hold.wait()
            self.cue.clear()
            await self._service._abort(context, IDLE)

    async def _next(self, requests: AsyncIterator[Any]) -> Any:
        """The next message; None at the end, or on cue."""
        reading, cued = asyncio.ensure_future(anext(requests, None)), asyncio.ensure_future(self.cue.wait())
        await asyncio.wait((reading, cued), return_when=asyncio.FIRST_COMPLETED)
        cued.cancel()
        if reading.done():
            return reading.result()
        reading.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await reading
        return None


@pytest.mark.parametrize("settings", [{}, MANUAL])
async def test_a_pause_ends_the_call_and_not_the_session(
    gateway: GatewayServer, service: ContractService, settings: Event
) -> None:
    service.script.stream = stream = IdleOnCue(service)
    async with realtime(gateway.port, settings=settings) as caller:
        await caller.say("   abcdef")
        delta = await caller.next(f"{TRANSCRIPTION}.delta")
        stream.cue.set()
        await asyncio.wait_for(stream.ended.wait(), PATIENCE_S)
        await asyncio.sleep(PAUSE_S)
        await caller.say("      xyz")
        await caller.commit()
        texts = [(await caller.completed())["transcript"] for _ in range(1 if settings else 2)]
    assert texts == (["abcdef xyz"] if settings else ["abcdef", "xyz"])
    assert stream.calls == 2
    if settings:
        assert caller.of(f"{TRANSCRIPTION}.completed")[0]["item_id"] == delta["item_id"]
    else:
        assert [event["audio_start_ms"] for event in caller.of("input_audio_buffer.speech_started")][:2] == [300, 1500]


async def test_audio_that_an_ending_call_ignored_is_sent_again(
    gateway: GatewayServer, service: ContractService
) -> None:
    service.script.stream = stream = IdleOnCue(service)
    stream.hold.clear()
    async with realtime(gateway.port) as caller:
        await caller.say("abc")
        await caller.next(f"{TRANSCRIPTION}.delta")
        stream.cue.set()
        await asyncio.wait_for(stream.ended.wait(), PATIENCE_S)
        await caller.next(f"{TRANSCRIPTION}.completed")
        await asyncio.sleep(PAUSE_S)
        await caller.say("wxyz")
        await caller.say(" " * 6)
        stream.hold.set()
        assert (await caller.completed())["transcript"] == "wxyz"
    starts = [event["audio_start_ms"] for event in caller.of("input_audio_buffer.speech_started")]
    assert starts == [0, 300]


async def test_only_sessions_with_audio_hold_a_call(gateway: GatewayServer, service: ContractService) -> None:
    service.script.stream = letters = Letters()
    async with contextlib.AsyncExitStack() as stack:
        idle = [await stack.enter_async_context(realtime(gateway.port)) for _ in range(20)]
        await idle[3].say("abc" + " " * 6)
        assert (await idle[3].completed())["transcript"] == "abc"
    assert len(letters.received) == 1


async def test_a_manual_session_holds_no_call_between_its_items(
    gateway: GatewayServer, service: ContractService
) -> None:
    service.script.stream = Letters()
    async with realtime(gateway.port, settings=MANUAL) as caller:
        await caller.say("abc")
        await caller.commit()
        await caller.completed()
        assert [stream.half_closed for stream in service.script.streams] == [True]


async def test_an_idle_session_stays_while_it_answers_pings(
    service: ContractService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.http.server.PING_INTERVAL_S", 0.05)
    monkeypatch.setattr("gateway.http.server.PING_TIMEOUT_S", 20)
    server = GatewayServer(GatewayOptions(service.target, host="127.0.0.1", port=0))
    await server.start()
    try:
        async with realtime(server.port) as caller:
            await _answer_pings(caller.socket, 5)
            await caller.append(bytes(1600))
            await caller.commit()
            await caller.completed()
    finally:
        await server.stop(1)


async def _answer_pings(socket: ClientConnection, count: int) -> None:
    """Wait until `count` pings have arrived, which the library answers."""
    arrived: asyncio.Queue[Frame] = asyncio.Queue()
    answer = socket.protocol.recv_frame

    def note(frame: Frame) -> None:
        if frame.opcode is Opcode.PING:
            arrived.put_nowait(frame)
        answer(frame)

    socket.protocol.recv_frame = note  # type: ignore[method-assign]
    for _ in range(count):
        await asyncio.wait_for(arrived.get(), PATIENCE_S)


async def test_recent_audio_is_what_followed_the_longest_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("gateway.openai.realtime.stretch.time.monotonic", lambda: now)
    recent = RecentAudio()
    assert list(recent.ignored()) == []
    now += 60.0  # the call takes long to connect
    for pause, chunk in ((0.0, b"a"), (30.0, b"b"), (0.1, b"c"), (0.1, b"d")):
        now += pause
        recent.add(chunk)
    now += 2.0
    assert recent.ignored() == [b"b", b"c", b"d"]
    now += 30.0
    assert list(recent.ignored()) == []
