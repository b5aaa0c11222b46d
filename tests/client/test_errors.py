"""How failures reach the caller, and which of them gRPC retries."""

from __future__ import annotations

import grpc
import pytest

from protos.stt.v1.errors import ERRORS
from stt_client import SttClient, errors
from stt_client.channel import Tls
from tests.support.contract_script import Failure, Script
from tests.support.contract_service import serving

MIB = 1024 * 1024
CLASSES = {cls.type: cls for cls in errors.SttError.__subclasses__()}


def test_every_type_of_the_table_has_its_exception() -> None:
    assert CLASSES.keys() == ERRORS.keys()


def test_those_worth_trying_elsewhere_are_the_tables() -> None:
    assert set(errors.ELSEWHERE) == {CLASSES[type_] for type_, kind in ERRORS.items() if kind.retry == "elsewhere"}


@pytest.mark.parametrize("type_", ERRORS)
async def test_the_trailer_names_the_error(type_: str) -> None:
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
async def test_a_status_without_trailers_is_told_apart_by_its_code(status: str, class_: type[errors.SttError]) -> None:
    failure = Failure(status=grpc.StatusCode[status], message="bare")
    async with serving(Script(failure=failure)) as served, SttClient(served.target) as client:
        with pytest.raises(errors.SttError) as caught:
            await client.transcribe(b"x")
    assert type(caught.value) is class_
    assert served.target in caught.value.message


async def test_a_type_of_a_later_version_is_internal_and_keeps_its_message() -> None:
    trailers = {"x-error-type": "invented", "x-error-message": "later on"}
    failure = Failure(status=grpc.StatusCode.ABORTED, message="details", trailers=trailers)
    async with serving(Script(failure=failure)) as served, SttClient(served.target) as client:
        with pytest.raises(errors.Internal, match="later on"):
            await client.transcribe(b"x")


async def test_nobody_there_names_the_target_and_what_to_check() -> None:
    async with SttClient("127.0.0.1:1") as client:
        with pytest.raises(errors.UpstreamUnavailable, match=r"127\.0\.0\.1:1.*Check that the service runs") as caught:
            await client.transcribe(b"x")
    assert caught.value.retry_after_s == 1.0
    assert caught.value.request_id == ""


async def test_a_server_of_another_kind_is_said_to_be_one() -> None:
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
async def test_unavailable_is_retried_once_however_large_the_request(size: int) -> None:
    async with serving() as served, SttClient(served.target) as client:
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


async def test_a_server_that_says_so_is_not_asked_again() -> None:
    failure = Failure("overloaded", trailers={"grpc-retry-pushback-ms": "-1"})
    async with serving(Script(failure=failure)) as served, SttClient(served.target) as client:
        with pytest.raises(errors.Overloaded):
            await client.transcribe(b"x")
    assert len(served.script.requests) == 1


def test_a_wait_that_is_no_number_falls_back_to_the_table() -> None:
    assert errors.Overloaded("", metadata={"retry-after-ms": "soon"}).retry_after_s == 1.0


def test_half_a_client_certificate_is_refused() -> None:
    with pytest.raises(ValueError, match="together"):
        SttClient("grpcs://somewhere:1", tls=Tls(cert=b"pem"))
