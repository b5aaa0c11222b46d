"""`SttClient`: one service, asyncio."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Sequence
from contextlib import aclosing
from types import EllipsisType, TracebackType
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar

import grpc
import grpc.aio

from protos.stt.v1 import speech_pb2
from protos.stt.v1.speech_pb2_grpc import OperationsStub, SpeechToTextStub
from protos.stt.v1.wire import X_REQ_ID
from stt_client import health
from stt_client.channel import MAX_MESSAGE_BYTES, Tls, open_channel, resolve
from stt_client.convert import status_of, transcript_of
from stt_client.deadline import deadline_in, seconds_left
from stt_client.errors import DeadlineExceeded, NotReady, UpstreamUnavailable
from stt_client.request import AudioFormat, Samples, checked_request_id, prepare
from stt_client.results import Metrics, Status, Transcript
from stt_client.rpc_errors import error_of_rpc
from stt_client.streaming.call import StreamCall
from stt_client.streaming.options import StreamOptions
from stt_client.streaming.results import Flush, StreamEvent
from stt_client.streaming.stream import Alone, live
from stt_client.telemetry import LatencyStats, Telemetry
from stt_client.unary_call import UnaryCall

if TYPE_CHECKING:
    from typing_extensions import Unpack

Pairs = Sequence[tuple[str, str]]
_T = TypeVar("_T")


class ClientOptions(TypedDict, total=False):
    """The keyword arguments of `SttClient`."""

    api_key: str | None
    timeout: float | None
    tls: Tls | None
    telemetry: Telemetry | None
    max_message_bytes: int


class SttClient:
    """A client of one service, for one event loop. It connects on its first call.

    Args:
        target: `host:port`, `grpc://host:port`, `grpcs://host:port` (TLS), or a gRPC target (`dns:///`, `unix:/`).
        api_key: sent as Bearer.
        timeout: seconds that a call may take unless the call says otherwise; None: no limit.
        tls: certificates; with it, `host:port` means TLS too.
        telemetry: called with a `CallRecord` after each call.
        max_message_bytes: largest message to send or to receive.

    Raises:
        ValueError: `target`, `tls` or `api_key` can't be used; the message says why.
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
            raise ValueError("api_key takes printable ASCII only")
        self.target = target
        self.timeout = timeout
        self.max_message_bytes = max_message_bytes
        self.latency = LatencyStats()
        self._api_key = api_key
        self._tls = tls
        self._telemetry = telemetry
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
        """Cancels what is in flight and disconnects. Closing twice is fine."""
        self._closed = True
        if self._channel is not None:
            await self._channel.close(None)

    async def transcribe(
        self,
        audio: str | os.PathLike[str] | bytes | Samples,
        *,
        language: str | None = None,
        candidate_languages: Sequence[str] = (),
        task: str = "transcribe",
        prompt: str = "",
        hotwords: Sequence[str] = (),
        word_timestamps: bool = False,
        routing: str = "auto",
        encoding: AudioFormat | None = None,
        timeout: float | EllipsisType | None = ...,
        request_id: str | None = None,
        metadata: Pairs = (),
    ) -> Transcript:
        """Transcribes one recording.

        Args:
            audio: path of a file, its bytes, or samples.
            language: ISO 639-1 code, which forces the language; None: detected.
            candidate_languages: detection chooses among these; empty: among all.
            task: `transcribe` or `translate` (to English).
            prompt: text that precedes the audio: style and vocabulary.
            hotwords: words to listen for.
            word_timestamps: also return each word's time.
            routing: `auto`, `primary` or `fallback`.
            encoding: of headerless bytes; None: a container that names its own.
            timeout: seconds from now, None for no limit; left out: the client's.
            request_id: 1 to 64 of `A-Z a-z 0-9 . _ -`; None: a new one.
            metadata: sent as it is; replaces what the client would send under the same name.

        Raises:
            SttError: one of its subclasses, by the type that the service said.
            ValueError: an option that isn't one.
            OSError: the file can't be read.
        """
        deadline = deadline_in(self.timeout if timeout is ... else timeout)
        request = await prepare(
            audio,
            self.max_message_bytes,
            language=language,
            candidate_languages=candidate_languages,
            task=task,
            prompt=prompt,
            hotwords=hotwords,
            word_timestamps=word_timestamps,
            routing=routing,
            encoding=encoding,
        )
        return await self.send(request, deadline=deadline, request_id=request_id, metadata=metadata)

    async def send(
        self,
        request: speech_pb2.TranscribeRequest,
        *,
        deadline: float | None,
        request_id: str | None = None,
        metadata: Pairs = (),
    ) -> Transcript:
        """Transcribes by a request message that is already made; see `transcribe`.

        Args:
            deadline: on the clock of `time.monotonic`; None: no limit.
        """
        pairs = self._metadata(metadata, (X_REQ_ID, checked_request_id(request_id)))
        method = SpeechToTextStub(self._open()).Transcribe
        return await self._call("Transcribe", method, request, transcript_of, deadline, pairs, len(request.audio))

    def stream(
        self, audio: AsyncIterable[bytes | Flush], *, encoding: AudioFormat, **options: Unpack[StreamOptions]
    ) -> AsyncGenerator[StreamEvent, None]:
        """Transcribes live audio: yields events while it is sent.

        Closing the generator cancels the call; either way the audio iterator is closed where it can be.

        Args:
            audio: chunks of any size, and `FLUSH` where the current utterance is to end. It is pulled as fast as the
                service takes it, and no faster.
            encoding: of the audio, 8000 to 48000 Hz.
            options: see `StreamOptions`. With `resume`, a lost connection is made again, for up to half a minute
                without progress, and what no final covers is sent again: up to 16 MiB, or a minute, of audio is kept.
                The caller sees one stream: offsets and utterances go on, no event of a finished utterance comes
                twice, and interims of the interrupted one come once they say again what was stable. `audio_processed`
                doesn't go back, though the service does. Errors of the request itself are raised all the same.

        Raises:
            ValueError: at once, an option that isn't one.
            SttError: from the generator, one of its subclasses, by the type that the service said.
            Exception: from the generator, what the audio iterator raised; the call is cancelled.
        """
        return live(Alone(self), audio, encoding, **options)

    def start_stream(self, deadline: float | None, request_id: str, metadata: Pairs) -> StreamCall:
        """Begins one `StreamTranscribe` call; see `stream`, which makes as many as it takes."""
        pairs = self._metadata(metadata, (X_REQ_ID, request_id))
        method = SpeechToTextStub(self._open()).StreamTranscribe
        call = method(timeout=seconds_left(deadline), metadata=pairs)
        return StreamCall(call, self.target, request_id, self._telemetry)

    async def status(self, *, metadata: Pairs = ()) -> Status:
        """What the service is, what it accepts, and how it does. Needs no key. Raises SttError."""
        method = OperationsStub(self._open()).GetStatus
        request = speech_pb2.GetStatusRequest()
        pairs = self._metadata(metadata)
        deadline = deadline_in(self.timeout)
        return await self._call("GetStatus", method, request, lambda reply, _: status_of(reply), deadline, pairs)

    async def check_admission(self, *, metadata: Pairs = ()) -> int:
        """Checks whether `transcribe` would be admitted now. Sends no audio and takes no rate-limit token.

        Args:
            metadata: as for `transcribe`; `authorization` is judged.

        Returns:
            The largest recording that the service accepts, in bytes.

        Raises:
            SttError: the error with which `transcribe` would be refused.
        """
        return await self._call(
            "CheckAdmission",
            OperationsStub(self._open()).CheckAdmission,
            speech_pb2.CheckAdmissionRequest(),
            lambda reply, _: int(reply.max_upload_bytes),
            deadline_in(self.timeout),
            self._metadata(metadata),
        )

    async def metrics(self) -> Metrics:
        """The Prometheus exposition of the service. Needs no key. Raises SttError."""
        method = OperationsStub(self._open()).GetMetrics
        request = speech_pb2.GetMetricsRequest()
        return await self._call(
            "GetMetrics",
            method,
            request,
            lambda reply, _: Metrics(reply.exposition, reply.content_type),
            deadline_in(self.timeout),
            self._metadata(()),
        )

    async def health(self, service: str = "", *, timeout: float = 5.0) -> bool:
        """Whether the service is SERVING; False also where it can't be reached within `timeout` seconds.

        Args:
            service: a name that the service registered: empty, or `stt.v1.SpeechToText`.

        Raises:
            SttError: it answered, but not with its health: no such name, or no health service there.
        """
        try:
            return await health.check(self._open(), service, timeout)
        except grpc.aio.AioRpcError as failed:
            error = error_of_rpc(failed, self.target)
            if isinstance(error, UpstreamUnavailable | DeadlineExceeded):
                return False
            raise error from None

    async def wait_ready(self, timeout: float | None = 60.0) -> None:
        """Returns once the service is SERVING, told by its health watch.

        Args:
            timeout: seconds; None: for as long as it takes.

        Raises:
            NotReady: it was not within `timeout`.
        """

        async def serving() -> None:
            async with aclosing(self.watch_health()) as verdicts:
                async for verdict in verdicts:
                    if verdict:
                        return

        try:
            await asyncio.wait_for(serving(), timeout)
        except asyncio.TimeoutError:
            raise NotReady(f"{self.target} was not ready within {timeout:g} s") from None

    def watch_health(self, service: str = "") -> AsyncGenerator[bool, None]:
        """Whether the service is SERVING: now, and at each change, until closed. See `health.watch`."""
        return health.watch(self._open(), service)

    def _open(self) -> grpc.aio.Channel:
        loop = asyncio.get_running_loop()
        if self._closed:
            raise RuntimeError("this client is closed; make a new one")
        if self._channel is None:
            self._channel = open_channel(self.target, self._tls, self.max_message_bytes)
            self._loop = loop
        elif self._loop is not loop:
            raise RuntimeError("a client belongs to the event loop of its first call; make one for each loop")
        return self._channel

    def _metadata(self, extra: Pairs, *ours: tuple[str, str]) -> list[tuple[str, str]]:
        pairs = [*ours, *((("authorization", f"Bearer {self._api_key}"),) if self._api_key else ())]
        given = {name.lower() for name, _ in extra}
        return [pair for pair in pairs if pair[0] not in given] + [(name.lower(), value) for name, value in extra]

    async def _call(
        self,
        name: str,
        method: Callable[..., Any],
        request: object,
        convert: Callable[[Any, dict[str, str]], _T],
        deadline: float | None,
        metadata: list[tuple[str, str]],
        audio_bytes: int = 0,
    ) -> _T:
        """One unary call: its errors mapped, its record reported."""
        call = UnaryCall(name, self.target, self._telemetry, self.latency, lambda: self._closed)
        return await call.run(method, request, convert, deadline, metadata, audio_bytes)
