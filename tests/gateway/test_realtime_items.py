"""`GET /v1/realtime`: audio becomes items, by server VAD and by hand."""

from __future__ import annotations

import pytest
import pytest_asyncio

from gateway.http.server import GatewayServer
from tests.support.contract_script import Failure
from tests.support.contract_service import ContractService
from tests.support.letter_stream import FRAME_S, Letters, speech
from tests.support.realtime_caller import TRANSCRIPTION, Event, realtime

pytestmark = pytest.mark.asyncio(loop_scope="session")

MANUAL = {"turn_detection": None}
COMMITTED = ["input_audio_buffer.committed", "conversation.item.added", "conversation.item.done"]
STARTED, STOPPED = "input_audio_buffer.speech_started", "input_audio_buffer.speech_stopped"
GAP = " " * 6
"""Silence that ends a turn: 0.6 s."""


@pytest_asyncio.fixture(loop_scope="session")
async def letters(service: ContractService) -> Letters:
    service.script.stream = letters = Letters()
    return letters


def assert_chain(events: list[Event]) -> None:
    """Check that each item names the one before it."""
    before = None
    for event in events:
        assert event["previous_item_id"] == before
        before = event["item_id"]


async def test_each_utterance_is_an_item(gateway: GatewayServer, letters: Letters) -> None:
    async with realtime(gateway.port) as caller:
        await caller.say("  hello there" + GAP)
        first = await caller.completed()
        await caller.say("again" + GAP)
        second = await caller.completed()
    assert [first["transcript"], second["transcript"]] == ["hello there", "again"]
    turn = [STARTED, "delta", STOPPED, *COMMITTED, "completed"]
    kinds = [kind for at, kind in enumerate(caller.kinds) if kind != "delta" or caller.kinds[at - 1] != "delta"]
    rests = [kind for at, kind in enumerate(kinds) if not (kind == "delta" and kinds[at - 1] == COMMITTED[-1])]
    assert rests == ["session.created", "session.updated", *turn, *turn]
    assert_chain(caller.of(COMMITTED[0]))
    assert {event["item_id"] for event in caller.events if "item_id" in event} == {first["item_id"], second["item_id"]}
    assert len({event["event_id"] for event in caller.events}) == len(caller.events)
    assert caller.deltas(first["item_id"]) == "hello there"


async def test_completed_has_languages_usage_and_routing(gateway: GatewayServer, letters: Letters) -> None:
    async with realtime(gateway.port) as caller:
        await caller.say("hello" + GAP)
        event = await caller.completed()
    assert event["languages"] == [{"code": "en"}]
    assert event["usage"] == {"type": "duration", "seconds": 0.5}
    assert event["routing"]["final_model"] == "tiny" and event["routing"]["reasons"] == ["low_logprob", "few_words"]
    assert event["content_index"] == 0


async def test_times_count_all_audio_of_the_session(gateway: GatewayServer, letters: Letters) -> None:
    async with realtime(gateway.port) as caller:
        await caller.say("   abc" + GAP)
        await caller.completed()
        await caller.update(transcription={"prompt": "another call"})
        await caller.say(" de" + GAP)
        await caller.completed()
        await caller.update(format={"type": "audio/pcm", "rate": 16000})
        await caller.append(bytes(32000))
        await caller.update(format={"type": "audio/pcm", "rate": 8000})
        await caller.say("f" + GAP)
        await caller.completed()
    assert [event["audio_start_ms"] for event in caller.of(STARTED)] == [300, 1300, 3100]
    assert [event["audio_end_ms"] for event in caller.of(STOPPED)] == [600, 1500, 3200]
    assert len(letters.configs) == 4


async def test_committed_item_is_described(gateway: GatewayServer, letters: Letters) -> None:
    async with realtime(gateway.port, settings=MANUAL) as caller:
        await caller.say("abc")
        await caller.commit()
        event = await caller.completed()
    item = {"id": event["item_id"], "object": "realtime.item", "type": "message", "role": "user"}
    item |= {"status": "completed", "content": [{"type": "input_audio", "transcript": None}]}
    added, done = caller.of(*COMMITTED[1:])
    assert added["item"] == done["item"] == item and added["previous_item_id"] is None


async def test_a_commit_takes_all_since_the_last_whatever_the_pauses(gateway: GatewayServer, letters: Letters) -> None:
    async with realtime(gateway.port, settings=MANUAL) as caller:
        await caller.say("one" + " " * 55 + "two" + " " * 60)  # the service ends utterances after 5 s
        await caller.commit()
        first = await caller.completed()
        await caller.say("three")
        await caller.commit()
        second = await caller.completed()
    assert [first["transcript"], second["transcript"]] == ["one two", "three"]
    assert first["usage"]["seconds"] == pytest.approx(121 * FRAME_S)
    assert second["usage"]["seconds"] == pytest.approx(5 * FRAME_S)
    assert caller.deltas(first["item_id"]) == "one two"
    assert not caller.of(STARTED, STOPPED)
    assert_chain(caller.of(COMMITTED[0]))


@pytest.mark.parametrize("settings", [{}, MANUAL])
async def test_commits_in_quick_succession_have_one_result_each(
    gateway: GatewayServer, letters: Letters, settings: Event
) -> None:
    async with realtime(gateway.port, settings=settings) as caller:
        for text in ("abc", "    ", "de"):
            await caller.say(text)
            await caller.commit()
        found = [await caller.completed() for _ in range(3)]
    assert [event["transcript"] for event in found] == ["abc", "", "de"]
    assert [event["item_id"] for event in found] == [event["item_id"] for event in caller.of(COMMITTED[0])]
    empty = found[1]
    assert (empty["languages"], empty["routing"]["fallback_used"]) == ([], False)
    assert empty["usage"]["seconds"] == pytest.approx(4 * FRAME_S)


async def test_deltas_come_before_the_commit(gateway: GatewayServer, letters: Letters) -> None:
    async with realtime(gateway.port, settings=MANUAL) as caller:
        await caller.say("abcdef")
        delta = await caller.next(f"{TRANSCRIPTION}.delta")
        await caller.next(f"{TRANSCRIPTION}.delta")
        assert caller.deltas(delta["item_id"]) == "abcd"
        await caller.commit()
        final = await caller.completed()
    assert final["item_id"] == delta["item_id"]
    assert caller.deltas(final["item_id"]) == final["transcript"] == "abcdef"


async def test_a_commit_ends_the_turn_that_vad_has_not(gateway: GatewayServer, letters: Letters) -> None:
    async with realtime(gateway.port) as caller:
        await caller.say("abc")
        await caller.commit()
        assert (await caller.completed())["transcript"] == "abc"
    assert caller.kinds.count("completed") == caller.kinds.count(COMMITTED[0]) == 1


async def test_a_commit_after_silence_is_an_empty_item(gateway: GatewayServer, letters: Letters) -> None:
    async with realtime(gateway.port) as caller:
        await caller.say("abc" + GAP)
        await caller.completed()
        await caller.say("  ")
        await caller.commit()
        empty = await caller.completed()
    assert (empty["transcript"], empty["languages"]) == ("", [])
    assert empty["usage"]["seconds"] == pytest.approx(0.3)  # the turn ended after 0.5 s of the gap
    assert_chain(caller.of(COMMITTED[0]))


@pytest.mark.parametrize("settings", [{}, MANUAL])
async def test_less_than_a_tenth_of_a_second_is_not_committed(
    gateway: GatewayServer, letters: Letters, settings: Event
) -> None:
    async with realtime(gateway.port, settings=settings) as caller:
        await caller.append(speech("a")[:1598])
        await caller.commit(event_id="mine")
        error = (await caller.next("error"))["error"]
        await caller.append(speech("a")[1598:])
        await caller.commit()
        assert (await caller.completed())["transcript"] == "a"
        await caller.commit()
        again = (await caller.next("error"))["error"]
    assert error["code"] == again["code"] == "input_audio_buffer_commit_empty"
    assert (error["type"], error["event_id"], again["event_id"]) == ("invalid_request_error", "mine", None)
    assert "0.1 s" in error["message"]


async def test_audio_may_be_cut_within_samples(gateway: GatewayServer, service: ContractService) -> None:
    async with realtime(gateway.port, settings=MANUAL) as caller:
        audio = bytes(range(256)) * 40
        cuts = (0, 1, 2, 1601, 5000, 5001, 8001)
        for begin, end in zip(cuts, (*cuts[1:], None)):
            await caller.append(audio[begin:end])
            if begin == 5000:
                await caller.commit()
        assert (await caller.completed())["transcript"] == "5000 bytes"
        await caller.commit()
        assert (await caller.completed())["transcript"] == "5240 bytes"
    assert b"".join(stream.audio for stream in service.script.streams) == audio


@pytest.mark.parametrize("settings", [{}, MANUAL])
async def test_clear_drops_what_no_item_has(gateway: GatewayServer, letters: Letters, settings: Event) -> None:
    async with realtime(gateway.port, settings=settings) as caller:
        await caller.say("abcdef")
        await caller.next(f"{TRANSCRIPTION}.delta")
        await caller.send("input_audio_buffer.clear")
        await caller.next("input_audio_buffer.cleared")
        await caller.commit()
        assert (await caller.next("error"))["error"]["code"] == "input_audio_buffer_commit_empty"
        await caller.say("xyz")
        await caller.commit()
        kept = await caller.completed()
    assert kept["transcript"] == "xyz"
    assert kept["usage"]["seconds"] == pytest.approx(0.3)
    assert caller.kinds.count(COMMITTED[0]) == caller.kinds.count("completed") == 1


async def test_clear_keeps_the_transcript_of_a_committed_item(gateway: GatewayServer, letters: Letters) -> None:
    letters.late = 4  # the final comes 0.4 s of audio after the end of the utterance
    async with realtime(gateway.port) as caller:
        await caller.say("abc" + "     " + "de")
        await caller.next(STOPPED)
        await caller.send("input_audio_buffer.clear")
        await caller.next("input_audio_buffer.cleared")
        assert (await caller.completed())["transcript"] == "abc"
        await caller.say("x" + GAP + GAP)
        assert (await caller.completed())["transcript"] == "x"


async def test_settings_hold_for_the_audio_behind_them(gateway: GatewayServer, letters: Letters) -> None:
    async with realtime(gateway.port) as caller:
        await caller.say("abc")
        await caller.update(transcription={"prompt": "names", "keywords": ["Zug", "Bahn"]})
        assert (await caller.completed())["transcript"] == "abc"
        await caller.say("de")
        await caller.commit()
        assert (await caller.completed())["transcript"] == "de"
    before, after = letters.configs
    assert (before.options.prompt, after.options.prompt) == ("", "names")
    assert list(after.options.hotwords) == ["Zug", "Bahn"]


async def test_settings_that_change_nothing_keep_the_call(gateway: GatewayServer, letters: Letters) -> None:
    async with realtime(gateway.port) as caller:
        await caller.say("abc")
        await caller.update(noise_reduction={"type": "near_field"}, transcription={"model": "whisper-1"})
        await caller.say("de" + GAP)
        assert (await caller.completed())["transcript"] == "abcde"
    assert len(letters.configs) == 1


async def test_an_item_goes_on_over_a_change_of_settings(gateway: GatewayServer, letters: Letters) -> None:
    async with realtime(gateway.port, settings=MANUAL) as caller:
        await caller.say("abc")
        await caller.update(transcription={"prompt": "names"})
        await caller.say("de")
        await caller.commit()
        event = await caller.completed()
    assert (event["transcript"], event["usage"]["seconds"]) == ("abc de", 0.5)


async def test_turn_detection_switched_on_ends_the_manual_item(gateway: GatewayServer, letters: Letters) -> None:
    async with realtime(gateway.port, settings=MANUAL) as caller:
        await caller.say("abc")
        await caller.update(turn_detection={"type": "server_vad", "silence_duration_ms": 300})
        assert (await caller.completed())["transcript"] == "abc"
        await caller.say("de   ")
        assert (await caller.completed())["transcript"] == "de"
        await caller.update(turn_detection=None)
        await caller.say("f" + GAP + "g")
        await caller.commit()
        assert (await caller.completed())["transcript"] == "f g"
    assert_chain(caller.of(COMMITTED[0]))


@pytest.mark.parametrize("settings", [{}, MANUAL])
async def test_a_failed_item_ends_no_session(
    gateway: GatewayServer, letters: Letters, service: ContractService, settings: Event
) -> None:
    async def fail_once(context: object, sent: int, received: int) -> None:
        if sent:
            letters.break_at = None
            await service._abort(context, Failure("fallback_failed", "The fallback is down."))

    letters.break_at = fail_once
    async with realtime(gateway.port, settings=settings) as caller:
        await caller.say("abc")
        await caller.say("def")
        if settings:
            await caller.commit()
        failed = await caller.next(f"{TRANSCRIPTION}.failed")
        await caller.say("x")
        await caller.commit()
        assert "x" in (await caller.completed())["transcript"]
    error = {"type": "server_error", "code": "fallback_failed", "message": "The fallback is down.", "param": None}
    assert failed["error"] == error
    assert failed["item_id"] == caller.of(COMMITTED[0])[0]["item_id"]
