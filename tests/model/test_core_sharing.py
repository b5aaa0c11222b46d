"""A real model's inferences use several threads alone, and one each beside another."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys

import pytest

from stt_server.lifecycle.process_limits import usable_cores
from stt_server.testing.paths import MODELS
from tests.support.speech import words

pytestmark = [
    pytest.mark.model,
    pytest.mark.skipif(
        sys.platform != "linux" or platform.machine() != "x86_64" or usable_cores() < 2,
        reason="needs two cores, Linux's thread accounting, and a processor for which CTranslate2 has both libraries",
    ),
]


def busy(ticks: dict[str, int]) -> int:
    """Number of threads with a share in the work."""
    return sum(own > max(ticks.values()) / 8 for own in ticks.values())


@pytest.mark.parametrize(("mkl", "copies"), [("1", False), ("0", True)], ids=["MKL", "oneDNN"])
def test_a_lone_inference_uses_further_threads(mkl: str, copies: bool) -> None:
    command = [sys.executable, "-m", "tests.support.lone_inference", str(MODELS / "whisper-base-ct2")]
    environ = {**os.environ, "CT2_USE_MKL": mkl}
    shown = subprocess.run(command, env=environ, check=True, timeout=240, capture_output=True, text=True)
    found = json.loads(shown.stdout)
    assert found["copies"] is copies
    for name in ("alone", "beside"):
        assert {words(text) for text in found[name]["texts"]} == {"the quick brown fox jumps over the lazy dog"}
    assert busy(found["alone"]["ticks"]) > busy(found["beside"]["ticks"])
