"""State of one call while it is processed, and the trailing metadata and log record made of it."""

from __future__ import annotations

from collections.abc import Iterable
from contextvars import ContextVar
from dataclasses import dataclass, field

from grpc import StatusCode

from protos.stt.v1 import wire
from protos.stt.v1.errors import ErrorKind, header_safe
from protos.stt.v1.trace_context import TRACEPARENT, TRACESTATE, TraceContext
from stt_server.errors import Refused
from stt_server.observability.call_record import STREAM, TRANSCRIBE, CallRecord, Endpoint
from stt_server.request import Trace, Transcript

Metadata = Iterable[tuple[str, str | bytes]]


def request_id_of(metadata: Metadata) -> str:
    """The caller's `x-req-id` if it is well formed, else a new id."""
    given = values_of(metadata, wire.X_REQ_ID)
    return given[0] if given and wire.is_request_id(given[0]) else wire.new_request_id()


def values_of(metadata: Metadata, name: str) -> list[str]:
    """All values of a metadata key (lower case), in order."""
    return [value if isinstance(value, str) else value.decode("latin-1") for key, value in metadata if key == name]


def _span_of(metadata: Metadata) -> TraceContext:
    given = values_of(metadata, TRACEPARENT)
    return TraceContext.begin(given[0] if len(given) == 1 else "", ",".join(values_of(metadata, TRACESTATE)))


@dataclass
class CallState:
    """Filled in while a call is processed."""

    method: str
    """Full gRPC method name, such as `/stt.v1.SpeechToText/Transcribe`."""
    endpoint: Endpoint
    request_id: str
    started: float
    """Monotonic seconds."""
    span: TraceContext
    """This call in the caller's trace, or in a new one."""
    key_name: str | None = None
    audio_bytes: int | None = None
    trace: Trace = field(default_factory=Trace)
    transcript: Transcript | None = None
    status: StatusCode = StatusCode.OK
    kind: ErrorKind | None = None
    message: str = ""
    refused: Refused | None = None
    """Reason of an Overloaded."""

    @classmethod
    def begin(cls, method: str, metadata: Metadata, now: float) -> CallState:
        """State of a call that arrived `now` (monotonic seconds)."""
        endpoint = STREAM if method.endswith("StreamTranscribe") else TRANSCRIBE
        return cls(method, endpoint, request_id_of(metadata), now, _span_of(metadata))

    def fail(self, status: StatusCode, kind: ErrorKind | None, message: str = "") -> None:
        self.status, self.kind, self.message = status, kind, message

    def record(self, now: float) -> CallRecord:
        """Record for metrics, request log and snapshot. `now`: monotonic seconds."""
        trace, transcript = self.trace, self.transcript
        return CallRecord(
            endpoint=self.endpoint,
            method=self.method,
            request_id=self.request_id,
            key_name=self.key_name,
            status=self.status.name,
            http=200 if self.status is StatusCode.OK else self.kind.http if self.kind else 500,
            total=now - self.started,
            error_type=self.kind.type if self.kind else None,
            refused=self.refused,
            error_message=header_safe(self.message),
            model=transcript.answer.model if transcript else None,
            route_reasons=tuple(reason.value for reason in trace.reasons),
            fallback_result=trace.fallback_result,
            fallback_error=trace.fallback_error,
            queue_wait=trace.queue_wait,
            primary_infer=trace.primary_infer,
            fallback_infer=trace.fallback_infer,
            audio_seconds=trace.audio_seconds,
            suppressed=trace.suppressed,
            redecoded_seconds=trace.redecoded_seconds,
            audio_bytes=self.audio_bytes,
            language=transcript.answer.language if transcript else None,
            span=self.span,
            steps=tuple(trace.steps),
        )


current_call: ContextVar[CallState] = ContextVar("current_call")
"""The call that the running task processes: set by the interceptor, read by the servicers."""


def trailing_metadata(call: CallState, now: float) -> list[tuple[str, str]]:
    """Trailing metadata of every response; the gateway repeats it in headers. `now`: monotonic seconds."""
    entries = [(wire.X_REQ_ID, call.request_id), *_timings(call), (wire.X_TOTAL_MS, _ms(now - call.started))]
    if call.transcript is not None:
        entries += _routing(call.transcript)
    if call.trace.fallback_error:
        entries.append((wire.X_FALLBACK_ERROR, call.trace.fallback_error))
    return entries


def _timings(call: CallState) -> list[tuple[str, str]]:
    """Milliseconds of each step; for an error, only of the steps that were reached."""
    trace = call.trace
    steps = (
        (wire.X_QUEUE_WAIT_MS, trace.queue_wait),
        (wire.X_PRIMARY_INFER_MS, trace.primary_infer),
        (wire.X_FALLBACK_INFER_MS, trace.fallback_infer),
    )
    answered = call.transcript is not None
    return [(name, _ms(seconds or 0.0)) for name, seconds in steps if seconds is not None or answered]


def _routing(transcript: Transcript) -> list[tuple[str, str]]:
    reasons = ",".join(reason.value for reason in transcript.decision.reasons)
    return [
        (wire.X_FALLBACK_USED, _bool(transcript.fallback_used)),
        (wire.X_CONF_BELOW, _bool(transcript.decision.confidence_below)),
        (wire.X_LANG_CHECK_APPLICABLE, _bool(transcript.language_check_applicable)),
        (wire.X_FINAL_MODEL, header_safe(transcript.answer.model)),
        (wire.X_ROUTE_REASON, reasons or "none"),
    ]


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f}"


def _bool(value: bool) -> str:
    return "true" if value else "false"
