"""Recordings without speech give no text, and quiet speech still does."""

from __future__ import annotations

import pytest

from stt_server.audio import split
from stt_server.engine.types import DecodeOptions
from stt_server.engine.whisper import WhisperRecognizer
from tests.support.no_speech import Samples, corpus
from tests.support.speech import clip, samples_of, words

pytestmark = pytest.mark.model

RECORDINGS = dict(corpus())


def texts(model: WhisperRecognizer, audio: Samples, *, vad_filter: bool) -> list[str]:
    """The recognized texts that aren't dropped as hallucinations."""
    found = [model.recognize(chunk, DecodeOptions()) for chunk in split(audio, vad_filter=vad_filter)]
    assert all(hypothesis.text == "" for hypothesis in found if hypothesis.suppressed)
    return [hypothesis.text for hypothesis in found if not hypothesis.suppressed]


@pytest.mark.parametrize("name", RECORDINGS)
def test_few_recordings_without_speech_reach_the_model(name: str) -> None:
    chunks = split(RECORDINGS[name], vad_filter=True)
    assert not chunks or name.startswith(("melody", "arpeggio"))


@pytest.mark.parametrize("model", ["base", "tiny_en"])
def test_recordings_without_speech_give_no_text(model: str, request: pytest.FixtureRequest) -> None:
    recognizer: WhisperRecognizer = request.getfixturevalue(model)
    recognized = {name: texts(recognizer, audio, vad_filter=True) for name, audio in RECORDINGS.items()}
    assert {name: text for name, text in recognized.items() if "".join(text)} == {}


@pytest.mark.parametrize(
    "name",
    ["silence", "white_loud", "brown_faint", "hum_loud", "tone_1000", "breathing_loud", "chords_loud", "ringing_soft"],
)
@pytest.mark.parametrize("model", ["base", "tiny_en"])
def test_without_the_filter_noise_gives_no_text_either(model: str, name: str, request: pytest.FixtureRequest) -> None:
    recognizer: WhisperRecognizer = request.getfixturevalue(model)
    assert "".join(texts(recognizer, RECORDINGS[name], vad_filter=False)) == ""


@pytest.mark.parametrize("gain", [1.0, 0.01])
def test_quiet_speech_is_kept(base: WhisperRecognizer, gain: float) -> None:
    audio = samples_of(clip("en", "quick_brown_fox")) * gain
    (text,) = texts(base, audio.astype("float32"), vad_filter=True)
    assert words(text) == "the quick brown fox jumps over the lazy dog"
