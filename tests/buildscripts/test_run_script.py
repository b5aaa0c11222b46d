"""buildscripts/run: configuration, start, demonstration and end of the pair."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from buildscripts.lib.models.pins import ROOT
from buildscripts.lib.run.demo import RunError
from buildscripts.lib.run.options import arguments as parse
from buildscripts.lib.run.pair import choose_port, claimed, configs, get_models
from stt_server.testing.processes import HOST, ProcessError
from stt_server.testing.services import installed_service

RUN = ROOT / "buildscripts" / "run"
# .venv is set up already.
ENVIRONMENT = {**os.environ, "STT_SETUP_DONE": "1"}
needs_venv = pytest.mark.skipif(
    Path(sys.prefix) != ROOT / ".venv", reason="buildscripts/run uses .venv, and these tests run elsewhere"
)


@contextmanager
def started(arguments: Sequence[str], run_dir: Path) -> Iterator[subprocess.Popen[str]]:
    command = [str(RUN), "--ports", "free", "--run-dir", str(run_dir), *arguments]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=ENVIRONMENT, cwd=ROOT
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(60)


def read_until(process: subprocess.Popen[str], pattern: str) -> str:
    """Output of the process up to the first line that matches; bounded by pytest's time limit."""
    assert process.stdout is not None
    output = ""
    for line in process.stdout:
        output += line
        if re.search(pattern, line):
            return output
    pytest.fail(f"no line matched {pattern!r} in:\n{output}")


@pytest.mark.model
@needs_venv
def test_run_once_uses_both_services_and_stops_them(tmp_path: Path) -> None:
    with started(["--once"], tmp_path) as process:
        output, _ = process.communicate(timeout=110)
    assert process.returncode == 0, output
    automatic, forced = output.split(", sent to the fallback:")
    assert "quick brown fox" in automatic.lower()
    assert "quick brown fox" in forced.lower()
    assert "answered by  base-5-beams, the fallback, because of: requested" in forced
    assert "stopping stt-primary and stt-fallback" in output


@pytest.mark.model
@needs_venv
def test_ctrl_c_stops_a_run_with_status_0(tmp_path: Path) -> None:
    with started(["--english"], tmp_path) as process:
        output = read_until(process, r"/metrics")
        address = re.search(r"curl .* http://(\S+)/v1/transcribe", output)
        assert address, output
        with urllib.request.urlopen(f"http://{address[1]}/v1/health", timeout=10) as health:
            assert health.status == 200
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output + rest
    with socket.socket() as probe:
        host, port = address[1].split(":")
        assert probe.connect_ex((host, int(port))) != 0


@needs_venv
def test_missing_real_model_is_reported_with_the_command(tmp_path: Path) -> None:
    if (ROOT / "models" / "whisper-medium-ct2").exists():
        pytest.skip("the medium model is here")
    with started(["--models", "base", "medium"], tmp_path) as process:
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "the model medium is missing" in output
    assert "buildscripts/models medium" in output
    assert "Traceback" not in output


def test_get_models_downloads_nothing_if_a_real_one_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("buildscripts.lib.run.pair.ROOT", tmp_path)
    with pytest.raises(RunError, match="the model small is missing"):
        get_models(("small", "base"))
    assert list(tmp_path.iterdir()) == []


def test_help_needs_no_set_up(tmp_path: Path) -> None:
    (tmp_path / "buildscripts").mkdir()
    for name in ("run", "lib/run", "lib/models"):
        source, copy = ROOT / "buildscripts" / name, tmp_path / "buildscripts" / name
        (shutil.copytree if source.is_dir() else shutil.copy2)(source, copy)
    command = [str(tmp_path / "buildscripts" / "run"), "--help"]
    finished = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT, timeout=60, check=True)
    assert finished.stdout.startswith("usage: buildscripts/run ")


def test_fallback_accepts_only_the_primarys_key() -> None:
    settings = configs(parse(["--ports", "free"]))
    key = settings["primary"]["FALLBACK_API_KEY"]
    assert settings["fallback"]["API_KEYS"] == f"primary:{key}"
    assert key != configs(parse(["--ports", "free"]))["primary"]["FALLBACK_API_KEY"]


def test_english_uses_tiny_with_base_as_fallback() -> None:
    settings = configs(parse(["--english", "--ports", "free"]))
    assert str(settings["primary"]["CT2_SMALL_PATH"]).endswith("whisper-tiny.en-ct2")
    assert str(settings["fallback"]["CT2_MEDIUM_PATH"]).endswith("whisper-base-ct2")
    assert {own["COMPUTE_TYPE"] for own in settings.values()} == {"int8"}
    assert "BEAM_SIZE" not in settings["fallback"]


def test_taken_port_is_reported_and_replaced() -> None:
    messages: list[str] = []
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert choose_port(port, messages.append) == 0
    assert messages == [f"port {port} is taken; using a free one."]
    assert choose_port(port, messages.append) == port


def test_second_run_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    with claimed(tmp_path), pytest.raises(RunError, match="another buildscripts/run uses"), claimed(tmp_path):
        pass
    with claimed(tmp_path):
        pass


def test_failed_start_shows_the_end_of_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = tmp_path / "stt-primary"
    command.write_text("#!/bin/sh\necho 'stt-primary: no such key' >&2\nexit 2\n")
    command.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    service = installed_service("primary", tmp_path / "broken.env", tmp_path / "broken.log")
    with pytest.raises(ProcessError, match=r"(?s)stt-primary ended with status 2 before it was ready.*no such key"):
        service.start()
    assert service.stop() == 2
