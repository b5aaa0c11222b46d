"""Spans of finished work: a call or an utterance of a live stream, and the steps that it took."""

from __future__ import annotations

import time
from collections.abc import Iterator

from protos.stt.v1.spans import Attribute, Span
from protos.stt.v1.trace_context import TraceContext
from protos.stt.v1.wire import SPEECH_SERVICE
from stt_server.observability.call_record import CallRecord
from stt_server.request import Step
from stt_server.streaming.events import Final

_FALLBACK_METHOD = "Transcribe"


def spans_of(call: CallRecord) -> Iterator[Span]:
    """Spans of a call that ends now, by OpenTelemetry's names for RPC; none without a trace.

    A live stream, which lasts as long as its caller speaks, has no steps: each of its utterances has.
    """
    if call.span is None:
        return
    now = time.monotonic()
    service, _, method = call.method.removeprefix("/").partition("/")
    attributes: dict[str, Attribute] = {
        **_rpc(service, method),
        "rpc.response.status_code": call.status,
        "stt.request_id": call.request_id,
    }
    if call.model is not None:
        attributes["stt.model"] = call.model
    if call.audio_seconds is not None:
        attributes["stt.audio_seconds"] = call.audio_seconds
    error = (call.failure or "") if call.http >= 500 else ""
    yield Span(f"{service}/{method}", "server", call.span, now - call.total, now, attributes, error)
    for step in call.steps:
        yield _step(step, call.span)


def spans_of_utterance(final: Final) -> Iterator[Span]:
    """Spans of an utterance with its final, which is sent now; none without a trace."""
    if final.span is None:
        return
    attributes: dict[str, Attribute] = {
        "stt.utterance": final.utterance,
        "stt.model": final.transcript.answer.model,
        "stt.audio_seconds": final.transcript.audio_seconds,
    }
    yield Span("utterance", "internal", final.span, final.began, time.monotonic(), attributes)
    for step in final.trace.steps:
        yield _step(step, final.span)


def _step(step: Step, parent: TraceContext) -> Span:
    if step.span is None:
        return Span(step.name, "internal", parent.child(), step.start, step.end, error=step.error)
    attributes = _rpc(SPEECH_SERVICE, _FALLBACK_METHOD)
    return Span(step.name, "client", step.span, step.start, step.end, attributes, step.error)


def _rpc(service: str, method: str) -> dict[str, Attribute]:
    return {"rpc.system.name": "grpc", "rpc.method": f"{service}/{method}"}
