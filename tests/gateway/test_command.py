"""The command `stt-gateway`."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import sys
from pathlib import Path

import httpx
import pytest

from gateway.http.server import GatewayServer
from protos.stt.v1.wire import ReadyLine
from stt_server.testing.wyoming_caller import speak
from tests.support.contract_service import ContractService
from tests.support.wyoming_caller import calling, transcript

pytestmark = pytest.mark.asyncio(loop_scope="session")

AUDIO = {"audio": ("speech.wav", b"RIFF....", "audio/wav")}


async def run(*arguments: str) -> asyncio.subprocess.Process:
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(sys.executable, "-m", "gateway", *arguments, stdout=pipe, stderr=pipe)


async def ready_port(process: asyncio.subprocess.Process, target: str) -> int:
    assert process.stdout is not None
    line = (await asyncio.wait_for(process.stdout.readline(), 30)).decode()
    found = re.fullmatch(rf"ready service=gateway http=127\.0\.0\.1:(\d+) target={re.escape(target)}\n", line)
    assert found, line
    return int(found[1])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_signal_finishes_requests_in_flight_and_exits_0(service: ContractService, number: signal.Signals) -> None:
    service.script.hold = asyncio.Event()
    process = await run("--target", service.target, "--host", "127.0.0.1", "--port", "0")
    try:
        port = await ready_port(process, service.target)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as http:
            waiting = asyncio.create_task(http.post("/v1/transcribe", files=AUDIO, headers={"X-Req-Id": "last"}))
            await asyncio.wait_for(service.script.started.wait(), 10)
            process.send_signal(number)
            service.script.hold.set()
            assert (await waiting).status_code == 200
        out, err = await asyncio.wait_for(process.communicate(), 20)
    finally:
        if process.returncode is None:
            process.kill()
    assert (process.returncode, out) == (0, b"")
    (line,) = [json.loads(line) for line in err.splitlines()]
    assert line["logger"] == "gateway.access" and line["level"] == "INFO" and line["time"].endswith("Z")
    assert (line["request_id"], line["status"]) == ("last", 200)


async def test_port_in_use_prints_one_line_and_exits_1(gateway: GatewayServer, service: ContractService) -> None:
    port = str(gateway.port)
    process = await run("--target", service.target, "--host", "127.0.0.1", "--port", port)
    out, err = await asyncio.wait_for(process.communicate(), 30)
    assert (process.returncode, out) == (1, b"")
    assert err.decode() == f"stt-gateway: HTTP can't listen on 127.0.0.1:{port}: Address already in use\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "--target"),
        (("--target", "x:1", "--port", "70000"), "0 to 65535"),
        (("--target", "http://x:1"), "grpc://"),
        (("--target", "x:1", "--ca", "/no/such/ca.pem"), "/no/such/ca.pem"),
        (("--target", "x:1", "--tls-cert", "a.pem"), "--tls-key"),
        (("--target", "x:1", "--log-level", "loud"), "loud"),
        (("--target", "x:1", "--wyoming-port", "off"), "0 to 65535"),
        (("--target", "x:1", "--wyoming-api-key-file", "key"), "--wyoming-port"),
        (("--target", "x:1", "--wyoming-port", "0", "--wyoming-api-key-file", "/no/such/key"), "/no/such/key"),
        (("--target", "x:1", "--wyoming-port", "0", "--wyoming-api-key-file", "/dev/null"), "does not hold a key"),
    ],
)
async def test_invalid_option_is_named_and_exits_2(arguments: tuple[str, ...], message: str, tmp_path: Path) -> None:
    process = await run(*arguments)
    out, err = await asyncio.wait_for(process.communicate(), 30)
    assert (process.returncode, out) == (2, b"")
    last = err.decode().strip().splitlines()[-1]
    assert message in last
    assert "Traceback" not in err.decode()


async def test_wyoming_port_is_in_the_ready_line_and_its_key_in_a_file(
    service: ContractService, tmp_path: Path
) -> None:
    (tmp_path / "key").write_text("key-of-the-home\n")
    options = ("--wyoming-port", "0", "--wyoming-api-key-file", str(tmp_path / "key"))
    process = await run("--target", service.target, "--host", "127.0.0.1", "--port", "0", *options)
    try:
        assert process.stdout is not None
        ready = ReadyLine.parse((await asyncio.wait_for(process.stdout.readline(), 30)).decode())
        async with calling(ready.wyoming_port) as client:
            await speak(client, bytes(32_000))
            assert (await transcript(client)).text
        process.terminate()
        assert await asyncio.wait_for(process.wait(), 20) == 0
    finally:
        if process.returncode is None:
            process.kill()
    assert service.script.calls[0].metadata["authorization"] == "Bearer key-of-the-home"
