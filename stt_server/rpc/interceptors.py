"""What happens around every call of SpeechToText: admission, error mapping, trailing metadata, the request log."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from functools import partial
from typing import Any, NoReturn

import grpc
from grpc import StatusCode

from protos.stt.v1.errors import ERRORS
from protos.stt.v1.trace_context import current_trace
from protos.stt.v1.wire import SPEECH_SERVICE
from stt_server.admission.upload_budget import UploadBudget
from stt_server.errors import DeadlineExceeded, Internal, NotReady, SttError
from stt_server.lifecycle.readiness import Readiness
from stt_server.observability.instruments import Observer
from stt_server.rpc.access_control import AccessControl
from stt_server.rpc.call_state import CallState, current_call, trailing_metadata
from stt_server.rpc.error_status import abort, note_error
from stt_server.rpc.messages import Parse, parse_message, parse_messages, read_message

log = logging.getLogger(__name__)

Context = grpc.aio.ServicerContext[Any, Any]


class SpeechInterceptor(grpc.aio.ServerInterceptor):
    """Admits, times and logs calls of SpeechToText; of other services it only rejects unparsable messages."""

    def __init__(
        self,
        access: AccessControl,
        readiness: Readiness,
        uploads: UploadBudget,
        observer: Observer,
        unread_timeout_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            uploads: limits the messages of unary calls.
            unread_timeout_s: seconds after which a stream ends whose caller doesn't read its next event.
        """
        self._access = access
        self._readiness = readiness
        self._uploads = uploads
        self._observer = observer
        self._unread_timeout_s = unread_timeout_s
        self._clock = clock

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None:
            return None
        if not method.startswith(f"/{SPEECH_SERVICE}/"):
            return handler if handler.unary_unary is None else _parsing(handler)
        if handler.stream_stream:
            return grpc.stream_stream_rpc_method_handler(
                self._stream(handler.stream_stream, method, handler.request_deserializer),
                None,
                handler.response_serializer,
            )
        # Registered as a stream of one message: of a unary call gRPC reads and parses the message before the handler
        # can refuse it.
        if handler.unary_stream:
            return grpc.stream_stream_rpc_method_handler(
                self._unary_stream(handler.unary_stream, method, handler.request_deserializer),
                None,
                handler.response_serializer,
            )
        return grpc.stream_unary_rpc_method_handler(
            self._unary(handler.unary_unary, method, handler.request_deserializer), None, handler.response_serializer
        )

    def _unary(self, behaviour: Callable[[Any, Context], Awaitable[Any]], method: str, parse: Parse) -> Any:
        async def handle(requests: Any, context: Context) -> Any:
            async with self._call(method, context) as call, self._upload(call, requests, context, parse) as request:
                return await behaviour(request, context)

        return handle

    def _unary_stream(
        self, behaviour: Callable[[Any, Context], AsyncGenerator[Any, None]], method: str, parse: Parse
    ) -> Any:
        async def handle(requests: Any, context: Context) -> None:
            async with (
                self._call(method, context) as call,
                self._upload(call, requests, context, parse) as request,
                aclosing(behaviour(request, context)) as responses,
            ):
                async for response in responses:
                    await self._write(context, response)

        return handle

    @asynccontextmanager
    async def _upload(self, call: CallState, requests: Any, context: Context, parse: Parse) -> AsyncIterator[Any]:
        """Admit an upload, and hold its message."""
        self._access.admit_upload(call, context)
        read, parse_request = partial(read_message, requests), partial(parse_message, parse=parse)
        async with self._uploads.hold(read, parse_request) as request:
            call.started = self._clock()  # the caller's time to send is not the service's
            yield request

    def _stream(self, behaviour: Callable[[Any, Context], AsyncGenerator[Any, None]], method: str, parse: Parse) -> Any:
        # Writes instead of yielding: gRPC doesn't cancel a generator that waits at a yield when the caller disconnects.
        async def handle(requests: Any, context: Context) -> None:
            async with self._call(method, context) as call:
                self._access.admit_stream(call, context)
                async with aclosing(behaviour(parse_messages(requests, parse), context)) as responses:
                    async for response in responses:
                        await self._write(context, response)

        return handle

    @asynccontextmanager
    async def _call(self, method: str, context: Context) -> AsyncIterator[CallState]:
        """Wraps one call: makes its state current, maps what it raises, and logs it once however it ends."""
        call = CallState.begin(method, context.invocation_metadata() or (), self._clock())
        current_call.set(call)
        current_trace.set(call.span)
        try:
            with self._readiness.answering():
                yield call
                context.set_trailing_metadata(tuple(trailing_metadata(call, self._clock())))
        except BaseException as error:
            await self._fail(call, context, error)
        self._observer.finished(call.record(self._clock()))

    async def _write(self, context: Context, response: Any) -> None:
        """Send an event; waits while the caller's flow-control window is full.

        Raises:
            DeadlineExceeded: the caller read nothing for `unread_timeout_s`. The caller receives the error only after
                the events it hasn't read; the stream's resources are free at once.
        """
        writing = asyncio.ensure_future(context.write(response))
        try:
            if not (await asyncio.wait((writing,), timeout=self._unread_timeout_s))[0]:
                raise DeadlineExceeded(
                    f"no event was read for {self._unread_timeout_s:g} s; read events as they arrive"
                )
            writing.result()
        finally:
            writing.cancel()

    async def _fail(self, call: CallState, context: Context, error: BaseException) -> NoReturn:
        """End a call that raised, with its row of the error table and without internals.

        Logs before it sends the status, because sending waits as long as the caller doesn't read.
        """
        mapped = self._map(call, context, error)
        if mapped is not None:
            note_error(call, mapped)
        self._observer.finished(call.record(self._clock()))
        if mapped is None:
            raise error
        await abort(call, context, mapped, self._clock())
        raise AssertionError("abort() returned")

    def _map(self, call: CallState, context: Context, error: BaseException) -> SttError | None:
        """The error to send; None if the call has ended already or the caller is gone."""
        if isinstance(error, grpc.aio.AbortError):
            code = context.code()
            call.fail(code if isinstance(code, StatusCode) else StatusCode.UNKNOWN, call.kind, call.message)
            return None
        if isinstance(error, (asyncio.CancelledError, GeneratorExit)):
            if self._readiness.state == "stopped":
                return NotReady("the service stopped before it could answer; retry or use another server")
            left = context.time_remaining()
            late = left is not None and left <= 0
            kind = ERRORS["deadline_exceeded" if late else "cancelled"]
            call.fail(StatusCode[kind.status], kind)
            return None
        if not isinstance(error, Exception):
            return None
        if not isinstance(error, SttError):
            log.error("call failed: unexpected exception", exc_info=error, extra={"request_id": call.request_id})
            return Internal("internal error; report it with the request id")
        return error


def _parsing(handler: Any) -> Any:
    """Wrap a unary handler so that an unparsable message is INVALID_ARGUMENT rather than INTERNAL."""

    async def handle(requests: Any, context: Context) -> Any:
        try:
            request = parse_message(await read_message(requests), handler.request_deserializer)
        except SttError as error:
            await context.abort(StatusCode[ERRORS[error.type].status], error.message)
        return await handler.unary_unary(request, context)

    return grpc.stream_unary_rpc_method_handler(handle, None, handler.response_serializer)
