"""`resume`: whatever breaks, the caller sees what an unbroken stream would have said."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from stt_client import FLUSH, CallRecord, Final, Flush, Interim, SpeechEvent, StreamEvent, SttClient
from stt_client.errors import NotReady, UpstreamUnavailable
from stt_client.streaming import resume
from tests.client.toy_stream import FORMAT, FRAME_BYTES, WAIT_S, Toy, chunks, endless, finals, speech
from tests.support.contract_script import Script
from tests.support.contract_service import serving, start
from tests.support.cut_proxy import cutting

SAID = "  abcdefg       hijkl      mnopqrstuvwxyz          ABC       DEFGHIJ KLMNO       P"


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stt_client.streaming.stream.RESUME", resume.Backoff(first_s=0.001, most_s=0.002, rounds=4))


class Breaks:
    """Ends connections one after another: each entry says after how many events, or bytes, its connection goes."""

    def __init__(self, *limits: tuple[str, int], status: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE) -> None:
        self._limits = list(limits)
        self._status = status
        self.broken = 0

    async def __call__(self, context: Any, sent: int, heard: int) -> None:
        if self.broken < len(self._limits):
            kind, limit = self._limits[self.broken]
            if (sent if kind == "events" else heard) >= limit:
                self.broken += 1
                await context.abort(self._status, "Socket closed")


async def collect(*parts: str | Flush, toy: Toy, size: int = FRAME_BYTES, **options: Any) -> list[StreamEvent]:
    async with serving(Script(stream=toy)) as served, SttClient(served.target) as client:
        stream = client.stream(chunks(*parts, size=size), encoding=FORMAT, resume=True, **options)
        return [event async for event in stream]


def told(events: list[StreamEvent]) -> list[tuple[Any, ...]]:
    """What must be the same however often the connection broke: all but interims."""
    return [
        (event.type, event.offset)
        if isinstance(event, SpeechEvent)
        else (event.utterance, event.result.text, event.result.segments)
        for event in events
        if not isinstance(event, Interim)
    ]


def check_interims(events: list[StreamEvent]) -> None:
    """Stable text only grows, utterances are in order, and no time runs backwards."""
    stable: dict[int, str] = {}
    finished = -1
    heard = 0.0
    for event in events:
        assert event.audio_processed >= heard
        heard = event.audio_processed
        if isinstance(event, Interim):
            assert event.utterance > finished
            assert event.stable_text.startswith(stable.get(event.utterance, ""))
            stable[event.utterance] = event.stable_text
        elif isinstance(event, Final):
            assert event.utterance == finished + 1
            finished = event.utterance
            assert event.result.text.startswith(stable.get(event.utterance, ""))


@pytest.mark.parametrize("seed", range(60))
async def test_lost_connections_lose_and_repeat_nothing(seed: int) -> None:
    rng = random.Random(seed)
    parts: list[str | Flush] = [SAID[:30], FLUSH, SAID[30:]] if seed % 2 else [SAID]
    size = rng.choice([1600, 371, 10_000, 40_001])
    late = rng.choice([0, 0, 9, 25])
    whole = await collect(*parts, toy=Toy(late=late), size=size)
    limits = [
        ("events", rng.randint(0, 12)) if rng.random() < 0.5 else ("bytes", rng.randint(0, 60 * FRAME_BYTES))
        for _ in range(rng.randint(1, 4))
    ]
    breaks = Breaks(*limits)
    events = await collect(*parts, toy=Toy(late=late, break_at=breaks), size=size)
    assert breaks.broken > 0
    assert told(events) == told(whole)
    check_interims(events)


async def test_only_audio_without_a_final_is_sent_again() -> None:
    # The first connection breaks on the event after its first final; the second has what followed that utterance.
    toy = Toy(break_at=Breaks(("events", 5)))
    events = await collect("abcdef      ghi", toy=toy)
    assert finals(events) == ["abcdef", "ghi"]
    first, second = toy.received
    assert first.startswith(speech("abcdef"))
    assert second == speech("   ghi")


async def test_a_new_connection_is_half_closed_if_the_audio_has_ended() -> None:
    toy = Toy()

    async def break_once(context: Any, sent: int, heard: int) -> None:
        if toy.half_closed.is_set() and len(toy.received) == 1:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")

    toy.break_at = break_once
    events = await collect("ab      cd", toy=toy)
    assert finals(events) == ["ab", "cd"]
    assert [event.type for event in events if isinstance(event, SpeechEvent)] == ["started", "ended"] * 2
    assert len(toy.received) == 2


async def test_a_connection_lost_after_the_last_final_ends_the_stream() -> None:
    toy = Toy()

    async def break_late(context: Any, sent: int, heard: int) -> None:
        if sent == 3:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")

    class Late(Toy):
        async def __call__(self, requests: Any, context: Any) -> AsyncIterator[Any]:
            async for said in super().__call__(requests, context):
                yield said
            await break_late(context, 3, 0)

    toy = Late()
    events = await collect("ab", toy=toy)
    assert finals(events) == ["ab"]
    assert len(toy.received) == 1


async def test_interims_resume_once_they_include_the_stable_text() -> None:
    toy = Toy(break_at=Breaks(("events", 4)))
    events = await collect("abcdefghijklmno", toy=toy)
    shown = [(event.stable_text, event.unstable_text) for event in events if isinstance(event, Interim)]
    assert shown[:3] == [("a", "bc"), ("abcd", "ef"), ("abcdefg", "hi")]
    # The second connection says "a|bc" and "abcd|ef" first, which would take words back.
    assert shown[3:] == [("abcdefg", "hi"), ("abcdefghij", "kl"), ("abcdefghijklm", "no")]
    assert finals(events) == ["abcdefghijklmno"]


async def test_a_stream_survives_a_restart_of_its_service() -> None:
    toy = Toy()
    records: list[CallRecord] = []
    first = await start(Script(stream=toy))
    killed = asyncio.Event()

    async def talk() -> AsyncIterator[bytes]:
        yield speech("ab        cd")
        await killed.wait()
        yield speech("ef")

    async with SttClient(first.target, telemetry=records.append) as client:
        events: list[StreamEvent] = []
        again = None
        async for event in client.stream(talk(), encoding=FORMAT, resume=True):
            events.append(event)
            if isinstance(event, Final) and again is None:
                await first.stop()
                again = await start(Script(stream=Toy()), first.target)
                killed.set()
        assert again is not None
        await again.stop()
    assert finals(events) == ["ab", "cdef"]
    assert records[-1].ok
    assert {record.error_type for record in records[:-1]} == {"upstream_unavailable"}
    assert len({record.request_id for record in records}) == 1


async def test_without_resume_a_lost_connection_is_raised() -> None:
    toy = Toy(break_at=Breaks(("events", 2)))
    async with serving(Script(stream=toy)) as served, SttClient(served.target) as client:
        with pytest.raises(UpstreamUnavailable, match="Socket closed"):
            _ = [event async for event in client.stream(chunks(SAID), encoding=FORMAT)]
    assert len(toy.received) == 1


async def test_attempts_without_progress_are_limited() -> None:
    toy = Toy(break_at=Breaks(*[("bytes", 1)] * 1000))
    closed = asyncio.Event()
    async with serving(Script(stream=toy)) as served, SttClient(served.target) as client:
        with pytest.raises(UpstreamUnavailable):
            _ = [event async for event in client.stream(endless(closed), encoding=FORMAT, resume=True)]
    assert len(toy.received) == 5
    assert closed.is_set()


async def test_each_final_counts_as_progress() -> None:
    """Every connection breaks after its first final: many more than the attempts without progress."""
    said = "ab      " * 20
    toy = Toy(break_at=Breaks(*[("events", 3)] * 1000))
    events = await collect(said, toy=toy)
    assert finals(events) == ["ab"] * 20
    assert len(toy.received) > 10


async def test_connection_errors_of_the_audio_iterator_are_raised() -> None:
    async def relayed() -> AsyncIterator[bytes]:
        yield speech("ab")
        raise NotReady("where the audio comes from")

    toy = Toy()
    async with serving(Script(stream=toy)) as served, SttClient(served.target) as client:
        with pytest.raises(NotReady, match="where the audio comes from"):
            _ = [event async for event in client.stream(relayed(), encoding=FORMAT, resume=True)]
    assert len(toy.received) == 1


async def test_cancelling_during_a_reconnect_pause_closes_the_audio(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stt_client.streaming.stream.RESUME", resume.Backoff(first_s=3600, most_s=3600))
    toy = Toy(break_at=Breaks(("bytes", 200 * FRAME_BYTES)))
    closed = asyncio.Event()
    waiting = asyncio.Event()
    pause = resume.Attempts.pause

    async def noted(self: resume.Attempts, seconds: float, left: float | None) -> None:
        waiting.set()
        await pause(self, seconds, left)

    monkeypatch.setattr(resume.Attempts, "pause", noted)
    async with serving(Script(stream=toy)) as served, SttClient(served.target) as client:

        async def listen() -> None:
            _ = [event async for event in client.stream(endless(closed), encoding=FORMAT, resume=True)]

        task = asyncio.create_task(listen())
        await asyncio.wait_for(waiting.wait(), WAIT_S)
        assert not closed.is_set()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert closed.is_set()


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("upwards", [True, False])
async def test_connections_cut_by_the_network_are_reestablished(seed: int, upwards: bool) -> None:
    """Cut after any byte on the way there, or back: in the middle of a message, or of what was not read yet."""
    rng = random.Random(seed)
    late = rng.choice([0, 9])
    whole = await collect(SAID, toy=Toy(late=late))
    sent = len(speech(SAID))
    # Of what comes back, gRPC joins or parts its own messages as time allows: half of the usual is always there.
    limits = [rng.randint(200, sent if upwards else 1500) for _ in range(3)]
    toy = Toy(late=late)
    async with (
        serving(Script(stream=toy)) as served,
        cutting(served.target, limits, upwards=upwards) as (proxy, target),
    ):
        async with SttClient(target) as client:
            events = [event async for event in client.stream(chunks(SAID), encoding=FORMAT, resume=True)]
        assert proxy.cuts > 0
    assert told(events) == told(whole)
    check_interims(events)
