"""One connection's `StreamTranscribe` call: it sends beside receiving."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator
from typing import Any

import grpc
import grpc.aio

from protos.stt.v1 import speech_pb2
from stt_client.audio_source import AudioSource
from stt_client.errors import Cancelled, SttError
from stt_client.rpc_errors import error_of_rpc
from stt_client.stream_results import Flush
from stt_client.telemetry import CallRecord, Telemetry, report


class StreamCall:
    """A call that has begun.

    Args:
        call: gRPC's.
        target: the service, for errors and the record.
        telemetry: called with the record of this call at its end.
    """

    def __init__(self, call: Any, target: str, request_id: str, telemetry: Telemetry | None) -> None:
        self._call = call
        self._target = target
        self._request_id = request_id
        self._telemetry = telemetry
        self._audio_error: Exception | None = None
        self._sent_bytes = 0
        self.connected = False
        """The service could be reached; until then, nothing of the audio has been touched."""

    async def responses(
        self, config: speech_pb2.StreamConfig, audio: AudioSource
    ) -> AsyncGenerator[speech_pb2.StreamTranscribeResponse, None]:
        """Sends the config and the audio, and yields what the service says. Closing it cancels the call.

        Raises:
            SttError: one of its subclasses, by the type that the service said.
            Exception: what the caller's audio iterator raised.
        """
        started = time.monotonic()
        error_type = Cancelled.type
        sender = asyncio.create_task(self._send(config, audio))
        try:
            while (response := await self._read()) is not None:
                yield response
            error_type = ""
        except grpc.aio.AioRpcError as failed:
            error = error_of_rpc(failed, self._target)
            error_type = error.type
            raise error from None
        finally:
            # Whoever ended it, sending ends too: the service may have had enough (`single_utterance`).
            self._call.cancel()
            sender.cancel()
            await asyncio.gather(sender, return_exceptions=True)
            seconds = time.monotonic() - started
            ok = not error_type
            report(
                self._telemetry,
                CallRecord(
                    "StreamTranscribe", self._target, self._request_id, ok, error_type, seconds, self._sent_bytes
                ),
            )

    async def _read(self) -> speech_pb2.StreamTranscribeResponse | None:
        """The next response; None after the last. Raises AioRpcError, or what the audio iterator raised."""
        # In a task of its own, so that a call that is cancelled can be told from a caller who is.
        reading = asyncio.ensure_future(self._call.read())
        try:
            await asyncio.wait({reading})
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
        if self._audio_error is not None:
            raise self._audio_error
        if reading.cancelled():
            raise _closed()
        response = reading.result()
        return None if response is grpc.aio.EOF else response

    async def _send(self, config: speech_pb2.StreamConfig, audio: AudioSource) -> None:
        # A call that has ended can't be written to; why it ended is for whoever reads from it.
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            await self._call.wait_for_connection()
            self.connected = True
            await self._call.write(speech_pb2.StreamTranscribeRequest(config=config))
            while (item := await self._next(audio)) is not None:
                await self._call.write(_message(item))
                self._sent_bytes += len(item) if isinstance(item, bytes) else 0
            if self._audio_error is None:
                await self._call.done_writing()

    async def _next(self, audio: AudioSource) -> bytes | Flush | None:
        try:
            return await audio.next()
        except Exception as error:
            self._audio_error = error
            self._call.cancel()
            return None


def _message(item: bytes | Flush) -> speech_pb2.StreamTranscribeRequest:
    if isinstance(item, Flush):
        return speech_pb2.StreamTranscribeRequest(flush=speech_pb2.Flush())
    return speech_pb2.StreamTranscribeRequest(audio=item)


def _closed() -> SttError:
    return Cancelled("the client was closed during the call")
