"""Health, metrics, the documentation, CORS, and the access log."""

from __future__ import annotations

import logging
import re
from typing import Any

import httpx
import pytest

from gateway.http.server import GatewayServer
from gateway.openai.form import TRANSCRIPTION_RULES, TRANSLATION_RULES
from gateway.options import GatewayOptions
from gateway.rest.form import FIELDS
from protos.stt.v1.errors import ERRORS
from protos.stt.v1.wire import TRAILER_HEADERS
from tests.support.contract_script import Failure
from tests.support.contract_service import ContractService

pytestmark = pytest.mark.asyncio(loop_scope="session")

AUDIO = {"audio": ("speech.wav", b"RIFF....", "audio/wav")}
ABOUT = {"service": "primary", "model": "whisper-tiny", "device": "cpu"}


async def test_health_has_service_model_and_device(http: httpx.AsyncClient, service: ContractService) -> None:
    service.script.keys = frozenset({"k"})
    response = await http.get("/v1/health")
    assert (response.status_code, response.json()) == (200, {"ok": True, **ABOUT})


async def test_health_is_503_while_not_serving(http: httpx.AsyncClient, service: ContractService) -> None:
    await service.set_serving(False)
    response = await http.get("/v1/health")
    assert (response.status_code, response.json()) == (503, {"ok": False, **ABOUT})


async def test_health_is_503_if_get_status_fails(http: httpx.AsyncClient, service: ContractService) -> None:
    service.script.status_failure = Failure("internal")
    response = await http.get("/v1/health")
    assert (response.status_code, response.json()) == (503, {"ok": False})


async def test_snapshot_is_passed_through(http: httpx.AsyncClient, service: ContractService) -> None:
    response = await http.get("/v1/metrics")
    assert response.status_code == 200
    assert response.json() == {"server_commit": "abc", "uptime_s": 12.5, "requests": {"total": 3}}


async def test_prometheus_exposition_has_its_content_type(http: httpx.AsyncClient, service: ContractService) -> None:
    response = await http.get("/metrics")
    assert response.text == 'stt_requests_total{endpoint="/v1/transcribe"} 3.0\n'
    assert response.headers["content-type"] == "text/plain; version=1.0.0; charset=utf-8"


@pytest.mark.parametrize("path", ["/v1/health", "/v1/metrics", "/metrics", "/openapi.json", "/docs", "/", "/no"])
async def test_every_response_has_the_callers_request_id(
    http: httpx.AsyncClient, service: ContractService, path: str
) -> None:
    response = await http.get(path, headers={"X-Req-Id": "one.two"})
    assert response.headers.get_list("x-req-id") == ["one.two"]


async def test_openapi_has_every_field_header_and_status(http: httpx.AsyncClient, service: ContractService) -> None:
    paths = (await http.get("/openapi.json")).json()["paths"]
    openai = {"/v1/audio/transcriptions", "/v1/audio/translations", "/v1/models", "/v1/models/{model}"}
    assert set(paths) == {"/v1/transcribe", "/v1/health", "/v1/metrics", "/metrics", *openai}
    found = paths["/v1/transcribe"]["post"]
    schema = found["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert set(schema["properties"]) == {"audio", *FIELDS}
    assert set(found["responses"]) == {"200"} | {str(kind.http) for kind in ERRORS.values()} - {"499"}
    assert set(TRAILER_HEADERS.values()) <= set(found["responses"]["200"]["headers"])
    assert "Retry-After" in found["responses"]["429"]["headers"]
    for type_, kind in ERRORS.items():
        if type_ != "cancelled":
            assert f"`{type_}`" in found["responses"][str(kind.http)]["description"]
    assert {it["name"] for it in found["parameters"]} == {"Authorization", "X-Req-Id", "X-Timeout-Ms"}


async def test_openapi_has_every_field_of_openais_forms(http: httpx.AsyncClient, service: ContractService) -> None:
    paths = (await http.get("/openapi.json")).json()["paths"]
    for path, rules in (("transcriptions", TRANSCRIPTION_RULES), ("translations", TRANSLATION_RULES)):
        found = paths[f"/v1/audio/{path}"]["post"]
        schema = found["requestBody"]["content"]["multipart/form-data"]["schema"]
        assert set(schema["properties"]) == {"file", "model", *(name.removesuffix("[]") for name in rules.fields)}
        assert set(found["responses"]) == {"200"} | {str(kind.http) for kind in ERRORS.values()} - {"415", "499"}


@pytest.mark.parametrize(
    ("path", "files", "fields"),
    [
        ("/v1/transcribe", AUDIO, {}),
        (
            "/v1/audio/transcriptions",
            {"file": AUDIO["audio"]},
            {"response_format": "verbose_json", "timestamp_granularities": "word"},
        ),
    ],
)
async def test_openapi_schema_matches_an_actual_response(
    http: httpx.AsyncClient, service: ContractService, path: str, files: dict[str, Any], fields: dict[str, str]
) -> None:
    paths = (await http.get("/openapi.json")).json()["paths"]
    schema = paths[path]["post"]["responses"]["200"]["content"]["application/json"]["schema"]
    body = (await http.post(path, files=files, data=fields)).json()

    def compare(schema: dict[str, dict[str, object]], value: object) -> None:
        if isinstance(value, dict):
            properties: dict[str, dict[str, dict[str, object]]] = schema["properties"]  # type: ignore[assignment]
            assert set(properties) == set(value)
            for name, inner in value.items():
                compare(properties[name], inner)
        elif isinstance(value, list):
            for inner in value:
                compare(schema["items"], inner)  # type: ignore[arg-type]

    compare(schema, body)


async def test_docs_page_loads_nothing_from_other_hosts(http: httpx.AsyncClient, service: ContractService) -> None:
    response = await http.get("/docs")
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in response.headers["content-security-policy"]
    assert not re.findall(r"""(?:src|href)=["']?(?:https?:)?//""", response.text)
    assert "openapi.json" in response.text


async def test_live_page_loads_nothing_from_other_hosts(http: httpx.AsyncClient, service: ContractService) -> None:
    page = await http.get("/")
    linked = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert "docs" in linked and len(linked) > 3
    for path in linked:
        assert not re.match(r"(https?:)?//", path)
        assert (await http.get(f"/{path}")).status_code == 200
    for name in ("", "live/style.css", "live/main.js", "live/worklet.js"):
        response = await http.get(f"/{name}")
        assert "default-src 'none'; script-src 'self'" in response.headers["content-security-policy"]
        assert response.headers["x-content-type-options"] == "nosniff"
        assert not re.search(r"""['"(](https?:)?//""", response.text)
    again = await http.get("/", headers={"If-None-Match": page.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


async def test_other_origins_are_not_allowed_by_default(http: httpx.AsyncClient, service: ContractService) -> None:
    response = await http.get("/v1/health", headers={"Origin": "https://app.example"})
    assert "access-control-allow-origin" not in response.headers


async def test_listed_origin_may_call_and_read_headers(service: ContractService) -> None:
    options = GatewayOptions(service.target, host="127.0.0.1", port=0, cors_origins=("https://app.example",))
    server = GatewayServer(options)
    await server.start()
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}") as http:
            request_headers = {"Origin": "https://app.example", "Access-Control-Request-Method": "POST"}
            request_headers["Access-Control-Request-Headers"] = "authorization,x-timeout-ms"
            preflight = await http.options("/v1/transcribe", headers=request_headers)
            assert preflight.status_code == 200
            assert preflight.headers["access-control-allow-origin"] == "https://app.example"
            response = await http.post("/v1/transcribe", files=AUDIO, headers={"Origin": "https://app.example"})
            exposed = response.headers["access-control-expose-headers"]
            assert "X-Final-Model" in exposed and "X-Req-Id" in exposed
            other = await http.get("/v1/health", headers={"Origin": "https://evil.example"})
            assert "access-control-allow-origin" not in other.headers
    finally:
        await server.stop(1)


async def test_access_log_line_has_no_key_or_transcript(
    http: httpx.AsyncClient, service: ContractService, caplog: pytest.LogCaptureFixture
) -> None:
    service.script.keys = frozenset({"s3cret"})
    headers = {"Authorization": "Bearer s3cret", "X-Req-Id": "r1"}
    with caplog.at_level(logging.INFO, logger="gateway.access"):
        await http.post("/v1/transcribe?key=s3cret", files=AUDIO, headers=headers, data={"prompt": "Zoë"})
    (record,) = [record for record in caplog.records if record.name == "gateway.access"]
    line = record.__dict__
    logged = {name: line[name] for name in ("request_id", "method", "path", "status")}
    assert logged == {"request_id": "r1", "method": "POST", "path": "/v1/transcribe", "status": 200}
    assert line["seconds"] > 0 and line["bytes"] > 8 and line["bytes_sent"] > 100
    assert not re.search("s3cret|Zoë|Welt", repr(line))


async def test_access_log_line_of_a_failure_has_its_error_type(
    http: httpx.AsyncClient, service: ContractService, caplog: pytest.LogCaptureFixture
) -> None:
    service.script.failure = Failure("fallback_failed", trailers={"x-fallback-error": "rate_limited"})
    with caplog.at_level(logging.INFO, logger="gateway.access"):
        await http.post("/v1/transcribe", files=AUDIO)
    (record,) = [record for record in caplog.records if record.name == "gateway.access"]
    line = record.__dict__
    assert (line["status"], line["error_type"], line["fallback_error"]) == (
        502,
        "fallback_failed",
        "rate_limited",
    )
