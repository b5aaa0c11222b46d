"""Mapping of gRPC errors to exceptions, and the retry of UNAVAILABLE."""

from __future__ import annotations

import grpc
import pytest

from protos.stt.v1.errors import ERRORS
from stt_client import SttClient, errors
from stt_client.channel import Tls
from tests.support.contract_messages import bad_request
from tests.support.contract_script import Failure, Script
from tests.support.contract_service import serving

MIB = 1024 * 1024
CLASSES = {cls.type: cls for cls in errors.SttError.__subclasses__()}


def test_every_error_type_has_an_exception() -> None:
    assert CLASSES.keys() == ERRORS.keys()


def test_elsewhere_matches_the_error_table() -> None:
    assert set(errors.ELSEWHERE) == {CLASSES[type_] for type_, kind in ERRORS.items() if kind.retry == "elsewhere"}


@pytest.mark.parametrize("type_", ERRORS)
async def test_the_error_type_trailer_selects_the_exception(type_: str) -> None:
    trailers = {"retry-after-ms": "2500", "x-fallback-error": "deadline_exceeded"}
    failure = Failure(type_, "what went wrong", trailers=trailers)
    async with serving(Script(failure=failure)) as served, SttClient(served.target) as client:
        with pytest.raises(errors.SttError) as caught:
            await client.transcribe(b"x", request_id="abc")
    error = caught.value
    assert type(error) is CLASSES[type_]
    assert error.kind is ERRORS[type_]
    assert error.message == "what went wrong"
    assert error.request_id == "abc"
    assert error.retry_after_s == 2.5
    assert error.fallback_error == "deadline_exceeded"


@pytest.mark.parametrize(
    ("status", "class_"),
    [
        ("UNAUTHENTICATED", errors.Unauthenticated),
        ("RESOURCE_EXHAUSTED", errors.PayloadTooLarge),
        ("INVALID_ARGUMENT", errors.InvalidArgument),
        ("DEADLINE_EXCEEDED", errors.DeadlineExceeded),
        ("CANCELLED", errors.UpstreamUnavailable),
        ("UNAVAILABLE", errors.UpstreamUnavailable),
        ("INTERNAL", errors.Internal),
        ("UNKNOWN", errors.Internal),
        ("PERMISSION_DENIED", errors.Internal),
    ],
)
async def test_a_status_without_trailers_is_mapped_by_its_code(status: str, class_: type[errors.SttError]) -> None:
    failure = Failure(status=grpc.StatusCode[status], message="bare")
    async with serving(Script(failure=failure)) as served, SttClient(served.target) as client:
        with pytest.raises(errors.SttError) as caught:
            await client.transcribe(b"x")
    assert type(caught.value) is class_
    assert served.target in caught.value.message


async def test_an_unknown_error_type_is_internal_with_its_message() -> None:
    trailers = {"x-error-type": "invented", "x-error-message": "later on"}
    failure = Failure(status=grpc.StatusCode.ABORTED, message="details", trailers=trailers)
    async with serving(Script(failure=failure)) as served, SttClient(served.target) as client:
        with pytest.raises(errors.Internal, match="later on"):
            await client.transcribe(b"x")


async def test_the_invalid_field_is_named() -> None:
    failure = Failure("invalid_argument", trailers=bad_request("options.language"))
    async with serving(Script(failure=failure)) as served, SttClient(served.target) as client:
        with pytest.raises(errors.InvalidArgument) as caught:
            await client.transcribe(b"x")
    assert caught.value.invalid_field == "options.language"


@pytest.mark.parametrize("details", [b"", b"\xff\xff", b"\x1a\x02\x0a\x00"])
async def test_details_without_a_field_name_none(details: bytes) -> None:
    failure = Failure("invalid_argument", trailers={"grpc-status-details-bin": details})
    async with serving(Script(failure=failure)) as served, SttClient(served.target) as client:
        with pytest.raises(errors.InvalidArgument) as caught:
            await client.transcribe(b"x")
    assert caught.value.invalid_field == ""


async def test_an_unreachable_target_is_named_with_advice() -> None:
    async with SttClient("127.0.0.1:1") as client:
        with pytest.raises(errors.UpstreamUnavailable, match=r"127\.0\.0\.1:1.*Check that the service runs") as caught:
            await client.transcribe(b"x")
    assert caught.value.retry_after_s == 1.0
    assert caught.value.request_id == ""


async def test_a_server_without_the_method_is_reported() -> None:
    server = grpc.aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with SttClient(f"127.0.0.1:{port}") as client:
        with pytest.raises(errors.Internal, match="gRPC server without this method"):
            await client.transcribe(b"x")
    await server.stop(None)


async def test_a_message_over_the_servers_limit_is_payload_too_large() -> None:
    async with serving(max_message_bytes=MIB) as served, SttClient(served.target) as client:
        with pytest.raises(errors.PayloadTooLarge):
            await client.transcribe(bytes(MIB + 1))


async def test_a_message_over_the_clients_limit_is_payload_too_large() -> None:
    async with serving() as served, SttClient(served.target, max_message_bytes=MIB) as client:
        with pytest.raises(errors.PayloadTooLarge):
            await client.transcribe(bytes(MIB + 1))
    assert served.script.requests == []


@pytest.mark.parametrize("size", [16 * MIB, 40 * MIB])
async def test_unavailable_is_retried_once_for_any_request_size(size: int) -> None:
    async with serving(Script(max_upload_bytes=64 * MIB)) as served, SttClient(served.target) as client:
        served.script.fail(Failure("not_ready"))
        assert (await client.transcribe(bytes(size))).text == "hello world"
    assert [len(request.audio) for request in served.script.requests] == [size, size]
    assert len({call.metadata["x-req-id"] for call in served.script.calls}) == 1


async def test_a_second_unavailable_is_not_retried() -> None:
    async with serving(Script(failure=Failure("overloaded"))) as served, SttClient(served.target) as client:
        with pytest.raises(errors.Overloaded):
            await client.transcribe(b"x")
    assert len(served.script.requests) == 2


@pytest.mark.parametrize("type_", [t for t, kind in ERRORS.items() if kind.status not in ("UNAVAILABLE", "")])
async def test_other_statuses_are_not_retried(type_: str) -> None:
    async with serving(Script(failure=Failure(type_))) as served, SttClient(served.target) as client:
        with pytest.raises(errors.SttError):
            await client.transcribe(b"x")
    assert len(served.script.requests) == 1


async def test_retry_pushback_prevents_the_retry() -> None:
    failure = Failure("overloaded", trailers={"grpc-retry-pushback-ms": "-1"})
    async with serving(Script(failure=failure)) as served, SttClient(served.target) as client:
        with pytest.raises(errors.Overloaded):
            await client.transcribe(b"x")
    assert len(served.script.requests) == 1


def test_a_malformed_retry_after_uses_the_error_table() -> None:
    assert errors.Overloaded("", metadata={"retry-after-ms": "soon"}).retry_after_s == 1.0


def test_a_certificate_without_key_is_rejected() -> None:
    with pytest.raises(ValueError, match="together"):
        SttClient("grpcs://somewhere:1", tls=Tls(cert=b"pem"))
