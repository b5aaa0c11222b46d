"""The services as operators start them: real processes and models, exit statuses, signals."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from protos.stt.v1.wire import ReadyLine
from stt_client import SttClient, SyncSttClient
from stt_server.config import Role
from stt_server.testing.paths import SPEECH, TINY
from stt_server.testing.processes import HOST, ChildProcess
from stt_server.testing.services import ServiceProcess, running
from tests.support.speech import words

FOX = "the quick brown fox jumps over the lazy dog"


def refused(config: Path, **environ: str) -> str:
    """Last line of standard error of a primary that must not start."""
    command = (sys.executable, "-m", "stt_server.primary")
    log = config.with_suffix(".log")
    process = ChildProcess("stt-primary", command, log, environ={"CONFIG_PATH": str(config), **environ})
    process.spawn()
    assert process.wait() == 2
    assert process.output == [], "only a ready process writes to standard output"
    assert "Traceback" not in process.log_text()
    return process.log_text().rstrip().splitlines()[-1]


@pytest.mark.skipif(sys.platform != "linux", reason="CTranslate2 has GNU's OpenMP on Linux")
@pytest.mark.parametrize("service", ["primary", "fallback"])
@pytest.mark.parametrize(
    ("environ", "policy", "spins"),
    [
        ({}, "ACTIVE", "1000"),
        ({"OMP_WAIT_POLICY": "active"}, "ACTIVE", "30000000000"),
        ({"OMP_WAIT_POLICY": "passive"}, "PASSIVE", "0"),
        ({"GOMP_SPINCOUNT": "5000"}, "PASSIVE", "5000"),
    ],
)
def test_threads_of_an_inference_wait_briefly_unless_configured(
    tmp_path: Path, service: Role, environ: dict[str, str], policy: str, spins: str
) -> None:
    command = [sys.executable, "-m", f"stt_server.{service}"]
    environ = {"CONFIG_PATH": str(tmp_path / "missing.env"), "OMP_DISPLAY_ENV": "verbose", **environ}
    shown = subprocess.run(command, env=environ, check=False, timeout=60, capture_output=True, text=True).stderr
    assert f"OMP_WAIT_POLICY = '{policy}'" in shown
    assert f"GOMP_SPINCOUNT = '{spins}'" in shown


@pytest.mark.model
@pytest.mark.parametrize("service", ["primary", "fallback"])
def test_service_gets_ready_answers_and_stops(tmp_path: Path, service: Role) -> None:
    process = ServiceProcess(service, tmp_path, {"DRAIN_TIMEOUT_S": 20})
    probe = [sys.executable, "-m", "stt_server.healthcheck", "--service", service]
    with running(process):
        with grpc.insecure_channel(process.target) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            for name in ("", "stt.v1.SpeechToText"):
                answer = health.Check(health_pb2.HealthCheckRequest(service=name), timeout=5)
                assert answer.status == health_pb2.HealthCheckResponse.SERVING
        with SyncSttClient(process.target) as client:
            assert words(client.transcribe(SPEECH).text) == FOX
        found = httpx.get(f"{process.url}/v1/health").json()
        assert found == {"ok": True, "service": service, "model": TINY.name, "device": "cpu"}
        process.write_config(GRPC_PORT=process.grpc_port)
        environ = {"CONFIG_PATH": str(process.config)}
        assert subprocess.run(probe, env=environ, check=False, timeout=20).returncode == 0
        assert process.stop() == 0
        ready = ReadyLine(service, process.target, f"{HOST}:{process.http_port}")
        assert process.output == [str(ready)], "the ready line is the only output"
        assert subprocess.run(probe, env=environ, check=False, timeout=20).returncode == 1


@pytest.mark.model
async def test_accepted_requests_finish_after_sigterm(tmp_path: Path) -> None:
    keys = {"HTTP_PORT": "off", "MAX_CONCURRENCY": 1, "DRAIN_TIMEOUT_S": 20}
    process = ServiceProcess("primary", tmp_path, keys)
    with running(process):
        async with SttClient(process.target) as client:
            calls = [asyncio.ensure_future(client.transcribe(SPEECH)) for _ in range(6)]
            await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
            process.send(signal.SIGTERM)
            transcripts = await asyncio.gather(*calls)
        assert process.wait(timeout_s=20) == 0
    assert {words(transcript.text) for transcript in transcripts} == {FOX}


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("MAX_QUEUE=many", "MAX_QUEUE"),
        ("MAX_QUEUES=3", "MAX_QUEUE"),
        ("CONF_LOGPROB_THRESHOLD=1.5", "CONF_LOGPROB_THRESHOLD"),
        ("FALLBACK_URL=http://fallback:8082", "grpc://fallback:50052"),
        ("CT2_SMALL_PATH=/nowhere/at/all", "CT2_SMALL_PATH"),
    ],
)
def test_invalid_configuration_is_refused_with_one_line(tmp_path: Path, line: str, named: str) -> None:
    config = tmp_path / "a.env"
    path = "" if line.startswith("CT2_") else f"CT2_SMALL_PATH={TINY}\n"
    config.write_text(f"# a comment\n{path}{line}\n")
    message = refused(config)
    assert message.startswith("stt-primary: ")
    assert "a.env" in message
    assert str(2 + bool(path)) in message
    assert named in message


def test_missing_file_or_key_is_refused_whatever_the_environment(tmp_path: Path) -> None:
    assert "none.env" in refused(tmp_path / "none.env")
    empty = tmp_path / "empty.env"
    empty.write_text("")
    assert "CT2_SMALL_PATH" in refused(empty, CT2_SMALL_PATH=str(TINY))
