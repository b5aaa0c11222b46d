"""`TranscribeWithProgress`: segments arrive once they are settled, in order, and never change."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from protos.stt.v1 import speech_pb2 as pb
from stt_server.errors import EngineError
from stt_server.testing.scripted_model import Script, ScriptedModel
from tests.support.long_recordings import CHUNK_SECONDS, ONE_BY_ONE, HeldChunks, number_of, recording
from tests.support.pair import pair
from tests.support.services import running, stub_of, transcribe, until

SURE, WEAK = Script(text=" the small text is sure"), Script(text=" the small text is weak", confidence=0.2)
MEDIUM = Script(text=" the medium text instead", confidence=0.7)


@pytest.fixture
def medium() -> ScriptedModel:
    return ScriptedModel(MEDIUM, name="scripted-medium")


class Watched:
    """A call, with what has arrived of it."""

    def __init__(self, stub: Any, audio: bytes, timeout: float = 20, **options: Any) -> None:
        request = pb.TranscribeRequest(audio=audio, options=pb.TranscribeOptions(**options))
        self.call = stub.TranscribeWithProgress(request, timeout=timeout)
        self.messages: list[pb.TranscribeWithProgressResponse] = []

    async def read_until(self, arrived: Callable[[], object]) -> None:
        while not arrived():
            message = await self.call.read()
            assert message is not grpc.aio.EOF, await self.call.details()
            self.messages.append(message)

    async def read_all(self) -> pb.TranscribeResponse:
        while (message := await self.call.read()) is not grpc.aio.EOF:
            self.messages.append(message)
        return self.messages[-1].result

    async def read_failure(self) -> tuple[grpc.StatusCode, dict[str, str]]:
        with contextlib.suppress(grpc.aio.AioRpcError):
            await self.read_all()
        return await self.call.code(), dict(await self.call.trailing_metadata())

    @property
    def segments(self) -> list[pb.Segment]:
        return [segment for message in self.messages for segment in message.segments.segments]

    @property
    def progress(self) -> Iterator[pb.Progress]:
        return (message.progress for message in self.messages if message.WhichOneof("event") == "progress")


def seconds(value: Any) -> float:
    return float(value.ToTimedelta().total_seconds())


async def test_result_is_that_of_transcribe_and_its_segments_are_those_sent(
    tmp_path: Path, medium: ScriptedModel
) -> None:
    small = ScriptedModel(by_start=lambda start: WEAK if number_of(start) == 1 else SURE)
    async with pair(tmp_path, small, medium) as (stub, primary, _):
        expected, trailers = await transcribe(stub, recording(3), word_timestamps=True)
        watched = Watched(stub, recording(3), word_timestamps=True)
        result = await watched.read_all()
        metadata = dict(await watched.call.trailing_metadata())
        counts = primary.instruments.snapshot()["fallback"]
    assert [message.WhichOneof("event") for message in watched.messages].count("result") == 1
    assert list(result.segments) == watched.segments == list(expected.segments)
    assert (result.text, result.routing) == (expected.text, expected.routing)
    assert metadata.keys() == trailers.keys()
    assert counts["used"] == 2
    settled = [seconds(progress.audio_settled) for progress in watched.progress]
    assert settled == sorted(settled)
    assert settled[-1] == seconds(result.audio_duration) == pytest.approx(3 * CHUNK_SECONDS, abs=0.1)


async def test_segments_arrive_while_a_later_chunk_is_recognized(tmp_path: Path) -> None:
    script = HeldChunks(held=2)
    async with (
        running(tmp_path, model=ScriptedModel(by_start=script), **ONE_BY_ONE) as service,
        stub_of(service) as stub,
    ):
        watched = Watched(stub, recording(4))
        await watched.read_until(lambda: len(watched.segments) == 2)
        script.released.set()
        result = await watched.read_all()
    assert list(result.segments) == watched.segments
    assert len(watched.segments) == 4


async def test_a_weak_chunk_is_escalated_before_the_recording_is_recognized(
    tmp_path: Path, medium: ScriptedModel
) -> None:
    script = HeldChunks(held=3, script=lambda number: WEAK if number == 1 else SURE)
    small = ScriptedModel(by_start=script)
    async with pair(tmp_path, small, medium, **ONE_BY_ONE) as (stub, _, __):
        watched = Watched(stub, recording(4))
        await watched.read_until(lambda: len(watched.segments) == 3)
        script.released.set()
        await watched.read_all()
    assert [s.model for s in watched.segments] == [small.name, medium.name, small.name, small.name]


async def test_chunks_behind_one_that_waits_for_the_fallback_wait_for_it(tmp_path: Path, medium: ScriptedModel) -> None:
    small = ScriptedModel(by_start=lambda start: WEAK if number_of(start) == 1 else SURE)
    medium.open.clear()
    async with pair(tmp_path, small, medium) as (stub, _, __):
        watched = Watched(stub, recording(3))
        await watched.read_until(lambda: medium.running and len(watched.segments) == 1)
        await until(lambda: len(small.jobs) == 3)
        medium.open.set()
        await watched.read_all()
    assert [s.model for s in watched.segments] == [small.name, medium.name, small.name]
    assert [len(m.segments.segments) for m in watched.messages if m.HasField("segments")] == [1, 2]


async def test_nothing_is_settled_while_the_whole_recording_may_be_escalated(
    tmp_path: Path, medium: ScriptedModel
) -> None:
    small = ScriptedModel(Script(text=" quite sure of these words", language_probability=0.2))
    async with pair(tmp_path, small, medium) as (stub, _, __):
        watched = Watched(stub, recording(3))
        result = await watched.read_all()
    assert {segment.model for segment in watched.segments} == {medium.name}
    assert list(result.segments) == watched.segments
    assert len(watched.segments) == 3


async def test_segments_keep_the_language_that_they_were_sent_with(tmp_path: Path, medium: ScriptedModel) -> None:
    """The first chunk is sent before most of the speech turns out to be in another language."""
    german = Script(text=" der deutsche Text ist sicher", language="de")
    small = ScriptedModel(by_start=lambda start: german if number_of(start) else SURE)
    async with pair(tmp_path, small, medium) as (stub, _, __):
        watched = Watched(stub, recording(4))
        result = await watched.read_all()
    assert result.language == "de"
    assert list(result.segments) == watched.segments
    assert [segment.language for segment in watched.segments] == ["en", "de", "de", "de"]


async def test_long_recording_of_weak_chunks_is_escalated_chunk_by_chunk(tmp_path: Path, medium: ScriptedModel) -> None:
    small = ScriptedModel(WEAK)
    async with pair(tmp_path, small, medium) as (stub, _, __):
        result = await Watched(stub, recording(5)).read_all()
    assert {segment.model for segment in result.segments} == {medium.name}
    assert len(medium.seen) == 5
    assert {options.language for options in medium.seen} == {"en"}


async def test_model_failing_midway_leaves_the_rest_to_the_fallback(tmp_path: Path, medium: ScriptedModel) -> None:
    failing = Script(error=EngineError("the model failed"))
    small = ScriptedModel(by_start=lambda start: failing if number_of(start) == 2 else SURE)
    async with pair(tmp_path, small, medium, **ONE_BY_ONE) as (stub, _, __):
        watched = Watched(stub, recording(4))
        result = await watched.read_all()
    assert [s.model for s in watched.segments] == [small.name, small.name, medium.name, medium.name]
    assert list(result.routing.reasons) == [pb.ROUTE_REASON_PRIMARY_ERROR]


@pytest.mark.parametrize("keys", [{}, {"FALLBACK_ON_ERROR": "degrade"}, {"FINAL_CHOICE": "best"}])
async def test_the_fallbacks_segments_of_a_whole_recording_arrive_while_it_works(
    tmp_path: Path, keys: dict[str, Any]
) -> None:
    """Not where the primary's text may stand for them if the fallback fails."""
    script = HeldChunks(held=2, script=lambda _: MEDIUM)
    medium = ScriptedModel(by_start=script, name="scripted-medium")
    async with pair(tmp_path, ScriptedModel(), medium, fallback_keys=ONE_BY_ONE, **keys) as (stub, _, __):
        watched = Watched(stub, recording(4), routing=pb.ROUTING_POLICY_FALLBACK_ONLY)
        if "FALLBACK_ON_ERROR" not in keys:
            await watched.read_until(lambda: len(watched.segments) == 2)
        script.released.set()
        result = await watched.read_all()
    assert list(result.segments) == watched.segments
    assert [segment.model for segment in watched.segments] == [medium.name] * 4
    assert sorted(p.audio_settled.ToTimedelta() for p in watched.progress) == [
        p.audio_settled.ToTimedelta() for p in watched.progress
    ]


async def test_settled_segments_arrive_before_the_error_of_a_passed_deadline(tmp_path: Path) -> None:
    script = HeldChunks(held=2)
    async with (
        running(tmp_path, model=ScriptedModel(by_start=script), **ONE_BY_ONE) as service,
        stub_of(service) as stub,
    ):
        watched = Watched(stub, recording(3), timeout=4)
        code, trailers = await watched.read_failure()
        script.released.set()
    assert (code, trailers["x-error-type"]) == (grpc.StatusCode.DEADLINE_EXCEEDED, "deadline_exceeded")
    assert len(watched.segments) == 2


async def test_messages_come_while_nothing_is_settled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stt_server.rpc.progress.INTERVAL_S", 0.01)
    model = ScriptedModel()
    model.open.clear()
    async with running(tmp_path, model=model) as service, stub_of(service) as stub:
        watched = Watched(stub, recording(1))
        await watched.read_until(lambda: len([p for p in watched.progress if p.HasField("audio_duration")]) > 3)
        model.open.set()
        await watched.read_all()


async def test_cancelling_stops_the_work(tmp_path: Path) -> None:
    script = HeldChunks(held=1)
    model = ScriptedModel(by_start=script)
    async with running(tmp_path, model=model, **ONE_BY_ONE) as service, stub_of(service) as stub:
        watched = Watched(stub, recording(4))
        await watched.read_until(lambda: watched.segments)
        watched.call.cancel()
        await until(lambda: service.in_flight == 0 and service.queue_depth == 0)
        script.released.set()
        await transcribe(stub, recording(1))
    assert len(model.jobs) == 3, "the held chunk, the one before it, and the next request's"


@pytest.mark.parametrize(
    ("audio", "options", "kind"),
    [
        (b"", {}, "empty_audio"),
        (b"no audio", {}, "unsupported_audio"),
        (recording(1), {"language": "xx"}, "invalid_argument"),
    ],
)
async def test_errors_are_those_of_transcribe(tmp_path: Path, audio: bytes, options: dict[str, Any], kind: str) -> None:
    async with running(tmp_path) as service, stub_of(service) as stub:
        code, trailers = await Watched(stub, audio, **options).read_failure()
    assert (code, trailers["x-error-type"]) == (grpc.StatusCode.INVALID_ARGUMENT, kind)


async def test_a_key_is_needed(tmp_path: Path) -> None:
    async with running(tmp_path, API_KEYS="secret") as service, stub_of(service) as stub:
        code, trailers = await Watched(stub, recording(1)).read_failure()
    assert (code, trailers["x-error-type"]) == (grpc.StatusCode.UNAUTHENTICATED, "unauthenticated")
