"""Fixtures for the tests of the client."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's cache folder, where `stt transcribe` keeps what an interrupted run has done."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Folder of a.wav, b.MP3 and sub/c.flac, whose content is their stem, and of files that are no recordings."""
    root = tmp_path / "talks"
    (root / "sub").mkdir(parents=True)
    (root / ".hidden").mkdir()
    for name in ("b.MP3", "a.wav", "sub/c.flac", "notes.txt", "._a.wav", ".hidden/d.wav", "e.pcm"):
        (root / name).write_bytes(Path(name).stem.encode())
    return root
