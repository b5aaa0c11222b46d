"""Collectors of spans: OpenTelemetry's TraceService on a real grpc.aio server, alone or behind the collector Rotel."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from stt_server.testing.processes import HOST, free_port
from tests.support.needs import lacking

READY_S = 60.0


@dataclass(frozen=True)
class Received:
    """One span as it was received."""

    service: str
    """`service.name` of its resource."""
    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    start: int
    """Nanoseconds since 1970."""
    end: int
    failed: bool
    attributes: dict[str, Any]


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Keeps all spans that it receives."""

    def __init__(self) -> None:
        self.spans: list[Received] = []
        self.endpoint = ""

    async def Export(self, request: trace_service_pb2.ExportTraceServiceRequest, context: Any) -> Any:
        for group in request.resource_spans:
            service = _attributes(group.resource.attributes)["service.name"]
            self.spans += [_received(service, span) for scope in group.scope_spans for span in scope.spans]
        return trace_service_pb2.ExportTraceServiceResponse()


def _received(service: str, span: Span) -> Received:
    return Received(
        service,
        span.name,
        Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        span.start_time_unix_nano,
        span.end_time_unix_nano,
        span.status.code == Status.STATUS_CODE_ERROR,
        _attributes(span.attributes),
    )


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}


@asynccontextmanager
async def collecting() -> AsyncIterator[Collector]:
    """Run a collector on a free port."""
    server, collector = grpc.aio.server(), Collector()
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port(f"{HOST}:0")
    await server.start()
    collector.endpoint = f"http://{HOST}:{port}"
    try:
        yield collector
    finally:
        await server.stop(None)


@asynccontextmanager
async def collecting_through_rotel(folder: Path) -> AsyncIterator[Collector]:
    """Run a collector behind Rotel, which receives, decodes, batches and sends on all spans.

    Args:
        folder: for Rotel's log.
    """
    spec = find_spec("rotel")
    if spec is None or spec.origin is None:
        lacking("rotel is not installed. Run: .venv/bin/pip install -c constraints.txt rotel")
    async with collecting() as collector:
        target = f"{HOST}:{free_port()}"
        command = [str(Path(spec.origin).with_name("rotel-agent")), "start", "--otlp-grpc-endpoint", target]
        command += ["--otlp-http-endpoint", f"{HOST}:{free_port()}"]
        command += ["--exporter", "otlp", "--otlp-exporter-endpoint", collector.endpoint]
        with (folder / "rotel.log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(*command, stdout=log, stderr=log)
        try:
            async with grpc.aio.insecure_channel(target) as channel:
                await asyncio.wait_for(channel.channel_ready(), READY_S)
            collector.endpoint = f"http://{target}"
            yield collector
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            await process.wait()
