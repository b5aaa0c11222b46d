"""One `StreamTranscribe` call, which sends and receives at the same time."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from typing import Any

import grpc
import grpc.aio

from protos.stt.v1 import speech_pb2
from stt_client.errors import Cancelled
from stt_client.rpc import error_of_rpc
from stt_client.streaming.audio_source import AudioSource
from stt_client.streaming.results import Flush
from stt_client.telemetry import CallRecord, Telemetry, report

_WRITE_FAILED = "Internal error from Core"
"""Details of the status that gRPC substitutes after a failed write."""
_STATUS_POLL_S = 0.005
_STATUS_POLLS = 100


class StreamCall:
    """A call that has started.

    Args:
        call: the gRPC call.
        target: the service, for errors and the record.
        telemetry: called with the record of this call when it ends.
    """

    def __init__(self, call: Any, target: str, request_id: str, telemetry: Telemetry | None) -> None:
        self._call = call
        self._target = target
        self._request_id = request_id
        self._telemetry = telemetry
        self._audio_error: Exception | None = None
        self._final_status: grpc.aio.AioRpcError | None = None
        self._sent_bytes = 0
        self.connected = False
        """Whether the service was reached. No audio is pulled before."""
        call.add_done_callback(self._note_status)

    async def responses(
        self, config: speech_pb2.StreamConfig, audio: AudioSource
    ) -> AsyncGenerator[speech_pb2.StreamTranscribeResponse, None]:
        """Send the config and the audio, and yield the responses. Closing the generator cancels the call.

        Raises:
            SttError: the call failed; a subclass for each error type.
            Exception: whatever the caller's audio iterator raised.
        """
        started = time.monotonic()
        error_type = Cancelled.type
        sender = asyncio.create_task(self._send(config, audio))
        # Not `read()`, which loses responses that have arrived once a write fails.
        replies = aiter(self._call)
        try:
            while (response := await self._next_reply(replies)) is not None:
                yield response
            error_type = ""
        except grpc.aio.AioRpcError as failed:
            error = error_of_rpc(failed, self._target)
            error_type = error.type
            raise error from None
        finally:
            # Stop sending, also if the service ended the call (`single_utterance`).
            self._call.cancel()
            sender.cancel()
            await asyncio.gather(sender, return_exceptions=True)
            self._report(error_type, time.monotonic() - started)

    def _report(self, error_type: str, seconds: float) -> None:
        record = CallRecord(
            "StreamTranscribe", self._target, self._request_id, not error_type, error_type, seconds, self._sent_bytes
        )
        report(self._telemetry, record)

    async def _next_reply(self, replies: AsyncIterator[Any]) -> speech_pb2.StreamTranscribeResponse | None:
        """Return the next response; None after the last. Raises AioRpcError, or what the audio iterator raised."""
        # In a separate task, to distinguish a cancelled call from a cancelled caller.
        reading = asyncio.ensure_future(anext(replies, None))
        try:
            await asyncio.wait({reading})
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
        if self._audio_error is not None:
            raise self._audio_error
        if reading.cancelled():
            raise Cancelled("the client was closed during the call")
        try:
            return reading.result()
        except grpc.aio.AioRpcError:
            status = await self._status()
            if status.code() is grpc.StatusCode.OK:
                return None
            raise status from None

    def _note_status(self, call: Any) -> None:
        """Store the status at the moment the call ends; see `_status`."""
        self._final_status = _status_of(call)

    async def _status(self) -> grpc.aio.AioRpcError:
        """Return the status with which the service ended the call.

        A write that fails while the call ends makes gRPC report INTERNAL instead, temporarily or from then on
        (grpc/grpc#36066).
        """
        polls_left = _STATUS_POLLS
        while self._final_status is None or (self._final_status.details() == _WRITE_FAILED and polls_left):
            polls_left -= 1
            await asyncio.sleep(_STATUS_POLL_S)  # gRPC has no event for a changed status.
            self._final_status = _status_of(self._call)
        return self._final_status

    async def _send(self, config: speech_pb2.StreamConfig, audio: AudioSource) -> None:
        # Writing to a call that has ended fails; the reader gets the reason.
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


def _status_of(call: Any) -> grpc.aio.AioRpcError:
    """Return the status of a call that has ended."""
    parts = (call.code(), call.initial_metadata(), call.trailing_metadata(), call.details())
    return grpc.aio.AioRpcError(*map(_result, parts))


def _result(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Return the result of a coroutine that doesn't wait for anything."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("the status of a call that has ended is not available")
