"""`resume`: lost connections don't change the events that the caller gets."""

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
from tests.support.contract_script import Script
from tests.support.contract_service import serving, start
from tests.support.cut_proxy import cutting
from tests.support.letter_stream import FORMAT, FRAME_BYTES, WAIT_S, Letters, chunks, endless, finals, speech

SPEECH = "  abcdefg       hijkl      mnopqrstuvwxyz          ABC       DEFGHIJ KLMNO       P"


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stt_client.streaming.stream.RESUME", resume.Backoff(first_s=0.001, most_s=0.002, rounds=4))


class Breaks:
    """Aborts connections one after another, each after a number of events sent or bytes received."""

    def __init__(self, *limits: tuple[str, int], status: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE) -> None:
        self._limits = list(limits)
        self._status = status
        self.broken = 0

    async def __call__(self, context: Any, sent: int, received: int) -> None:
        if self.broken < len(self._limits):
            kind, limit = self._limits[self.broken]
            if (sent if kind == "events" else received) >= limit:
                self.broken += 1
                await context.abort(self._status, "Socket closed")


async def collect(*parts: str | Flush, letters: Letters, size: int = FRAME_BYTES, **options: Any) -> list[StreamEvent]:
    async with serving(Script(stream=letters)) as served, SttClient(served.target) as client:
        stream = client.stream(chunks(*parts, size=size), encoding=FORMAT, resume=True, **options)
        return [event async for event in stream]


def without_interims(events: list[StreamEvent]) -> list[tuple[Any, ...]]:
    """Events that lost connections must not change: all but interims."""
    return [
        (event.type, event.offset)
        if isinstance(event, SpeechEvent)
        else (event.utterance, event.result.text, event.result.segments)
        for event in events
        if not isinstance(event, Interim)
    ]


def check_interims(events: list[StreamEvent]) -> None:
    """Check that stable text only grows, utterances are in order and times don't decrease."""
    stable: dict[int, str] = {}
    finished = -1
    processed = 0.0
    for event in events:
        assert event.audio_processed >= processed
        processed = event.audio_processed
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
    parts: list[str | Flush] = [SPEECH[:30], FLUSH, SPEECH[30:]] if seed % 2 else [SPEECH]
    size = rng.choice([1600, 371, 10_000, 40_001])
    late = rng.choice([0, 0, 9, 25])
    whole = await collect(*parts, letters=Letters(late=late), size=size)
    limits = [
        ("events", rng.randint(0, 12)) if rng.random() < 0.5 else ("bytes", rng.randint(0, 60 * FRAME_BYTES))
        for _ in range(rng.randint(1, 4))
    ]
    breaks = Breaks(*limits)
    events = await collect(*parts, letters=Letters(late=late, break_at=breaks), size=size)
    assert breaks.broken > 0
    assert without_interims(events) == without_interims(whole)
    check_interims(events)


async def test_only_audio_without_a_final_is_sent_again() -> None:
    # The first connection is lost after its first final; the second gets the audio after that utterance.
    letters = Letters(break_at=Breaks(("events", 5)))
    events = await collect("abcdef      ghi", letters=letters)
    assert finals(events) == ["abcdef", "ghi"]
    first, second = letters.received
    assert first.startswith(speech("abcdef"))
    assert second == speech("   ghi")


async def test_a_new_connection_is_half_closed_if_the_audio_has_ended() -> None:
    letters = Letters()

    async def break_once(context: Any, sent: int, received: int) -> None:
        if letters.half_closed.is_set() and len(letters.received) == 1:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")

    letters.break_at = break_once
    events = await collect("ab      cd", letters=letters)
    assert finals(events) == ["ab", "cd"]
    assert [event.type for event in events if isinstance(event, SpeechEvent)] == ["started", "ended"] * 2
    assert len(letters.received) == 2


async def test_a_connection_lost_after_the_last_final_ends_the_stream() -> None:
    letters = Letters()

    async def break_late(context: Any, sent: int, received: int) -> None:
        if sent == 3:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")

    class Late(Letters):
        async def __call__(self, requests: Any, context: Any) -> AsyncIterator[Any]:
            async for response in super().__call__(requests, context):
                yield response
            await break_late(context, 3, 0)

    letters = Late()
    events = await collect("ab", letters=letters)
    assert finals(events) == ["ab"]
    assert len(letters.received) == 1


async def test_interims_resume_once_they_include_the_stable_text() -> None:
    letters = Letters(break_at=Breaks(("events", 4)))
    events = await collect("abcdefghijklmno", letters=letters)
    shown = [(event.stable_text, event.unstable_text) for event in events if isinstance(event, Interim)]
    assert shown[:3] == [("a", "bc"), ("abcd", "ef"), ("abcdefg", "hi")]
    # The second connection message "a|bc" and "abcd|ef" first, which would retract stable text.
    assert shown[3:] == [("abcdefg", "hi"), ("abcdefghij", "kl"), ("abcdefghijklm", "no")]
    assert finals(events) == ["abcdefghijklmno"]


async def test_a_stream_survives_a_restart_of_its_service() -> None:
    letters = Letters()
    records: list[CallRecord] = []
    first = await start(Script(stream=letters))
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
                again = await start(Script(stream=Letters()), first.target)
                killed.set()
        assert again is not None
        await again.stop()
    assert finals(events) == ["ab", "cdef"]
    assert records[-1].ok
    assert {record.error_type for record in records[:-1]} == {"upstream_unavailable"}
    assert len({record.request_id for record in records}) == 1


async def test_without_resume_a_lost_connection_is_raised() -> None:
    letters = Letters(break_at=Breaks(("events", 2)))
    async with serving(Script(stream=letters)) as served, SttClient(served.target) as client:
        with pytest.raises(UpstreamUnavailable, match="Socket closed"):
            _ = [event async for event in client.stream(chunks(SPEECH), encoding=FORMAT)]
    assert len(letters.received) == 1


async def test_attempts_without_progress_are_limited() -> None:
    letters = Letters(break_at=Breaks(*[("bytes", 1)] * 1000))
    closed = asyncio.Event()
    async with serving(Script(stream=letters)) as served, SttClient(served.target) as client:
        with pytest.raises(UpstreamUnavailable):
            _ = [event async for event in client.stream(endless(closed), encoding=FORMAT, resume=True)]
    assert len(letters.received) == 5
    assert closed.is_set()


async def test_each_final_counts_as_progress() -> None:
    """Connections that each deliver one final may outnumber the attempts without progress."""
    speech_of_20 = "ab      " * 20
    letters = Letters(break_at=Breaks(*[("events", 3)] * 1000))
    events = await collect(speech_of_20, letters=letters)
    assert finals(events) == ["ab"] * 20
    assert len(letters.received) > 10


async def test_connection_errors_of_the_audio_iterator_are_raised() -> None:
    async def relayed() -> AsyncIterator[bytes]:
        yield speech("ab")
        raise NotReady("where the audio comes from")

    letters = Letters()
    async with serving(Script(stream=letters)) as served, SttClient(served.target) as client:
        with pytest.raises(NotReady, match="where the audio comes from"):
            _ = [event async for event in client.stream(relayed(), encoding=FORMAT, resume=True)]
    assert len(letters.received) == 1


async def test_cancelling_during_a_reconnect_pause_closes_the_audio(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stt_client.streaming.stream.RESUME", resume.Backoff(first_s=3600, most_s=3600))
    letters = Letters(break_at=Breaks(("bytes", 200 * FRAME_BYTES)))
    closed = asyncio.Event()
    waiting = asyncio.Event()
    pause = resume.Attempts.pause

    async def noted(self: resume.Attempts, seconds: float, left: float | None) -> None:
        waiting.set()
        await pause(self, seconds, left)

    monkeypatch.setattr(resume.Attempts, "pause", noted)
    async with serving(Script(stream=letters)) as served, SttClient(served.target) as client:

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
    """Connections are cut after any byte in either direction, within a message or unread data."""
    rng = random.Random(seed)
    late = rng.choice([0, 9])
    whole = await collect(SPEECH, letters=Letters(late=late))
    sent = len(speech(SPEECH))
    # The size of what comes back varies with how gRPC merges its frames: half of the usual size is always reached.
    limits = [rng.randint(200, sent if upwards else 1500) for _ in range(3)]
    letters = Letters(late=late)
    async with (
        serving(Script(stream=letters)) as served,
        cutting(served.target, limits, upwards=upwards) as (proxy, target),
    ):
        async with SttClient(target) as client:
            events = [event async for event in client.stream(chunks(SPEECH), encoding=FORMAT, resume=True)]
        assert proxy.cuts > 0
    assert without_interims(events) == without_interims(whole)
    check_interims(events)
