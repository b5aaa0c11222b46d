"""Hallucination checks, on values that real models gave."""

from __future__ import annotations

import pytest

from stt_server.engine.hallucination import REASONS, Evidence, hallucination_reason, implausibility
from stt_server.engine.text_checks import is_looped


def evidence(
    text: str = "you", no_speech: float = 0.0, logprob: float = -0.2, seconds: float = 2.0, speech_certain: bool = False
) -> Evidence:
    return Evidence(text, no_speech, logprob, seconds, speech_certain, is_looped(text))


def test_implausibility_grows_with_no_speech_and_low_logprobs() -> None:
    assert implausibility(0.0, 0.0) == 0.0
    assert implausibility(0.3, -0.4) == pytest.approx(0.4)
    assert implausibility(0.4, -0.4) > implausibility(0.3, -0.4)
    assert implausibility(0.3, -0.5) > implausibility(0.3, -0.4)


@pytest.mark.parametrize(
    ("text", "no_speech", "logprob", "reason"),
    [
        ("you", 0.93, -1.5, "no_speech"),  # silence
        ("1.5% de ron", 0.74, -2.3, "no_speech"),  # loud white noise
        ("I'm not a good guy.", 0.40, -2.6, "low_logprob"),  # chords
        ("Ooh.", 0.47, -1.2, "low_logprob"),  # one bowed note
        ("F***! " * 8, 0.82, -0.4, "loop"),  # drums
        ("I'm going to go to the next one. " * 3, 0.2, -0.1, "loop"),
        ("one two three four five six seven eight nine ten eleven twelve", 0.3, -1.0, "too_fast"),
    ],
)
def test_text_made_from_noise_is_dropped(text: str, no_speech: float, logprob: float, reason: str) -> None:
    assert hallucination_reason(evidence(text, no_speech, logprob, seconds=0.5)) == reason
    assert reason in REASONS


@pytest.mark.parametrize(
    ("text", "no_speech", "logprob", "seconds"),
    [
        ("There's gonna be no voice speech whatsoever here.", 0.13, -0.17, 2.0),  # whispered
        ("I really don't know how to block like this!", 0.19, -0.54, 0.7),  # falsetto
        ("I really don't know how to talk like this.", 0.19, -0.26, 0.32),  # the same between two usual voices
        ("in her face.", 0.51, -0.24, 0.7),  # a snippet
    ],
)
def test_text_of_a_faint_voice_is_kept(text: str, no_speech: float, logprob: float, seconds: float) -> None:
    assert hallucination_reason(evidence(text, no_speech, logprob, seconds)) is None


@pytest.mark.parametrize(
    ("text", "no_speech", "logprob"),
    [
        ("am poste isymust.", 0.02, -1.69),  # misheard
        ("Mr. John Dashwood had then leisure to consider", 0.55, -0.1),  # far too quiet
        ("the stuff is also out.", 0.36, -1.6),  # speech in noise
        ("en ik ben er niet langer dan.", 0.72, -1.9),  # cut off at both ends
        (
            "thank you very much thank you very much",
            0.1,
            -0.1,
        ),  # a loop: for decoding again and the fallback
    ],
)
def test_implausible_text_is_kept_where_speech_is_certain(text: str, no_speech: float, logprob: float) -> None:
    assert hallucination_reason(evidence(text, no_speech, logprob, speech_certain=True)) is None


@pytest.mark.parametrize(
    ("text", "no_speech", "logprob", "reason"),
    [
        ("Oh, " * 60, 0.36, -0.1, "loop"),  # a bowed melody, which the VAD takes for a voice
        ("Zijn ze er ook niet.", 0.90, -2.2, "no_speech"),
    ],
)
def test_clear_hallucination_is_dropped_where_speech_is_certain(
    text: str, no_speech: float, logprob: float, reason: str
) -> None:
    assert hallucination_reason(evidence(text, no_speech, logprob, speech_certain=True)) == reason


@pytest.mark.parametrize("speech_certain", [True, False])
def test_empty_text_is_not_a_hallucination(speech_certain: bool) -> None:
    assert hallucination_reason(evidence("  ", no_speech=1.0, logprob=-9.0, speech_certain=speech_certain)) is None
