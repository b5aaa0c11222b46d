"""Full stops and first letters on real speech."""

from __future__ import annotations

import numpy as np
import pytest

from stt_server.audio import split
from stt_server.engine.types import ChunkJob, DecodeOptions, Hypothesis
from stt_server.engine.whisper import WhisperRecognizer
from tests.support.speech import clip, samples_of

pytestmark = pytest.mark.model


def recognized(
    model: WhisperRecognizer, language: str, name: str, part: tuple[float, float] = (0.0, 1.0), gain: float = 1.0
) -> Hypothesis:
    """The hypothesis of a part of a clip, with times of words.

    Args:
        part: where it begins and ends, as shares of the clip.
    """
    samples = samples_of(clip(language, name)) * np.float32(gain)
    first, end = (int(share * len(samples)) for share in part)
    (chunk,) = split(samples[first:end], vad_filter=True)
    options = DecodeOptions(language=language, word_timestamps=True)
    return model.recognize_batch([ChunkJob(chunk, options, begins=True)])[0]


def test_sentence_ends_with_a_full_stop(base: WhisperRecognizer) -> None:
    """On this window, the model alone ends it without one."""
    found = recognized(base, "es", "conteo")
    assert found.text == "1, 2, 3, 4, 5, 6, 7, 8, 9, 10."
    assert found.segments[-1].words[-1].text == " 10."
    assert "".join(word.text for segment in found.segments for word in segment.words).strip() == found.text


def test_sentence_begins_with_a_capital(base: WhisperRecognizer) -> None:
    """On this window, the model alone prefers lower case."""
    found = recognized(base, "fr", "bonjour_monde", gain=0.2)
    assert found.text.startswith("Bonjour")
    assert found.segments[0].words[0].text == " Bonjour"


def test_half_a_sentence_stays_half_a_sentence(base: WhisperRecognizer) -> None:
    assert recognized(base, "en", "quick_brown_fox", (0.0, 0.6)).text == "The quick brown fox jumps over the"
    assert recognized(base, "en", "quick_brown_fox", (0.3, 1.0)).text == "jumps over the lazy dog."
