"""`resume`: whatever breaks, the caller sees what an unbroken stream would have said."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import grpc
import pytest

from stt_client import FLUSH, CallRecord, Final, Flush, Interim, SpeechEvent, StreamEvent, SttClient, SttPool
from stt_client.errors import NotReady, UpstreamUnavailable
from stt_client.streaming import resume
from stt_client.streaming.audio_source import AudioSource
from tests.client.test_stream import WAIT_S, chunks, endless, finals
from tests.client.toy_stream import FORMAT, FRAME_BYTES, RATE, Toy, speech
from tests.support.contract_script import Failure, Script
from tests.support.contract_service import serving, start
from tests.support.cut_proxy import cutting
from tests.support.services import until

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


async def collected(stream: AsyncIterator[StreamEvent]) -> list[StreamEvent]:
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
async def test_wherever_it_breaks_nothing_is_lost_and_nothing_comes_twice(seed: int) -> None:
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


async def test_after_a_break_only_what_no_final_covers_is_sent_again() -> None:
    # The first connection breaks on the event after its first final; the second has what followed that utterance.
    toy = Toy(break_at=Breaks(("events", 5)))
    events = await collect("abcdef      ghi", toy=toy)
    assert finals(events) == ["abcdef", "ghi"]
    first, second = toy.received
    assert first.startswith(speech("abcdef"))
    assert second == speech("   ghi")


async def test_audio_that_was_over_when_the_connection_broke_is_half_closed_again() -> None:
    toy = Toy()

    async def break_once(context: Any, sent: int, heard: int) -> None:
        if toy.half_closed.is_set() and len(toy.received) == 1:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")

    toy.break_at = break_once
    events = await collect("ab      cd", toy=toy)
    assert finals(events) == ["ab", "cd"]
    assert [event.type for event in events if isinstance(event, SpeechEvent)] == ["started", "ended"] * 2
    assert len(toy.received) == 2


async def test_a_break_after_the_last_final_is_no_more_than_the_end() -> None:
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


async def test_interims_of_the_interrupted_utterance_wait_until_they_say_again_what_was_stable() -> None:
    toy = Toy(break_at=Breaks(("events", 4)))
    events = await collect("abcdefghijklmno", toy=toy)
    shown = [(event.stable_text, event.unstable_text) for event in events if isinstance(event, Interim)]
    assert shown[:3] == [("a", "bc"), ("abcd", "ef"), ("abcdefg", "hi")]
    # The second connection says "a|bc" and "abcd|ef" first, which would take words back.
    assert shown[3:] == [("abcdefg", "hi"), ("abcdefghij", "kl"), ("abcdefghijklm", "no")]
    assert finals(events) == ["abcdefghijklmno"]


async def test_a_service_that_is_killed_and_comes_back_is_found_again() -> None:
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


async def test_a_pool_goes_on_at_another_member() -> None:
    async with AsyncExitStack() as stack:
        dying, living = Toy(break_at=Breaks(*[("events", 4)] * 100)), Toy()
        targets = [(await stack.enter_async_context(serving(Script(stream=toy)))).target for toy in (dying, living)]
        pool = await stack.enter_async_context(SttPool(targets))
        events = [event async for event in pool.stream(chunks(SAID), encoding=FORMAT, resume=True)]
        assert finals(events) == finals(await collect(SAID, toy=Toy()))
        assert len(dying.received) == len(living.received) == 1


async def test_a_pool_leaves_a_member_that_is_not_ready_for_another() -> None:
    async with AsyncExitStack() as stack:
        toy = Toy()
        draining = await stack.enter_async_context(serving(Script(failure=Failure("not_ready", "draining"))))
        living = await stack.enter_async_context(serving(Script(stream=toy)))
        pool = await stack.enter_async_context(SttPool([draining.target, living.target]))
        events = [event async for event in pool.stream(chunks("ab"), encoding=FORMAT, resume=True)]
    assert finals(events) == ["ab"]
    assert len(draining.script.streams) == 1


@pytest.mark.parametrize("resume", [False, True])
async def test_a_pool_leaves_one_that_cannot_be_reached_for_another(resume: bool) -> None:
    gone = await start(Script(), with_health=False)
    async with serving(Script(stream=Toy())) as living, SttPool([gone.target, living.target]) as pool:
        pool._settled = True  # what the health watches say would leave it out beforehand
        await gone.stop()
        events = [event async for event in pool.stream(chunks("ab"), encoding=FORMAT, resume=resume)]
        assert all(member.in_flight == 0 for member in pool._members)
    assert finals(events) == ["ab"]


async def test_a_stream_that_finds_all_of_a_pool_away_for_a_moment_waits_for_one_to_come_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("stt_client.streaming.stream.RESUME", resume.RESUME)
    async with AsyncExitStack() as stack:
        stopping = await stack.enter_async_context(serving(Script(stream=Toy())))
        restarting = await start(Script(stream=Toy()))
        pool = await stack.enter_async_context(SttPool([stopping.target, restarting.target]))
        await pool.wait_ready(WAIT_S, at_least=2)
        await restarting.stop()
        stopping.script.failure = Failure("not_ready")
        await stopping.set_serving(False)
        stream = pool.stream(chunks("ab"), encoding=FORMAT, resume=True)
        said = asyncio.create_task(collected(stream))
        await until(lambda: stopping.script.streams)
        again = await start(Script(stream=Toy()), restarting.target)
        stack.push_async_callback(again.stop)
        assert finals(await asyncio.wait_for(said, WAIT_S)) == ["ab"]


async def test_streams_spread_over_the_members_for_as_long_as_they_last() -> None:
    closed = asyncio.Event()
    async with AsyncExitStack() as stack:
        toys = [Toy(), Toy()]
        targets = [(await stack.enter_async_context(serving(Script(stream=toy)))).target for toy in toys]
        pool = await stack.enter_async_context(SttPool(targets))

        async def listen() -> None:
            _ = [event async for event in pool.stream(endless(closed), encoding=FORMAT, interim_results=False)]

        tasks = [asyncio.create_task(listen()) for _ in toys]
        for toy in toys:
            await asyncio.wait_for(toy.heard.wait(), WAIT_S)
        assert [member.in_flight for member in pool._members] == [1, 1]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert [member.in_flight for member in pool._members] == [0, 0]


async def test_without_resume_a_lost_connection_is_raised() -> None:
    toy = Toy(break_at=Breaks(("events", 2)))
    async with serving(Script(stream=toy)) as served, SttClient(served.target) as client:
        with pytest.raises(UpstreamUnavailable, match="Socket closed"):
            _ = [event async for event in client.stream(chunks(SAID), encoding=FORMAT)]
    assert len(toy.received) == 1


async def test_it_gives_up_after_so_many_attempts_without_progress() -> None:
    toy = Toy(break_at=Breaks(*[("bytes", 1)] * 1000))
    closed = asyncio.Event()
    async with serving(Script(stream=toy)) as served, SttClient(served.target) as client:
        with pytest.raises(UpstreamUnavailable):
            _ = [event async for event in client.stream(endless(closed), encoding=FORMAT, resume=True)]
    assert len(toy.received) == 5
    assert closed.is_set()


async def test_each_final_is_progress() -> None:
    """Every connection breaks after its first final: many more than the attempts without progress."""
    said = "ab      " * 20
    toy = Toy(break_at=Breaks(*[("events", 3)] * 1000))
    events = await collect(said, toy=toy)
    assert finals(events) == ["ab"] * 20
    assert len(toy.received) > 10


async def test_an_error_of_the_audio_is_the_callers_even_if_it_looks_like_a_lost_connection() -> None:
    async def relayed() -> AsyncIterator[bytes]:
        yield speech("ab")
        raise NotReady("where the audio comes from")

    toy = Toy()
    async with serving(Script(stream=toy)) as served, SttClient(served.target) as client:
        with pytest.raises(NotReady, match="where the audio comes from"):
            _ = [event async for event in client.stream(relayed(), encoding=FORMAT, resume=True)]
    assert len(toy.received) == 1


async def test_closing_it_while_it_waits_to_reconnect_closes_the_audio(monkeypatch: pytest.MonkeyPatch) -> None:
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


async def drain(source: AudioSource, count: int) -> list[bytes | Flush | None]:
    return [await source.next() for _ in range(count)]


def seconds(*counts: int) -> AsyncIterator[bytes | Flush]:
    async def made() -> AsyncIterator[bytes | Flush]:
        for count in counts:
            yield bytes(count * RATE * 2)

    return made()


async def test_silence_that_goes_on_for_ever_is_kept_only_in_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stt_client.streaming.audio_source.KEPT_BYTES", 0)
    source = AudioSource(seconds(*[7] * 20), FORMAT, keep=True)
    await drain(source, 20)
    assert await source.next() is None
    assert 140 - 60 - 7 <= source.rewind() <= 140 - 60
    kept = [item for item in await drain(source, 9) if isinstance(item, bytes)]
    assert 60 * RATE * 2 <= sum(map(len, kept)) <= 67 * RATE * 2
    await source.close()


async def test_speech_that_no_final_covers_is_never_dropped_but_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stt_client.streaming.audio_source.KEPT_BYTES", 0)
    source = AudioSource(seconds(*[7] * 20), FORMAT, keep=True)
    source.cover(0.0, needed=True)
    await drain(source, 9)
    waiting = asyncio.create_task(source.next())
    done, _ = await asyncio.wait({waiting}, timeout=0.05)
    assert not done
    source.cover(30.0, needed=False)
    assert isinstance(await asyncio.wait_for(waiting, WAIT_S), bytes)
    await source.close()


async def test_what_is_kept_begins_on_a_sample_however_the_chunks_fall() -> None:
    async def odd() -> AsyncIterator[bytes | Flush]:
        for _ in range(3):
            yield bytes(range(1, 8))

    source = AudioSource(odd(), FORMAT, keep=True)
    await drain(source, 3)
    source.cover(4.5 / RATE, needed=False)
    assert source.rewind() == 4 / RATE
    assert await source.next() == bytes([2, 3, 4, 5, 6, 7])
    await source.close()


def test_pauses_grow_are_bounded_and_end() -> None:
    attempts = resume.Attempts(resume.Backoff(first_s=1, most_s=4, rounds=5))
    pauses = [attempts.next_pause("a", 1) for _ in range(6)]
    assert pauses.pop() is None
    for pause, most in zip(pauses, (1, 2, 4, 4, 4)):
        assert pause is not None and most / 2 <= pause <= most
    attempts.progress()
    assert attempts.next_pause("a", 2) == 0.0
    assert attempts.failed == {"a"}
    first = attempts.next_pause("b", 2)
    assert first is not None and 0.5 <= first <= 1


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("upwards", [True, False])
async def test_connections_that_the_network_cuts_are_made_again(seed: int, upwards: bool) -> None:
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
