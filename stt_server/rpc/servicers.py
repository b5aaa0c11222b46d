"""The RPCs: protobuf in, domain call, protobuf out."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, aclosing
from typing import Any

import grpc

from protos.stt.v1 import speech_pb2 as pb
from protos.stt.v1 import speech_pb2_grpc
from stt_server.config import Settings
from stt_server.engine.types import ModelInfo
from stt_server.errors import DeadlineExceeded, EmptyAudio, PayloadTooLarge, SttError
from stt_server.observability.call_record import TRANSCRIBE
from stt_server.observability.observer import Observer
from stt_server.pipeline import Pipeline
from stt_server.request import Transcript
from stt_server.rpc.access_control import Guard
from stt_server.rpc.call_state import CallState, current_call, request_id_of
from stt_server.rpc.convert import duration, request_of, response_of
from stt_server.rpc.interceptors import SPEECH, abort
from stt_server.rpc.stream_convert import event_of, messages_of
from stt_server.streaming.events import Message
from stt_server.streaming.session import Session

Context = grpc.aio.ServicerContext[Any, Any]

DEFAULT_DEADLINE_S = 3600.0
"""For callers who set no deadline, so that none waits for ever: as long as the longest recording."""

SAYING_S, SAYING_SHARE = 0.05, 0.1
"""Of the time that a caller allows, seconds or this share of it, whichever is less: kept back for saying that there is
no answer in time. At the deadline itself the transport ends the call, and nothing can be said any more."""


class SpeechServicer(speech_pb2_grpc.SpeechToTextServicer):
    """`stt.v1.SpeechToText`. Errors are raised; the interceptor maps them."""

    def __init__(
        self,
        pipeline: Callable[[], Pipeline],
        open_stream: Callable[[AsyncIterator[Message], str], AbstractAsyncContextManager[Session]],
        max_upload_bytes: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            pipeline: the pipeline, once the service is ready; calls are not let in before.
            open_stream: starts a live session for messages and a request id.
        """
        self._pipeline = pipeline
        self._open_stream = open_stream
        self._max_upload_bytes = max_upload_bytes
        self._clock = clock

    async def Transcribe(self, request: pb.TranscribeRequest, context: Context) -> pb.TranscribeResponse:  # noqa: N802
        """Transcribes one recording; see speech.proto, and the error table for what it ends with."""
        call = current_call.get()
        call.audio_bytes = len(request.audio)
        self._check_size(len(request.audio))
        deadline = self._deadline(context)
        wanted = request_of(request, call.request_id, deadline)
        call.trace = wanted.trace
        call.transcript = await self._in_time(self._pipeline().transcribe(wanted), deadline)
        return response_of(call.transcript, call.trace, call.request_id, self._clock() - call.started)

    def _deadline(self, context: Context) -> float:
        """Until when there has to be an answer, or it has to be said that there is none. Monotonic seconds."""
        left = context.time_remaining()
        allowed = DEFAULT_DEADLINE_S if left is None else left
        return self._clock() + allowed - min(SAYING_S, SAYING_SHARE * allowed)

    async def _in_time(self, answer: Coroutine[Any, Any, Transcript], deadline: float) -> Transcript:
        """An answer, if it comes before the deadline.

        Raises:
            DeadlineExceeded: it does not; its work has been given up.
        """
        try:
            return await asyncio.wait_for(answer, deadline - self._clock())
        except asyncio.TimeoutError:
            raise DeadlineExceeded("the time allowed passed before there was an answer") from None

    def _check_size(self, size: int) -> None:
        if size == 0:
            raise EmptyAudio("the request has no audio; send a recording in `audio`")
        if size > self._max_upload_bytes:
            limit = self._max_upload_bytes / 2**20
            raise PayloadTooLarge(f"the audio is over {limit:g} MiB; send it compressed (FLAC, Opus) or in parts")

    async def StreamTranscribe(  # noqa: N802
        self, request_iterator: AsyncIterator[pb.StreamTranscribeRequest], context: Context
    ) -> AsyncIterator[pb.StreamTranscribeResponse]:
        """Transcribes live audio; see speech.proto, and docs/streams.md."""
        call = current_call.get()
        call.trace.audio_seconds = 0.0
        async with (
            self._open_stream(messages_of(request_iterator), call.request_id) as session,
            aclosing(session.events()) as events,
        ):
            try:
                async for sent in events:
                    yield event_of(sent, call.request_id)
            finally:
                call.trace.audio_seconds = session.audio_processed


class OperationsServicer(speech_pb2_grpc.OperationsServicer):
    """`stt.v1.Operations`: what operators and the gateway ask. Needs no key."""

    def __init__(
        self,
        status: Callable[[], pb.GetStatusResponse],
        exposition: Callable[[], tuple[str, str]],
        guard: Guard,
        check_door: Callable[[], None],
        observer: Observer,
        max_upload_bytes: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            status: the current status, snapshot included.
            exposition: the metrics' text and its content type. Both may block for milliseconds.
            check_door: raises Overloaded as long as nobody would be let in, whatever he sent.
        """
        self._status = status
        self._exposition = exposition
        self._guard = guard
        self._check_door = check_door
        self._observer = observer
        self._max_upload_bytes = max_upload_bytes
        self._clock = clock

    async def GetStatus(self, request: pb.GetStatusRequest, context: Context) -> pb.GetStatusResponse:  # noqa: N802
        """What the service is and how it is doing."""
        return await asyncio.get_running_loop().run_in_executor(None, self._status)

    async def CheckAdmission(  # noqa: N802
        self, request: pb.CheckAdmissionRequest, context: Context
    ) -> pb.CheckAdmissionResponse:
        """Whether a `Transcribe` with the same `authorization` would be admitted now. Takes no rate-limit token.

        A refusal is logged and counted as the refused `Transcribe`, which the gateway then doesn't send.
        """
        metadata = context.invocation_metadata() or ()
        call = CallState(f"{SPEECH}Transcribe", TRANSCRIBE, request_id_of(metadata), self._clock())
        try:
            self._guard.check(call, metadata, context.peer())
            self._check_door()
        except SttError as error:
            try:
                await abort(call, context, error, self._clock())
            finally:
                self._observer.finished(call.story(self._clock()))
        return pb.CheckAdmissionResponse(max_upload_bytes=self._max_upload_bytes)

    async def GetMetrics(self, request: pb.GetMetricsRequest, context: Context) -> pb.GetMetricsResponse:  # noqa: N802
        """The Prometheus exposition."""
        text, content_type = await asyncio.get_running_loop().run_in_executor(None, self._exposition)
        return pb.GetMetricsResponse(exposition=text, content_type=content_type)


def status_response(
    settings: Settings, info: ModelInfo | None, uptime_s: float, limits: pb.Limits, snapshot: dict[str, Any]
) -> pb.GetStatusResponse:
    """The answer to `GetStatus`.

    Args:
        info: of the model; None while it is loading.
        uptime_s: seconds.
    """
    return pb.GetStatusResponse(
        service=settings.service,
        model=settings.model_name,
        device=info.device if info else "",
        compute_type=info.compute_type if info else "",
        server_commit=settings.server_commit,
        uptime=duration(uptime_s),
        limits=limits,
        snapshot_json=json.dumps(snapshot),
    )
