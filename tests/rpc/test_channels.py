"""`separate_channels`: each channel by itself, segments merged by time with their channel."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from protos.stt.v1 import speech_pb2 as pb
from stt_server.engine.types import ChunkJob
from stt_server.testing.audio_samples import encode
from stt_server.testing.paths import SPEECH
from stt_server.testing.scripted_model import Script, ScriptedModel
from tests.support.pair import pair
from tests.support.services import running, stub_of, transcribe
from tests.support.speech import RATE, samples_of, silence

TEXTS = {1: "first of the two", 2: "second of the two"}


def call_recording(turns: str, *, codec: str = "pcm_s16le", container: str = "wav") -> bytes:
    """A recording of two channels with speech on one at a time: `1221` is four turns."""
    clip = samples_of(SPEECH)
    quiet = silence(len(clip) / RATE)
    pause = silence(5.0)
    rows = [
        np.concatenate([part for turn in turns for part in (clip if turn == channel else quiet, pause)])
        for channel in "12"
    ]
    return encode(np.stack(rows), RATE, container, codec, layout="stereo")


def by_channel(script: Callable[[int], Script]) -> Callable[[ChunkJob], Script]:
    return lambda job: script(job.chunk.channel)  # type: ignore[attr-defined]


def said(channel: int) -> Script:
    return Script(text=TEXTS[channel], language="en" if channel == 1 else "de")


def outline(response: pb.TranscribeResponse) -> list[tuple[int, str]]:
    return [(segment.channel, segment.text) for segment in response.segments]


async def separated(stub: Any, audio: bytes, **options: Any) -> pb.TranscribeResponse:
    response, _ = await transcribe(stub, audio, separate_channels=True, **options)
    return response


@pytest.mark.parametrize(("container", "codec"), [("wav", "pcm_s16le"), ("flac", "flac")])
async def test_segments_of_all_channels_are_merged_by_time(tmp_path: Path, container: str, codec: str) -> None:
    model = ScriptedModel(by_job=by_channel(said))
    async with running(tmp_path, model=model) as service, stub_of(service) as stub:
        response = await separated(stub, call_recording("1221", container=container, codec=codec))
    assert outline(response) == [(channel, TEXTS[channel]) for channel in (1, 2, 2, 1)]
    assert response.text == " ".join(TEXTS[channel] for channel in (1, 2, 2, 1))
    assert [segment.language for segment in response.segments] == ["en", "de", "de", "en"]
    starts = [segment.start.ToTimedelta() for segment in response.segments]
    assert starts == sorted(starts)
    assert response.audio_duration.ToTimedelta().total_seconds() == pytest.approx(4 * 7.9, abs=0.1)


async def test_segments_that_begin_together_are_ordered_by_channel(tmp_path: Path) -> None:
    both = encode(np.stack([samples_of(SPEECH)] * 2), RATE, "wav", "pcm_s16le", layout="stereo")
    model = ScriptedModel(by_job=by_channel(said))
    async with running(tmp_path, model=model) as service, stub_of(service) as stub:
        response = await separated(stub, both)
    assert outline(response) == [(1, TEXTS[1]), (2, TEXTS[2])]


async def test_a_mono_recording_is_channel_1(tmp_path: Path) -> None:
    async with running(tmp_path) as service, stub_of(service) as stub:
        response = await separated(stub, SPEECH.read_bytes())
        mixed, _ = await transcribe(stub, SPEECH.read_bytes())
    assert [segment.channel for segment in response.segments] == [1]
    assert [segment.channel for segment in mixed.segments] == [0]
    assert response.text == mixed.text


async def test_a_doubtful_channel_is_escalated_by_itself(tmp_path: Path) -> None:
    small = ScriptedModel(by_job=by_channel(lambda channel: said(1) if channel == 1 else Script(text="yes")))
    medium = ScriptedModel(Script(text="yes indeed", language="de"), name="scripted-medium")
    async with pair(tmp_path, small, medium) as (stub, _, __):
        response = await separated(stub, call_recording("12"))
    assert outline(response) == [(1, TEXTS[1]), (2, "yes indeed")]
    assert [segment.model for segment in response.segments] == [small.name, medium.name]
    assert [segment.language for segment in response.segments] == ["en", "de"]
    assert list(response.routing.reasons) == [pb.ROUTE_REASON_FEW_WORDS]
    (asked,) = medium.seen
    assert asked.language is None, "in doubt, the fallback detects the language itself"


async def test_a_request_for_the_fallback_is_sent_with_its_channels(tmp_path: Path) -> None:
    medium = ScriptedModel(by_job=by_channel(said), name="scripted-medium")
    async with pair(tmp_path, ScriptedModel(), medium) as (stub, _, __):
        response = await separated(stub, call_recording("12"), routing=pb.ROUTING_POLICY_FALLBACK_ONLY)
    assert outline(response) == [(1, TEXTS[1]), (2, TEXTS[2])]


async def test_progress_gives_segments_in_the_order_of_the_result(tmp_path: Path) -> None:
    small = ScriptedModel(by_job=by_channel(said))
    async with running(tmp_path, model=small, MAX_CONCURRENCY=1, MAX_BATCH_SIZE=1) as service, stub_of(service) as stub:
        options = pb.TranscribeOptions(separate_channels=True)
        request = pb.TranscribeRequest(audio=call_recording("122112"), options=options)
        messages = [message async for message in stub.TranscribeWithProgress(request, timeout=20)]
    batches = [list(message.segments.segments) for message in messages if message.HasField("segments")]
    result = messages[-1].result
    assert [segment for batch in batches for segment in batch] == list(result.segments)
    assert [segment.channel for segment in result.segments] == [1, 2, 2, 1, 1, 2]
    assert len(batches) > 1, "both channels proceed side by side"
    settled = [m.progress.audio_settled.ToTimedelta() for m in messages if m.HasField("progress")]
    assert settled == sorted(settled)
    assert settled[-1] == result.audio_duration.ToTimedelta()
