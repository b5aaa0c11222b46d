"""A Node client on stubs generated from speech.proto, against a server in Python."""

from __future__ import annotations

import filecmp
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.contract_messages import transcript
from tests.support.contract_script import Script
from tests.support.contract_service import serving
from tests.support.node import NODE, require_node, run_node


@pytest.fixture(autouse=True)
def _installed() -> None:
    require_node("@grpc/grpc-js")


def recording(folder: Path, size: int) -> Path:
    file = folder / "clip.wav"
    file.write_bytes(bytes(range(256)) * (size // 256))
    return file


async def test_node_reads_response_and_trailing_metadata(tmp_path: Path) -> None:
    script = Script(response=transcript("hello there", model="whisper-medium-ct2"), keys={"secret-key"})
    clip = recording(tmp_path, 5 * 1024 * 1024)  # over gRPC's 4 MiB default
    async with serving(script) as service:
        status, out, err = await run_node("transcribe.js", service.target, str(clip), "secret-key")
    assert (status, err) == (0, "")
    printed: dict[str, Any] = json.loads(out)
    assert printed == {
        "text": "hello there",
        "language": "en",
        "finalModel": "whisper-medium-ct2",
        "fallbackUsed": True,
        "reasons": ["low_logprob", "few_words"],
        "x-final-model": "whisper-medium-ct2",
        "x-req-id": "scripted",
    }
    assert [request.audio for request in script.requests] == [clip.read_bytes()]


async def test_node_reads_the_error_type(tmp_path: Path) -> None:
    script = Script(response=transcript("hello there", model="whisper-medium-ct2"), keys={"secret-key"})
    async with serving(script) as service:
        status, out, err = await run_node("transcribe.js", service.target, str(recording(tmp_path, 256)), "wrong")
    assert (status, out) == (1, "")
    assert json.loads(err)["error"] == {
        "code": "UNAUTHENTICATED",
        "type": "unauthenticated",
        "message": "no key",
    }
    assert script.requests == []


def test_committed_node_stubs_are_up_to_date(tmp_path: Path) -> None:
    template = "buf.gen.yaml"
    command = ["node_modules/.bin/buf", "generate", "../..", "--template", template, "-o", str(tmp_path)]
    done = subprocess.run(command, cwd=NODE, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    fresh = {path.relative_to(tmp_path / "gen") for path in (tmp_path / "gen").rglob("*.*")}
    committed = {path.relative_to(NODE / "gen") for path in (NODE / "gen").rglob("*.*")}
    advice = "run `npm run stubs --prefix tests/node` and commit what it writes"
    assert fresh == committed, advice
    names = [str(path) for path in fresh]
    same, _, _ = filecmp.cmpfiles(tmp_path / "gen", NODE / "gen", names, shallow=False)
    assert sorted(same) == sorted(names), advice


def test_the_lock_file_pins_every_package() -> None:
    lock = json.loads((NODE / "package-lock.json").read_text())
    packages = {name: package for name, package in lock["packages"].items() if name}
    assert packages
    for name, package in packages.items():
        assert package["integrity"].startswith("sha512-"), name
        assert package.get("resolved", "https://registry.npmjs.org/").startswith("https://registry.npmjs.org/")
