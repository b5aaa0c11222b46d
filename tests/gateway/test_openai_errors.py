"""Errors of the paths of OpenAI's API."""

from __future__ import annotations

from typing import Any

import httpx
import httpx2
import openai
import pytest

from gateway.http.server import GatewayServer
from gateway.openai.errors import OPENAI_ERRORS, OpenAiErrorFormat, error_body
from gateway.options import GatewayOptions
from protos.stt.v1.errors import ERRORS
from tests.support.contract_messages import bad_request
from tests.support.contract_script import Failure
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


def assert_openai_error(response: httpx.Response | httpx2.Response, type_: str, **expected: object) -> str:
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


@pytest.mark.parametrize("path", ["/v1/audio", "/v1/audio/speech", "/v1/audio/transcriptions/x", "/v1/realtime/x"])
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


CLASSES: dict[int, type[openai.APIStatusError]] = {
    400: openai.BadRequestError,
    401: openai.AuthenticationError,
    404: openai.NotFoundError,
    413: openai.APIStatusError,
    429: openai.RateLimitError,
    **dict.fromkeys((500, 502, 503, 504), openai.InternalServerError),
}
"""Exception of the official client for each HTTP status."""

PATHS = ("/v1/audio/transcriptions", "/v1/audio/translations")
RECORDING = ("speech.wav", b"RIFF....", "audio/wav")


def client_of(gateway: GatewayServer, **options: Any) -> openai.AsyncOpenAI:
    """The official client; it doesn't retry unless the options say so."""
    return openai.AsyncOpenAI(
        base_url=f"http://127.0.0.1:{gateway.port}/v1", **{"api_key": "k1", "max_retries": 0, **options}
    )


@pytest.mark.parametrize("type_", [type_ for type_ in TABLE if ERRORS[type_].status])
@pytest.mark.parametrize("stream", [False, True])
async def test_official_client_raises_the_exception_of_each_error(
    gateway: GatewayServer, service: ContractService, type_: str, stream: bool
) -> None:
    service.script.failure = Failure(type_, "as the service says", trailers={"retry-after-ms": "1500"})
    async with client_of(gateway) as client:
        with pytest.raises(openai.APIStatusError) as caught:
            await client.audio.transcriptions.create(file=RECORDING, model="whisper-1", stream=stream)
    error = caught.value
    assert type(error) is CLASSES[TABLE[type_][0]]
    assert "as the service says" in error.message
    assert (error.type, error.code, error.param) == TABLE[type_][1:4]
    assert_openai_error(error.response, type_)
    assert error.request_id == error.response.headers["x-req-id"]
    assert error.response.headers["x-total-ms"] == "123.4"
    if type_ in ("rate_limited", "overloaded", "not_ready", "out_of_memory"):
        assert (error.response.headers["retry-after-ms"], error.response.headers["retry-after"]) == ("1500", "2")


@pytest.mark.parametrize("type_", ["rate_limited", "not_ready", "overloaded", "fallback_failed", "internal"])
async def test_official_client_tries_again_only_where_that_helps(
    gateway: GatewayServer, service: ContractService, type_: str
) -> None:
    service.script.fail(Failure(type_, trailers={"retry-after-ms": "1"}))
    async with client_of(gateway, max_retries=2) as client:
        create = client.audio.transcriptions.create(file=RECORDING, model="whisper-1")
        if TABLE[type_][4]:
            assert (await create).text
        else:
            with pytest.raises(CLASSES[TABLE[type_][0]]):
                await create
    assert len(service.script.calls) == (2 if TABLE[type_][4] else 1)


@pytest.mark.parametrize("path", PATHS)
async def test_wrong_key_is_refused_before_the_upload(
    http: httpx.AsyncClient, service: ContractService, path: str
) -> None:
    service.script.keys = frozenset({"k1"})
    response = await http.post(path, files={"file": RECORDING}, headers={"Authorization": "Bearer k2"})
    assert_openai_error(response, "unauthenticated")
    assert not service.script.calls


async def test_unreachable_service_is_upstream_unavailable(free_target: str) -> None:
    server = GatewayServer(GatewayOptions(target=free_target, host="127.0.0.1", port=0))
    await server.start()
    try:
        async with client_of(server) as client:
            for call in (
                client.audio.transcriptions.create(file=RECORDING, model="whisper-1"),
                client.models.retrieve("whisper-1"),
            ):
                with pytest.raises(openai.InternalServerError) as caught:
                    await call
                assert free_target not in assert_openai_error(caught.value.response, "upstream_unavailable")
    finally:
        await server.stop(1)


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("response_format", "diarized_json", "json, text, srt, vtt, verbose_json"),
        ("response_format", "xml", "json, text, srt, vtt, verbose_json"),
        ("timestamp_granularities[]", "sentence", "segment, word"),
        ("timestamp_granularities", "word,sentence", "segment, word"),
        ("stream", "maybe", "true, false"),
        *(("temperature", value, "a number from 0 to 1") for value in ("1.1", "-0.1", "nan", "inf", "hot", "9" * 5000)),
        ("routing", "both", "auto, primary, fallback"),
    ],
)
async def test_invalid_value_is_named_with_the_valid_ones(
    http: httpx.AsyncClient, service: ContractService, field: str, value: str, expected: str
) -> None:
    name = field.removesuffix("[]")
    response = await http.post(PATHS[0], files={"file": RECORDING}, data={field: value})
    message = assert_openai_error(response, "invalid_argument", param=name)
    assert message.startswith(f"Invalid {name} '") and message.endswith(f"; expected {expected}.")
    assert not service.script.calls


@pytest.mark.parametrize("name", ["srt", "vtt", "verbose_json"])
async def test_only_text_is_streamed(http: httpx.AsyncClient, service: ContractService, name: str) -> None:
    fields = {"stream": "true", "response_format": name}
    response = await http.post(PATHS[0], files={"file": RECORDING}, data=fields)
    assert name in assert_openai_error(response, "invalid_argument", param="stream")


@pytest.mark.parametrize(
    ("files", "type_", "param"),
    [
        ([("model", (None, b"whisper-1"))], "empty_audio", "file"),
        ([("file", ("a.wav", b""))], "empty_audio", "file"),
        ([("file", ("a.wav", b"1")), ("file", ("b.wav", b"2"))], "invalid_argument", "file"),
        ([("file", RECORDING), ("prompt", (None, b"\xff\xfe"))], "invalid_argument", "prompt"),
        ([("file", RECORDING), ("keywords[]", (None, b"x" * 65537))], "invalid_argument", "keywords"),
        (
            [("file", RECORDING), ("language", (None, b"en")), ("language", (None, b"de"))],
            "invalid_argument",
            "language",
        ),
    ],
)
@pytest.mark.parametrize("stream", ["true", "false"])
async def test_param_names_the_invalid_part(
    http: httpx.AsyncClient, service: ContractService, files: list[Any], type_: str, param: str, stream: str
) -> None:
    response = await http.post(PATHS[0], files=files, data={"stream": stream})
    assert_openai_error(response, type_, param=param)
    assert not service.script.calls


async def test_body_that_is_no_form_names_no_param(http: httpx.AsyncClient, service: ContractService) -> None:
    for path in PATHS:
        assert_openai_error(await http.post(path, json={"file": "x"}), "invalid_argument")
    response = await http.post(PATHS[0], files={"file": RECORDING}, headers={"X-Timeout-Ms": "soon"})
    assert "X-Timeout-Ms" in assert_openai_error(response, "invalid_argument")


@pytest.mark.parametrize(
    ("fields", "option", "param"),
    [
        ({"language": "xx"}, "language", "language"),
        ({"languages[]": "xx"}, "language", "languages"),
        ({"languages": "en,xx"}, "candidate_languages", "languages"),
        ({"hotwords": "a"}, "hotwords", "hotwords"),
        ({"keywords[]": "a"}, "hotwords", "keywords"),
        ({"prompt": "a"}, "prompt", "prompt"),
        ({"routing": "fallback"}, "routing", "routing"),
        ({}, "", None),
    ],
)
@pytest.mark.parametrize("stream", ["true", "false"])
async def test_param_names_the_field_that_the_service_refuses(
    http: httpx.AsyncClient,
    service: ContractService,
    fields: dict[str, str],
    option: str,
    param: str | None,
    stream: str,
) -> None:
    trailers = bad_request(f"options.{option}") if option else {}
    service.script.failure = Failure("invalid_argument", "the service's words", trailers=trailers)
    response = await http.post(PATHS[0], files={"file": RECORDING}, data={"stream": stream, **fields})
    assert assert_openai_error(response, "invalid_argument", param=param) == "the service's words"
    assert response.headers["x-total-ms"] == "123.4"


async def test_unexpected_exception_is_500_without_its_text(
    http: httpx.AsyncClient, service: ContractService, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("secret /path")

    monkeypatch.setattr("gateway.openai.answers.plain_json", broken)
    response = await http.post(PATHS[0], files={"file": RECORDING})
    assert assert_openai_error(response, "internal") == "Internal error."
