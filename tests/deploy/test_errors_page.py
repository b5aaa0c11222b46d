"""`buildscripts/errors` keeps docs/errors.md equal to the error table."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from stt_server.testing.paths import ROOT

PAGE = ROOT / "docs" / "errors.md"


def errors(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, ROOT / "buildscripts" / "errors", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_page_is_fresh() -> None:
    done = errors("--check")
    assert (done.returncode, done.stdout, done.stderr) == (0, "errors: fresh\n", "")


def test_stale_page_is_reported_and_rewritten(tmp_path: Path) -> None:
    page = tmp_path / "errors.md"
    page.write_text(PAGE.read_text().replace("| 429 |", "| 420 |"))
    done = errors("--check", "--page", page)
    assert done.returncode == 1
    assert "stale. Run buildscripts/errors" in done.stderr
    assert errors("--page", page).stdout == "errors: wrote errors.md\n"
    assert page.read_text() == PAGE.read_text()
