"""The error table: complete rows, and responses that follow from them."""

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
from stt_server.rpc.error_status import error_metadata

STATUSES = [code.name for code in grpc.StatusCode]
SERVICE_ROWS = [kind for kind in ERRORS.values() if kind.status]
named = pytest.mark.parametrize("kind", SERVICE_ROWS, ids=[kind.type for kind in SERVICE_ROWS])


def subclasses(cls: type[SttError] = SttError) -> Iterator[type[SttError]]:
    for sub in cls.__subclasses__():
        yield sub
        yield from subclasses(sub)


@pytest.mark.parametrize("type_", ERRORS)
def test_error_row_is_complete(type_: str) -> None:
    kind = ERRORS[type_]
    assert kind.type == type_
    assert kind.status in ("", *STATUSES)
    assert 400 <= kind.http < 600
    assert (kind.retry == "no") == (kind.retry_after_s is None)
    assert kind.retry_after_s is None or kind.retry_after_s > 0
    assert kind.sends_retry_after <= (kind.retry != "no")
    assert kind.pushed_back <= (kind.status == "UNAVAILABLE"), "gRPC retries no other status"
    for text in (kind.advice, kind.operator):
        assert text.isascii() and text.endswith(".") and "|" not in text and "\n" not in text


@pytest.mark.parametrize("code", FALLBACK_CODES)
def test_fallback_code_row_is_complete(code: str) -> None:
    kind = FALLBACK_CODES[code]
    assert kind.code == code
    for text in (kind.meaning, kind.operator):
        assert text.isascii() and text.endswith(".") and "|" not in text and "\n" not in text


def test_fallback_code_type_matches_the_table() -> None:
    assert set(typing.get_args(FallbackCode)) == set(FALLBACK_CODES)


def test_services_raise_exactly_their_rows() -> None:
    # `cancelled` is only logged: no caller is left to send it to.
    assert {cls.type for cls in subclasses()} | {"cancelled"} == {kind.type for kind in SERVICE_ROWS}


@named
def test_trailers_match_the_row(kind: ErrorKind) -> None:
    trailers = dict(error_metadata(kind, "advice", None))
    assert (trailers["x-error-type"], trailers["x-error-message"]) == (kind.type, "advice")
    wait = str(round(kind.retry_after_s * 1000)) if kind.retry_after_s and kind.sends_retry_after else None
    assert trailers.get("retry-after-ms") == wait
    assert trailers.get("grpc-retry-pushback-ms") == ("-1" if kind.pushed_back else None)


@pytest.mark.parametrize("field", ["", "options.language"])
def test_status_details_name_the_invalid_field(field: str) -> None:
    trailers = dict(error_metadata(ERRORS["invalid_argument"], "unknown language", None, field))
    status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
    bad_request = error_details_pb2.BadRequest()
    found = [detail for detail in status.details if detail.Unpack(bad_request)]
    assert [it.field for it in bad_request.field_violations] == ([field] if field else [])
    assert len(found) == len(bad_request.field_violations)


@named
@pytest.mark.parametrize("wait", [None, 2.5])
def test_status_details_match_the_row(kind: ErrorKind, wait: float | None) -> None:
    status = status_pb2.Status.FromString(dict(error_metadata(kind, "advice", wait))["grpc-status-details-bin"])
    assert (status.code, status.message) == (grpc.StatusCode[kind.status].value[0], "advice")
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
def test_every_status_and_type_has_a_fallback_code(status: str, type_: str) -> None:
    assert fallback_code_of(status, type_) in FALLBACK_CODES


@given(st.sampled_from(STATUSES), st.text())
def test_unknown_error_type_is_never_passed_on(status: str, type_: str) -> None:
    assert fallback_code_of(status, type_) in FALLBACK_CODES


def test_error_type_takes_precedence_over_the_status() -> None:
    assert fallback_code_of("RESOURCE_EXHAUSTED", "rate_limited") == "rate_limited"
    assert fallback_code_of("RESOURCE_EXHAUSTED") == "payload_too_large"
    assert fallback_code_of("RESOURCE_EXHAUSTED", "unknown_type") == "payload_too_large"
    assert fallback_code_of("UNAVAILABLE") == fallback_code_of("CANCELLED") == "unavailable"
    assert fallback_code_of("UNIMPLEMENTED", "internal") == "unimplemented"
