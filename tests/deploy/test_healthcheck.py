"""`python -m stt_server.healthcheck` against real servers, with and without TLS."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import grpc
import pytest

from stt_server.config import config_path
from stt_server.healthcheck import Unhealthy, endpoint_of, main
from tests.support.contract_script import Script
from tests.support.contract_service import serving


def env_file(folder: Path, *lines: str, name: str = "stt_primary.env") -> Path:
    file = folder / name
    file.write_text("\n".join(lines) + "\n")
    return file


async def run(file: Path, *args: str) -> int:
    return await asyncio.to_thread(main, ["--config", str(file), "--timeout", "5", *args])


async def test_a_serving_service_is_healthy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with serving(Script(keys={"a-key-that-health-does-not-need"})) as service:
        # The model doesn't exist: the check must not load it.
        file = env_file(tmp_path, "CT2_SMALL_PATH=/nowhere", f"GRPC_PORT={service.port}", "API_KEYS=abc")
        assert await run(file) == 0
    assert capsys.readouterr().out == f"SERVING: 127.0.0.1:{service.port}\n"


async def test_a_service_that_is_not_serving_is_unhealthy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with serving() as service:
        await service.set_serving(False)
        assert await run(env_file(tmp_path, f"GRPC_PORT={service.port}")) == 1
    assert capsys.readouterr().out == f"unhealthy: 127.0.0.1:{service.port}: NOT_SERVING\n"


async def test_a_closed_port_is_unhealthy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with serving() as service:
        pass
    assert await run(env_file(tmp_path, f"GRPC_PORT={service.port}")) == 1
    assert "no answer: UNAVAILABLE" in capsys.readouterr().out


async def test_an_unknown_health_name_is_unhealthy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with serving() as service:
        assert await run(env_file(tmp_path, f"GRPC_PORT={service.port}"), "--name", "nobody") == 1
    assert "NOT_FOUND" in capsys.readouterr().out


async def test_other_mistakes_in_the_file_do_not_matter(
    tmp_path: Path,
) -> None:
    async with serving() as service:
        file = env_file(tmp_path, f"GRPC_PORT={service.port}", "MAX_CONCURRENCY=many", "NO_SUCH_KEY=1")
        assert await run(file) == 0


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("GRPC_PORT=0", "takes a free port"),
        ("GRPC_PORT=high", "expected a whole number"),
        ("GRPC_PORT", "KEY=VALUE"),
    ],
)
def test_an_unknown_port_is_unhealthy(tmp_path: Path, line: str, problem: str) -> None:
    with pytest.raises(Unhealthy, match=problem):
        endpoint_of(env_file(tmp_path, line), None)


def test_a_missing_file_is_unhealthy(tmp_path: Path) -> None:
    with pytest.raises(Unhealthy, match="can't read the configuration: No such file"):
        endpoint_of(tmp_path / "stt_primary.env", None)


@pytest.mark.parametrize(
    ("name", "line", "port"),
    [
        ("stt.env", "CT2_SMALL_PATH=/models/small", 50051),
        ("stt.env", "CT2_MEDIUM_PATH=/models/medium", 50052),
        ("stt_fallback.env", "LOG_LEVEL=info", 50052),
        ("stt_primary.env", "LOG_LEVEL=info", 50051),
    ],
)
def test_the_default_port_depends_on_the_service(tmp_path: Path, name: str, line: str, port: int) -> None:
    assert endpoint_of(env_file(tmp_path, line, name=name), None).port == port


def test_the_listening_address_is_checked(tmp_path: Path) -> None:
    assert endpoint_of(env_file(tmp_path, "HOST=::1"), None).target == "[::1]:50051"
    assert endpoint_of(env_file(tmp_path, "HOST=0.0.0.0"), None).target == "127.0.0.1:50051"


async def test_it_runs_as_a_module_with_config_path(tmp_path: Path) -> None:
    async with serving() as service:
        file = env_file(tmp_path, f"GRPC_PORT={service.port}")
        assert config_path("primary", {"CONFIG_PATH": str(file)}) == file
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "stt_server.healthcheck",
            env={"CONFIG_PATH": str(file)},
            stdout=asyncio.subprocess.PIPE,
        )
        out, _ = await asyncio.wait_for(process.communicate(), 30)
    assert (process.returncode, out.decode()) == (0, f"SERVING: 127.0.0.1:{service.port}\n")


def authority_and_certificate(folder: Path) -> None:
    """ca.pem; and cert.pem and key.pem, signed by it, for the name stt-primary."""
    for arguments in (
        "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=ca -keyout ca.key -out ca.pem",
        "req -newkey rsa:2048 -nodes -subj /CN=stt -addext subjectAltName=DNS:stt-primary -keyout key.pem -out csr.pem",
        "x509 -req -in csr.pem -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -copy_extensions copy -out cert.pem",
    ):
        subprocess.run(["openssl", *arguments.split()], cwd=folder, check=True, capture_output=True, timeout=30)


@pytest.mark.parametrize("mutual", [False, True])
async def test_tls_is_checked_against_the_certificate_on_disk(tmp_path: Path, mutual: bool) -> None:
    await asyncio.to_thread(authority_and_certificate, tmp_path)
    pair = [((tmp_path / "key.pem").read_bytes(), (tmp_path / "cert.pem").read_bytes())]
    ca = (tmp_path / "ca.pem").read_bytes()
    credentials = grpc.ssl_server_credentials(pair, ca if mutual else None, require_client_auth=mutual)
    files = [f"TLS_CERT={tmp_path / 'cert.pem'}", f"TLS_KEY={tmp_path / 'key.pem'}"]
    async with serving(credentials=credentials) as service:
        if mutual:
            files.append(f"TLS_CLIENT_CA={tmp_path / 'ca.pem'}")
        assert await run(env_file(tmp_path, f"GRPC_PORT={service.port}", *files)) == 0
        another = tmp_path / "another"
        another.mkdir()
        await asyncio.to_thread(authority_and_certificate, another)
        files[0] = f"TLS_CERT={another / 'cert.pem'}"
        files[1] = f"TLS_KEY={another / 'key.pem'}"
        assert await run(env_file(tmp_path, f"GRPC_PORT={service.port}", *files)) == 1
