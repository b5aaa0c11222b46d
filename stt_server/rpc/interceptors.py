"""Around every call of SpeechToText: its id, its admission, its errors mapped once, its story told once."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, NoReturn

import grpc
from grpc import StatusCode

from protos.stt.v1.errors import ERRORS
from protos.stt.v1.wire import SPEECH_SERVICE
from stt_server.admission.upload_budget import Room
from stt_server.errors import DeadlineExceeded, Internal, NotReady, Overloaded, SttError
from stt_server.lifecycle.readiness import Readiness
from stt_server.observability.call_record import STREAM, TRANSCRIBE
from stt_server.observability.observer import Observer
from stt_server.rpc.access_control import Guard
from stt_server.rpc.call_state import CallState, current_call, error_metadata, request_id_of, trailing_metadata
from stt_server.rpc.messages import Parse, parsed, parsed_message, raw_message

log = logging.getLogger(__name__)

SPEECH = f"/{SPEECH_SERVICE}/"

Context = grpc.aio.ServicerContext[Any, Any]


class SpeechInterceptor(grpc.aio.ServerInterceptor):
    """Guards, maps and tells every call of `SpeechToText`; of other services' it only sees that messages are some."""

    def __init__(
        self,
        guard: Guard,
        readiness: Readiness,
        observer: Observer,
        room: Room,
        check_door: Callable[[], None],
        unread_timeout_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            room: for the messages of unary calls.
            check_door: raises Overloaded as long as nobody would be let in, whatever he sent.
            unread_timeout_s: seconds without room on the wire for a stream's next event that end the stream.
        """
        self._guard = guard
        self._readiness = readiness
        self._observer = observer
        self._room = room
        self._check_door = check_door
        self._unread_timeout_s = unread_timeout_s
        self._clock = clock

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or not method.startswith(SPEECH):
            return handler if handler is None or handler.unary_unary is None else _checked(handler)
        if handler.stream_stream:
            return grpc.stream_stream_rpc_method_handler(
                self._stream(handler.stream_stream, method, handler.request_deserializer),
                None,
                handler.response_serializer,
            )
        # As a stream of one message: gRPC reads and parses a single one before its handler may say no to the caller.
        return grpc.stream_unary_rpc_method_handler(
            self._unary(handler.unary_unary, method, handler.request_deserializer), None, handler.response_serializer
        )

    def _unary(self, behaviour: Callable[[Any, Context], Awaitable[Any]], method: str, parse: Parse) -> Any:
        async def guarded(requests: Any, context: Context) -> Any:
            call = self._begin(method, context)
            try:
                with self._readiness.answering():
                    self._guard.admit(call, context.invocation_metadata() or (), context.peer())
                    self._check_door()
                    async with self._room.message(requests, parse) as request:
                        call.started = self._clock()  # how long a caller takes to send is not our time
                        response = await behaviour(request, context)
                    context.set_trailing_metadata(tuple(trailing_metadata(call, self._clock())))
            except BaseException as error:
                await self._failed(call, context, error)
            self._observer.finished(call.story(self._clock()))
            return response

        return guarded

    def _stream(self, behaviour: Callable[[Any, Context], AsyncGenerator[Any, None]], method: str, parse: Parse) -> Any:
        # Writes instead of yielding: a generator that nobody asks any more would not hear of a caller's going.
        async def guarded(requests: Any, context: Context) -> None:
            call = self._begin(method, context)
            try:
                with self._readiness.answering():
                    self._guard.admit(call, context.invocation_metadata() or (), context.peer())
                    async with aclosing(behaviour(parsed(requests, parse), context)) as responses:
                        async for response in responses:
                            await self._write(context, response)
                    context.set_trailing_metadata(tuple(trailing_metadata(call, self._clock())))
            except BaseException as error:
                await self._failed(call, context, error)
            self._observer.finished(call.story(self._clock()))

        return guarded

    async def _write(self, context: Context, response: Any) -> None:
        """Sends an event, which waits while the caller reads none of those before it.

        Raises:
            DeadlineExceeded: too long. The caller learns of it behind what it has not read, if it ever reads on; what
                the stream held is free by then.
        """
        writing = asyncio.ensure_future(context.write(response))
        try:
            if not (await asyncio.wait((writing,), timeout=self._unread_timeout_s))[0]:
                said = f"no event was read for {self._unread_timeout_s:g} s; read them while audio is sent"
                raise DeadlineExceeded(said)
            writing.result()
        finally:
            writing.cancel()

    def _begin(self, method: str, context: Context) -> CallState:
        endpoint = STREAM if method.endswith("StreamTranscribe") else TRANSCRIBE
        request_id = request_id_of(context.invocation_metadata() or ())
        call = CallState(method, endpoint, request_id, self._clock())
        current_call.set(call)
        return call

    async def _failed(self, call: CallState, context: Context, error: BaseException) -> NoReturn:
        """Ends a call that raised: with the row of the error table where we know it, and never with internals.

        Its story is told before its status is sent, which waits for as long as a caller reads nothing.
        """
        known = self._known(call, context, error)
        if known is not None:
            _note(call, known)
        self._observer.finished(call.story(self._clock()))
        if known is None:
            raise error
        await _end(call, context, known, self._clock())
        raise AssertionError("abort() returned")

    def _known(self, call: CallState, context: Context, error: BaseException) -> SttError | None:
        """What the caller is told; None where the call has ended already, or nobody is there to be told."""
        if isinstance(error, grpc.aio.AbortError):
            code = context.code()
            call.fail(code if isinstance(code, StatusCode) else StatusCode.UNKNOWN, call.kind, call.message)
            return None
        if isinstance(error, (asyncio.CancelledError, GeneratorExit)):
            if self._readiness.state == "stopped":
                return NotReady("the service stopped before it could answer; ask another one, or again")
            left = context.time_remaining()
            late = left is not None and left <= 0
            kind = ERRORS["deadline_exceeded" if late else "cancelled"]
            call.fail(StatusCode[kind.status], kind)
            return None
        if not isinstance(error, Exception):
            return None
        if not isinstance(error, SttError):
            log.error("a call failed", exc_info=error, extra={"request_id": call.request_id})
            return Internal("something went wrong inside; report it with the request id")
        return error


def _checked(handler: Any) -> Any:
    """A unary call of a service that isn't guarded."""

    async def checked(requests: Any, context: Context) -> Any:
        try:
            request = parsed_message(await raw_message(requests), handler.request_deserializer)
        except SttError as error:
            await context.abort(StatusCode[ERRORS[error.type].status], error.message)
        return await handler.unary_unary(request, context)

    return grpc.stream_unary_rpc_method_handler(checked, None, handler.response_serializer)


async def abort(call: CallState, context: Context, error: SttError, now: float) -> None:
    """Ends a call with an error's row of the table: status, trailing metadata, details. `now`: monotonic seconds."""
    _note(call, error)
    await _end(call, context, error, now)


def _note(call: CallState, error: SttError) -> None:
    kind = ERRORS[error.type]
    call.fail(StatusCode[kind.status], kind, error.message)
    call.refused = error.reason if isinstance(error, Overloaded) else None
    cause = error.__cause__
    if kind.http >= 500 and cause is not None:
        log.warning("request failed: %s", kind.type, exc_info=cause, extra={"request_id": call.request_id})


async def _end(call: CallState, context: Context, error: SttError, now: float) -> None:
    kind = ERRORS[error.type]
    entries = (*trailing_metadata(call, now), *error_metadata(kind, error.message, error.retry_after_s))
    try:
        await context.abort(call.status, _status_message(error.message), entries)
    except grpc.aio.InternalError:
        raise asyncio.CancelledError from None  # the caller went away before it could be told


def _status_message(message: str) -> str:
    """gRPC passes CR and LF on, and some clients choke on them."""
    return " ".join(message.split())[:1024]
