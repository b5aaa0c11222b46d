"""Error responses of REST: those of the service, and those of the gateway itself."""

from __future__ import annotations

import logging

import grpc
import httpx
import pytest

from gateway.http.server import GatewayServer
from gateway.options import GatewayOptions
from protos.stt.v1.errors import ERRORS
from tests.gateway.transcripts import TIMES
from tests.support.contract_script import Failure
from tests.support.contract_service import ContractService

pytestmark = pytest.mark.asyncio(loop_scope="session")

AUDIO = {"audio": ("speech.wav", b"RIFF....", "audio/wav")}
FROM_SERVICE = [type_ for type_, kind in ERRORS.items() if kind.status and type_ != "cancelled"]


def assert_error(response: httpx.Response, type_: str, status: int | None = None) -> str:
    """Check status, body and headers of an error response; return its message."""
    assert response.status_code == (status or ERRORS[type_].http)
    error = response.json()["error"]
    assert sorted(error) == ["message", "request_id", "type"]
    assert error["type"] == response.headers["x-error-type"] == type_
    assert error["message"] == response.headers["x-error-message"]
    assert error["request_id"] == response.headers["x-req-id"]
    assert response.headers["content-type"] == "application/json"
    assert ("retry-after" in response.headers) == (response.status_code in (429, 503))
    assert ("www-authenticate" in response.headers) == (response.status_code == 401)
    message: str = error["message"]
    return message


@pytest.mark.parametrize("type_", FROM_SERVICE)
async def test_service_error_has_its_status_and_headers(
    http: httpx.AsyncClient, service: ContractService, type_: str
) -> None:
    service.script.failure = Failure(type_, "as the service says")
    response = await http.post("/v1/transcribe", files=AUDIO, headers={"X-Req-Id": "mine"})
    assert assert_error(response, type_) == "as the service says"
    assert response.headers["x-req-id"] == "mine"
    for name, value in TIMES.items():
        assert response.headers[name] == value


@pytest.mark.parametrize("type_", ["unauthenticated", "not_ready"])
async def test_refused_admission_makes_no_transcribe_call(
    http: httpx.AsyncClient, service: ContractService, type_: str
) -> None:
    service.script.status_failure = Failure(type_)
    assert_error(await http.post("/v1/transcribe", files=AUDIO), type_)
    assert not service.script.calls


@pytest.mark.parametrize(("given", "seconds"), [("1500", "2"), ("20", "1"), ("60000", "60")])
async def test_retry_after_is_rounded_up_to_whole_seconds(
    http: httpx.AsyncClient, service: ContractService, given: str, seconds: str
) -> None:
    service.script.failure = Failure("rate_limited", trailers={"retry-after-ms": given})
    response = await http.post("/v1/transcribe", files=AUDIO)
    assert response.headers["retry-after"] == seconds


async def test_call_cancelled_by_the_service_is_503(http: httpx.AsyncClient, service: ContractService) -> None:
    service.script.failure = Failure("cancelled")
    assert_error(await http.post("/v1/transcribe", files=AUDIO), "not_ready")


@pytest.mark.parametrize(
    ("status", "type_"),
    [
        (grpc.StatusCode.INTERNAL, "internal"),
        (grpc.StatusCode.UNKNOWN, "internal"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "payload_too_large"),
    ],
)
async def test_text_of_a_bare_status_is_not_exposed(
    http: httpx.AsyncClient, service: ContractService, status: grpc.StatusCode, type_: str
) -> None:
    service.script.failure = Failure("", "File /secret/path line 3", status=status)
    response = await http.post("/v1/transcribe", files=AUDIO)
    assert "secret" not in assert_error(response, type_)


async def test_unreachable_service_is_502(free_target: str, caplog: pytest.LogCaptureFixture) -> None:
    server = GatewayServer(GatewayOptions(target=free_target, host="127.0.0.1", port=0))
    await server.start()
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", timeout=30) as http:
            with caplog.at_level(logging.WARNING, logger="gateway"):
                response = await http.post("/v1/transcribe", files=AUDIO)
            assert free_target not in assert_error(response, "upstream_unavailable")
            assert any(free_target in str(record.__dict__.get("detail")) for record in caplog.records)
            for path in ("/v1/metrics", "/metrics"):
                assert_error(await http.get(path), "upstream_unavailable")
            health = await http.get("/v1/health")
            assert (health.status_code, health.json()) == (503, {"ok": False})
    finally:
        await server.stop(1)


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("task", "sing", "transcribe, translate"),
        ("routing", "both", "auto, primary, fallback"),
        ("response_format", "xml", "json, text, srt, vtt"),
        ("max_line_width", "9", "a number from 10 to 200"),
        ("max_line_width", "4" * 5000, "a number from 10 to 200"),
        ("max_line_count", "two", "a number from 1 to 10"),
        ("max_line_count", "-1", "a number from 1 to 10"),
        ("word_timestamps", "maybe", "true, 1, yes, on, false, 0, no, off"),
    ],
)
async def test_invalid_value_is_named_with_the_valid_ones(
    http: httpx.AsyncClient, service: ContractService, field: str, value: str, expected: str
) -> None:
    message = assert_error(await http.post("/v1/transcribe", files=AUDIO, data={field: value}), "invalid_argument")
    assert message == f"Invalid {field} '{value[:40]}'; expected {expected}."
    assert not service.script.calls


async def test_unknown_field_is_named(http: httpx.AsyncClient, service: ContractService) -> None:
    response = await http.post("/v1/transcribe", files=AUDIO, data={"langauge": "en"})
    message = assert_error(response, "invalid_argument")
    assert message.startswith("Unknown field 'langauge'; known fields: audio, ")
    assert "language" in message


async def test_field_given_twice_is_rejected(http: httpx.AsyncClient, service: ContractService) -> None:
    response = await http.post("/v1/transcribe", files=AUDIO, data={"language": ["en", "de"]})
    assert "language" in assert_error(response, "invalid_argument")


async def test_two_audio_parts_are_rejected(http: httpx.AsyncClient, service: ContractService) -> None:
    files = [("audio", ("a", b"1")), ("audio", ("b", b"2"))]
    assert_error(await http.post("/v1/transcribe", files=files), "invalid_argument")


async def test_missing_or_empty_audio_is_empty_audio(http: httpx.AsyncClient, service: ContractService) -> None:
    without = await http.post("/v1/transcribe", files={"language": (None, "en")})
    assert "no part named 'audio'" in assert_error(without, "empty_audio")
    empty = await http.post("/v1/transcribe", files={"audio": ("a.wav", b"")})
    assert "is empty" in assert_error(empty, "empty_audio")


@pytest.mark.parametrize(
    ("content_type", "content"),
    [
        ("application/json", b"{}"),
        ("application/x-www-form-urlencoded", b"audio=1"),
        ("multipart/form-data", b"x"),
        ("multipart/form-data; boundary=" + "b" * 300, b"x"),
        ("multipart/form-data; boundary=b", b""),
        ("multipart/form-data; boundary=b", b"no boundary at all"),
        (
            "multipart/form-data; boundary=b",
            b'--b\r\nContent-Disposition: form-data; name="audio"\r\n\r\ncut',
        ),
        ("multipart/form-data; boundary=b", b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--\r\n"),
        ("multipart/form-data; boundary=b", b"--b\r\nBad\x00Header: x\r\n\r\nx\r\n--b--\r\n"),
        ("", b"x"),
    ],
)
async def test_malformed_form_is_rejected(
    http: httpx.AsyncClient, service: ContractService, content_type: str, content: bytes
) -> None:
    headers = {"Content-Type": content_type}
    assert_error(await http.post("/v1/transcribe", content=content, headers=headers), "invalid_argument")


async def test_content_encoding_is_rejected(http: httpx.AsyncClient, service: ContractService) -> None:
    response = await http.post("/v1/transcribe", files=AUDIO, headers={"Content-Encoding": "gzip"})
    assert "Content-Encoding" in assert_error(response, "invalid_argument")


async def test_field_that_is_not_utf8_is_rejected(http: httpx.AsyncClient, service: ContractService) -> None:
    files = {"audio": (None, b"abc"), "prompt": (None, b"\xff\xfe")}
    assert "prompt" in assert_error(await http.post("/v1/transcribe", files=files), "invalid_argument")


async def test_oversized_field_is_rejected(http: httpx.AsyncClient, service: ContractService) -> None:
    response = await http.post("/v1/transcribe", files=AUDIO, data={"prompt": "x" * 65537})
    assert "prompt" in assert_error(response, "invalid_argument")


async def test_too_many_parts_are_rejected(http: httpx.AsyncClient, service: ContractService) -> None:
    response = await http.post("/v1/transcribe", files=AUDIO, data={"hotwords": ["a"] * 64})
    assert "parts" in assert_error(response, "invalid_argument")


async def test_unknown_path_or_method_has_the_error_shape(http: httpx.AsyncClient, service: ContractService) -> None:
    assert_error(await http.get("/v2/nothing"), "invalid_argument", 404)
    response = await http.get("/v1/transcribe")
    assert_error(response, "invalid_argument", 405)
    assert response.headers["allow"] == "POST"


async def test_unexpected_exception_is_500_without_its_text(
    http: httpx.AsyncClient,
    service: ContractService,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("secret /path")

    monkeypatch.setattr("gateway.rest.routes.parse_form", broken)
    with caplog.at_level(logging.ERROR, logger="gateway"):
        response = await http.post("/v1/transcribe", files=AUDIO, headers={"X-Req-Id": "bug-1"})
    assert assert_error(response, "internal") == "Internal error."
    (record,) = [record for record in caplog.records if record.name == "gateway"]
    assert record.exc_info is not None and "secret" in str(record.exc_info[1])
    assert record.__dict__["request_id"] == "bug-1"
