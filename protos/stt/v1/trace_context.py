"""W3C trace context: the header `traceparent`, which follows a request through gateway, primary and fallback.

https://www.w3.org/TR/trace-context/, level 1. The same header over HTTP and as gRPC metadata.
"""

from __future__ import annotations

import logging
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace

TRACEPARENT = "traceparent"
TRACESTATE = "tracestate"

MAX_STATE_CHARACTERS = 512
"""Longest `tracestate` that is passed on; the specification asks for at least so many."""

_PARENT = re.compile(r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_STATE = re.compile(r"[ -~]*")
_SAMPLED = 1


@dataclass(frozen=True)
class TraceContext:
    """One span of a trace: the part of the work that one process does for one request."""

    trace_id: str
    """32 hexadecimal digits, the same in all processes."""
    span_id: str
    """16 hexadecimal digits."""
    parent_id: str = ""
    """Span of the caller; empty: the trace begins here."""
    sampled: bool = True
    """Whether the caller records the trace."""
    state: str = ""
    """`tracestate`, passed on as it is."""

    @classmethod
    def begin(cls, parent: str = "", state: str = "") -> TraceContext:
        """Context of a request that has just arrived.

        Args:
            parent: its `traceparent`; a new trace begins if it is empty or malformed.
            state: its `tracestate`.
        """
        found = _PARENT.fullmatch(parent)
        # Version 00 has exactly four fields; later ones may add some.
        if found is None or (found[1] == "00" and found[5]):
            return cls(secrets.token_hex(16), secrets.token_hex(8))
        kept = state if len(state) <= MAX_STATE_CHARACTERS and _STATE.fullmatch(state) else ""
        return cls(found[2], secrets.token_hex(8), found[3], bool(int(found[4], 16) & _SAMPLED), kept)

    def child(self) -> TraceContext:
        """Context of a part of this span."""
        return replace(self, span_id=secrets.token_hex(8), parent_id=self.span_id)

    @property
    def metadata(self) -> list[tuple[str, str]]:
        """Metadata, or headers, of a call that this span makes."""
        parent = [(TRACEPARENT, f"00-{self.trace_id}-{self.span_id}-{int(self.sampled):02x}")]
        return [*parent, (TRACESTATE, self.state)] if self.state else parent


current_trace: ContextVar[TraceContext | None] = ContextVar("current_trace", default=None)
"""Context of the request that the running task processes; None outside of one."""


@contextmanager
def tracing(trace: TraceContext | None) -> Iterator[None]:
    """Make a context the current one in a block."""
    before = current_trace.set(trace)
    try:
        yield
    finally:
        current_trace.reset(before)


def trace_metadata() -> list[tuple[str, str]]:
    """Metadata that continues the current trace in a call; empty outside of one."""
    trace = current_trace.get()
    return [] if trace is None else trace.metadata


def add_trace(record: logging.LogRecord) -> bool:
    """Log filter: adds `trace_id` and `span_id` of the current trace to a record. Drops none."""
    trace = current_trace.get()
    if trace is not None:
        record.trace_id, record.span_id = trace.trace_id, trace.span_id
    return True
