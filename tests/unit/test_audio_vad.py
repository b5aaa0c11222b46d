"""Voice activity detection: spans of speech, and the state of the real detector."""

from __future__ import annotations

import numpy as np
import pytest

from stt_server.audio import SAMPLE_RATE
from stt_server.audio.vad import WINDOW, VoiceActivity, detect_speech, speech_spans
from stt_server.testing.audio_samples import clip, joined, silence


def test_speech_lasts_until_the_silence_threshold() -> None:
    probabilities = np.array([0, 0.4, 0.6, 0.4, 0.4, 0.3, 0.3, 0.3, 0.4, 0.5], dtype=np.float32)
    assert speech_spans(probabilities, 10 * WINDOW) == [(2 * WINDOW, 5 * WINDOW), (9 * WINDOW, 10 * WINDOW)]


def test_dips_under_a_tenth_of_a_second_are_ignored() -> None:
    probabilities = np.array([1, 0, 0, 1, 0, 0, 0, 1], dtype=np.float32)
    assert speech_spans(probabilities, 8 * WINDOW - 100) == [(0, 4 * WINDOW), (7 * WINDOW, 8 * WINDOW - 100)]


def test_blocks_give_the_probabilities_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    audio = np.tile(joined(clip("en/counting"), silence(1)), 6)
    whole = detect_speech(audio)
    monkeypatch.setattr("stt_server.audio.vad._BLOCK", 150 * WINDOW)
    blocks = detect_speech(audio)
    assert len(blocks) == len(whole) == -(-len(audio) // WINDOW)
    np.testing.assert_allclose(blocks, whole, atol=1e-5)


def test_state_is_reset_after_a_second_of_silence() -> None:
    """Otherwise Silero misses a hoarse voice after a clear one."""
    step = np.zeros(16 * WINDOW, dtype=np.float32)
    first, second = (
        samples[: len(samples) // len(step) * len(step)] for samples in (clip("en/counting"), clip("es/conteo"))
    )
    activity = VoiceActivity()
    activity.judge(first)
    silent_steps = 0
    while activity._spoken:
        activity.judge(step)
        silent_steps += 1
    assert silent_steps <= 4
    after_reset = activity.judge(second)
    # The first step of a recording is evaluated after a lead-in, too.
    np.testing.assert_allclose(after_reset[16:], detect_speech(second)[16:], atol=1e-5)


@pytest.mark.parametrize(
    ("name", "start", "latest"), [("en/counting", 1.8, 0), ("pl/pangrama", 0.55, 0), ("hi/pangrama", 0.0, 2)]
)
def test_word_at_the_very_start_is_detected(name: str, start: float, latest: int) -> None:
    """Without a lead-in, Silero detects it two windows later or not at all."""
    word = clip(name)[int(start * SAMPLE_RATE) : int((start + 0.3) * SAMPLE_RATE)]
    spans = speech_spans(detect_speech(word), len(word))
    assert spans[0][0] <= latest * WINDOW


def test_pieces_of_a_stream_give_the_probabilities_of_the_whole() -> None:
    audio = clip("en/counting")[: 40 * WINDOW]
    activity = VoiceActivity()
    pieces = [activity.judge(audio[at * WINDOW : (at + 1) * WINDOW]) for at in range(40)]
    np.testing.assert_allclose(np.concatenate(pieces), detect_speech(audio), atol=1e-5)


@pytest.mark.parametrize("hertz", [150, 220, 440])
def test_tone_at_the_very_start_is_no_speech(hertz: int) -> None:
    tone = (0.1 * np.sin(2 * np.pi * hertz * np.arange(SAMPLE_RATE // 2) / SAMPLE_RATE)).astype(np.float32)
    assert speech_spans(detect_speech(tone), len(tone)) == []


def test_noise_after_speech_stays_below_the_threshold() -> None:
    """With repeated resets Silero would take some noise for speech."""
    noise = np.random.default_rng(0).normal(0, 0.3, 60 * SAMPLE_RATE).astype(np.float32)
    assert max(detect_speech(joined(clip("en/counting"), noise))[-55 * SAMPLE_RATE // WINDOW :]) < 0.5
