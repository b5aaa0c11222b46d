"""The error table, walked: every row is reached over gRPC and over REST, in front of a real service."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from gateway.http.server import GatewayServer
from gateway.options import GatewayOptions
from protos.stt.v1.errors import ERRORS
from stt_server.app import Service
from stt_server.errors import EngineError, OutOfMemory
from stt_server.testing.scripted_model import Script, ScriptedModel
from tests.support.services import failure, running, speech, stub_of, transcribe, until


@dataclass
class Scenario:
    """How to run into one row: a service, a model, and a request."""

    keys: dict[str, Any] = field(default_factory=dict)
    script: Script = field(default_factory=Script)
    audio: bytes | None = None
    language: str = ""
    held: bool = False
    """The model stands still during the request."""
    occupied: bool = False
    """Another request holds the only slot."""
    before: int = 0
    """Requests made first, which are answered."""
    starting: bool = False
    timeout_s: float = 20.0


UNSURE = Script(confidence=0.1)
SCENARIOS = {
    "unauthenticated": Scenario(keys={"API_KEYS": "web:the-key-of-the-web"}),
    "rate_limited": Scenario(keys={"RATE_LIMIT_RPS": 0.001, "RATE_LIMIT_BURST": 1}, before=1),
    "payload_too_large": Scenario(keys={"MAX_UPLOAD_MB": 1}, audio=bytes(2**20 + 1)),
    "audio_too_long": Scenario(keys={"MAX_AUDIO_SECONDS": 1}),
    "empty_audio": Scenario(audio=b""),
    "unsupported_audio": Scenario(audio=b"#EXTM3U\nhttp://example.invalid/a.ts\n"),
    "invalid_argument": Scenario(language="xx"),
    "overloaded": Scenario(keys={"MAX_CONCURRENCY": 1, "MAX_QUEUE": 0}, occupied=True),
    "deadline_exceeded": Scenario(held=True, timeout_s=0.5),
    "fallback_failed": Scenario(keys={"FALLBACK_URL": "grpc://127.0.0.1:1"}, script=UNSURE),
    "not_ready": Scenario(starting=True),
    "out_of_memory": Scenario(script=Script(error=OutOfMemory("the device is out of memory"))),
    "internal": Scenario(script=Script(error=EngineError("the model failed on this recording"))),
}
ELSEWHERE = {"cancelled", "upstream_unavailable"}
"""Rows that have a test of their own: nobody is left to read the answer, or there is no service to give it."""


@contextlib.asynccontextmanager
async def staged(scenario: Scenario, folder: Path) -> AsyncIterator[tuple[Service, Any, httpx.AsyncClient]]:
    """The service of a scenario, brought to the point where the next request runs into the row."""
    model = ScriptedModel(scenario.script)
    async with contextlib.AsyncExitStack() as stack:
        service = await stack.enter_async_context(running(folder, model=model, HTTP_PORT=0, **scenario.keys))
        stub = await stack.enter_async_context(stub_of(service))
        rest = await stack.enter_async_context(httpx.AsyncClient(base_url=f"http://127.0.0.1:{service.http_port}"))
        stack.callback(model.open.set)
        for _ in range(scenario.before):
            await transcribe(stub)
        if scenario.held or scenario.occupied:
            model.open.clear()
        if scenario.occupied:
            holder = asyncio.ensure_future(transcribe(stub))
            stack.callback(holder.cancel)
            await asyncio.get_running_loop().run_in_executor(None, model.entered.acquire)
        if scenario.starting:
            service.readiness.state = "starting"
        yield service, stub, rest


async def post(rest: httpx.AsyncClient, scenario: Scenario) -> httpx.Response:
    audio = speech() if scenario.audio is None else scenario.audio
    return await rest.post(
        "/v1/transcribe",
        files={"audio": ("clip.wav", audio)},
        data={"language": scenario.language} if scenario.language else {},
        headers={"X-Timeout-Ms": str(int(scenario.timeout_s * 1000))},
        timeout=30,
    )


def test_every_error_type_has_a_scenario() -> None:
    assert set(SCENARIOS) | ELSEWHERE == set(ERRORS)


@pytest.mark.parametrize("type_", sorted(SCENARIOS))
async def test_error_type_is_reached_over_grpc(tmp_path: Path, type_: str) -> None:
    scenario, kind = SCENARIOS[type_], ERRORS[type_]
    async with staged(scenario, tmp_path) as (service, stub, _):
        code, trailers, _ = await failure(stub, scenario.audio, timeout=scenario.timeout_s, language=scenario.language)
        assert code is grpc.StatusCode[kind.status]
        await until(lambda: _counted(service, type_))
    if type_ == "deadline_exceeded":
        return  # the caller's own library gave up: no trailers reached it
    assert trailers["x-error-type"] == type_
    assert trailers["x-error-message"].isprintable()
    assert trailers["x-req-id"]
    assert ("retry-after-ms" in trailers) == (kind.http in (429, 503))


@pytest.mark.parametrize("type_", sorted(SCENARIOS))
async def test_error_type_is_reached_over_rest(tmp_path: Path, type_: str) -> None:
    scenario, kind = SCENARIOS[type_], ERRORS[type_]
    async with staged(scenario, tmp_path) as (_, __, rest):
        response = await post(rest, scenario)
    assert response.status_code == kind.http
    assert response.headers["X-Error-Type"] == type_
    error = response.json()["error"]
    assert error["type"] == type_
    assert error["message"] == response.headers["X-Error-Message"] != ""
    assert error["request_id"] == response.headers["X-Req-Id"] != ""
    assert ("Retry-After" in response.headers) == (kind.http in (429, 503))
    assert ("WWW-Authenticate" in response.headers) == (kind.http == 401)
    if type_ == "fallback_failed":
        assert response.headers["X-Fallback-Error"] == "unavailable"
        assert float(response.headers["X-Primary-Infer-ms"]) >= 0


async def test_disconnected_caller_counts_as_cancelled(tmp_path: Path) -> None:
    async with staged(Scenario(held=True), tmp_path) as (service, stub, rest):
        for number, request in enumerate((transcribe(stub), post(rest, Scenario())), start=1):
            call = asyncio.ensure_future(request)
            await until(lambda: service.readiness.in_flight == 1)
            call.cancel()
            await until(lambda wanted=number: _counted(service, "cancelled") == wanted)  # type: ignore[misc]


async def test_gateway_without_a_service_is_502() -> None:
    server = GatewayServer(GatewayOptions(target="127.0.0.1:1", host="127.0.0.1", port=0))
    await server.start()
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}") as rest:
        response = await post(rest, Scenario())
    await server.stop(1)
    assert response.status_code == 502
    assert response.json()["error"]["type"] == response.headers["X-Error-Type"] == "upstream_unavailable"


@pytest.mark.parametrize("key", ["", "the-key-of-the-web"])
async def test_grpc_and_rest_share_one_rate_limit(tmp_path: Path, key: str) -> None:
    keys = {"API_KEYS": f"web:{key}" if key else "", "RATE_LIMIT_RPS": 0.001, "RATE_LIMIT_BURST": 2}
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    metadata = (("authorization", f"Bearer {key}"),) if key else ()
    async with staged(Scenario(keys=keys), tmp_path) as (_, stub, rest):
        rest.headers.update(headers)
        assert (await post(rest, Scenario())).status_code == 200
        await transcribe(stub, metadata=metadata)
        assert (await post(rest, Scenario())).status_code == 429
        code, _, __ = await failure(stub, metadata=metadata)
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_error_table_has_valid_grpc_statuses() -> None:
    assert {kind.status for kind in ERRORS.values() if kind.status} <= {code.name for code in grpc.StatusCode}


def _counted(service: Service, type_: str) -> int:
    return int(service.instruments.snapshot()["requests"]["errors"].get(type_, 0))
