"""The servicer of `stt.v1.SpeechToText`: protobuf in, domain call, protobuf out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, aclosing
from typing import Any

import grpc

from protos.stt.v1 import speech_pb2 as pb
from protos.stt.v1 import speech_pb2_grpc
from stt_server.errors import DeadlineExceeded, EmptyAudio, PayloadTooLarge
from stt_server.pipeline import Pipeline
from stt_server.request import Transcript
from stt_server.rpc.call_state import current_call
from stt_server.rpc.convert import request_of, response_of
from stt_server.rpc.stream_convert import event_of, messages_of
from stt_server.streaming.events import Message
from stt_server.streaming.session import Session

Context = grpc.aio.ServicerContext[Any, Any]

DEFAULT_DEADLINE_S = 3600.0
"""Deadline of calls that set none: as long as the longest recording."""

REPORT_S, REPORT_SHARE = 0.05, 0.1
"""Part of the caller's time kept for reporting DEADLINE_EXCEEDED: seconds, or a share of it if that is less. At the
deadline itself the transport ends the call without an error type."""


class SpeechServicer(speech_pb2_grpc.SpeechToTextServicer):
    """Raises domain errors, which the interceptor maps."""

    def __init__(
        self,
        pipeline: Callable[[], Pipeline],
        open_stream: Callable[[AsyncIterator[Message], str], AbstractAsyncContextManager[Session]],
        max_upload_bytes: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            pipeline: gives the current pipeline.
            open_stream: starts a live session for messages and a request id.
        """
        self._pipeline = pipeline
        self._open_stream = open_stream
        self._max_upload_bytes = max_upload_bytes
        self._clock = clock

    async def Transcribe(self, request: pb.TranscribeRequest, context: Context) -> pb.TranscribeResponse:  # noqa: N802
        """Transcribe one recording; see speech.proto, and the error table for its errors."""
        call = current_call.get()
        call.audio_bytes = len(request.audio)
        self._check_size(len(request.audio))
        deadline = self._deadline(context)
        wanted = request_of(request, call.request_id, deadline)
        call.trace = wanted.trace
        call.transcript = await self._in_time(self._pipeline().transcribe(wanted), deadline)
        return response_of(call.transcript, call.trace, call.request_id, self._clock() - call.started)

    def _deadline(self, context: Context) -> float:
        """Deadline, less a margin for reporting DEADLINE_EXCEEDED. Monotonic seconds."""
        left = context.time_remaining()
        allowed = DEFAULT_DEADLINE_S if left is None else left
        return self._clock() + allowed - min(REPORT_S, REPORT_SHARE * allowed)

    async def _in_time(self, answer: Coroutine[Any, Any, Transcript], deadline: float) -> Transcript:
        """Await the answer until the deadline, then cancel it. Raises DeadlineExceeded."""
        try:
            return await asyncio.wait_for(answer, deadline - self._clock())
        except asyncio.TimeoutError:
            raise DeadlineExceeded("deadline exceeded; allow more time or send less audio") from None

    def _check_size(self, size: int) -> None:
        if size == 0:
            raise EmptyAudio("the request has no audio; send a recording in `audio`")
        if size > self._max_upload_bytes:
            limit = self._max_upload_bytes / 2**20
            raise PayloadTooLarge(f"the audio is larger than {limit:g} MiB; compress it (FLAC, Opus) or split it")

    async def StreamTranscribe(  # noqa: N802
        self, request_iterator: AsyncIterator[pb.StreamTranscribeRequest], context: Context
    ) -> AsyncIterator[pb.StreamTranscribeResponse]:
        """Transcribe live audio; see speech.proto and docs/streams.md."""
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
