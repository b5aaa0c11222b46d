"""Events of live streams over a socket, with a scripted model."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf.duration_pb2 import Duration

from protos.stt.v1 import speech_pb2 as pb
from stt_server.engine.types import ChunkJob
from stt_server.errors import EngineError
from stt_server.rpc.convert import seconds
from stt_server.testing.scripted_model import Script, ScriptedModel
from tests.support.no_speech import corpus
from tests.support.services import running, stub_of, until
from tests.support.speech import RATE, clip, samples_of, silence
from tests.support.streams import (
    FLUSH,
    MIDDLE,
    audio,
    audio_processed,
    config,
    finals,
    kind_of,
    metric,
    offsets,
    opened,
    pcm,
    recording_of,
    stream,
)

TEXT = "the quick brown fox jumps over the lazy dog"
FOX = recording_of("quick_brown_fox")
TWO = audio(pcm(recording_of("quick_brown_fox", "hello_world")))
HALF, REST = FOX[:MIDDLE], FOX[MIDDLE:]
"""HALF ends in the middle of the speech."""


def words_by_length(job: ChunkJob) -> Script:
    """One word per half second of audio, so that each draft has more words than the last one."""
    words = TEXT.split()
    return Script(text=" " + " ".join(words[: max(1, round(2 * len(job.chunk.samples) / RATE))]))


async def test_an_utterance_is_started_drafted_ended_and_final(stub: Any, model: ScriptedModel) -> None:
    model.by_job = words_by_length
    caller = await opened(stub)
    await caller.send_in_real_time(FOX)
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
    processed = [seconds(response.audio_processed) for response in responses]
    assert processed == sorted(processed)
    assert processed[-1] <= len(FOX) / RATE + 0.1


async def test_a_final_covers_the_whole_utterance(stub: Any, model: ScriptedModel) -> None:
    responses = await stream(stub, config(interim_results=False), TWO)
    first, second = finals(responses)
    assert [final.utterance for final in (first, second)] == [0, 1]
    assert first.result.text == TEXT
    started, ended = offsets(responses, "started"), offsets(responses, "ended")
    for final, begin, end in zip((first, second), started, ended):
        segment = final.result.segments[0]
        assert seconds(segment.start) == pytest.approx(begin - 0.4, abs=0.1), "times count from the start of the stream"
        assert seconds(final.result.audio_duration) == pytest.approx(end - begin + 0.7, abs=0.1)
        assert final.result.routing.final_model == "scripted-small"
        assert final.result.language == "en"
        assert final.result.request_id
        assert seconds(final.result.timings.total) >= 0


async def test_interims_are_sent_only_on_request(stub: Any, model: ScriptedModel) -> None:
    caller = await opened(stub, interim_results=False)
    await caller.send_audio(FOX)
    responses = await caller.finish()
    assert [kind_of(response) for response in responses] == ["started", "ended", "final"]
    assert not any(job.draft for job in model.jobs)


async def test_stable_text_only_grows_but_does_not_bind_the_final(stub: Any, model: ScriptedModel) -> None:
    texts = iter([" one two", " one two three", " one too", " won two three four", " one two three four five"])
    model.by_job = lambda job: Script(text=next(texts, " one") if job.draft else " something else was recognized")
    caller = await opened(stub)
    await caller.send_in_real_time(FOX)
    responses = await caller.finish()
    stable = [r.interim.stable_text for r in responses if kind_of(r) == "interim"]
    assert len(set(stable)) > 1
    assert all(later.startswith(earlier) for earlier, later in pairwise(stable))
    assert finals(responses)[0].result.text == "something else was recognized"


async def test_flush_ends_the_utterance_at_once(stub: Any, model: ScriptedModel) -> None:
    caller = await opened(stub)
    await caller.send_audio(HALF)
    await caller.send(FLUSH)
    final = await caller.next("final")
    assert final.final.utterance == 0
    await caller.send_audio(REST)
    assert [f.utterance for f in finals(await caller.finish())] == [0, 1]


async def test_half_close_finishes_the_last_utterance(stub: Any) -> None:
    caller = await opened(stub)
    await caller.send_audio(HALF)
    responses = await caller.finish()
    assert kind_of(responses[-1]) == "final"
    assert await caller.call.code() is grpc.StatusCode.OK


async def test_single_utterance_ends_the_stream_after_its_final(stub: Any) -> None:
    caller = await opened(stub, single_utterance=True, interim_results=False)
    await caller.send(TWO)
    responses = await caller.rest()
    assert [kind_of(response) for response in responses] == ["started", "ended", "final"]


async def test_a_longer_endpoint_silence_joins_utterances(stub: Any) -> None:
    samples = audio(pcm(recording_of("quick_brown_fox", "hello_world", pause=0.4)))
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


async def test_possible_speech_is_sent_only_if_it_has_text(stub: Any, model: ScriptedModel) -> None:
    snippet = np.concatenate([silence(0.5), samples_of(clip("en", "hello_world"))[: RATE // 4], silence(3)])
    responses = await stream(stub, config(), audio(pcm(snippet)))
    assert [kind_of(response) for response in responses] == ["started", "ended", "final"]
    assert not model.jobs[-1].chunk.speech_certain
    model.script = Script(suppressed="low_logprob")
    assert await stream(stub, config(), audio(pcm(snippet))) == []


async def test_an_engine_failure_ends_the_stream(stub: Any, model: ScriptedModel) -> None:
    model.script.error = EngineError("the model failed on this recording")
    caller = await opened(stub)
    await caller.send_audio(FOX)
    code, kind, _ = await caller.failure()
    assert (code, kind) == (grpc.StatusCode.INTERNAL, "internal")
    assert [kind_of(response) for response in caller.responses] == ["started", "ended"]


async def test_metrics_count_streams_apart_from_requests(tmp_path: Path, model: ScriptedModel) -> None:
    async with running(tmp_path, "primary", model) as service, stub_of(service) as stub:
        await stream(stub, config(), TWO)
        with pytest.raises(grpc.aio.AioRpcError):
            await stream(stub, audio(b"xx"))
        await until(lambda: service.readiness.in_flight == 0)
        assert metric(service, 'stt_requests_total{endpoint="/v1/stream"}') == 2
        assert metric(service, 'stt_requests_exceptions_total{endpoint="/v1/stream",type="invalid_argument"}') == 1
        assert metric(service, 'stt_utterances_total{result="skipped"}') == 2
        assert metric(service, 'stt_fallback_total{result="skipped"}') == 0, "counts requests, not utterances"
        assert metric(service, "stt_stream_final_after_endpoint_seconds_count") == 2
        assert metric(service, "stt_audio_seconds_total") == pytest.approx(audio_processed(service))
        assert metric(service, "stt_streams_active") == 0
