"""Where the repository, the models and the sample recordings are."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MODELS = ROOT / "models"
SAMPLES = ROOT / "samples"
SPEECH = SAMPLES / "en" / "quick_brown_fox.wav"
"""2.9 s of speech."""
TINY = MODELS / "whisper-tiny.en-ct2"
"""The smallest starter model."""
