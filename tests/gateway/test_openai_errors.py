"""Errors of the paths of OpenAI's API."""

from __future__ import annotations

import httpx
import pytest

from gateway.http.server import GatewayServer
from gateway.openai.errors import OPENAI_ERRORS, OpenAiErrorFormat, error_body
from gateway.options import GatewayOptions
from protos.stt.v1.errors import ERRORS
from tests.support.contract_service import ContractService

pytestmark = pytest.mark.asyncio(loop_scope="session")

REQUEST, SERVER = "invalid_request_error", "server_error"

TABLE = {
    "unauthenticated": (401, REQUEST, "invalid_api_key", None, False),
    "rate_limited": (429, "rate_limit_error", "rate_limit_exceeded", None, True),
    "payload_too_large": (413, REQUEST, "payload_too_large", "file", False),
    "audio_too_long": (413, REQUEST, "audio_too_long", "file", False),
    "empty_audio": (400, REQUEST, "empty_audio", "file", False),
    "unsupported_audio": (400, REQUEST, "unsupported_audio", "file", False),
    "invalid_argument": (400, REQUEST, "invalid_value", None, False),
    "overloaded": (503, SERVER, "overloaded", None, False),
    "not_ready": (503, SERVER, "not_ready", None, True),
    "out_of_memory": (503, SERVER, "out_of_memory", None, False),
    "fallback_failed": (502, SERVER, "fallback_failed", None, False),
    "upstream_unavailable": (502, SERVER, "upstream_unavailable", None, True),
    "deadline_exceeded": (504, SERVER, "deadline_exceeded", None, False),
    "internal": (500, SERVER, "internal", None, False),
}
"""HTTP status, type, code, param, and whether a library may retry."""


def assert_openai_error(response: httpx.Response, type_: str, **expected: object) -> str:
    """Check status, body and headers of an error; return its message.

    Args:
        expected: `status`, `code` and `param`, where they are not those of the table.
    """
    status, kind, code, param, retry = TABLE[type_]
    assert response.status_code == expected.get("status", status)
    assert response.headers["content-type"] == "application/json"
    error = response.json()["error"]
    assert error == {
        "message": response.headers["x-error-message"],
        "type": kind,
        "param": expected.get("param", param),
        "code": expected.get("code", code),
        "request_id": response.headers["x-req-id"],
    }
    assert response.headers["x-error-type"] == type_
    assert response.headers.get_list("x-request-id") == [response.headers["x-req-id"]]
    assert response.headers["x-should-retry"] == str(retry).lower()
    waits = response.status_code in (429, 503)
    assert ("retry-after" in response.headers) == ("retry-after-ms" in response.headers) == waits
    assert ("www-authenticate" in response.headers) == (response.status_code == 401)
    message: str = error["message"]
    assert message
    return message


async def test_every_error_type_has_its_row() -> None:
    assert set(OPENAI_ERRORS) == set(ERRORS) == {*TABLE, "cancelled"}
    for type_, row in TABLE.items():
        found = OPENAI_ERRORS[type_]
        assert (found.http, found.type, found.code, found.param, found.should_retry) == row


async def test_body_takes_another_param_and_code() -> None:
    assert error_body("invalid_argument", "No.", "r1", param="language", code="invalid_event")["error"] == {
        "message": "No.",
        "type": "invalid_request_error",
        "param": "language",
        "code": "invalid_event",
        "request_id": "r1",
    }


@pytest.mark.parametrize(("type_", "seconds", "ms"), [("rate_limited", 1.5, "1500"), ("not_ready", 0.0001, "1")])
async def test_wait_is_also_sent_in_milliseconds(type_: str, seconds: float, ms: str) -> None:
    assert OpenAiErrorFormat().headers(type_, seconds)["retry-after-ms"] == ms


@pytest.mark.parametrize("path", ["/v1/audio", "/v1/audio/speech", "/v1/audio/transcriptions/x", "/v1/models/a/b"])
async def test_unknown_path_is_not_found(http: httpx.AsyncClient, service: ContractService, path: str) -> None:
    for method in ("GET", "POST"):
        response = await http.request(method, path)
        assert_openai_error(response, "invalid_argument", status=404, code="not_found")


@pytest.mark.parametrize("path", ["/v1/audiobook", "/v1/modelsx", "/v1/transcribe/", "/v1"])
async def test_other_paths_keep_their_errors(http: httpx.AsyncClient, service: ContractService, path: str) -> None:
    response = await http.get(path)
    assert response.status_code == 404
    assert sorted(response.json()["error"]) == ["message", "request_id", "type"]
    assert "x-should-retry" not in response.headers
    assert "x-request-id" not in response.headers


async def test_oversized_head_has_the_shape_too(http: httpx.AsyncClient, service: ContractService) -> None:
    response = await http.get("/v1/audio/transcriptions", headers={"X-Large": "x" * 20_000})
    assert_openai_error(response, "invalid_argument", status=431)


async def test_pages_of_listed_origins_may_send_and_read_all_headers(service: ContractService) -> None:
    origin = {"Origin": "https://app.example"}
    options = GatewayOptions(service.target, host="127.0.0.1", port=0, cors_origins=(origin["Origin"],))
    server = GatewayServer(options)
    await server.start()
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}") as http:
            wanted = "authorization,x-stainless-os,x-stainless-retry-count,x-any-other"
            headers = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": wanted, **origin}
            preflight = await http.options("/v1/audio/transcriptions", headers=headers)
            assert preflight.status_code == 200
            allowed = preflight.headers["access-control-allow-headers"].lower()
            assert {it.strip() for it in allowed.split(",")} >= set(wanted.split(","))
            response = await http.get("/v1/audio/nothing", headers=origin)
            exposed = response.headers["access-control-expose-headers"].lower()
            names = {"x-request-id", "x-req-id", "x-should-retry", "retry-after", "retry-after-ms", "x-error-type"}
            assert {it.strip() for it in exposed.split(",")} >= names
            foreign = {**headers, "Origin": "https://evil.example"}
            refused = await http.options("/v1/audio/transcriptions", headers=foreign)
            assert "access-control-allow-origin" not in refused.headers
    finally:
        await server.stop(1)
