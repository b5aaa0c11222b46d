"""The servicer of `stt.v1.Operations`, for operators and the gateway. Needs no key."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

import grpc

from protos.stt.v1 import speech_pb2 as pb
from protos.stt.v1 import speech_pb2_grpc
from protos.stt.v1.wire import SPEECH_SERVICE
from stt_server.config import Settings
from stt_server.engine.types import ModelInfo
from stt_server.errors import SttError
from stt_server.observability.instruments import Observer
from stt_server.rpc.access_control import AccessControl
from stt_server.rpc.call_state import CallState
from stt_server.rpc.convert import duration
from stt_server.rpc.error_status import abort, note_error

Context = grpc.aio.ServicerContext[Any, Any]


class OperationsServicer(speech_pb2_grpc.OperationsServicer):
    """Answers in every state of the service."""

    def __init__(
        self,
        status: Callable[[], pb.GetStatusResponse],
        exposition: Callable[[], tuple[str, str]],
        access: AccessControl,
        observer: Observer,
        max_upload_bytes: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            status: current status. May block for milliseconds.
            exposition: Prometheus text and its content type. May block for milliseconds.
        """
        self._status = status
        self._exposition = exposition
        self._access = access
        self._observer = observer
        self._max_upload_bytes = max_upload_bytes
        self._clock = clock

    async def GetStatus(self, request: pb.GetStatusRequest, context: Context) -> pb.GetStatusResponse:  # noqa: N802
        """What the service is, its limits, counters and latency quantiles."""
        return await asyncio.get_running_loop().run_in_executor(None, self._status)

    async def GetMetrics(self, request: pb.GetMetricsRequest, context: Context) -> pb.GetMetricsResponse:  # noqa: N802
        """The Prometheus exposition."""
        if request.refusals and self._access.is_trusted(context):
            for refusals in request.refusals:
                self._observer.refused_by_gateway(refusals.endpoint, refusals.type, refusals.count)
        text, content_type = await asyncio.get_running_loop().run_in_executor(None, self._exposition)
        return pb.GetMetricsResponse(exposition=text, content_type=content_type)

    async def CheckAdmission(  # noqa: N802
        self, request: pb.CheckAdmissionRequest, context: Context
    ) -> pb.CheckAdmissionResponse:
        """Whether a `Transcribe` with the same `authorization` would be admitted now. Takes no rate-limit token.

        A refusal is logged and counted as the refused `Transcribe`, which the gateway then doesn't send.
        """
        metadata = context.invocation_metadata() or ()
        call = CallState.begin(f"/{SPEECH_SERVICE}/Transcribe", metadata, self._clock())
        try:
            self._access.check_upload(call, context)
        except SttError as error:
            note_error(call, error)
            self._observer.finished(call.record(self._clock()))
            await abort(call, context, error, self._clock())
        return pb.CheckAdmissionResponse(max_upload_bytes=self._max_upload_bytes)


def status_response(
    settings: Settings, model: ModelInfo | None, *, workers: int, uptime_s: float, snapshot: dict[str, Any]
) -> pb.GetStatusResponse:
    """The response to `GetStatus`.

    Args:
        model: None while it is loading.
        workers: concurrent inferences; 0 while the model is loading.
        snapshot: counters and latency quantiles; `GET /v1/metrics` shows them with the model's languages.
    """
    return pb.GetStatusResponse(
        service=settings.service,
        model=settings.model_name,
        device=model.device if model else "",
        compute_type=model.compute_type if model else "",
        server_commit=settings.server_commit,
        uptime=duration(uptime_s),
        limits=pb.Limits(
            max_upload_bytes=settings.max_upload_bytes,
            max_audio_duration=duration(settings.max_audio_seconds),
            max_concurrency=workers,
            max_queue=settings.max_queue,
        ),
        snapshot_json=json.dumps({**snapshot, "languages": list(model.languages) if model else []}),
    )
