"""Libraries of the services send no telemetry."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from stt_server.testing.paths import ROOT

LOAD_AND_JUDGE = """
import numpy as np
from stt_server.audio.vad import VoiceActivity
print(VoiceActivity().judge(np.zeros(512, dtype=np.float32)).shape)
"""


def test_voice_activity_detection_stores_no_telemetry(tmp_path: Path) -> None:
    home, temporary = tmp_path / "home", tmp_path / "tmp"
    home.mkdir()
    temporary.mkdir()
    environ = {"HOME": str(home), "TMPDIR": str(temporary), "PYTHONPATH": str(ROOT)}
    run = subprocess.run(
        [sys.executable, "-c", LOAD_AND_JUDGE], env=environ, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert run.stdout == "(1,)\n"
    assert [*home.rglob("*"), *temporary.rglob("*")] == []
