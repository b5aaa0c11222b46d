"""The error table as data: each row is whole, and the services' halves of it are driven by it."""

from __future__ import annotations

import typing
from collections.abc import Iterator

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from hypothesis import given
from hypothesis import strategies as st

from protos.stt.v1.errors import (
    ERROR_DOMAIN,
    ERRORS,
    FALLBACK_CODES,
    ErrorKind,
    FallbackCode,
    fallback_code_of,
    type_of_bare_status,
)
from stt_server.errors import SttError
from stt_server.rpc.call_state import error_metadata

STATUSES = [code.name for code in grpc.StatusCode]
TOLD_BY_SERVICES = [kind for kind in ERRORS.values() if kind.status]
named = pytest.mark.parametrize("kind", TOLD_BY_SERVICES, ids=[kind.type for kind in TOLD_BY_SERVICES])


def raised(cls: type[SttError] = SttError) -> Iterator[type[SttError]]:
    for sub in cls.__subclasses__():
        yield sub
        yield from raised(sub)


@pytest.mark.parametrize("type_", ERRORS)
def test_a_row_is_whole(type_: str) -> None:
    kind = ERRORS[type_]
    assert kind.type == type_
    assert kind.status in ("", *STATUSES)
    assert 400 <= kind.http < 600
    assert (kind.retry == "no") == (kind.retry_after_s is None)
    assert kind.retry_after_s is None or kind.retry_after_s > 0
    assert kind.tells_retry_after <= (kind.retry != "no")
    assert kind.pushed_back <= (kind.status == "UNAVAILABLE"), "gRPC tries nothing else again"
    for said in (kind.advice, kind.operator):
        assert said.isascii() and said.endswith(".") and "|" not in said and "\n" not in said


@pytest.mark.parametrize("code", FALLBACK_CODES)
def test_a_reason_why_the_fallback_failed_is_whole(code: str) -> None:
    kind = FALLBACK_CODES[code]
    assert kind.code == code
    for said in (kind.meaning, kind.operator):
        assert said.isascii() and said.endswith(".") and "|" not in said and "\n" not in said


def test_types_and_table_agree_on_why_a_fallback_fails() -> None:
    assert set(typing.get_args(FallbackCode)) == set(FALLBACK_CODES)


def test_services_raise_every_row_that_is_theirs_and_no_other() -> None:
    # Nobody raises `cancelled`: the call is gone by then.
    assert {cls.type for cls in raised()} | {"cancelled"} == {kind.type for kind in TOLD_BY_SERVICES}


@named
def test_trailers_are_those_of_the_row(kind: ErrorKind) -> None:
    trailers = dict(error_metadata(kind, "what to do", None))
    assert (trailers["x-error-type"], trailers["x-error-message"]) == (kind.type, "what to do")
    wait = str(round(kind.retry_after_s * 1000)) if kind.retry_after_s and kind.tells_retry_after else None
    assert trailers.get("retry-after-ms") == wait
    assert trailers.get("grpc-retry-pushback-ms") == ("-1" if kind.pushed_back else None)


@named
@pytest.mark.parametrize("wait", [None, 2.5])
def test_details_are_those_of_the_row(kind: ErrorKind, wait: float | None) -> None:
    status = status_pb2.Status.FromString(dict(error_metadata(kind, "what to do", wait))["grpc-status-details-bin"])
    assert (status.code, status.message) == (grpc.StatusCode[kind.status].value[0], "what to do")
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    assert status.details[0].Unpack(info)
    assert (info.reason, info.domain) == (kind.type.upper(), ERROR_DOMAIN)
    expected = kind.retry_after_s if wait is None else wait
    assert len(status.details) == (1 if expected is None else 2)
    if expected is not None:
        assert status.details[1].Unpack(retry)
        assert retry.retry_delay.ToMilliseconds() == expected * 1000


@pytest.mark.parametrize("status", STATUSES)
def test_every_bare_status_has_a_row(status: str) -> None:
    assert type_of_bare_status(status) in ERRORS


@pytest.mark.parametrize("type_", ["", *ERRORS])
@pytest.mark.parametrize("status", STATUSES)
def test_every_way_in_which_a_fallback_fails_has_a_code(status: str, type_: str) -> None:
    assert fallback_code_of(status, type_) in FALLBACK_CODES


@given(st.sampled_from(STATUSES), st.text())
def test_what_a_stranger_says_is_never_passed_on(status: str, said: str) -> None:
    assert fallback_code_of(status, said) in FALLBACK_CODES


def test_a_fallbacks_own_type_goes_before_its_status() -> None:
    assert fallback_code_of("RESOURCE_EXHAUSTED", "rate_limited") == "rate_limited"
    assert fallback_code_of("RESOURCE_EXHAUSTED") == "payload_too_large"
    assert fallback_code_of("RESOURCE_EXHAUSTED", "invented") == "payload_too_large"
    assert fallback_code_of("UNAVAILABLE") == fallback_code_of("CANCELLED") == "unavailable"
    assert fallback_code_of("UNIMPLEMENTED", "internal") == "unimplemented"
