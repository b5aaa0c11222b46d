"""The services as operators start them: real processes, real ports, exit statuses, signals."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from protos.stt.v1.wire import ReadyLine
from stt_client import SttClient, SyncSttClient
from tests.support.services import MODELS, SPEECH
from tests.support.speech import words

TINY = MODELS / "whisper-tiny.en-ct2"
PATH_KEY = {"primary": "CT2_SMALL_PATH", "fallback": "CT2_MEDIUM_PATH"}


def write(folder: Path, service: str = "primary", **keys: object) -> Path:
    """An .env file for the smallest starter model."""
    values: dict[str, object] = {PATH_KEY[service]: TINY, "HOST": "127.0.0.1", "DEVICE": "cpu", "COMPUTE_TYPE": "int8"}
    values |= {"GRPC_PORT": 0, "HTTP_PORT": 0, "DRAIN_TIMEOUT_S": 20} | keys
    path = folder / f"stt_{service}.env"
    path.write_text("".join(f"{name}={value}\n" for name, value in values.items()))
    return path


def start(config: Path, service: str = "primary", **environ: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", f"stt_server.{service}"],
        env={"CONFIG_PATH": str(config), **environ},
        cwd=config.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@contextmanager
def ready(config: Path, service: str = "primary") -> Iterator[tuple[subprocess.Popen[str], int, int]]:
    """A process past its ready line, its gRPC port and its HTTP port."""
    process = start(config, service)
    try:
        assert process.stdout
        line = process.stdout.readline()
        assert line, process.communicate()[1]
        found = ReadyLine.parse(line)
        assert found.service == service
        http_port = found.http_port if found.http else 0
        http = f"127.0.0.1:{http_port}" if http_port else "off"
        assert line == f"ready service={service} grpc=127.0.0.1:{found.grpc_port} http={http}\n"
        yield process, found.grpc_port, http_port
    finally:
        process.kill()
        process.communicate()


def refused(config: Path, **environ: str) -> tuple[int, str]:
    """The exit status and the last line of a process that doesn't start."""
    process = start(config, **environ)
    out, err = process.communicate(timeout=60)
    assert out == "", "only a ready process writes to standard output"
    assert "Traceback" not in err
    return process.returncode, err.rstrip().splitlines()[-1]


@pytest.mark.model
@pytest.mark.parametrize("service", ["primary", "fallback"])
def test_a_service_says_ready_answers_and_ends_cleanly(tmp_path: Path, service: str) -> None:
    with ready(write(tmp_path, service), service) as (process, grpc_port, http_port):
        with grpc.insecure_channel(f"127.0.0.1:{grpc_port}") as channel:
            health = health_pb2_grpc.HealthStub(channel)
            for name in ("", "stt.v1.SpeechToText"):
                answer = health.Check(health_pb2.HealthCheckRequest(service=name), timeout=5)
                assert answer.status == health_pb2.HealthCheckResponse.SERVING
        with SyncSttClient(f"127.0.0.1:{grpc_port}") as client:
            assert words(client.transcribe(SPEECH).text) == "the quick brown fox jumps over the lazy dog"
        found = httpx.get(f"http://127.0.0.1:{http_port}/v1/health").json()
        expected = {"ok": True, "service": service, "model": TINY.name, "device": "cpu"}
        assert found == expected
        probe = [sys.executable, "-m", "stt_server.healthcheck", "--service", service]
        config = write(tmp_path, service, GRPC_PORT=grpc_port)
        assert subprocess.run(probe, env={"CONFIG_PATH": str(config)}, check=False, timeout=20).returncode == 0
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 0
        assert process.stdout
        assert process.stdout.read() == "", "the ready line is the only one"
        assert subprocess.run(probe, env={"CONFIG_PATH": str(config)}, check=False, timeout=20).returncode == 1


@pytest.mark.model
async def test_sigterm_lets_what_was_accepted_finish(tmp_path: Path) -> None:
    with ready(write(tmp_path, HTTP_PORT="off", MAX_CONCURRENCY=1)) as (process, grpc_port, _):
        async with SttClient(f"127.0.0.1:{grpc_port}") as client:
            calls = [asyncio.ensure_future(client.transcribe(SPEECH)) for _ in range(6)]
            await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
            process.send_signal(signal.SIGTERM)
            transcripts = await asyncio.gather(*calls)
        assert process.wait(timeout=20) == 0
    assert {words(transcript.text) for transcript in transcripts} == {"the quick brown fox jumps over the lazy dog"}


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
def test_a_wrong_configuration_stops_the_start_with_one_line(tmp_path: Path, line: str, named: str) -> None:
    config = tmp_path / "a.env"
    path = "" if line.startswith("CT2_") else f"CT2_SMALL_PATH={TINY}\n"
    config.write_text(f"# a comment\n{path}{line}\n")
    status, said = refused(config)
    assert status == 2
    assert said.startswith("stt-primary: ")
    assert "a.env" in said
    assert str(2 + bool(path)) in said
    assert named in said


def test_a_missing_file_or_key_is_a_configuration_error_and_the_environment_is_no_help(tmp_path: Path) -> None:
    status, said = refused(tmp_path / "none.env")
    assert (status, "none.env" in said) == (2, True)
    empty = tmp_path / "empty.env"
    empty.write_text("")
    status, said = refused(empty, CT2_SMALL_PATH=str(TINY))
    assert (status, "CT2_SMALL_PATH" in said) == (2, True)
