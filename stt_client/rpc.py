"""Calls that send one message: deadlines, a record for each call, and gRPC errors mapped to `SttError`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from protos.stt.v1 import speech_pb2, speech_pb2_grpc
from protos.stt.v1.errors import type_of_bare_status
from protos.stt.v1.wire import GRPC_STATUS_DETAILS, X_ERROR_MESSAGE, X_ERROR_TYPE, X_REQ_ID
from stt_client.convert import progress_of, settled_of, status_of, transcript_of
from stt_client.errors import Cancelled, Internal, SttError, error_of
from stt_client.results import Metrics, Status, TranscribeEvent, Transcript
from stt_client.telemetry import CallRecord, LatencyStats, Telemetry, report

T = TypeVar("T")
WITH_PROGRESS = "TranscribeWithProgress"
Pairs = Sequence[tuple[str, str]]

_TLS_ADVICE = (
    ("certificate has expired", "The server's certificate has expired: renew it, or set this machine's clock."),
    (
        "CERTIFICATE_VERIFY_FAILED",
        "The server's certificate isn't signed by a trusted authority: pass the authority's certificate (--ca FILE, "
        "Tls(ca=...)).",
    ),
    (
        "Hostname Verification Check failed",
        "The server's certificate is for another name: connect to a name that it lists (subjectAltName).",
    ),
    ("WRONG_VERSION_NUMBER", "The server doesn't use TLS on this port: write grpc://, without certificates."),
)
"""Texts in gRPC's details of a failed connection, and what to do; the first match counts."""

_UNREACHABLE_ADVICE = (
    "Check that the service runs, that this is its gRPC port (50051, not the HTTP port 8081), and that both sides "
    "agree on TLS: grpcs://, and --cert and --key (Tls(cert=..., key=...)) if it requires client certificates."
)


def deadline_in(timeout: float | None) -> float | None:
    """Time on `time.monotonic` that is `timeout` seconds away; None for no limit."""
    return None if timeout is None else time.monotonic() + timeout


def seconds_left(deadline: float | None) -> float | None:
    """Seconds until the deadline, at least 0; None for no limit."""
    return None if deadline is None else max(0.0, deadline - time.monotonic())


@dataclass(frozen=True)
class Rpc(Generic[T]):
    """A unary method of the contract."""

    name: str
    stub: Callable[[grpc.aio.Channel], Any]
    convert: Callable[[Any, dict[str, str]], T]
    """Makes the result of the response and its trailing metadata."""


TRANSCRIBE: Rpc[Transcript] = Rpc("Transcribe", speech_pb2_grpc.SpeechToTextStub, transcript_of)
GET_STATUS: Rpc[Status] = Rpc("GetStatus", speech_pb2_grpc.OperationsStub, lambda reply, _: status_of(reply))
GET_METRICS: Rpc[Metrics] = Rpc(
    "GetMetrics", speech_pb2_grpc.OperationsStub, lambda reply, _: Metrics(reply.exposition, reply.content_type)
)
CHECK_ADMISSION: Rpc[int] = Rpc(
    "CheckAdmission", speech_pb2_grpc.OperationsStub, lambda reply, _: int(reply.max_upload_bytes)
)


class Unimplemented(Internal):
    """The service has no such method: it is older than this client, or another program."""


@dataclass
class _Outcome:
    """Result of a call so far."""

    transcript: Transcript | None = None


class Caller:
    """Makes the calls of one client that send one message.

    Args:
        target: the service, for messages and records.
        telemetry: called with the record of each call.
        latency: collects the durations of successful transcriptions.
        closed: whether the client has been closed, which cancels its calls.
    """

    def __init__(
        self, target: str, telemetry: Telemetry | None, latency: LatencyStats, closed: Callable[[], bool]
    ) -> None:
        self._target = target
        self._telemetry = telemetry
        self._latency = latency
        self._closed = closed

    async def call(
        self, rpc: Rpc[T], channel: grpc.aio.Channel, request: Any, deadline: float | None, metadata: Pairs
    ) -> T:
        """Make one call and report its record, whether it succeeds or fails.

        Raises:
            SttError: the subclass for the error type that the service sent.
        """
        with self._recorded(rpc.name, request, metadata) as outcome:
            method = getattr(rpc.stub(channel), rpc.name)
            call = method(request, timeout=seconds_left(deadline), metadata=metadata)
            reply = await call
            result = rpc.convert(reply, metadata_of(await call.trailing_metadata()))
            outcome.transcript = result if isinstance(result, Transcript) else None
        return result

    async def watch(
        self, channel: grpc.aio.Channel, request: Any, deadline: float | None, metadata: Pairs
    ) -> AsyncGenerator[TranscribeEvent, None]:
        """Make a `TranscribeWithProgress` call: yield its events, the transcript last, and report its record.

        Raises:
            Unimplemented: the service is an older one, without this method.
            SttError: the subclass for the error type that the service sent.
        """
        began = time.monotonic()
        with self._recorded(WITH_PROGRESS, request, metadata) as outcome:
            method = speech_pb2_grpc.SpeechToTextStub(channel).TranscribeWithProgress
            call = method(request, timeout=seconds_left(deadline), metadata=metadata)
            result: speech_pb2.TranscribeResponse | None = None
            try:
                async for response in call:
                    kind = response.WhichOneof("event")
                    if kind == "progress":
                        yield progress_of(response.progress, time.monotonic() - began)
                    elif kind == "segments":
                        yield settled_of(response.segments)
                    elif kind == "result":
                        result = response.result
                trailers = metadata_of(await call.trailing_metadata())
            finally:
                call.cancel()
            if result is None:
                raise Internal(f"{self._target} ended {WITH_PROGRESS} without a result; check the versions")
            outcome.transcript = transcript_of(result, trailers)
        yield outcome.transcript

    @contextmanager
    def _recorded(self, method: str, request: Any, metadata: Pairs) -> Iterator[_Outcome]:
        """Report the record of the call in this context, and translate its error."""
        started = time.monotonic()
        outcome = _Outcome()
        error_type = "internal"
        try:
            yield outcome
            error_type = ""
        except grpc.aio.AioRpcError as failed:
            error = error_of_rpc(failed, self._target)
            error_type = error.type
            raise error from None
        except SttError as error:
            error_type = error.type
            raise
        except GeneratorExit:
            error_type = Cancelled.type
            raise
        except asyncio.CancelledError:
            error_type = Cancelled.type
            # Closing a channel cancels its calls, too: that is an error, not a cancellation of the caller's task.
            if self._closed() and not _task_is_cancelled():
                raise Cancelled("the client was closed during the call") from None
            raise
        finally:
            seconds = time.monotonic() - started
            if outcome.transcript is not None:
                self._latency.add(seconds)
            record = CallRecord(
                method=method,
                target=self._target,
                request_id=next((value for key, value in metadata if key == X_REQ_ID), ""),
                ok=not error_type,
                error_type=error_type,
                seconds=seconds,
                audio_bytes=len(getattr(request, "audio", b"")),
                transcript=outcome.transcript,
            )
            report(self._telemetry, record)


def metadata_of(pairs: Iterable[tuple[str, str | bytes]] | None) -> dict[str, str]:
    """Trailing metadata by lower-case name, without binary entries; the last of repeated names counts."""
    return {name: value for name, value in pairs or () if isinstance(value, str)}


def error_of_rpc(error: grpc.aio.AioRpcError, target: str) -> SttError:
    """Exception for a failed call.

    The trailer `x-error-type` decides. Without it the status came from the transport, or from a server that doesn't
    implement the contract.
    """
    metadata = metadata_of(error.trailing_metadata())
    details = error.details() or ""
    type_ = metadata.get(X_ERROR_TYPE)
    if type_:
        message = metadata.get(X_ERROR_MESSAGE) or details or type_
        return error_of(type_, message, metadata, _invalid_field(error.trailing_metadata()))
    return _bare_error(error.code(), details, target, metadata)


def _invalid_field(trailers: Iterable[tuple[str, str | bytes]] | None) -> str:
    """Path of the invalid field that a `google.rpc.BadRequest` names; empty if there is none."""
    serialized = next((value for name, value in trailers or () if name == GRPC_STATUS_DETAILS), b"")
    bad_request = error_details_pb2.BadRequest()
    try:
        details = status_pb2.Status.FromString(serialized).details
        found = next((detail for detail in details if detail.Unpack(bad_request)), None)
    except (DecodeError, TypeError):
        return ""
    violations = bad_request.field_violations
    return str(violations[0].field) if found is not None and violations else ""


def _bare_error(code: grpc.StatusCode, details: str, target: str, metadata: Mapping[str, str]) -> SttError:
    # A caller that cancels gets a CancelledError. This CANCELLED comes from the other side: gRPC servers send it for
    # calls that reach them while they stop.
    bare = grpc.StatusCode.UNAVAILABLE if code is grpc.StatusCode.CANCELLED else code
    type_ = type_of_bare_status(bare.name)
    if type_ == "upstream_unavailable":
        advice = next((advice for text, advice in _TLS_ADVICE if text in details), _UNREACHABLE_ADVICE)
        message = f"can't reach {target}. {advice} gRPC error: {details}"
    elif type_ == "deadline_exceeded":
        message = f"no answer from {target} before the deadline"
    elif type_ == "payload_too_large":
        message = f"the message exceeds the size limit of {target} or of this client: {details}"
    elif code is grpc.StatusCode.UNIMPLEMENTED:
        message = f"{target} is a gRPC server without this method. Check the port. gRPC error: {details}"
        return Unimplemented(message, metadata=metadata)
    else:
        message = f"{target} answered {code.name}: {details}"
    return error_of(type_, message, metadata)


def _task_is_cancelled() -> bool:
    # Task.cancelling needs Python 3.11. On 3.10 every cancellation is taken to be the caller's.
    task = asyncio.current_task()
    return bool(getattr(task, "cancelling", lambda: 1)())
