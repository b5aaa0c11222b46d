"""buildscripts on a checkout without recordings and models."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from stt_server.testing.paths import ROOT

PACKAGES = ("buildscripts", "protos", "stt_client", "stt_server", "gateway")


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout as git leaves it: without `samples/` and `models/`."""
    folder = tmp_path_factory.mktemp("bare")
    for name in PACKAGES:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.mark.parametrize(
    "command",
    ["chaos --minutes 0.01", "soak service --minutes 0.01", "bench outage", "bench overload", "bench memory"],
)
def test_command_without_its_inputs_says_what_to_run_first(bare: Path, command: str) -> None:
    name, *arguments = command.split()
    run = subprocess.run(
        [sys.executable, f"buildscripts/{name}", *arguments], cwd=bare, capture_output=True, text=True, check=False
    )
    assert run.returncode == 1
    *_, last = run.stderr.splitlines()
    assert last.startswith(f"{name}: samples/ and models/ are missing; run buildscripts/models samples starter. (")
    assert "Traceback" not in run.stderr
