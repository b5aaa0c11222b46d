"""Escalation of utterances to the fallback."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from protos.stt.v1 import speech_pb2 as pb
from stt_server.rpc.convert import seconds
from stt_server.testing.scripted_model import Script, ScriptedModel
from tests.support.services import running, stub_of
from tests.support.streams import (
    audio,
    config,
    finals,
    metric,
    offsets,
    opened,
    pcm,
    recording_of,
    stream,
)

TEXT = "the quick brown fox jumps over the lazy dog"
FOX = recording_of("quick_brown_fox")


@contextlib.asynccontextmanager
async def pair(folder: Path, small: ScriptedModel, medium: ScriptedModel, **keys: Any) -> AsyncIterator[Any]:
    async with running(folder, "fallback", medium) as fallback:
        url = f"grpc://127.0.0.1:{fallback.grpc_port}"
        async with running(folder, "primary", small, FALLBACK_URL=url, **keys) as primary, stub_of(primary) as stub:
            yield stub, primary


@pytest.fixture
def medium() -> ScriptedModel:
    return ScriptedModel(Script(text=" the medium text is here", confidence=0.8), name="scripted-medium")


async def test_an_escalated_utterance_keeps_its_place_in_the_stream(
    tmp_path: Path, model: ScriptedModel, medium: ScriptedModel
) -> None:
    model.by_start = lambda start: Script(confidence=0.1 if start > 2 else 0.9)
    async with pair(tmp_path, model, medium) as (stub, primary):
        responses = await stream(stub, config(), audio(pcm(recording_of("quick_brown_fox", "hello_world"))))
        assert metric(primary, 'stt_utterances_total{result="used"}') == 1
        assert metric(primary, 'stt_fallback_total{result="used"}') == 0
    first, second = (final.result for final in finals(responses))
    assert not first.routing.fallback_used
    assert (second.text, second.routing.final_model) == ("the medium text is here", "scripted-medium")
    assert second.routing.reasons == [pb.ROUTE_REASON_LOW_LOGPROB]
    assert seconds(second.segments[0].start) == pytest.approx(offsets(responses, "started")[1] - 0.4, abs=0.1)


async def test_a_slow_fallback_degrades_at_its_timeout(
    tmp_path: Path, model: ScriptedModel, medium: ScriptedModel
) -> None:
    model.script.confidence = 0.1
    medium.open.clear()
    async with pair(tmp_path, model, medium, STREAM_FALLBACK_TIMEOUT_S=0.3) as (stub, primary):
        responses = await stream(stub, config(), audio(pcm(FOX)))
        medium.open.set()
        assert metric(primary, 'stt_utterances_total{result="failed"}') == 1
    result = finals(responses)[0].result
    assert (result.text, result.routing.fallback_error) == (TEXT, "deadline_exceeded")
    assert not result.routing.fallback_used


async def test_an_unavailable_fallback_degrades(tmp_path: Path, model: ScriptedModel, medium: ScriptedModel) -> None:
    model.script.confidence = 0.1
    async with (
        running(tmp_path, "primary", model, FALLBACK_URL="grpc://127.0.0.1:1") as service,
        stub_of(service) as stub,
    ):
        responses = await stream(stub, config(), audio(pcm(FOX)))
    result = finals(responses)[0].result
    assert (result.text, result.routing.fallback_error) == (TEXT, "unavailable")


async def test_fallback_only_skips_the_primarys_model(
    tmp_path: Path, model: ScriptedModel, medium: ScriptedModel
) -> None:
    options = pb.TranscribeOptions(routing=pb.ROUTING_POLICY_FALLBACK_ONLY)
    async with pair(tmp_path, model, medium) as (stub, _):
        responses = await stream(stub, config(options=options, interim_results=False), audio(pcm(FOX)))
    assert finals(responses)[0].result.text == "the medium text is here"
    assert model.jobs == []


async def test_a_final_may_wait_while_the_next_utterance_goes_on(
    tmp_path: Path, model: ScriptedModel, medium: ScriptedModel
) -> None:
    model.script.confidence = 0.1
    medium.open.clear()
    async with pair(tmp_path, model, medium, STREAM_FALLBACK_TIMEOUT_S=20) as (stub, _):
        caller = await opened(stub)
        await caller.send_audio(recording_of("quick_brown_fox", "hello_world"))
        await caller.next("ended")
        await caller.next("ended")
        medium.open.set()
        responses = await caller.finish()
    assert [final.utterance for final in finals(responses)] == [0, 1]
