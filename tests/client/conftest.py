"""Fixtures for the tests of the client."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Folder of a.wav, b.MP3 and sub/c.flac, whose content is their stem, and of files that are no recordings."""
    root = tmp_path / "talks"
    (root / "sub").mkdir(parents=True)
    (root / ".hidden").mkdir()
    for name in ("b.MP3", "a.wav", "sub/c.flac", "notes.txt", "._a.wav", ".hidden/d.wav", "e.pcm"):
        (root / name).write_bytes(Path(name).stem.encode())
    return root
