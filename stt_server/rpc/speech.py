"""The servicer of `stt.v1.SpeechToText`: protobuf in, domain call, protobuf out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, aclosing
from typing import Any

import grpc

from protos.stt.v1 import speech_pb2 as pb
from protos.stt.v1 import speech_pb2_grpc
from stt_server.errors import DeadlineExceeded, EmptyAudio, PayloadTooLarge
from stt_server.pipeline import Pipeline
from stt_server.request import Request, Transcript
from stt_server.rpc.call_state import CallState, current_call
from stt_server.rpc.convert import request_of, response_of
from stt_server.rpc.progress import progress_messages
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
        call.transcript = await self._answer(self._accept(call, request, context))
        return response_of(call.transcript, call.trace, call.request_id, self._clock() - call.started)

    async def TranscribeWithProgress(  # noqa: N802
        self, request: pb.TranscribeRequest, context: Context
    ) -> AsyncIterator[pb.TranscribeWithProgressResponse]:
        """Transcribe one recording, and send what is settled meanwhile; see speech.proto."""
        call = current_call.get()
        wanted = self._accept(call, request, context)
        wanted.progress.watched = True

        async def answer() -> Transcript:
            call.transcript = await self._answer(wanted)
            return call.transcript

        async with aclosing(progress_messages(wanted.progress, answer())) as messages:
            async for message in messages:
                yield message
        if call.transcript is not None:
            total = self._clock() - call.started
            result = response_of(call.transcript, call.trace, call.request_id, total)
            yield pb.TranscribeWithProgressResponse(result=result)

    def _accept(self, call: CallState, message: pb.TranscribeRequest, context: Context) -> Request:
        """The request of a call that has arrived. Raises EmptyAudio, PayloadTooLarge, InvalidArgument."""
        call.audio_bytes = len(message.audio)
        self._check_size(len(message.audio))
        request = request_of(message, call.request_id, self._deadline(context))
        call.trace = request.trace
        return request

    async def _answer(self, request: Request) -> Transcript:
        """Transcribe until the deadline, then cancel. Raises DeadlineExceeded."""
        left = None if request.deadline is None else request.deadline - self._clock()
        try:
            return await asyncio.wait_for(self._pipeline().transcribe(request), left)
        except asyncio.TimeoutError:
            raise DeadlineExceeded("deadline exceeded; allow more time or send less audio") from None

    def _deadline(self, context: Context) -> float:
        """Deadline, less a margin for reporting DEADLINE_EXCEEDED. Monotonic seconds."""
        left = context.time_remaining()
        allowed = DEFAULT_DEADLINE_S if left is None else left
        return self._clock() + allowed - min(REPORT_S, REPORT_SHARE * allowed)

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
