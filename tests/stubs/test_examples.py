"""The examples of docs/stubs.md: built as the page says, run against a service with a scripted model."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from stt_server.testing.audio_samples import clip, wav
from stt_server.testing.paths import ROOT
from stt_server.testing.scripted_model import Script
from stt_server.testing.services import ServiceProcess, running
from tests.support.needs import lacking

EXAMPLES = ROOT / "docs" / "examples"
NODE = ROOT / "tests" / "node"
KEY = "0123456789abcdef"
TEXT = "the quick brown fox jumps over the lazy dog"

NEEDED = {
    "cpp": ("g++", "protoc", "grpc_cpp_plugin", "/usr/include/grpcpp/grpcpp.h"),
    "go": ("go", "protoc", "protoc-gen-go", "protoc-gen-go-grpc", "/usr/share/gocode/src/google.golang.org/grpc"),
    "node": ("node", "protoc"),
    "ruby": ("ruby", "grpc_tools_ruby_protoc"),
}
"""Commands and files of each language; buildscripts/test installs their Debian packages."""
COMMANDS = {
    "cpp": ("{out}/{example}",),
    "go": ("{out}/{example}",),
    "node": ("node", "{out}/{example}.js"),
    "ruby": ("ruby", "-I", "{out}", "{out}/{example}.rb"),
}
SOURCES = sorted(path for path in EXAMPLES.rglob("*.*") if path.suffix in (".cc", ".go", ".js", ".rb"))


@pytest.fixture(scope="module", params=sorted(NEEDED))
def language(request: pytest.FixtureRequest) -> str:
    name = str(request.param)
    if missing := [each for each in NEEDED[name] if shutil.which(each) is None and not Path(each).exists()]:
        lacking(f"{', '.join(missing)} not installed: docs/examples/{name}/build.sh lists the packages")
    if name == "node" and not (NODE / "node_modules" / "grpc-health-check").is_dir():
        lacking("run `npm install --no-save --prefix tests/node` first (buildscripts/test does)")
    return name


@pytest.fixture(scope="module")
def built(language: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the built examples of one language."""
    out = tmp_path_factory.mktemp(language)
    command = [str(EXAMPLES / language / "build.sh"), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    keys = {"API_KEYS": f"example:{KEY}"}
    process = ServiceProcess("primary", tmp_path_factory.mktemp("primary"), keys, Script(TEXT))
    with running(process):
        yield process


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Speech as a WAV file; beside it the same without a header, `.raw`, with silence at the end."""
    file = tmp_path_factory.mktemp("audio") / "fox.wav"
    samples = clip("en/quick_brown_fox")
    file.write_bytes(wav(samples, 16000))
    padded = np.concatenate([samples, np.zeros(16000, np.float32)])
    file.with_suffix(".raw").write_bytes((padded * 32767).astype("<i2").tobytes())
    return file


def run(language: str, built: Path, example: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [part.format(out=built, example=example) for part in COMMANDS[language]]
    # A proxy of the machine's must not be asked for 127.0.0.1.
    environ = {**os.environ, "no_proxy": "127.0.0.1", "no_grpc_proxy": "127.0.0.1"}
    return subprocess.run(
        [*command, *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False, env=environ
    )


def test_health_is_serving(language: str, built: Path, service: ServiceProcess) -> None:
    done = run(language, built, "health", service.target)
    assert (done.returncode, done.stdout) == (0, "SERVING\n"), done.stderr


def test_call_sends_metadata_and_reads_the_trailing_metadata(
    language: str, built: Path, service: ServiceProcess, recording: Path
) -> None:
    done = run(language, built, "transcribe", service.target, recording, KEY)
    expected = [f"text: {TEXT}", "x-req-id: example-1", "x-final-model: scripted-primary"]
    assert (done.returncode, done.stdout.splitlines()) == (0, expected), done.stderr


def test_error_is_reported_with_its_details(
    language: str, built: Path, service: ServiceProcess, tmp_path: Path
) -> None:
    empty = tmp_path / "empty.wav"
    empty.touch()
    done = run(language, built, "transcribe", service.target, empty, KEY)
    assert (done.returncode, done.stdout) == (1, "")
    assert "EMPTY_AUDIO" in done.stderr
    assert "UNAUTHENTICATED" in run(language, built, "transcribe", service.target, empty, "wrong").stderr


def test_stream_prints_the_final(language: str, built: Path, service: ServiceProcess, recording: Path) -> None:
    done = run(language, built, "stream", service.target, recording.with_suffix(".raw"), KEY)
    assert (done.returncode, done.stdout) == (0, f"{TEXT}\n"), done.stderr


def test_stream_reports_an_error(language: str, built: Path, service: ServiceProcess, recording: Path) -> None:
    done = run(language, built, "stream", service.target, recording.with_suffix(".raw"), "wrong")
    assert (done.returncode != 0, done.stdout) == (True, "")
    assert "key" in done.stderr


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: str(path.relative_to(EXAMPLES)))
def test_example_is_short(source: Path) -> None:
    comment = "#" if source.suffix == ".rb" else "//"
    lines = map(str.strip, source.read_text().splitlines())
    code = [line for line in lines if line and not line.startswith(comment)]
    assert len(code) < 40


def test_the_lock_file_pins_every_package() -> None:
    lock = json.loads((NODE / "package-lock.json").read_text())
    packages = {name: package for name, package in lock["packages"].items() if name}
    assert packages
    for name, package in packages.items():
        assert package["integrity"].startswith("sha512-"), name
        assert package.get("resolved", "https://registry.npmjs.org/").startswith("https://registry.npmjs.org/")
