"""Where utterances begin and end: of scripted probabilities, of real speech, and of noise that has none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stt_server.audio import AudioFormat
from stt_server.audio.mono import FloatArray
from stt_server.audio.vad import VoiceActivity, detect_speech
from stt_server.streaming.segmenter import Ear, Judge, PerhapsSpeech, Sign, SpeechEnded, SpeechStarted
from tests.support import no_speech
from tests.support.speech import RATE, Samples, clip, samples_of, silence
from tests.support.streams import pcm

LINEAR16 = AudioFormat("linear16", RATE, 1)
WINDOW = 512


def signs(
    data: bytes, *, cuts: Sequence[int] = (), endpoint: float = 0.6, format: AudioFormat = LINEAR16
) -> list[Sign]:
    ear = Ear(format, endpoint)
    edges = [0, *sorted(cuts), len(data)]
    found = [sign for a, b in pairwise(edges) for sign in ear.hear(data[a:b])]
    return found + ear.finish()


def scripted(*parts: tuple[float, float]) -> tuple[bytes, Judge]:
    """Silence that is judged as told: (probability, seconds), ..."""
    probabilities = np.concatenate([np.full(round(s * RATE / WINDOW), p, dtype=np.float32) for p, s in parts])
    waiting = iter(probabilities)

    def judge(samples: FloatArray) -> FloatArray:
        return np.array([next(waiting) for _ in range(len(samples) // WINDOW)], dtype=np.float32)

    return bytes(2 * WINDOW * len(probabilities)), judge


def heard(*parts: tuple[float, float], endpoint: float = 0.6) -> list[Sign]:
    data, judge = scripted(*parts)
    ear = Ear(LINEAR16, endpoint, judge)
    return ear.hear(data) + ear.flush()


def recording(*names: str, pause: float = 1.2) -> tuple[Samples, list[tuple[float, float]]]:
    """Clips with pauses between them, and where each one's speech begins and ends: known from their loudness."""
    parts, truth, at = [silence(1.0)], [], 1.0
    for name in names:
        samples = samples_of(clip("en", name))
        loud = np.flatnonzero(np.abs(samples) > 0.03)
        truth.append((at + loud[0] / RATE, at + loud[-1] / RATE))
        parts += [samples, silence(pause)]
        at += len(samples) / RATE + pause
    return np.concatenate(parts), truth


def kinds(found: Sequence[Sign]) -> list[str]:
    return [type(sign).__name__ for sign in found]


def test_voice_activity_in_pieces_is_that_of_the_whole() -> None:
    samples = samples_of(clip("en", "counting"))[: 90 * WINDOW]
    activity = VoiceActivity()
    pieces = [activity.judge(samples[a * WINDOW : b * WINDOW]) for a, b in pairwise([0, 1, 4, 5, 30, 90])]
    assert np.allclose(np.concatenate(pieces), detect_speech(samples), atol=1e-5)


@pytest.mark.parametrize("endpoint", [0.3, 0.6, 1.0])
def test_offsets_of_real_speech_are_true(endpoint: float) -> None:
    samples, truth = recording("quick_brown_fox", "counting", "hello_world")
    found = signs(pcm(samples), endpoint=endpoint)
    started = [sign.offset for sign in found if isinstance(sign, SpeechStarted)]
    ended = [sign for sign in found if isinstance(sign, SpeechEnded)]
    assert kinds(found) == ["SpeechStarted", "SpeechEnded"] * 3
    assert started == pytest.approx([begin for begin, _ in truth], abs=0.3)
    assert [sign.offset for sign in ended] == pytest.approx([end for _, end in truth], abs=0.3)
    for sign in ended:
        assert sign.noticed - sign.offset == pytest.approx(endpoint, abs=0.04)
        assert sign.chunk.speech[0][0] == pytest.approx(0.4, abs=0.05), "the pre-roll"
        assert sign.chunk.speech_certain


@given(cuts=st.lists(st.integers(0, 2 * 9 * RATE), max_size=40))
@settings(max_examples=15, deadline=None)
def test_any_split_of_the_same_bytes_gives_the_same_utterances(cuts: list[int]) -> None:
    data = pcm(recording("quick_brown_fox", "hello_world")[0])
    whole, split = signs(data), signs(data, cuts=[min(cut, len(data)) for cut in cuts])
    assert kinds(whole) == kinds(split)
    for one, other in zip(whole, split):
        if isinstance(one, SpeechEnded) and isinstance(other, SpeechEnded):
            assert np.array_equal(one.chunk.samples, other.chunk.samples)
            assert (one.offset, one.noticed, one.chunk.speech) == (other.offset, other.noticed, other.chunk.speech)
        else:
            assert one == other


@pytest.mark.parametrize(("rate", "encoding"), [(8000, "mulaw"), (44100, "linear16"), (48000, "linear16")])
def test_other_rates_are_heard_alike(rate: int, encoding: str) -> None:
    samples, truth = recording("quick_brown_fox")
    positions = np.arange(int(len(samples) * rate / RATE)) * RATE / rate
    resampled = np.interp(positions, np.arange(len(samples)), samples).astype(np.float32)
    data = _mulaw(resampled) if encoding == "mulaw" else pcm(resampled)
    found = signs(data, format=AudioFormat("mulaw" if encoding == "mulaw" else "linear16", rate, 1))
    assert kinds(found) == ["SpeechStarted", "SpeechEnded"]
    assert isinstance(found[0], SpeechStarted)
    assert found[0].offset == pytest.approx(truth[0][0], abs=0.3)


def _mulaw(samples: Samples) -> bytes:
    from stt_server.audio.headerless import MULAW_TO_LINEAR

    order = np.argsort(MULAW_TO_LINEAR, kind="stable")
    levels = MULAW_TO_LINEAR[order].astype(np.int32)
    wanted = (np.clip(samples, -1, 1) * 32767).astype(np.int32)
    right = np.clip(np.searchsorted(levels, wanted), 1, 255)
    nearer = wanted - levels[right - 1] < levels[right] - wanted
    return bytes(order[right - nearer].astype(np.uint8).tobytes())


def _noises() -> Iterator[tuple[str, Samples]]:
    for name, samples in no_speech.corpus():
        # A bowed melody in the range of a voice is a voice for the VAD: there the model decides.
        if not name.startswith(("melody", "music", "chords", "arpeggio")):
            yield name, samples


def test_noise_starts_no_utterance() -> None:
    for name, samples in _noises():
        assert not [sign for sign in signs(pcm(samples)) if isinstance(sign, SpeechStarted)], name


def test_a_click_starts_nothing() -> None:
    found = heard((0.0, 1.0), (0.95, 0.1), (0.0, 1.0), (0.95, 0.1), (0.0, 3.0))
    assert not [sign for sign in found if isinstance(sign, SpeechStarted)]


def test_clicks_far_apart_do_not_add_up() -> None:
    found = heard(*[(0.9, 0.1), (0.05, 0.5)] * 20)
    assert not [sign for sign in found if isinstance(sign, SpeechStarted)]


def test_speech_starts_once_it_is_certain_and_where_it_began() -> None:
    found = heard((0.0, 2.0), (0.9, 1.0), (0.0, 2.0))
    assert isinstance(found[0], SpeechStarted) and isinstance(found[1], SpeechEnded)
    assert found[0].offset == pytest.approx(2.0, abs=0.04)
    assert found[1].offset == pytest.approx(3.0, abs=0.04)
    assert found[1].chunk.start == pytest.approx(1.6, abs=0.04)
    assert found[1].chunk.duration == pytest.approx(1.7, abs=0.05)


def test_a_pause_shorter_than_the_endpoint_does_not_end_an_utterance() -> None:
    parts = ((0.9, 1.0), (0.0, 0.5), (0.9, 1.0), (0.0, 3.0))
    assert kinds(heard(*parts)) == ["SpeechStarted", "SpeechEnded"]
    assert kinds(heard(*parts, endpoint=0.4)) == ["SpeechStarted", "SpeechEnded"] * 2


def test_utterances_share_no_audio() -> None:
    found = heard((0.9, 1.0), (0.0, 0.2), (0.9, 1.0), (0.0, 0.5), endpoint=0.15)
    first, second = (sign for sign in found if isinstance(sign, SpeechEnded))
    assert first.chunk.start + first.chunk.duration <= second.chunk.start


def test_what_may_be_speech_is_left_to_the_model() -> None:
    found = heard((0.0, 2.0), (0.4, 1.0), (0.0, 4.0))
    assert kinds(found) == ["PerhapsSpeech"]
    assert isinstance(found[0], PerhapsSpeech)
    assert not found[0].chunk.speech_certain
    assert (found[0].started, found[0].ended) == pytest.approx((2.0, 3.0), abs=0.04)


def test_what_may_be_speech_before_certain_speech_is_not_lost() -> None:
    found = heard((0.0, 2.0), (0.4, 1.0), (0.0, 1.0), (0.9, 1.0), (0.0, 1.0))
    assert kinds(found) == ["PerhapsSpeech", "SpeechStarted", "SpeechEnded"]
    perhaps, ended = found[0], found[2]
    assert isinstance(perhaps, PerhapsSpeech) and isinstance(ended, SpeechEnded)
    assert perhaps.chunk.start + perhaps.chunk.duration <= ended.chunk.start


def test_endless_speech_is_cut_at_its_widest_pause_before_28_s() -> None:
    found = heard((0.9, 20.0), (0.0, 0.4), (0.9, 20.0), (0.0, 2.0))
    assert kinds(found) == ["SpeechStarted", "SpeechEnded"] * 2
    first, second = (sign for sign in found if isinstance(sign, SpeechEnded))
    assert first.chunk.start + first.chunk.duration == pytest.approx(20.2, abs=0.05)
    assert first.offset == pytest.approx(20.0, abs=0.05)
    assert second.chunk.start == pytest.approx(20.2, abs=0.05)
    assert isinstance(found[2], SpeechStarted)
    assert found[2].offset == pytest.approx(20.4, abs=0.05)


def test_speech_without_a_pause_is_cut_and_nothing_of_it_is_lost() -> None:
    found = heard((0.9, 100.0), (0.0, 1.0))
    chunks = [sign.chunk for sign in found if isinstance(sign, SpeechEnded)]
    assert len(chunks) >= 4
    assert all(chunk.duration <= 28.5 for chunk in chunks)
    for one, other in pairwise(chunks):
        assert one.start + one.duration == pytest.approx(other.start, abs=1e-6)
    assert kinds(found) == ["SpeechStarted", "SpeechEnded"] * len(chunks)


def test_the_audio_of_the_past_is_dropped() -> None:
    ear = Ear(LINEAR16, 0.6)
    second = pcm(silence(1.0))
    for _ in range(120):
        ear.hear(second)
    assert ear.heard == pytest.approx(120, abs=0.1)
    assert len(ear._kept) < 4 * RATE * 3


def test_flush_ends_what_is_being_said() -> None:
    data, judge = scripted((0.9, 1.0))
    ear = Ear(LINEAR16, 0.6, judge)
    assert kinds(ear.hear(data)) == ["SpeechStarted"]
    assert kinds(ear.flush()) == ["SpeechEnded"]
    assert ear.flush() == []
