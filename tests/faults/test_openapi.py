"""schemathesis compares the gateway of a real pair with its /openapi.json."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from stt_server.testing.paths import ROOT
from stt_server.testing.scripted_model import Script
from stt_server.testing.services import ServiceProcess, running

KEY = "the-key-of-the-schema-tester"
EXAMPLES = os.environ.get("STT_OPENAPI_EXAMPLES", "25")
"""Requests per operation and phase; set STT_OPENAPI_EXAMPLES=500 for more."""


def test_schemathesis_finds_no_deviation(tmp_path: Path) -> None:
    fallback = ServiceProcess("fallback", tmp_path / "fallback", {"HTTP_PORT": "off"}, Script())
    with running(fallback):
        keys: dict[str, object] = {"API_KEYS": KEY, "FALLBACK_URL": f"grpc://{fallback.target}"}
        primary = ServiceProcess("primary", tmp_path / "primary", keys, Script())
        with running(primary):
            run = subprocess.run(
                [
                    Path(sys.executable).with_name("schemathesis"),
                    *("--config-file", ROOT / "tests" / "faults" / "schemathesis.toml", "--no-color", "run"),
                    *(f"{primary.url}/openapi.json", "--header", f"Authorization: Bearer {KEY}"),
                    *("--max-examples", EXAMPLES, "--generation-deterministic"),
                ],
                env={**os.environ, "SCHEMATHESIS_HOOKS": "tests.faults.openapi_hooks", "PYTHONPATH": str(ROOT)},
                cwd=tmp_path,  # it writes files there
                capture_output=True,
                text=True,
                check=False,
            )
        output = "\n".join(line[:400] for line in run.stdout.splitlines())
        assert run.returncode == 0, output[output.find("= FAILURES") :][:6000] + run.stderr[-2000:]
        assert "Tested: 8" in output
