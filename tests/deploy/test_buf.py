"""`buf lint` on speech.proto, as CI runs it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import yaml

from tests.support.needs import lacking

ROOT = Path(__file__).resolve().parent.parent.parent
BUF = ROOT / "tests" / "node" / "node_modules" / ".bin" / "buf"


def lint(where: Path) -> subprocess.CompletedProcess[str]:
    if not BUF.exists():
        lacking("buf is not installed: run `npm install --no-save --prefix tests/node` first (buildscripts/test does)")
    return subprocess.run([str(BUF), "lint"], cwd=where, capture_output=True, text=True, timeout=60, check=False)


def test_the_contract_passes_buf_lint() -> None:
    done = lint(ROOT)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_a_style_violation_is_reported(tmp_path: Path) -> None:
    shutil.copy(ROOT / "buf.yaml", tmp_path)
    proto = tmp_path / "protos" / "stt" / "v1" / "speech.proto"
    proto.parent.mkdir(parents=True)
    text = (ROOT / "protos" / "stt" / "v1" / "speech.proto").read_text()
    proto.write_text(text.replace("string request_id = 1;", "string RequestId = 1;"))
    done = lint(tmp_path)
    assert done.returncode != 0
    assert "request_id" in done.stdout


def test_the_service_suffix_is_the_only_exception() -> None:
    rules = yaml.safe_load((ROOT / "buf.yaml").read_text())["lint"]
    assert rules["use"] == ["STANDARD"]
    assert rules["ignore_only"] == {"SERVICE_SUFFIX": ["protos/stt/v1/speech.proto"]}
    assert set(rules) == {"use", "ignore_only"}
