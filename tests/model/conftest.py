"""The starter models, loaded once per test session."""

from __future__ import annotations

from pathlib import Path

import pytest

from stt_server.engine.loading import ModelOptions
from stt_server.engine.whisper import WhisperRecognizer
from stt_server.testing.paths import MODELS


def _load(folder: str, **options: object) -> WhisperRecognizer:
    path: Path = MODELS / folder
    assert path.is_dir(), "the starter models are missing: run buildscripts/models starter"
    return WhisperRecognizer(ModelOptions(path, folder, device="cpu", workers=2, **options))  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def base() -> WhisperRecognizer:
    """Whisper base, multilingual, greedy."""
    return _load("whisper-base-ct2", compute_type="int8", beam_size_in_doubt=5)


@pytest.fixture(scope="session")
def tiny_en() -> WhisperRecognizer:
    """Whisper tiny.en, English only, greedy."""
    return _load("whisper-tiny.en-ct2", compute_type="int8", beam_size_in_doubt=5)


@pytest.fixture(scope="session")
def base_with_beams() -> WhisperRecognizer:
    return _load("whisper-base-ct2", compute_type="int8", beam_size=5)
