"""Commands of an installation without their extra."""

from __future__ import annotations

import subprocess
import sys

import pytest

from stt_server.testing.paths import ROOT


@pytest.mark.parametrize(
    ("module", "command", "extra", "missing"),
    [
        ("stt_server.primary", "stt-primary", "server", "faster_whisper"),
        ("stt_server.primary", "stt-primary", "server", "uvicorn"),
        ("stt_server.fallback", "stt-fallback", "server", "ctranslate2"),
        ("gateway.__main__", "stt-gateway", "gateway", "fastapi"),
        ("gateway.__main__", "stt-gateway", "gateway", "wyoming"),
    ],
)
def test_command_without_its_extra_names_it_in_one_line(module: str, command: str, extra: str, missing: str) -> None:
    code = f"import sys; sys.modules[{missing!r}] = None; from {module} import main; main()"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    expected = f"{command}: the package {missing!r} is not installed; run: pip install 'stt-pair[{extra}]'\n"
    assert (run.returncode, run.stdout, run.stderr) == (1, "", expected)
