"""buildscripts/soak: what it makes of measurements, and a short run of it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from buildscripts.lib.soak_live import Part, main, table, verdict
from tests.services import MODELS, ROOT

TINY = MODELS / "whisper-tiny.en-ct2"


def parts(memory: float = 0.0, lag: float = 0.0) -> list[Part]:
    """Six, of which the last has so much more of each."""
    return [*(Part(60.0, 300.0, 100, 0.5) for _ in range(5)), Part(60.0, 300.0 + memory, 100, 0.5 + lag)]


def test_what_stays_as_it_is_passes_and_what_grows_does_not(capsys: pytest.CaptureFixture[str]) -> None:
    assert verdict(parts()) == 0
    assert verdict(parts(memory=20)) == 0
    assert verdict(parts(memory=50)) == 1
    assert verdict(parts(lag=2)) == 1
    assert verdict(parts()[:4]) == 1
    assert "early" in capsys.readouterr().out


def test_the_table_has_a_line_for_each_part() -> None:
    lines = table(parts(), 600.0).splitlines()
    assert len(lines) == 8
    assert lines[2] == "| 1 | 10.0 | 300 | 100 | 0.50 |"


def test_an_unknown_soak_is_refused_with_the_list() -> None:
    run = subprocess.run([str(ROOT / "buildscripts/soak"), "brine"], capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert "live" in run.stderr


@pytest.mark.model
def test_a_short_run_prints_what_was_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--hours", "0.04", "--model", str(TINY)])
    said = capsys.readouterr().out
    assert said.count("\n| ") >= 6
    assert "memory grew by" in said
