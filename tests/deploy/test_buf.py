"""`buf lint` and `buf breaking` on speech.proto, as buildscripts/test runs them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.support.needs import lacking

ROOT = Path(__file__).resolve().parent.parent.parent
BUF = ROOT / "tests" / "node" / "node_modules" / ".bin" / "buf"


def buf(where: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    if not BUF.exists():
        lacking("buf is not installed: run `npm install --no-save --prefix tests/node` first (buildscripts/test does)")
    return subprocess.run([str(BUF), *arguments], cwd=where, capture_output=True, text=True, timeout=60, check=False)


def change(where: Path, old: str, new: str) -> None:
    """Copy the contract and its rules, with `old` replaced."""
    shutil.copy(ROOT / "buf.yaml", where)
    proto = where / "protos" / "stt" / "v1" / "speech.proto"
    proto.parent.mkdir(parents=True)
    text = (ROOT / "protos" / "stt" / "v1" / "speech.proto").read_text()
    assert old in text
    proto.write_text(text.replace(old, new))


def test_the_contract_passes_buf_lint() -> None:
    done = buf(ROOT, "lint")
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_a_style_violation_is_reported(tmp_path: Path) -> None:
    change(tmp_path, "string request_id = 1;", "string RequestId = 1;")
    done = buf(tmp_path, "lint")
    assert done.returncode != 0
    assert "request_id" in done.stdout


def test_the_contract_is_compatible_with_the_last_release() -> None:
    done = buf(ROOT, "breaking", "--against", "tests/released")
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("int32 channel_count = 3;", "int32 channel_count = 9;"),
        ("string text = 2;", "bytes text = 2;"),
        ("bool single_utterance = 5;", ""),
        ("rpc GetMetrics(", "rpc GetExposition("),
        ("ROUTE_REASON_REQUESTED = 6;", "ROUTE_REASON_DEMANDED = 6;"),
        ("package stt.v1;", "package stt.v2;"),
    ],
)
def test_a_breaking_change_is_reported(tmp_path: Path, old: str, new: str) -> None:
    change(tmp_path, old, new)
    done = buf(tmp_path, "breaking", "--against", str(ROOT / "tests" / "released"))
    assert done.returncode == 100, done.stderr
    assert "speech.proto" in done.stdout


def test_a_new_field_is_compatible(tmp_path: Path) -> None:
    change(tmp_path, "int32 channel_count = 3;", "int32 channel_count = 3; int32 bits = 4;")
    assert buf(tmp_path, "breaking", "--against", str(ROOT / "tests" / "released")).returncode == 0


def test_only_the_names_that_the_contract_fixes_are_exceptions() -> None:
    rules = yaml.safe_load((ROOT / "buf.yaml").read_text())["lint"]
    assert rules["use"] == ["STANDARD"]
    names = ("SERVICE_SUFFIX", "RPC_REQUEST_RESPONSE_UNIQUE", "RPC_REQUEST_STANDARD_NAME")
    assert rules["ignore_only"] == {name: ["protos/stt/v1/speech.proto"] for name in names}
    assert set(rules) == {"use", "ignore_only"}
