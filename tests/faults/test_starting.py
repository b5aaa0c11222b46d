"""A failed start is one clear line and an exit status; a full log disk stops nothing."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stt_client import SttClient
from stt_client.errors import NotReady, SttError
from stt_server.config import parse
from stt_server.engine.loading import ModelLoadError
from stt_server.lifecycle.whisper import load_whisper
from stt_server.testing.paths import ROOT, SPEECH, TINY
from stt_server.testing.scripted_model import Failure, Script
from stt_server.testing.services import ServiceProcess, running
from tests.support.needs import lacking
from tests.support.services import settings_text


def in_shell(setting: str) -> tuple[str, ...]:
    """Command prefix that runs a command after a shell line, or with redirections."""
    return ("sh", "-c", f'{setting}; exec "$@"', "sh")


def redirected(redirection: str) -> tuple[str, ...]:
    return ("sh", "-c", f'exec "$@" {redirection}', "sh")


def refused(process: ServiceProcess, status: int, *expected: str) -> None:
    """Assert that the service exits with that status and one line with that text, without a ready line."""
    process.spawn()
    try:
        assert process.wait() == status, process.log_text()
        assert process.output == []
        (line,) = process.log_text().splitlines()
        assert line.startswith(f"stt-{process.service}: ")
        assert [text for text in expected if text not in line] == [], line
    finally:
        process.kill()


def scripted(folder: Path, *prefix: str, **keys: Any) -> ServiceProcess:
    return ServiceProcess("primary", folder, keys, Script(), prefix=prefix)


@pytest.mark.parametrize("key", ["GRPC_PORT", "HTTP_PORT"])
def test_a_taken_port(tmp_path: Path, key: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        refused(scripted(tmp_path, **{key: port}), 1, f"127.0.0.1:{port}", "Address already in use")


def test_an_address_of_another_machine(tmp_path: Path) -> None:
    refused(scripted(tmp_path, HOST="192.0.2.1"), 1, "192.0.2.1:0", "Cannot assign requested address")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.mkdir(), "Is a directory"),
        (lambda path: path.write_bytes(b"LOG_LEVEL=info\n\xff\xfe"), ":2: not UTF-8 text"),
    ],
    ids=["a folder", "not UTF-8"],
)
def test_a_configuration_that_is_not_text(tmp_path: Path, make: Callable[[Path], object], message: str) -> None:
    process = scripted(tmp_path)
    process.config.unlink()
    make(process.config)
    refused(process, 2, str(process.config), message)


def test_an_unreadable_configuration(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        lacking("only root can make a file that its service may not read: run as root")
    unprivileged = ("setpriv", "--bounding-set=-all", "--inh-caps=-all", "--")
    process = scripted(tmp_path, *unprivileged)
    os.chown(process.config, 10001, 10001)
    process.config.chmod(0o600)
    refused(process, 2, str(process.config), "Permission denied")


def test_tls_files_that_are_not_pem(tmp_path: Path) -> None:
    junk = tmp_path / "junk.pem"
    junk.write_text("no certificate")
    refused(scripted(tmp_path, TLS_CERT=junk, TLS_KEY=junk), 2, "TLS_CERT", "junk.pem")


def test_too_few_open_files_allowed(tmp_path: Path) -> None:
    refused(scripted(tmp_path, *in_shell("ulimit -n 64")), 1, "is 64", "ulimit -n")


def test_a_temporary_folder_that_cannot_hold_a_socket(tmp_path: Path) -> None:
    long = tmp_path / ("long" * 30)
    long.mkdir()
    process = scripted(tmp_path / "a", "env", f"TMPDIR={long}")
    refused(process, 1, str(long), "TMPDIR")


def test_a_ready_line_that_cannot_be_written(tmp_path: Path) -> None:
    refused(scripted(tmp_path, *redirected(">/dev/full")), 1, "standard output", "No space left on device")


@pytest.mark.parametrize(("redirection", "status"), [("2>/dev/full", 2), ("2>&-", 2)])
def test_the_exit_status_is_right_without_standard_error(tmp_path: Path, redirection: str, status: int) -> None:
    process = scripted(tmp_path, *redirected(redirection), MAX_QUEUE="many")
    process.spawn()
    assert process.wait() == status
    process.kill()


def vocabulary(model: Path) -> None:
    (model / "vocabulary.txt").unlink()
    (model / "vocabulary.json").write_text('["a", "b"]')


@pytest.mark.model
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda model: os.truncate(model / "model.bin", 1_000_000), "can't be loaded"),
        (lambda model: os.truncate(model / "model.bin", 0), "can't be loaded"),
        (lambda model: (model / "config.json").write_text("{"), "can't be loaded"),
        (lambda model: os.truncate(model / "tokenizer.json", 0), "is damaged"),
        (lambda model: os.truncate(model / "tokenizer.json", 1000), "is damaged"),
        (lambda model: (model / "tokenizer.json").unlink(), "has no tokenizer.json"),
        (vocabulary, "can't be used"),
    ],
    ids=["torn model", "empty model", "torn config", "empty tokenizer", "torn tokenizer", "no tokenizer", "vocabulary"],
)
def test_a_damaged_model(tmp_path: Path, damage: Callable[[Path], object], message: str) -> None:
    model = tmp_path / "damaged"
    shutil.copytree(TINY, model, copy_function=shutil.copyfile)
    damage(model)
    settings = parse(settings_text(tmp_path, "primary", CT2_SMALL_PATH=model, DEVICE="cpu"), "primary")
    with pytest.raises(ModelLoadError) as caught:
        load_whisper(settings)
    assert str(model) in str(caught.value)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.model
def test_an_unusable_model_is_a_configuration_error(tmp_path: Path) -> None:
    model = tmp_path / "damaged"
    shutil.copytree(TINY, model, copy_function=shutil.copyfile)
    vocabulary(model)
    refused(ServiceProcess("primary", tmp_path / "a", {"CT2_SMALL_PATH": model}), 2, str(model))
    refused(ServiceProcess("primary", tmp_path / "b", {"DEVICE": "cuda"}), 2, "cuda")
    refused(ServiceProcess("primary", tmp_path / "c", {"CT2_SMALL_PATH": tmp_path}), 2, "no model.bin")


@pytest.mark.parametrize("full", ["a full device", "no more room", "a closed descriptor"])
async def test_a_service_with_an_unwritable_log_keeps_serving(tmp_path: Path, full: str) -> None:
    prefix = {
        "a full device": redirected("2>/dev/full"),
        # Python ignores SIGXFSZ, so from 2 KiB on every write fails as on a full disk.
        "no more room": in_shell("ulimit -f 4"),
        "a closed descriptor": redirected("2>&-"),
    }[full]
    process = scripted(tmp_path, *prefix, LOG_LEVEL="debug", MAX_QUEUE=100)
    with running(process):
        async with SttClient(process.target) as client:
            # At most three failures in a row: after more, the service would check its model.
            errors: tuple[Failure, ...] = ("", "bug", "", "bug", "")
            for error in errors:
                process.act(Script(error=error))
                for _ in range(3):
                    try:
                        assert (await client.transcribe(SPEECH)).text == Script().text
                    except SttError as failure:
                        assert (failure.type, error) == ("internal", "bug")
        assert process.stop() == 0
    *lines, last = process.log_text().split("\n")
    assert all(json.loads(line)["level"] for line in lines), "only whole lines are written"
    assert full != "no more room" or (len(process.log_text()) <= 4096 and lines)
    assert not last.startswith("Traceback")


async def test_running_out_of_descriptors_is_temporary(tmp_path: Path) -> None:
    process = scripted(tmp_path, *in_shell("ulimit -n 256"))
    with running(process):
        held = []
        for port in (process.grpc_port, process.http_port):
            for _ in range(200):
                held.append(socket.create_connection(("127.0.0.1", port), timeout=10))
        async with SttClient(process.target, timeout=3) as client:
            with pytest.raises((NotReady, SttError)):
                await client.status()
        for connection in held:
            connection.close()
        async with SttClient(process.target, timeout=30) as client:
            await client.wait_ready(30)
            assert (await client.transcribe(SPEECH)).text == Script().text
        assert process.stop() == 0
    assert "Traceback" not in process.log_text().replace('"exception": "Traceback', "")


@pytest.mark.parametrize(
    ("command", "status", "message"),
    [
        (
            ("gateway", "--target", "127.0.0.1:1", "--host", "127.0.0.1", "--port", "0"),
            1,
            "stt-gateway: cannot write the ready line",
        ),
        (("stt_client.cli", "status", "--server", "127.0.0.1:1"), 1, "stt: can't write to standard output"),
    ],
    ids=["stt-gateway", "stt"],
)
def test_output_that_cannot_be_written_is_one_line(command: tuple[str, ...], status: int, message: str) -> None:
    environ = {"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]}
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [sys.executable, "-m", *command],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env=environ,
            timeout=60,
            check=False,
        )
    line = ended.stderr.splitlines()[-1]  # `stt` has printed its results before
    assert "Traceback" not in ended.stderr
    assert ended.returncode == status
    assert line.startswith(message)
    assert line.endswith("No space left on device")
