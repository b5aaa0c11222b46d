"""What the service states about its build: the commit that an installation records, and `stt_build_info`."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from stt_server import build
from stt_server.config import parse
from stt_server.observability.build_info import state_build
from stt_server.testing.services import make_model_folder


@pytest.fixture
def config(tmp_path: Path) -> str:
    return f"CT2_SMALL_PATH={make_model_folder(tmp_path / 'small')}\n"


def record(prefix: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the service run from a virtual environment that records `text`."""
    (prefix / build.COMMIT_FILE).write_text(text)
    monkeypatch.setattr(sys, "prefix", str(prefix))


def test_commit_is_the_recorded_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: str) -> None:
    record(tmp_path, "3f2a9c81d0be\n", monkeypatch)
    assert parse(config, "primary").server_commit == "3f2a9c81d0be"
    # As configs/*.env have it.
    assert parse(config + "SERVER_COMMIT=unknown\n", "primary").server_commit == "3f2a9c81d0be"


def test_configured_commit_precedes_the_recorded_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: str
) -> None:
    record(tmp_path, "3f2a9c81d0be\n", monkeypatch)
    assert parse(config + "SERVER_COMMIT=2026-11-29\n", "primary").server_commit == "2026-11-29"


@pytest.mark.parametrize("text", ["", "\n", "two\nlines", "x" * 129, "caf\u00e9"])
def test_useless_record_is_ignored(tmp_path: Path, text: str) -> None:
    (tmp_path / build.COMMIT_FILE).write_text(text, encoding="utf-8")
    assert build.commit(tmp_path) == build.UNKNOWN


def test_commit_is_unknown_without_a_record(tmp_path: Path) -> None:
    assert build.commit(tmp_path) == build.UNKNOWN


def test_version_is_that_of_the_package() -> None:
    text = (Path(__file__).parents[2] / "setup.cfg").read_text()
    assert f"\nversion = {build.version()}\n" in text


def test_build_info_has_the_value_one() -> None:
    registry = CollectorRegistry()
    state_build(registry, "3f2a9c81d0be", "whisper-small-ct2")
    labels = {"version": build.version(), "commit": "3f2a9c81d0be", "model": "whisper-small-ct2"}
    assert registry.get_sample_value("stt_build_info", labels) == 1
