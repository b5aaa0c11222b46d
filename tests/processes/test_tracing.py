"""One trace through gateway, primary and fallback, as real processes: in metadata and in log lines."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from stt_client import SttClient
from stt_server.testing.processes import ChildProcess
from stt_server.testing.scripted_model import Script
from stt_server.testing.services import GatewayProcess, ServiceProcess, running
from tests.support.observing import eventually
from tests.support.services import speech

SPAN = "00f067aa0ba902b7"


@dataclass
class Deployment:
    """A gateway in front of a primary that sends each request to its fallback."""

    gateway: GatewayProcess
    primary: ServiceProcess
    fallback: ServiceProcess

    @property
    def processes(self) -> tuple[ChildProcess, ...]:
        return self.gateway, self.primary, self.fallback


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    folder = tmp_path_factory.mktemp("tracing")
    fallback = ServiceProcess("fallback", folder / "fallback", {}, Script())
    with running(fallback):
        keys: dict[str, object] = {"FALLBACK_URL": f"grpc://{fallback.target}"}
        primary = ServiceProcess("primary", folder / "primary", keys, Script(confidence=0.1))
        with running(primary):
            gateway = GatewayProcess(folder / "gateway", primary.target)
            with running(gateway):
                yield Deployment(gateway, primary, fallback)


def lines_of(process: ChildProcess, trace_id: str) -> list[dict[str, Any]]:
    """Log lines of a trace."""
    lines = [json.loads(line) for line in process.log_text().splitlines() if line.startswith("{")]
    return [line for line in lines if line.get("trace_id") == trace_id]


async def traced(deployment: Deployment, trace_id: str) -> list[list[dict[str, Any]]]:
    """Log lines of a trace by process, once each has one."""

    async def found() -> bool:
        return all(lines_of(process, trace_id) for process in deployment.processes)

    await eventually(found, True)
    return [lines_of(process, trace_id) for process in deployment.processes]


async def test_trace_of_a_rest_caller_is_in_the_logs_of_all_three(deployment: Deployment) -> None:
    trace_id = "4bf92f3577b34da6a3ce929d0e0e4736"
    async with httpx.AsyncClient(base_url=deployment.gateway.url, timeout=60) as http:
        files = {"audio": ("a.wav", speech())}
        answer = await http.post(
            "/v1/transcribe", files=files, headers={"traceparent": f"00-{trace_id}-{SPAN}-01", "X-Req-Id": "rest"}
        )
    assert answer.status_code == 200
    gateway, primary, fallback = await traced(deployment, trace_id)
    assert {line["request_id"] for line in (*gateway, *primary, *fallback)} == {"rest"}
    assert len({lines[0]["span_id"] for lines in (gateway, primary, fallback)} - {SPAN}) == 3


async def test_trace_of_a_grpc_caller_is_continued(deployment: Deployment) -> None:
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    async with SttClient(deployment.primary.target) as client:
        await client.transcribe(speech(), metadata=[("traceparent", f"00-{trace_id}-{SPAN}-01")])

    async def found() -> bool:
        return all(lines_of(process, trace_id) for process in (deployment.primary, deployment.fallback))

    await eventually(found, True)


async def test_callers_without_a_trace_get_one_each(deployment: Deployment) -> None:
    async with httpx.AsyncClient(base_url=deployment.gateway.url, timeout=60) as http:
        answers = await asyncio.gather(
            *(
                http.post("/v1/transcribe", files={"audio": ("a.wav", speech())}, headers={"X-Req-Id": request_id})
                for request_id in ("first", "second")
            )
        )
    assert {answer.status_code for answer in answers} == {200}
    traces = []
    for request_id in ("first", "second"):
        (line,) = [
            line
            for line in map(json.loads, deployment.gateway.log_text().splitlines())
            if line["request_id"] == request_id
        ]
        primary = (await traced(deployment, line["trace_id"]))[1]
        assert [line["request_id"] for line in primary] == [request_id]
        traces.append(line["trace_id"])
    assert traces[0] != traces[1]
