"""Scripted services of the contract: a real grpc.aio server on a free port, without a model."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from protos.stt.v1 import speech_pb2, speech_pb2_grpc
from protos.stt.v1.errors import ERRORS
from tests.support.contract_messages import duration, timing_trailers, trailers_of, transcript
from tests.support.contract_script import Call, Failure, Metadata, Request, Response, Script, StreamCall


class ContractService(speech_pb2_grpc.SpeechToTextServicer, speech_pb2_grpc.OperationsServicer):
    """Server that follows `script`, which may be changed or replaced while it runs."""

    def __init__(self, script: Script | None = None) -> None:
        self.script = script or Script()
        self.target = ""
        """`host:port` or `unix:/path`; empty until started."""
        self._health = health.aio.HealthServicer()
        self._server: grpc.aio.Server | None = None

    @property
    def port(self) -> int:
        return int(self.target.rpartition(":")[2])

    async def start(
        self,
        address: str = "127.0.0.1:0",
        *,
        with_health: bool = True,
        credentials: grpc.ServerCredentials | None = None,
        max_message_bytes: int = -1,
    ) -> str:
        """Listen, report SERVING, and return the target; port 0 takes a free one."""
        options = [
            ("grpc.max_receive_message_length", max_message_bytes),
            ("grpc.max_send_message_length", max_message_bytes),
            # A restarted server takes the same port again; two at a time must not share it.
            ("grpc.so_reuseport", 0),
        ]
        server = grpc.aio.server(options=options)
        speech_pb2_grpc.add_SpeechToTextServicer_to_server(self, server)
        speech_pb2_grpc.add_OperationsServicer_to_server(self, server)
        if with_health:
            health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        bound = server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
        await server.start()
        await self.set_serving(True)
        self._server = server
        self.target = address if address.startswith("unix:") else f"127.0.0.1:{bound}"
        return self.target

    async def stop(self) -> None:
        """Cancel what is in flight and close the port. Stopping twice is fine."""
        if self._server is not None:
            await self._server.stop(None)

    async def set_serving(self, serving: bool) -> None:
        """Change the reported health of all services."""
        state = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        for name in ("", "stt.v1.SpeechToText"):
            await self._health.set(name, state)

    async def Transcribe(self, request: Request, context: Any) -> Response:
        response = await self._answer(request, context)
        context.set_trailing_metadata(tuple(trailers_of(response).items()))
        return response

    async def TranscribeWithProgress(self, request: Request, context: Any) -> AsyncIterator[Any]:
        """Progress of half of the audio, the first segment, progress of all of it, and the result."""
        if not self.script.reports_progress:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "Method not implemented!")
        response = await self._answer(request, context)
        seconds = response.audio_duration.ToNanoseconds() / 1e9
        half = speech_pb2.Progress(audio_duration=response.audio_duration, audio_settled=duration(seconds / 2))
        yield speech_pb2.TranscribeWithProgressResponse(progress=half)
        if response.segments:
            settled = speech_pb2.SettledSegments(segments=response.segments[:1])
            yield speech_pb2.TranscribeWithProgressResponse(segments=settled)
        if self.script.hold_result is not None:
            await self.script.hold_result.wait()
        whole = speech_pb2.Progress(audio_duration=response.audio_duration, audio_settled=response.audio_duration)
        yield speech_pb2.TranscribeWithProgressResponse(progress=whole)
        context.set_trailing_metadata(tuple(trailers_of(response).items()))
        yield speech_pb2.TranscribeWithProgressResponse(result=response)

    async def _answer(self, request: Request, context: Any) -> Response:
        script, metadata = self.script, _received(context)
        await self._check_key(metadata, context)
        script.calls.append(Call(request, metadata, context.time_remaining()))
        script.in_flight += 1
        script.peak_in_flight = max(script.peak_in_flight, script.in_flight)
        script.started.set()
        try:
            if script.hold is not None:
                await script.hold.wait()
            response = await self._reply(request, context)
        except asyncio.CancelledError:
            script.cancelled.set()
            raise
        finally:
            script.in_flight -= 1
        response.request_id = _request_id(metadata)
        return response

    async def _reply(self, request: Request, context: Any) -> Response:
        reply: Any = self.script.next_failure()
        if reply is None:
            reply = self.script.reply(request) if self.script.reply is not None else self.script.response
        if isinstance(reply, Awaitable):
            reply = await reply
        if isinstance(reply, Failure):
            await self._abort(context, reply)
        response = Response()
        response.CopyFrom(transcript(reply) if isinstance(reply, str) else reply)
        return response

    async def StreamTranscribe(self, request_iterator: AsyncIterator[Any], context: Any) -> Any:
        script, metadata = self.script, _received(context)
        call = StreamCall(metadata, context.time_remaining())
        script.streams.append(call)
        script.started.set()
        await self._check_key(metadata, context)
        if (failure := script.next_failure()) is not None:
            await self._abort(context, failure)
        finished = False

        def ended(_: object) -> None:
            if not finished:
                script.cancelled.set()

        # A handler suspended at its `yield` learns of a cancellation in no other way.
        context.add_done_callback(ended)
        stream = script.stream or script.echo
        async for response in stream(self._recorded(call, request_iterator), context):
            if response.HasField("final"):
                response.final.result.request_id = _request_id(metadata)
            yield response
        finished = True

    async def _recorded(self, call: StreamCall, requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
        """The requests, after noting each in `call`."""
        async for request in requests:
            kind = request.WhichOneof("payload")
            if kind == "config":
                call.config.CopyFrom(request.config)
            else:
                call.kinds.append(kind)
                call.received += request.audio
            yield request
            if kind == "config" and self.script.read_audio is not None:
                await self.script.read_audio.wait()
        await asyncio.sleep(0)  # The requests of a cancelled call end too, one turn of the loop before its task.
        call.half_closed = True
        if self.script.hold is not None:
            await self.script.hold.wait()

    async def GetStatus(self, request: speech_pb2.GetStatusRequest, context: Any) -> speech_pb2.GetStatusResponse:
        self.script.status_calls.append(_received(context))
        if self.script.status_failure is not None:
            await self._abort(context, self.script.status_failure)
        return speech_pb2.GetStatusResponse(
            service="primary",
            model=self.script.response.routing.final_model,
            device="cpu",
            compute_type="int8",
            server_commit="abc123",
            uptime=duration(self.script.uptime_s),
            limits=speech_pb2.Limits(
                max_upload_bytes=self.script.max_upload_bytes,
                max_audio_duration=duration(self.script.max_audio_seconds),
                max_concurrency=2,
                max_queue=64,
            ),
            snapshot_json=self.script.snapshot_json,
        )

    async def CheckAdmission(
        self, request: speech_pb2.CheckAdmissionRequest, context: Any
    ) -> speech_pb2.CheckAdmissionResponse:
        metadata = _received(context)
        self.script.admission_checks.append(metadata)
        failure = self.script.status_failure or self.script.admission_failure
        if failure is not None:
            await self._abort(context, failure)
        await self._check_key(metadata, context)
        return speech_pb2.CheckAdmissionResponse(max_upload_bytes=self.script.max_upload_bytes)

    async def GetMetrics(self, request: speech_pb2.GetMetricsRequest, context: Any) -> speech_pb2.GetMetricsResponse:
        self.script.refusals += [(each.endpoint, each.type, each.count) for each in request.refusals]
        return speech_pb2.GetMetricsResponse(
            exposition=self.script.exposition,
            content_type="text/plain; version=1.0.0; charset=utf-8",
        )

    async def _check_key(self, metadata: Metadata, context: Any) -> None:
        if self.script.keys and metadata.get("authorization") not in {f"Bearer {key}" for key in self.script.keys}:
            await self._abort(context, Failure("unauthenticated", "no key"))

    async def _abort(self, context: Any, failure: Failure) -> None:
        trailers: dict[str, str | bytes] = {}
        status = failure.status
        if failure.type:
            status = grpc.StatusCode[ERRORS[failure.type].status or "UNAVAILABLE"]
            trailers = {
                "x-req-id": _request_id(_received(context)),
                **timing_trailers(self.script.response),
                "x-error-type": failure.type,
                "x-error-message": failure.message,
            }
        if not self.script.retryable:
            trailers["grpc-retry-pushback-ms"] = "-1"
        await context.abort(status, failure.message, tuple({**trailers, **failure.trailers}.items()))


def _received(context: Any) -> Metadata:
    return {name: str(value) for name, value in context.invocation_metadata() or ()}


def _request_id(metadata: Metadata) -> str:
    return metadata.get("x-req-id", "scripted")


async def start(script: Script | None = None, address: str = "127.0.0.1:0", **options: Any) -> ContractService:
    """Start a service, which the caller stops; see `ContractService.start` for the options."""
    service = ContractService(script)
    await service.start(address, **options)
    return service


@asynccontextmanager
async def serving(
    script: Script | None = None, address: str = "127.0.0.1:0", **options: Any
) -> AsyncIterator[ContractService]:
    """A running service, stopped on exit; see `ContractService.start` for the options."""
    service = await start(script, address, **options)
    try:
        yield service
    finally:
        await service.stop()


def unused_port() -> int:
    """Port of 127.0.0.1 on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
