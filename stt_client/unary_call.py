"""One call with one request and one answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, TypeVar

import grpc.aio

from protos.stt.v1.wire import X_REQ_ID
from stt_client.deadline import seconds_left
from stt_client.errors import Cancelled
from stt_client.results import Transcript
from stt_client.rpc_errors import error_of_rpc, metadata_of
from stt_client.telemetry import CallRecord, LatencyStats, Telemetry, report

_T = TypeVar("_T")


class UnaryCall:
    """A call to be made.

    Args:
        name: of the RPC, for the record.
        latency: takes what a transcription took.
        closed: whether the client has been closed, which cancels its calls.
    """

    def __init__(
        self,
        name: str,
        target: str,
        telemetry: Telemetry | None,
        latency: LatencyStats,
        closed: Callable[[], bool],
    ) -> None:
        self._name = name
        self._target = target
        self._telemetry = telemetry
        self._latency = latency
        self._closed = closed

    async def run(
        self,
        method: Callable[..., Any],
        request: object,
        convert: Callable[[Any, dict[str, str]], _T],
        deadline: float | None,
        metadata: list[tuple[str, str]],
        audio_bytes: int,
    ) -> _T:
        """The answer; whatever comes, the call's record is reported.

        Raises:
            SttError: one of its subclasses, by the type that the service said.
        """
        started = time.monotonic()
        result: _T | None = None
        error_type = "internal"
        try:
            call = method(request, timeout=seconds_left(deadline), metadata=metadata)
            reply = await call
            result = convert(reply, metadata_of(await call.trailing_metadata()))
            error_type = ""
            return result
        except grpc.aio.AioRpcError as failed:
            error = error_of_rpc(failed, self._target)
            error_type = error.type
            raise error from None
        except asyncio.CancelledError:
            error_type = Cancelled.type
            # Closing a channel cancels its calls; a task that nobody cancelled must not look as if it was.
            if self._closed() and not _being_cancelled():
                raise Cancelled("the client was closed during the call") from None
            raise
        finally:
            seconds = time.monotonic() - started
            transcript = result if isinstance(result, Transcript) else None
            if transcript is not None:
                self._latency.add(seconds)
            request_id = next((value for key, value in metadata if key == X_REQ_ID), "")
            record = CallRecord(
                self._name,
                self._target,
                request_id,
                not error_type,
                error_type,
                seconds,
                audio_bytes,
                transcript,
            )
            report(self._telemetry, record)


def _being_cancelled() -> bool:
    # Task.cancelling is new in Python 3.11; before it, there is no way to tell, and a cancellation stays one.
    task = asyncio.current_task()
    return bool(getattr(task, "cancelling", lambda: 1)())
