"""W3C trace context: what is taken from a caller, and what is passed on."""

from __future__ import annotations

import logging

import pytest

from protos.stt.v1.trace_context import TraceContext, add_trace, current_trace, trace_metadata

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def test_trace_of_the_caller_is_continued_in_a_span_of_its_own() -> None:
    found = TraceContext.begin(f"00-{TRACE}-{SPAN}-01", "vendor=1,other=2")
    assert (found.trace_id, found.parent_id, found.sampled) == (TRACE, SPAN, True)
    assert found.span_id not in ("", SPAN)
    assert found.metadata == [("traceparent", f"00-{TRACE}-{found.span_id}-01"), ("tracestate", "vendor=1,other=2")]


def test_part_of_a_span_has_it_as_its_parent() -> None:
    whole = TraceContext.begin(f"00-{TRACE}-{SPAN}-00")
    part = whole.child()
    assert (part.trace_id, part.parent_id, part.sampled) == (TRACE, whole.span_id, False)
    assert part.metadata == [("traceparent", f"00-{TRACE}-{part.span_id}-00")]


def test_later_versions_may_have_more_fields_and_flags() -> None:
    found = TraceContext.begin(f"cc-{TRACE}-{SPAN}-03-what-the-future-will-be-like")
    assert (found.trace_id, found.parent_id, found.sampled) == (TRACE, SPAN, True)


@pytest.mark.parametrize(
    "parent",
    [
        "",
        "not a trace",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-01\n",
    ],
)
def test_malformed_parent_begins_a_new_trace(parent: str) -> None:
    found = TraceContext.begin(parent, "vendor=1")
    assert found.trace_id not in (TRACE, "0" * 32)
    assert (found.parent_id, found.state, found.sampled) == ("", "", True)


@pytest.mark.parametrize("state", ["x" * 513, "a=\n"])
def test_unusable_state_is_dropped(state: str) -> None:
    assert TraceContext.begin(f"00-{TRACE}-{SPAN}-01", state).state == ""


def test_log_records_name_the_current_trace() -> None:
    record = logging.makeLogRecord({})
    assert add_trace(record)
    assert not hasattr(record, "trace_id")
    assert trace_metadata() == []
    trace = TraceContext.begin()
    token = current_trace.set(trace)
    try:
        assert add_trace(record)
        assert trace_metadata() == trace.metadata
    finally:
        current_trace.reset(token)
    assert (record.__dict__["trace_id"], record.__dict__["span_id"]) == (trace.trace_id, trace.span_id)
