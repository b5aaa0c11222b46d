"""The fallback stub, against a real server that refuses its first calls."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import grpc
import pytest

from protos.stt.v1 import speech_pb2 as pb
from protos.stt.v1 import speech_pb2_grpc
from stt_server.audio import AudioFormat
from stt_server.cascade.fallback import FallbackError
from stt_server.engine.types import DecodeOptions
from stt_server.request import Request, Upload
from stt_server.rpc.fallback_stub import FallbackStub
from stt_server.testing.services import UNLIMITED


class Refusing(speech_pb2_grpc.SpeechToTextServicer):
    """Refuses the first calls with a status, then answers."""

    def __init__(self, status: grpc.StatusCode, times: int, trailers: tuple[tuple[str, str], ...] = ()) -> None:
        self.calls: list[tuple[int, dict[str, Any]]] = []
        self._status, self._times, self._trailers = status, times, trailers

    async def Transcribe(self, request: pb.TranscribeRequest, context: Any) -> pb.TranscribeResponse:
        self.calls.append((len(request.audio), dict(context.invocation_metadata())))
        if len(self.calls) <= self._times:
            await context.abort(self._status, "not now", self._trailers)
        return pb.TranscribeResponse(text="done", routing=pb.Routing(final_model="medium"))

    def StreamTranscribe(self, request_iterator: Any, context: Any) -> Any:
        raise NotImplementedError

    def TranscribeWithProgress(self, request: Any, context: Any) -> Any:
        raise NotImplementedError


@asynccontextmanager
async def served(servicer: Refusing, **options: Any) -> AsyncIterator[FallbackStub]:
    server = grpc.aio.server(options=UNLIMITED)
    speech_pb2_grpc.add_SpeechToTextServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    stub = FallbackStub(f"127.0.0.1:{port}", max_upload_bytes=16 * 2**20, **options)
    try:
        yield stub
    finally:
        await stub.close()
        await server.stop(0)


def request(size: int = 10) -> Request:
    return Request(Upload(bytes(size), AudioFormat("container", 0)), DecodeOptions(), "id-1")


@pytest.mark.parametrize("size", [10, 16 * 2**20])
async def test_unavailable_is_retried_once_at_any_size(size: int) -> None:
    servicer = Refusing(grpc.StatusCode.UNAVAILABLE, times=1)
    async with served(servicer) as stub:
        answer = await stub.transcribe(request(size), 20)
    assert answer.text == "done"
    assert [length for length, _ in servicer.calls] == [size, size]


async def test_unavailable_is_retried_only_once() -> None:
    servicer = Refusing(grpc.StatusCode.UNAVAILABLE, times=9)
    async with served(servicer) as stub:
        with pytest.raises(FallbackError) as error:
            await stub.transcribe(request(), 20)
    assert error.value.code == "unavailable"
    assert len(servicer.calls) == 2


@pytest.mark.parametrize(
    ("status", "trailers", "code"),
    [
        (grpc.StatusCode.RESOURCE_EXHAUSTED, (("x-error-type", "rate_limited"),), "rate_limited"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, (), "payload_too_large"),
        (grpc.StatusCode.UNAUTHENTICATED, (), "unauthenticated"),
        (grpc.StatusCode.INTERNAL, (("x-error-type", "bad value\t"),), "internal"),
        (grpc.StatusCode.UNIMPLEMENTED, (), "unimplemented"),
    ],
)
async def test_other_statuses_are_not_retried(
    status: grpc.StatusCode, trailers: tuple[tuple[str, str], ...], code: str
) -> None:
    servicer = Refusing(status, 9, trailers)
    async with served(servicer) as stub:
        with pytest.raises(FallbackError) as error:
            await stub.transcribe(request(), 20)
    assert error.value.code == code
    assert len(servicer.calls) == 1


async def test_key_and_request_id_are_sent() -> None:
    servicer = Refusing(grpc.StatusCode.OK, times=0)
    async with served(servicer, api_key="the-key") as stub:
        await stub.transcribe(request(), 20)
    _, metadata = servicer.calls[0]
    assert metadata["authorization"] == "Bearer the-key"
    assert metadata["x-req-id"] == "id-1"


class Progressing(Refusing):
    """Sends one segment early, or refuses to send anything before the answer."""

    def __init__(self, sent: pb.Segment | None, result: pb.Segment) -> None:
        super().__init__(grpc.StatusCode.OK, times=0)
        self._sent, self._result = sent, result

    async def TranscribeWithProgress(
        self, request: pb.TranscribeRequest, context: Any
    ) -> AsyncIterator[pb.TranscribeWithProgressResponse]:
        if self._sent is None:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "an older service")
        else:
            yield pb.TranscribeWithProgressResponse(segments=pb.SettledSegments(segments=[self._sent]))
        result = pb.TranscribeResponse(segments=[self._result], routing=pb.Routing(final_model="medium"))
        yield pb.TranscribeWithProgressResponse(result=result)


SEGMENT = pb.Segment(text="done", model="medium", avg_logprob=-0.1)
IMPOSSIBLE = pb.Segment(text="done", model="medium", avg_logprob=math.nan)


async def test_segments_are_settled_before_the_answer_is_complete() -> None:
    wanted = replace(request(), settles_early=True)
    async with served(Progressing(SEGMENT, SEGMENT)) as stub:
        answer = await stub.transcribe(wanted, 20)
    assert [(segment.text, model) for segment, model in wanted.progress.segments] == [("done", "medium")]
    assert [segment for segment, _ in wanted.progress.segments] == list(answer.segments)


async def test_a_fallback_that_reports_no_progress_answers_at_the_end() -> None:
    wanted = replace(request(), settles_early=True)
    async with served(Progressing(None, SEGMENT)) as stub:
        answer = await stub.transcribe(wanted, 20)
    assert (answer.text, wanted.progress.segments) == ("done", [])


@pytest.mark.parametrize(("sent", "result"), [(SEGMENT, pb.Segment(text="else")), (IMPOSSIBLE, IMPOSSIBLE)])
async def test_a_result_other_than_what_was_sent_is_an_invalid_answer(sent: pb.Segment, result: pb.Segment) -> None:
    async with served(Progressing(sent, result)) as stub:
        with pytest.raises(FallbackError) as error:
            await stub.transcribe(replace(request(), settles_early=True), 20)
    assert error.value.code == "invalid_answer"


async def test_unreachable_fallback_is_unavailable() -> None:
    stub = FallbackStub("127.0.0.1:1", max_upload_bytes=2**20)
    with pytest.raises(FallbackError) as error:
        await stub.transcribe(request(), 5)
    assert error.value.code == "unavailable"
    await stub.close()
