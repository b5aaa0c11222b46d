"""Requests that the gateway refuses by itself are counted in the metrics of its service, each once."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus
from wyoming.audio import AudioChunk, AudioStart
from wyoming.event import Event

from gateway.http import refusals
from gateway.http.server import GatewayServer
from gateway.options import GatewayOptions
from protos.stt.v1 import speech_pb2 as pb
from protos.stt.v1 import speech_pb2_grpc
from stt_server.app import Service
from stt_server.testing.scripted_model import ScriptedModel
from tests.support.contract_service import ContractService
from tests.support.live_caller import CONFIG, PATIENCE_S
from tests.support.raw_http import form, head, part
from tests.support.services import running, speech, until
from tests.support.wyoming_caller import calling, error

UPLOAD, STREAM = "/v1/transcribe", "/v1/stream"
AUDIO = {"audio": ("a.wav", speech())}
NO_AUDIO = form(part("prompt", b"hello"))
FORM = {"Content-Type": "multipart/form-data; boundary=frontier"}


@pytest.fixture
def model() -> ScriptedModel:
    return ScriptedModel()


@pytest.fixture
async def service(tmp_path: Path, model: ScriptedModel) -> AsyncIterator[Service]:
    async with running(tmp_path, model=model, HTTP_PORT=0, WYOMING_PORT=0, MAX_UPLOAD_MB=0.2) as started:
        yield started


@pytest.fixture
async def http(service: Service) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{service.http_port}", timeout=PATIENCE_S) as client:
        yield client


async def counted(http: httpx.AsyncClient) -> tuple[Counter[str], Counter[tuple[str, str]]]:
    """Requests by endpoint, and errors by endpoint and type; those of 0 are left out."""
    text = (await http.get("/metrics")).text
    requests = re.findall(r'^stt_requests_total\{endpoint="([^"]+)"\} (\d+)\.0$', text, re.MULTILINE)
    errors = re.findall(
        r'^stt_requests_exceptions_total\{endpoint="([^"]+)",type="([^"]+)"\} (\d+)\.0$', text, re.MULTILINE
    )
    assert len(requests) >= 2 and len(errors) >= 30
    return (
        Counter({name: int(count) for name, count in requests if count != "0"}),
        Counter({(name, type_): int(count) for name, type_, count in errors if count != "0"}),
    )


@pytest.mark.parametrize(
    ("method", "path", "request_", "endpoint", "type_"),
    [
        ("POST", "/v1/transcribe", {"files": {"audio": ("a", bytes(400_000))}}, UPLOAD, "payload_too_large"),
        ("POST", "/v1/transcribe", {"files": {"other": ("a", b"x")}}, UPLOAD, "invalid_argument"),
        ("POST", "/v1/transcribe", {"content": NO_AUDIO, "headers": FORM}, UPLOAD, "empty_audio"),
        ("POST", "/v1/transcribe", {"content": b"--fron", "headers": FORM}, UPLOAD, "invalid_argument"),
        ("POST", "/v1/transcribe", {"files": AUDIO, "headers": {"X-Timeout-Ms": "soon"}}, UPLOAD, "invalid_argument"),
        ("GET", "/v1/transcribe", {}, UPLOAD, "invalid_argument"),
        ("POST", "/v1/audio/transcriptions", {"content": NO_AUDIO, "headers": FORM}, UPLOAD, "empty_audio"),
        ("GET", "/v1/stream", {}, STREAM, "invalid_argument"),
        ("GET", "/v1/no/such/path", {}, "other", "invalid_argument"),
        ("GET", "/v1/models/other", {}, "other", "invalid_argument"),
    ],
    ids=range(10),
)  # fmt: skip
async def test_refusal_counts_once(
    http: httpx.AsyncClient, method: str, path: str, request_: dict[str, Any], endpoint: str, type_: str
) -> None:
    response = await http.request(method, path, **request_)
    assert response.headers["X-Error-Type"] == type_
    assert await counted(http) == ({endpoint: 1}, {(endpoint, type_): 1})
    assert (await http.get("/v1/metrics")).json()["requests"] == {"total": 1, "errors": {type_: 1}}


@pytest.mark.parametrize("fields", [{"language": "klingon"}, {"audio": "noise"}, {}], ids=str)
async def test_answer_or_refusal_of_the_service_counts_once(http: httpx.AsyncClient, fields: dict[str, str]) -> None:
    audio = b"noise" * 100 if "audio" in fields else speech()
    data = {name: value for name, value in fields.items() if name != "audio"}
    response = await http.post("/v1/transcribe", files={"audio": ("a", audio)}, data=data)
    errors = [response.headers["X-Error-Type"]] if response.is_error else []
    assert await counted(http) == ({UPLOAD: 1}, Counter((UPLOAD, type_) for type_ in errors))


async def test_caller_that_disconnects_during_the_call_counts_once(
    http: httpx.AsyncClient, service: Service, model: ScriptedModel
) -> None:
    model.open.clear()
    body = form(part("audio", speech()))
    _, writer = await asyncio.open_connection("127.0.0.1", service.http_port)
    writer.write(head(f"Content-Length: {len(body)}") + body)
    await until(lambda: model.running)
    writer.close()
    await until(lambda: not service.in_flight)
    model.open.set()
    assert await counted(http) == ({UPLOAD: 1}, {(UPLOAD, "cancelled"): 1})


async def test_streams_and_wyoming_count_once(http: httpx.AsyncClient, service: Service) -> None:
    url = f"ws://127.0.0.1:{service.http_port}"
    with pytest.raises(InvalidStatus):
        async with connect(f"{url}/v1/stream", origin="https://other.example"):  # type: ignore[arg-type]
            pass
    async with connect(f"{url}/v1/stream") as socket:
        await socket.send("no config")
        await socket.wait_closed()
    async with connect(f"{url}/v1/stream") as socket:
        await socket.send(str(CONFIG).replace("'", '"'))
        await until(lambda: service.in_flight)
        await socket.send(bytes(2**20 + 2))
        await socket.wait_closed()
    async with calling(service.wyoming_port) as client:
        await client.write_event(Event("transcribe", {"language": 1}))
        await error(client)
    async with calling(service.wyoming_port) as client:
        await client.write_event(AudioStart(16_000, 2, 1).event())
        await client.write_event(AudioChunk(16_000, 2, 1, bytes(400_000)).event())
        await error(client)
    await until(lambda: not service.in_flight)
    requests, errors = await counted(http)
    assert requests == {STREAM: 3, UPLOAD: 1, "other": 1}
    # The last stream had called the service, which counts it.
    known = Counter(
        {(STREAM, "invalid_argument"): 2, (UPLOAD, "payload_too_large"): 1, ("other", "invalid_argument"): 1}
    )
    (last,) = errors - known
    assert last[0] == STREAM


async def test_refusals_reach_the_service_without_a_scrape(
    http: httpx.AsyncClient, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refusals, "SEND_AFTER_S", 0.01)
    await http.get("/no/such/path")
    async with grpc.aio.insecure_channel(f"127.0.0.1:{service.grpc_port}") as channel:
        operations = speech_pb2_grpc.OperationsStub(channel)

        async def wait_counted() -> None:
            while True:
                text = (await operations.GetMetrics(pb.GetMetricsRequest())).exposition
                if 'stt_requests_total{endpoint="other"} 1.0' in text:
                    return

        await asyncio.wait_for(wait_counted(), PATIENCE_S)


@pytest.mark.parametrize(("proxies", "counts"), [("127.0.0.1", ["1.0"]), ("none", ["0.0"])])
async def test_refusals_are_taken_from_trusted_proxies_only(tmp_path: Path, proxies: str, counts: list[str]) -> None:
    async with (
        running(tmp_path, TRUSTED_PROXIES=proxies) as service,
        grpc.aio.insecure_channel(f"127.0.0.1:{service.grpc_port}") as channel,
    ):
        given = [
            pb.GatewayRefusals(endpoint="other", type="invalid_argument", count=1),
            pb.GatewayRefusals(endpoint="other", type="a caller's text", count=1),
            pb.GatewayRefusals(endpoint="a caller's text", type="invalid_argument", count=1),
            pb.GatewayRefusals(endpoint="other", type="internal", count=-1),
        ]
        request = pb.GetMetricsRequest(refusals=given)
        text = (await speech_pb2_grpc.OperationsStub(channel).GetMetrics(request)).exposition
    assert re.findall(r'stt_requests_total\{endpoint="other"\} (.*)', text) == counts
    assert re.findall(r'stt_requests_exceptions_total\{endpoint="other",type="invalid_argument"\} (.*)', text) == counts
    assert "a caller's text" not in text


@pytest.mark.asyncio(loop_scope="session")
async def test_stopping_gateway_sends_its_last_refusals(running_service: ContractService) -> None:
    running_service.script.refusals.clear()
    gateway = GatewayServer(GatewayOptions(running_service.target, "127.0.0.1", 0))
    await gateway.start()
    async with httpx.AsyncClient() as http:
        await http.get(f"http://127.0.0.1:{gateway.port}/no/such/path")
    await gateway.stop(1)
    # The module's own gateway may send those of the tests before, which have a service that is down.
    assert ("other", "invalid_argument", 1) in running_service.script.refusals


@pytest.mark.asyncio(loop_scope="session")
async def test_refusals_wait_for_a_service_that_is_down(
    gateway: GatewayServer, running_service: ContractService
) -> None:
    target = running_service.target
    running_service.script.refusals.clear()
    await running_service.stop()
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{gateway.port}", timeout=PATIENCE_S) as http:
        for _ in range(2):
            assert (await http.get("/no/such/path")).status_code == 404
        assert (await http.get("/metrics")).status_code == 502
        await running_service.start(target)
        for _ in range(50):  # gRPC reconnects after a back-off
            if (await http.get("/metrics")).status_code == 200:
                break
            await asyncio.sleep(0.1)
    got: Counter[tuple[str, str]] = Counter()
    for endpoint, type_, count in running_service.script.refusals:
        got[endpoint, type_] += count
    assert got["other", "invalid_argument"] == 2
