"""Spans of traces, sent to a collector over OTLP. Needs the extra `otel`; without an endpoint nothing is imported."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal, Protocol

from protos.stt.v1.trace_context import TraceContext

if TYPE_CHECKING:
    from opentelemetry.trace import SpanContext

SpanKind = Literal["server", "client", "internal"]
Attribute = str | int | float | bool

MAX_READING_S = 0.001
"""Longest time between two clocks being read, for their difference to count. Seconds."""
FLUSH_S = 3.0
"""Longest wait for the last spans when a process ends. Seconds."""


UNAVAILABLE = "spans need OpenTelemetry; run pip install 'stt-pair[otel]'"


def exportable() -> bool:
    """Whether the extra `otel` is installed."""
    try:
        return all(map(find_spec, ("opentelemetry.sdk.trace", "opentelemetry.exporter.otlp.proto.grpc")))
    except ModuleNotFoundError:  # of a package above
        return False


@dataclass(frozen=True)
class Span:
    """A finished part of a request's work."""

    name: str
    kind: SpanKind
    context: TraceContext
    start: float
    """Monotonic seconds."""
    end: float
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    """By OpenTelemetry's names: https://opentelemetry.io/docs/specs/semconv/"""
    error: str = ""
    """Error type; empty: none."""


class SpanSink(Protocol):
    """Receives finished spans."""

    def add(self, span: Span) -> None: ...

    def close(self) -> None:
        """Send what is left, for up to `FLUSH_S` seconds."""
        ...


def span_sink(endpoint: str, service: str, version: str) -> SpanSink | None:
    """Sink for an endpoint such as `http://collector:4317`; None for an empty one.

    Args:
        service: `service.name` of all spans.
        version: `service.version`.

    Raises:
        ValueError: the extra `otel` isn't installed.
    """
    if not endpoint:
        return None
    if not exportable():
        raise ValueError(UNAVAILABLE)
    return _OtlpSink(endpoint, service, version)


class _OtlpSink:
    """Sends spans in batches, from a thread of its own; drops them while the collector is away."""

    def __init__(self, endpoint: str, service: str, version: str) -> None:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        exporter = OTLPSpanExporter(endpoint=endpoint, insecure=not endpoint.startswith("https://"))
        self._processor = BatchSpanProcessor(exporter)
        self._resource = Resource({"service.name": service, "service.version": version})
        self._epoch = time.time() - time.monotonic()
        """The time of day, in seconds since 1970, at which the monotonic clock was 0."""

    def add(self, span: Span) -> None:
        from opentelemetry import trace
        from opentelemetry.sdk.trace import ReadableSpan

        if not span.context.sampled:
            return
        self._read_clocks()
        self._processor.on_end(
            ReadableSpan(
                name=span.name,
                context=_span_context(span.context, span.context.span_id, is_remote=False),
                parent=_span_context(span.context, span.context.parent_id, is_remote=span.kind == "server")
                if span.context.parent_id
                else None,
                resource=self._resource,
                attributes={**span.attributes, **({"error.type": span.error} if span.error else {})},
                kind=trace.SpanKind[span.kind.upper()],
                status=trace.Status(trace.StatusCode.ERROR if span.error else trace.StatusCode.UNSET),
                start_time=int((span.start + self._epoch) * 1e9),
                end_time=int((span.end + self._epoch) * 1e9),
            )
        )

    def _read_clocks(self) -> None:
        """Follow adjustments of the time of day. A reading that was interrupted would shift a span against others."""
        before, now, after = time.monotonic(), time.time(), time.monotonic()
        if after - before < MAX_READING_S:
            self._epoch = now - before

    def close(self) -> None:
        self._processor.force_flush(int(FLUSH_S * 1000))
        self._processor.shutdown()  # type: ignore[no-untyped-call]


def _span_context(context: TraceContext, span_id: str, *, is_remote: bool) -> SpanContext:
    from opentelemetry.trace import SpanContext, TraceFlags, TraceState

    state = TraceState.from_header([context.state]) if context.state else TraceState()
    flags = TraceFlags(TraceFlags.SAMPLED)
    return SpanContext(int(context.trace_id, 16), int(span_id, 16), is_remote, flags, state)
