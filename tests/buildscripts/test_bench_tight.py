"""buildscripts/bench tight: which clips count, and how many are detected."""

from __future__ import annotations

from pathlib import Path

import pytest

from buildscripts.lib.bench import tight
from stt_server.testing.audio_samples import clip, silence, wav_header


def test_short_clips_are_counted_and_words_detected(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clips = {
        "word": clip("en/counting")[1600:7200],
        "silent": silence(0.4),
        "long": silence(2.0),
        "empty": silence(0.0),
    }
    for name, samples in clips.items():
        data = (samples * 32767).astype("<i2").tobytes()
        (tmp_path / f"{name}.wav").write_bytes(wav_header(16000, 1, len(data)) + data)
    assert tight.main([str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert out.startswith("2 clips of 0.1 to 0.6 s\nupload: 1 detected")
    assert "stream, in silence: 1 detected" in out
