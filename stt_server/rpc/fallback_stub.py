"""Client of the fallback: a gRPC stub with a deadline and one retry."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from protos.stt.v1 import speech_pb2 as pb
from protos.stt.v1 import speech_pb2_grpc, wire
from protos.stt.v1.errors import FallbackCode, fallback_code_of
from protos.stt.v1.trace_context import current_trace
from stt_server.cascade.breaker import Health
from stt_server.cascade.fallback import FallbackError
from stt_server.request import Answer, Request, Step
from stt_server.rpc.convert import answer_of, message_of, seconds, segment_from
from stt_server.rpc.server_options import MESSAGE_SLACK_BYTES

MAX_BACKOFF_S = 1
"""Longest wait before the retry, and before a reconnection attempt: callers of the primary are waiting. Seconds."""


def channel_options(max_upload_bytes: int) -> list[tuple[str, Any]]:
    """Options of the channel to the fallback."""
    return [
        *wire.channel_options(max_upload_bytes + MESSAGE_SLACK_BYTES, max_backoff_s=MAX_BACKOFF_S, balance=True),
        # FALLBACK_URL decides where the fallback is; http_proxy of the process environment doesn't.
        ("grpc.enable_http_proxy", 0),
        # By default a new channel to the same address shares the old one's connection, even a dead one.
        ("grpc.use_local_subchannel_pool", 1),
    ]


class FallbackStub:
    """Calls the fallback over gRPC. Close it when done."""

    def __init__(
        self,
        target: str,
        *,
        api_key: str = "",
        credentials: grpc.ChannelCredentials | None = None,
        max_upload_bytes: int,
    ) -> None:
        """
        Args:
            target: any gRPC target.
            api_key: sent as a Bearer token; empty: none is sent.
            credentials: for TLS; None: plaintext.
        """
        self._target = target
        self._credentials = credentials
        self._options = channel_options(max_upload_bytes)
        self._key = ((wire.AUTHORIZATION, f"Bearer {api_key}"),) if api_key else ()
        self._connect()

    def _connect(self) -> None:
        if self._credentials is None:
            self._channel = grpc.aio.insecure_channel(self._target, options=self._options)
        else:
            self._channel = grpc.aio.secure_channel(self._target, self._credentials, options=self._options)
        self._stub = speech_pb2_grpc.SpeechToTextStub(self._channel)
        self._health = health_pb2_grpc.HealthStub(self._channel)

    async def transcribe(self, request: Request, timeout_s: float) -> Answer:
        """Send a request to the fallback and return its answer, within `timeout_s` seconds.

        Raises:
            FallbackError: its code is the fallback's error type, or follows from the transport's status;
                `invalid_answer` for an answer that can't be right.
        """
        trace = current_trace.get()
        span = None if trace is None else trace.child()
        call: dict[str, Any] = {
            "timeout": timeout_s,
            "metadata": (*self._key, (wire.X_REQ_ID, request.request_id), *(span.metadata if span else ())),
        }
        began, code = time.monotonic(), "cancelled"
        try:
            answer = await self._call(request, call)
            code = ""
            return answer
        except FallbackError as error:
            code = error.code
            raise
        finally:
            request.trace.steps.append(Step("fallback", began, time.monotonic(), span, code))

    async def _call(self, request: Request, call: dict[str, Any]) -> Answer:
        try:
            response = await self._watch(request, call) if request.settles_early else None
            if response is None:
                response = await self._stub.Transcribe(message_of(request), **call)
        except grpc.aio.AioRpcError as error:
            raise FallbackError(_code_of(error)) from error
        if not _is_valid(response):
            raise FallbackError("invalid_answer")
        return answer_of(response)

    async def _watch(self, request: Request, call: dict[str, Any]) -> pb.TranscribeResponse | None:
        """The response to a whole recording, whose segments are settled as they arrive; None from an older fallback.

        Raises:
            FallbackError: `invalid_answer`.
        """
        sent: list[pb.Segment] = []
        response = pb.TranscribeResponse()
        watched = self._stub.TranscribeWithProgress(message_of(request), **call)
        try:
            async for message in watched:
                sent += message.segments.segments
                if not _are_valid(message.segments.segments):
                    raise FallbackError("invalid_answer")
                settled = [(segment_from(segment), segment.model) for segment in message.segments.segments]
                request.progress.settle(settled, seconds(message.progress.audio_settled))
                if message.HasField("result"):
                    response = message.result
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                return None
            raise
        finally:
            watched.cancel()
        if list(response.segments) != sent:
            raise FallbackError("invalid_answer")
        return response

    async def health(self, timeout_s: float) -> Health:
        """Check the fallback's health. Needs no key, and takes no token of the rate limit."""
        request = health_pb2.HealthCheckRequest(service=wire.SPEECH_SERVICE)
        try:
            response = await self._health.Check(request, timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                return "silent"
            # A server without the health service is up all the same.
            return "serving" if error.code() is grpc.StatusCode.UNIMPLEMENTED else "away"
        return "serving" if response.status == health_pb2.HealthCheckResponse.SERVING else "away"

    async def reconnect(self) -> None:
        """Replace the connections, ending the calls on them.

        A connection that lost packets for long takes long to recover once they pass again.
        """
        old = self._channel
        self._connect()
        await old.close()

    async def close(self) -> None:
        await self._channel.close()


def _code_of(error: grpc.aio.AioRpcError) -> FallbackCode:
    """The `fallback_error` code: the fallback's own error type, else derived from the status."""
    if "CLIENT: Received message larger" in (error.details() or ""):
        return "invalid_answer"  # refused by gRPC on this side: no valid answer is as large
    types = [value for name, value in error.trailing_metadata() or () if name == wire.X_ERROR_TYPE]
    return fallback_code_of(error.code().name, types[0] if types and isinstance(types[0], str) else "")


def _is_valid(response: pb.TranscribeResponse) -> bool:
    """Whether a response names its model and all of its numbers are finite and in range."""
    probabilities = []
    if response.HasField("language_probability"):
        probabilities.append(response.language_probability)
    if response.routing.HasField("fallback_confidence"):
        probabilities.append(response.routing.fallback_confidence)
    return bool(response.routing.final_model) and _in_range(probabilities) and _are_valid(response.segments)


def _are_valid(segments: Sequence[pb.Segment]) -> bool:
    """Whether all numbers of segments are finite and in range."""
    numbers = [
        number
        for segment in segments
        for number in (segment.avg_logprob, segment.no_speech_prob, segment.compression_ratio)
    ]
    probabilities = [word.probability for segment in segments for word in segment.words]
    return _in_range(probabilities) and all(map(math.isfinite, numbers))


def _in_range(probabilities: Iterable[float]) -> bool:
    """Whether all are probabilities; False for NaN."""
    return all(-0.001 <= probability <= 1.001 for probability in probabilities)
