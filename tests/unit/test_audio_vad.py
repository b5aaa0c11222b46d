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
    np.testing.assert_allclose(activity.judge(second), detect_speech(second), atol=1e-5)


def test_noise_after_speech_stays_below_the_threshold() -> None:
    """With repeated resets Silero would take some noise for speech."""
    noise = np.random.default_rng(0).normal(0, 0.3, 60 * SAMPLE_RATE).astype(np.float32)
    assert max(detect_speech(joined(clip("en/counting"), noise))[-55 * SAMPLE_RATE // WINDOW :]) < 0.5
