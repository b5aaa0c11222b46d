"""Live streams over a real socket with a scripted model: what is sent when, and what happens to those who misbehave."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf.duration_pb2 import Duration

from protos.stt.v1 import speech_pb2 as pb
from protos.stt.v1 import speech_pb2_grpc
from stt_server.app import Service
from stt_server.engine.types import ChunkJob
from stt_server.errors import EngineError
from stt_server.rpc.convert import seconds
from stt_server.testing.scripted_model import Script, ScriptedModel
from tests.support.no_speech import corpus
from tests.support.services import channel_to, running, stub_of, transcribe, until
from tests.support.speech import RATE, Samples, clip, samples_of, silence
from tests.support.streams import FLUSH, Caller, audio, config, finals, kind_of, offsets, opened, pcm, stream

TEXT = "the quick brown fox jumps over the lazy dog"


def said(*names: str, pause: float = 1.0) -> Samples:
    parts = [silence(0.5)]
    for name in names:
        parts += [samples_of(clip("en", name)), silence(pause)]
    return np.concatenate(parts)


FOX = said("quick_brown_fox")
HALF = FOX[: int(1.8 * RATE)]
"""Ends while somebody speaks."""
REST = FOX[int(1.8 * RATE) :]


def words_by_length(job: ChunkJob) -> Script:
    """As many words as the audio has half seconds, so that each draft says more than the last one."""
    words = TEXT.split()
    return Script(text=" " + " ".join(words[: max(1, round(2 * len(job.chunk.samples) / RATE))]))


async def test_one_utterance_is_started_drafted_ended_and_final(stub: Any, model: ScriptedModel) -> None:
    model.by_job = words_by_length
    caller = await opened(stub)
    await caller.say_in_real_time(FOX)
    responses = await caller.finish()
    order = [kind_of(response) for response in responses]
    assert order[0] == "started"
    assert order[-2:] == ["ended", "final"]
    assert set(order[1:-2]) == {"interim"}
    first, second = (response.interim for response in responses[1:3])
    assert (first.utterance, first.stable_text, first.language) == (0, "", "en")
    assert second.stable_text
    assert TEXT.startswith(second.stable_text + second.unstable_text)
    assert responses[0].speech_event.offset.seconds == 0
    heard = [seconds(response.audio_processed) for response in responses]
    assert heard == sorted(heard)
    assert heard[-1] <= len(FOX) / RATE + 0.1


async def test_a_final_is_the_answer_to_the_whole_utterance(stub: Any, model: ScriptedModel) -> None:
    responses = await stream(stub, config(interim_results=False), audio(pcm(said("quick_brown_fox", "hello_world"))))
    first, second = finals(responses)
    assert [final.utterance for final in (first, second)] == [0, 1]
    assert first.result.text == TEXT
    started, ended = offsets(responses, "started"), offsets(responses, "ended")
    for final, begin, end in zip((first, second), started, ended):
        segment = final.result.segments[0]
        assert seconds(segment.start) == pytest.approx(begin - 0.4, abs=0.1), "from the start of the stream"
        assert seconds(final.result.audio_duration) == pytest.approx(end - begin + 0.7, abs=0.1)
        assert final.result.routing.final_model == "scripted-small"
        assert final.result.language == "en"
        assert final.result.request_id
        assert seconds(final.result.timings.total) >= 0


async def test_without_interim_results_there_are_none(stub: Any, model: ScriptedModel) -> None:
    caller = await opened(stub, interim_results=False)
    await caller.say(FOX)
    responses = await caller.finish()
    assert [kind_of(response) for response in responses] == ["started", "ended", "final"]
    assert not any(job.draft for job in model.jobs)


async def test_the_stable_text_only_grows_and_a_final_need_not_begin_with_it(stub: Any, model: ScriptedModel) -> None:
    texts = iter([" one two", " one two three", " one too", " won two three four", " one two three four five"])
    model.by_job = lambda job: Script(text=next(texts, " one") if job.draft else " something else was said")
    caller = await opened(stub)
    await caller.say_in_real_time(FOX)
    responses = await caller.finish()
    stable = [r.interim.stable_text for r in responses if kind_of(r) == "interim"]
    assert len(set(stable)) > 1
    assert all(later.startswith(earlier) for earlier, later in pairwise(stable))
    assert finals(responses)[0].result.text == "something else was said"


async def test_flush_ends_the_utterance_now(stub: Any, model: ScriptedModel) -> None:
    caller = await opened(stub)
    await caller.say(HALF)
    await caller.send(FLUSH)
    final = await caller.next("final")
    assert final.final.utterance == 0
    await caller.say(REST)
    assert [f.utterance for f in finals(await caller.finish())] == [0, 1]


async def test_half_close_finishes_the_last_utterance(stub: Any) -> None:
    caller = await opened(stub)
    await caller.say(HALF)
    responses = await caller.finish()
    assert kind_of(responses[-1]) == "final"
    assert await caller.call.code() is grpc.StatusCode.OK


async def test_a_single_utterance_closes_the_stream_behind_its_final(stub: Any) -> None:
    caller = await opened(stub, single_utterance=True, interim_results=False)
    await caller.send(audio(pcm(said("quick_brown_fox", "hello_world"))))
    responses = await caller.rest()
    assert [kind_of(response) for response in responses] == ["started", "ended", "final"]


async def test_a_longer_endpoint_silence_joins_what_a_shorter_one_parts(stub: Any) -> None:
    samples = audio(pcm(said("quick_brown_fox", "hello_world", pause=0.4)))
    long = await stream(stub, config(endpoint_silence=Duration(seconds=2)), samples)
    short = await stream(stub, config(endpoint_silence=Duration(nanos=300_000_000)), samples)
    assert (len(finals(long)), len(finals(short))) == (1, 2)


async def test_options_reach_the_model(stub: Any, model: ScriptedModel) -> None:
    options = pb.TranscribeOptions(
        language="de", prompt="Foxes.", hotwords=["fox"], word_timestamps=True, task=pb.TASK_TRANSLATE
    )
    responses = await stream(stub, config(options=options), audio(pcm(FOX)))
    seen = model.seen[-1]
    assert (seen.language, seen.prompt, seen.hotwords, seen.word_timestamps) == ("de", "Foxes.", ("fox",), True)
    assert seen.task == "translate"
    assert not finals(responses)[0].result.HasField("language_probability")


async def test_noise_sends_nothing(stub: Any, model: ScriptedModel) -> None:
    model.script = Script(suppressed="no_speech")
    for name, samples in corpus():
        if name in ("white_loud", "clicks_loud", "hum_soft", "silence"):
            data = pcm(samples)
            parts = [audio(data[at : at + 2**20]) for at in range(0, len(data), 2**20)]
            assert await stream(stub, config(), *parts) == [], name


async def test_what_may_be_speech_is_sent_only_if_the_model_hears_words(stub: Any, model: ScriptedModel) -> None:
    snippet = np.concatenate([silence(0.5), samples_of(clip("en", "hello_world"))[: RATE // 4], silence(3)])
    responses = await stream(stub, config(), audio(pcm(snippet)))
    assert [kind_of(response) for response in responses] == ["started", "ended", "final"]
    assert not model.jobs[-1].chunk.speech_certain
    model.script = Script(suppressed="low_logprob")
    assert await stream(stub, config(), audio(pcm(snippet))) == []


async def test_the_text_before_is_context_unless_it_is_doubtful(stub: Any, model: ScriptedModel) -> None:
    async def contexts(*scripts: Script) -> list[str]:
        model.jobs.clear()
        model.seen.clear()
        waiting = iter(scripts)
        model.by_job = lambda job: next(waiting)
        caller = await opened(stub, interim_results=False, endpoint_silence=Duration(nanos=300_000_000))
        for _ in scripts:
            await caller.say(FOX, piece=8.0)
            await caller.next("final")
        await caller.finish()
        return [options.context for options in model.seen]

    sure, next_one = Script(text=" the first sentence is here"), Script(text=" and the second one follows")
    assert await contexts(sure, next_one) == ["", "the first sentence is here"]
    unsure = Script(text=" the first sentence is here", confidence=0.2)
    assert await contexts(unsure, next_one) == ["", ""]


async def test_an_answer_that_repeats_its_context_is_decoded_again_without(stub: Any, model: ScriptedModel) -> None:
    model.by_job = lambda job: Script(
        text=" the first sentence is here" if job.options.context or len(model.seen) < 2 else " another one"
    )
    caller = await opened(stub, interim_results=False)
    for _ in range(2):
        await caller.say(FOX, piece=8.0)
        await caller.next("final")
    texts = [final.result.text for final in finals(await caller.finish())]
    assert texts == ["the first sentence is here", "another one"]


async def test_an_utterance_in_another_language_is_decoded_again_without_context(
    stub: Any, model: ScriptedModel
) -> None:
    scripts = iter([Script(text=" the first sentence"), *[Script(text=" ein anderer Satz", language="de")] * 2])
    model.by_job = lambda job: next(scripts)
    caller = await opened(stub, interim_results=False)
    for _ in range(2):
        await caller.say(FOX, piece=8.0)
        await caller.next("final")
    await caller.finish()
    assert [options.context for options in model.seen] == ["", "the first sentence", ""]


@pytest.mark.parametrize(("sure", "language"), [(0.9, "en"), (0.3, "de")])
async def test_a_doubtful_change_of_language_is_believed_if_its_text_is_the_surer_one(
    stub: Any, model: ScriptedModel, sure: float, language: str
) -> None:
    german = Script(text=" ein anderer Satz", language="de", language_probability=0.72, confidence=0.6)
    scripts = iter([Script(text=" the first sentence"), german, german, Script(text=" and a nether", confidence=sure)])
    model.by_job = lambda job: next(scripts)
    caller = await opened(stub, interim_results=False)
    for _ in range(2):
        await caller.say(FOX, piece=8.0)
        await caller.next("final")
    _, second = finals(await caller.finish())
    assert second.result.language == language
    assert second.result.text == (" and a nether" if language == "en" else " ein anderer Satz").strip()
    assert second.result.language_probability == pytest.approx(0.72)
    assert [options.language for options in model.seen] == [None, None, None, "en"]


async def test_a_stream_over_the_limit_is_refused_at_once(tmp_path: Path) -> None:
    async with running(tmp_path, MAX_STREAMS=1) as service, stub_of(service) as stub:
        first = await opened(stub)
        await first.say(HALF)
        await first.next("started")
        code, kind, _ = await (await opened(stub)).failure()
        assert (code, kind) == (grpc.StatusCode.UNAVAILABLE, "overloaded")
        assert (await transcribe(stub))[0].text, "calls are let in"
        await first.finish()
        await until(lambda: gauge(service, "stt_streams_active") == 0)
        assert await stream(stub, config()) == []


async def test_a_stream_that_sends_nothing_gets_its_final_and_is_ended(tmp_path: Path) -> None:
    async with running(tmp_path, STREAM_IDLE_TIMEOUT_S=1) as service, stub_of(service) as stub:
        caller = await opened(stub)
        await caller.say(HALF)
        code, kind, message = await caller.failure()
        assert kind_of(caller.responses[-1]) == "final"
        assert (code, kind) == (grpc.StatusCode.DEADLINE_EXCEEDED, "deadline_exceeded")
        assert "1 s" in message
        silent = Caller(stub.StreamTranscribe())
        assert (await silent.failure())[1] == "deadline_exceeded"


async def test_a_caller_who_leaves_frees_everything(tmp_path: Path, model: ScriptedModel) -> None:
    model.open.clear()
    async with running(tmp_path, "primary", model, MAX_CONCURRENCY=1) as service, stub_of(service) as stub:
        caller = await opened(stub)
        await caller.say(HALF)
        await caller.next("started")
        await asyncio.get_running_loop().run_in_executor(None, model.entered.acquire)
        caller.call.cancel()
        await until(lambda: gauge(service, "stt_streams_active") == 0 and not service._readiness.in_flight)
        assert (service.work.batcher.waiting, service._queue_depth()) == (0, 0)
        model.open.set()
        assert (await transcribe(stub))[0].text
        exposition = service._metrics.exposition()[0]
    assert 'stt_requests_exceptions_total{endpoint="/v1/stream",type="cancelled"} 1.0' in exposition


async def test_interims_are_thinned_while_the_engine_is_busy_and_answers_go_first(
    tmp_path: Path, model: ScriptedModel
) -> None:
    model.open.clear()
    async with running(tmp_path, "primary", model, MAX_CONCURRENCY=1) as service, stub_of(service) as stub:
        blocking = asyncio.ensure_future(transcribe(stub))
        await asyncio.get_running_loop().run_in_executor(None, model.entered.acquire)
        caller = await opened(stub)
        for at in range(0, int(2.5 * RATE), RATE // 2):
            await caller.say(FOX[at : at + RATE // 2])
            await until(lambda at=at: heard(service) >= (at + RATE // 2) / RATE - 0.1)  # type: ignore[misc]
        waiting = asyncio.ensure_future(transcribe(stub))
        await until(lambda: service.work.batcher.waiting == 2)
        assert gauge(service, "stt_stream_interims_thinned_total") >= 1
        model.open.set()
        await asyncio.gather(blocking, waiting)
        await caller.next("interim")
        await caller.say(FOX[int(2.5 * RATE) :])
        await caller.finish()
    order = [job.draft for job in model.jobs[:3]]
    assert order == [False, False, True], "the call that came later went first"
    drafted = model.jobs[2].chunk
    assert drafted.start + len(drafted.samples) / RATE > 2.0, "the draft is of the newest audio"


async def test_a_final_does_not_wait_for_drafts_of_others(tmp_path: Path, model: ScriptedModel) -> None:
    model.open.clear()
    async with running(tmp_path, "primary", model, MAX_CONCURRENCY=2) as service, stub_of(service) as stub:
        talkers = [await opened(stub) for _ in range(3)]
        for talker in talkers:
            await talker.say(HALF)
            await talker.next("started")
        await asyncio.get_running_loop().run_in_executor(None, model.entered.acquire)
        answer = asyncio.ensure_future(transcribe(stub))
        await asyncio.get_running_loop().run_in_executor(None, model.entered.acquire)
        assert [job.draft for job in model.jobs] == [True, False], "one worker is kept from drafts"
        model.open.set()
        assert (await answer)[0].text
        for talker in talkers:
            await talker.finish()


async def test_a_caller_who_reads_nothing_slows_only_itself(tmp_path: Path, model: ScriptedModel) -> None:
    model.by_job = lambda job: Script(text=" word" * 20_000)
    async with running(tmp_path, "primary", model) as service, stub_of(service) as stub, channel_to(service) as other:
        deaf = await opened(stub, interim_results=False)
        sending = asyncio.ensure_future(deaf.say(np.tile(FOX, 400), piece=8.0))
        await until(lambda: stands_still(service))
        before = heard(service)
        assert not sending.done()
        assert before < 400 * len(FOX) / RATE / 2
        quick = await stream(speech_pb2_grpc.SpeechToTextStub(other), config(), audio(pcm(FOX)))
        assert finals(quick)
        sending.cancel()
        deaf.call.cancel()
        await until(lambda: gauge(service, "stt_streams_active") == 0)


async def test_stopping_gives_the_current_utterance_its_final_first(tmp_path: Path, model: ScriptedModel) -> None:
    async with running(tmp_path, "primary", model, DRAIN_TIMEOUT_S=4) as service, stub_of(service) as stub:
        talking, quiet = await opened(stub), await opened(stub)
        await talking.say(HALF)
        await talking.next("started")
        await quiet.say(silence(0.5))
        await until(lambda: heard(service) > 2.1)
        stopping = asyncio.ensure_future(service.stop())
        code, kind, _ = await quiet.failure()
        assert (code, kind) == (grpc.StatusCode.UNAVAILABLE, "not_ready")
        await talking.say(REST)
        code, kind, _ = await talking.failure()
        assert (code, kind) == (grpc.StatusCode.UNAVAILABLE, "not_ready")
        assert kind_of(talking.responses[-1]) == "final"
        await stopping


async def test_stopping_does_not_wait_for_one_who_never_pauses(tmp_path: Path, model: ScriptedModel) -> None:
    async with running(tmp_path, "primary", model, DRAIN_TIMEOUT_S=2) as service, stub_of(service) as stub:
        talking = await opened(stub)
        await talking.say(HALF)
        await talking.next("started")
        stopping = asyncio.ensure_future(service.stop())
        _, kind, _ = await talking.failure()
        assert kind == "not_ready"
        assert kind_of(talking.responses[-1]) == "final"
        await stopping


async def test_an_engine_that_fails_ends_the_stream(stub: Any, model: ScriptedModel) -> None:
    model.script.error = EngineError("the model failed on this recording")
    caller = await opened(stub)
    await caller.say(FOX)
    code, kind, _ = await caller.failure()
    assert (code, kind) == (grpc.StatusCode.INTERNAL, "internal")
    assert [kind_of(response) for response in caller.responses] == ["started", "ended"]


async def test_streams_are_counted_as_what_they_are(tmp_path: Path, model: ScriptedModel) -> None:
    async with running(tmp_path, "primary", model) as service, stub_of(service) as stub:
        await stream(stub, config(), audio(pcm(said("quick_brown_fox", "hello_world"))))
        with pytest.raises(grpc.aio.AioRpcError):
            await stream(stub, audio(b"xx"))
        await until(lambda: service._readiness.in_flight == 0)
        assert gauge(service, 'stt_requests_total{endpoint="/v1/stream"}') == 2
        assert gauge(service, 'stt_requests_exceptions_total{endpoint="/v1/stream",type="invalid_argument"}') == 1
        assert gauge(service, 'stt_utterances_total{result="skipped"}') == 2
        assert gauge(service, 'stt_fallback_total{result="skipped"}') == 0, "of requests, not of utterances"
        assert gauge(service, "stt_stream_final_after_endpoint_seconds_count") == 2
        assert gauge(service, "stt_audio_seconds_total") == pytest.approx(heard(service))
        assert gauge(service, "stt_streams_active") == 0


@contextlib.asynccontextmanager
async def pair(folder: Path, small: ScriptedModel, medium: ScriptedModel, **keys: Any) -> AsyncIterator[Any]:
    async with running(folder, "fallback", medium) as fallback:
        url = f"grpc://127.0.0.1:{fallback.grpc_port}"
        async with running(folder, "primary", small, FALLBACK_URL=url, **keys) as primary, stub_of(primary) as stub:
            yield stub, primary


@pytest.fixture
def medium() -> ScriptedModel:
    return ScriptedModel(Script(text=" the medium text is here", confidence=0.8), name="scripted-medium")


async def test_a_doubtful_utterance_gets_the_fallbacks_text_at_its_place_in_the_stream(
    tmp_path: Path, model: ScriptedModel, medium: ScriptedModel
) -> None:
    model.by_start = lambda start: Script(confidence=0.1 if start > 2 else 0.9)
    async with pair(tmp_path, model, medium) as (stub, primary):
        responses = await stream(stub, config(), audio(pcm(said("quick_brown_fox", "hello_world"))))
        assert gauge(primary, 'stt_utterances_total{result="used"}') == 1
        assert gauge(primary, 'stt_fallback_total{result="used"}') == 0
    first, second = (final.result for final in finals(responses))
    assert not first.routing.fallback_used
    assert (second.text, second.routing.final_model) == ("the medium text is here", "scripted-medium")
    assert second.routing.reasons == [pb.ROUTE_REASON_LOW_LOGPROB]
    assert seconds(second.segments[0].start) == pytest.approx(offsets(responses, "started")[1] - 0.4, abs=0.1)


async def test_a_fallback_that_takes_too_long_is_not_waited_for(
    tmp_path: Path, model: ScriptedModel, medium: ScriptedModel
) -> None:
    model.script.confidence = 0.1
    medium.open.clear()
    async with pair(tmp_path, model, medium, STREAM_FALLBACK_TIMEOUT_S=0.3) as (stub, primary):
        responses = await stream(stub, config(), audio(pcm(FOX)))
        medium.open.set()
        assert gauge(primary, 'stt_utterances_total{result="failed"}') == 1
    result = finals(responses)[0].result
    assert (result.text, result.routing.fallback_error) == (TEXT, "deadline_exceeded")
    assert not result.routing.fallback_used


async def test_a_stream_degrades_where_a_recording_fails(
    tmp_path: Path, model: ScriptedModel, medium: ScriptedModel
) -> None:
    model.script.confidence = 0.1
    nobody = "grpc://127.0.0.1:1"
    async with running(tmp_path, "primary", model, FALLBACK_URL=nobody) as service, stub_of(service) as stub:
        responses = await stream(stub, config(), audio(pcm(FOX)))
    result = finals(responses)[0].result
    assert (result.text, result.routing.fallback_error) == (TEXT, "unavailable")


async def test_only_the_fallback_is_asked_where_that_is_wanted(
    tmp_path: Path, model: ScriptedModel, medium: ScriptedModel
) -> None:
    options = pb.TranscribeOptions(routing=pb.ROUTING_POLICY_FALLBACK_ONLY)
    async with pair(tmp_path, model, medium) as (stub, _):
        responses = await stream(stub, config(options=options, interim_results=False), audio(pcm(FOX)))
    assert finals(responses)[0].result.text == "the medium text is here"
    assert model.jobs == []


async def test_the_next_utterance_is_heard_while_a_final_waits_for_the_fallback(
    tmp_path: Path, model: ScriptedModel, medium: ScriptedModel
) -> None:
    model.script.confidence = 0.1
    medium.open.clear()
    async with pair(tmp_path, model, medium, STREAM_FALLBACK_TIMEOUT_S=20) as (stub, _):
        caller = await opened(stub)
        await caller.say(said("quick_brown_fox", "hello_world"))
        await caller.next("ended")
        await caller.next("ended")
        medium.open.set()
        responses = await caller.finish()
    assert [final.utterance for final in finals(responses)] == [0, 1]


def gauge(service: Service, series: str) -> float:
    lines = service._metrics.exposition()[0].splitlines()
    return next(float(line.rpartition(" ")[2]) for line in lines if line.rpartition(" ")[0] == series)


def heard(service: Service) -> float:
    """Seconds that all streams of a service have heard."""
    return gauge(service, "stt_audio_seconds_total")


def stands_still(service: Service, seen: dict[int, tuple[float, float]] = {}) -> bool:  # noqa: B006
    """Whether no more has been heard for a while."""
    now = asyncio.get_running_loop().time()
    value, since = seen.get(id(service), (-1.0, now))
    if heard(service) != value:
        seen[id(service)] = (heard(service), now)
        return False
    return value > 0 and now - since > 1.0
