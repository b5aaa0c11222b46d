"""`buildscripts/errors`, `contract` and `stubs` keep their pages of docs/ equal to what they are generated from."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from stt_server.testing.paths import ROOT

PAGES = [("errors", "| 429 |", "| 420 |"), ("contract", "bytes", "byte"), ("stubs", "SpeechToText", "Speech")]
"""Command, which is also the page's name, and a change to the page."""


def generate(name: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, ROOT / "buildscripts" / name, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("name", [name for name, _, _ in PAGES])
def test_page_is_fresh(name: str) -> None:
    done = generate(name, "--check")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{name}: fresh\n", "")


@pytest.mark.parametrize(("name", "old", "new"), PAGES)
def test_stale_page_is_reported_and_rewritten(tmp_path: Path, name: str, old: str, new: str) -> None:
    committed = (ROOT / "docs" / f"{name}.md").read_text()
    page = tmp_path / f"{name}.md"
    page.write_text(committed.replace(old, new))
    done = generate(name, "--check", "--page", page)
    assert done.returncode == 1
    assert f"stale. Run buildscripts/{name}" in done.stderr
    assert generate(name, "--page", page).stdout == f"{name}: wrote {name}.md\n"
    assert page.read_text() == committed
