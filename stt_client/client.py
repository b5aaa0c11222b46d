"""`SttClient`: asyncio client of one service."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Sequence
from contextlib import aclosing
from dataclasses import asdict
from types import TracebackType
from typing import TYPE_CHECKING, TypedDict

import grpc
import grpc.aio

from protos.stt.v1 import speech_pb2
from protos.stt.v1.speech_pb2_grpc import SpeechToTextStub
from protos.stt.v1.wire import AUTHORIZATION, X_REQ_ID
from stt_client import health
from stt_client.channel import MAX_MESSAGE_BYTES, Tls, open_channel, resolve
from stt_client.errors import DeadlineExceeded, NotReady, SttError, UpstreamUnavailable
from stt_client.request import Audio, AudioFormat, CallOptions, SendOptions, checked_request_id
from stt_client.results import GatewayRefusals, Limits, Metrics, Status, TranscribeEvent, Transcript
from stt_client.rpc import (
    CHECK_ADMISSION,
    GET_METRICS,
    GET_STATUS,
    TRANSCRIBE,
    Caller,
    Pairs,
    Unimplemented,
    deadline_in,
    error_of_rpc,
    seconds_left,
)
from stt_client.streaming.call import StreamCall
from stt_client.streaming.options import StreamOptions
from stt_client.streaming.results import Flush, StreamEvent
from stt_client.streaming.stream import single_member, stream_events
from stt_client.telemetry import LatencyStats, Telemetry

if TYPE_CHECKING:
    from typing_extensions import Unpack


LIMITS_TIMEOUT_S = 5.0
"""Longest wait for a service's limits, before a recording is sent as it is. Seconds."""


class ClientOptions(TypedDict, total=False):
    """Keyword arguments of `SttClient`."""

    api_key: str | None
    timeout: float | None
    tls: Tls | None
    telemetry: Telemetry | None
    max_message_bytes: int


class SttClient:
    """Client of one service, for one event loop. It connects on its first call.

    Args:
        target: `host:port`, `grpc://host:port`, `grpcs://host:port` (TLS), or a gRPC target (`dns:///`, `unix:/`).
        api_key: sent as a Bearer token; None: none.
        timeout: default timeout of a call, in seconds; None: no limit.
        tls: certificates; with it, `host:port` means TLS as well.
        telemetry: called with a `CallRecord` after each call.
        max_message_bytes: largest message to send or to receive.

    Raises:
        ValueError: `target`, `tls` or `api_key` is invalid.
    """

    def __init__(
        self,
        target: str = "localhost:50051",
        *,
        api_key: str | None = None,
        timeout: float | None = 60.0,
        tls: Tls | None = None,
        telemetry: Telemetry | None = None,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
    ) -> None:
        resolve(target, tls)
        if api_key and not (api_key.isascii() and api_key.isprintable()):
            raise ValueError("api_key contains characters other than printable ASCII")
        self.target = target
        self.timeout = timeout
        self.max_message_bytes = max_message_bytes
        self.latency = LatencyStats()
        self._api_key = api_key
        self._tls = tls
        self._telemetry = telemetry
        self._caller = Caller(target, telemetry, self.latency, lambda: self._closed)
        self._channel: grpc.aio.Channel | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    async def __aenter__(self) -> SttClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Cancel calls in flight and disconnect. Idempotent."""
        self._closed = True
        if self._channel is not None:
            await self._channel.close(None)

    async def transcribe(self, audio: Audio, **options: Unpack[CallOptions]) -> Transcript:
        """Transcribe one recording.

        Args:
            audio: path of a file, its bytes, or samples.
            options: see `CallOptions`.

        Raises:
            SttError: the call failed; a subclass for each error type.
            ValueError: invalid option.
            OSError: the file can't be read.
        """
        # Imported here: it takes numpy, which other uses of the client do without.
        from stt_client.recordings.splitting import job_of, last_of, transcribe

        return await last_of(transcribe(self, await job_of(audio, options, live=False)))

    async def transcribe_with_progress(
        self, audio: Audio, **options: Unpack[CallOptions]
    ) -> AsyncGenerator[TranscribeEvent, None]:
        """Transcribe one recording, and yield how far it is.

        Yields `Progress` every few seconds, `SettledSegments` as they become final, and last the `Transcript`.
        Closing the generator cancels the call. Arguments and errors are those of `transcribe`.
        """
        from stt_client.recordings.splitting import job_of, transcribe

        async with aclosing(transcribe(self, await job_of(audio, options, live=True))) as events:
            async for event in events:
                yield event

    async def send(self, request: speech_pb2.TranscribeRequest, **call: Unpack[SendOptions]) -> Transcript:
        """Send a request message that is already built; see `transcribe`."""
        return await self._caller.call(TRANSCRIBE, self._open(), request, call["deadline"], self._send_metadata(call))

    async def send_with_progress(
        self, request: speech_pb2.TranscribeRequest, **call: Unpack[SendOptions]
    ) -> AsyncGenerator[TranscribeEvent, None]:
        """Send a request message that is already built; see `transcribe_with_progress`.

        An older service, which reports no progress, gives the transcript only.
        """
        metadata = self._send_metadata(call)
        try:
            async with aclosing(self._caller.watch(self._open(), request, call["deadline"], metadata)) as events:
                async for event in events:
                    yield event
        except Unimplemented:
            transcript = await self._caller.call(TRANSCRIBE, self._open(), request, call["deadline"], metadata)
            yield transcript

    def _send_metadata(self, call: SendOptions) -> list[tuple[str, str]]:
        request_id = checked_request_id(call.get("request_id"))
        return self._metadata(call.get("metadata", ()), (X_REQ_ID, request_id))

    def stream(
        self, audio: AsyncIterable[bytes | Flush], *, encoding: AudioFormat, **options: Unpack[StreamOptions]
    ) -> AsyncGenerator[StreamEvent, None]:
        """Transcribe live audio: yield events while it is sent.

        Closing the generator cancels the call. When it ends, for whatever reason, the audio iterator is closed if it
        has `aclose`.

        With `resume`, a lost connection is reestablished, for up to half a minute without progress, and audio that no
        final covers is sent again; up to 16 MiB or 60 s of audio, whichever is more, is kept for that. Events look as
        if there had been one connection: offsets and utterance numbers continue, no event of a finished utterance is
        repeated, and interims of the interrupted utterance resume once they include its stable text again.
        `audio_processed` never decreases. Errors of the request itself are raised as without `resume`.

        Args:
            audio: chunks of any size, and `FLUSH` to end the current utterance. Pulled as fast as the service accepts
                it.
            encoding: of the audio, 8000 to 48000 Hz.
            options: see `StreamOptions`.

        Raises:
            ValueError: immediately: invalid option.
            SttError: from the generator: the call failed; a subclass for each error type.
            Exception: from the generator: whatever the audio iterator raised; the call is cancelled.
        """
        return stream_events(single_member(self), audio, encoding, **options)

    def start_stream(self, deadline: float | None, request_id: str, metadata: Pairs) -> StreamCall:
        """Start one `StreamTranscribe` call, for `stream`, which makes several if it resumes."""
        pairs = self._metadata(metadata, (X_REQ_ID, request_id))
        method = SpeechToTextStub(self._open()).StreamTranscribe
        call = method(timeout=seconds_left(deadline), metadata=pairs)
        return StreamCall(call, self.target, request_id, self._telemetry)

    async def status(self, *, metadata: Pairs = ()) -> Status:
        """Return the service's model, limits and statistics. Needs no key. Raises SttError."""
        request = speech_pb2.GetStatusRequest()
        return await self._caller.call(
            GET_STATUS, self._open(), request, deadline_in(self.timeout), self._metadata(metadata)
        )

    @property
    def targets(self) -> tuple[str, ...]:
        """The target, as a pool has several."""
        return (self.target,)

    async def limits(self) -> Limits | None:
        """Return the service's limits; None if it doesn't say within `LIMITS_TIMEOUT_S`."""
        try:
            return (await asyncio.wait_for(self.status(), LIMITS_TIMEOUT_S)).limits
        except (SttError, asyncio.TimeoutError):
            return None

    async def check_admission(self, *, metadata: Pairs = ()) -> int:
        """Check whether `transcribe` would be admitted now. Sends no audio and takes no rate-limit token.

        Args:
            metadata: as for `transcribe`; `authorization` is checked.

        Returns:
            Size limit of a recording, in bytes.

        Raises:
            SttError: the error with which `transcribe` would be refused.
        """
        request = speech_pb2.CheckAdmissionRequest()
        return await self._caller.call(
            CHECK_ADMISSION, self._open(), request, deadline_in(self.timeout), self._metadata(metadata)
        )

    async def metrics(self, *, refusals: Sequence[GatewayRefusals] = ()) -> Metrics:
        """Return the service's metrics in Prometheus text format. Needs no key. Raises SttError.

        Args:
            refusals: requests that a gateway refused by itself, for the service to count.
        """
        sent = [speech_pb2.GatewayRefusals(**asdict(each)) for each in refusals]
        request = speech_pb2.GetMetricsRequest(refusals=sent)
        return await self._caller.call(
            GET_METRICS, self._open(), request, deadline_in(self.timeout), self._metadata(())
        )

    async def health(self, service: str = "", *, timeout: float = 5.0) -> bool:
        """Return whether the service is SERVING; False also if it can't be reached within `timeout` seconds.

        Args:
            service: registered name: empty, or `stt.v1.SpeechToText`.

        Raises:
            SttError: the server doesn't know the name, or has no health service.
        """
        try:
            return await health.check(self._open(), service, timeout)
        except grpc.aio.AioRpcError as failed:
            error = error_of_rpc(failed, self.target)
            if isinstance(error, UpstreamUnavailable | DeadlineExceeded):
                return False
            raise error from None

    async def wait_ready(self, timeout: float | None = 60.0) -> None:
        """Wait until the service is SERVING.

        Args:
            timeout: seconds; None: no limit.

        Raises:
            NotReady: it was not within `timeout`.
        """

        async def until_serving() -> None:
            async with aclosing(self.watch_health()) as states:
                async for serving in states:
                    if serving:
                        return

        try:
            await asyncio.wait_for(until_serving(), timeout)
        except asyncio.TimeoutError:
            raise NotReady(f"{self.target} was not ready within {timeout:g} s") from None

    def watch_health(self, service: str = "") -> AsyncGenerator[bool, None]:
        """Yield whether the service is SERVING: now, and at each change, until closed. See `health.watch`."""
        return health.watch(self._open(), service)

    def _open(self) -> grpc.aio.Channel:
        loop = asyncio.get_running_loop()
        if self._closed:
            raise RuntimeError("the client is closed; create a new one")
        if self._channel is None:
            self._channel = open_channel(self.target, self._tls, self.max_message_bytes)
            self._loop = loop
        elif self._loop is not loop:
            raise RuntimeError("the client is bound to the event loop of its first call; create one client per loop")
        return self._channel

    def _metadata(self, extra: Pairs, *own: tuple[str, str]) -> list[tuple[str, str]]:
        pairs = [*own, *(((AUTHORIZATION, f"Bearer {self._api_key}"),) if self._api_key else ())]
        overridden = {name.lower() for name, _ in extra}
        kept = [pair for pair in pairs if pair[0] not in overridden]
        return kept + [(name.lower(), value) for name, value in extra]
