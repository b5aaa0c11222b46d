"""Chunks hold all speech once, in time, and end in pauses."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stt_server.audio import MAX_CHUNK_SECONDS, SAMPLE_RATE, Chunk, split
from stt_server.audio.vad import CERTAIN_PROBABILITY, WINDOW, Detector, VoiceActivity, detect_speech, speech_spans
from stt_server.testing.audio_samples import FloatArray, chirp, clip, joined, silence

WINDOW_S = WINDOW / SAMPLE_RATE


def scripted(*parts: tuple[float, float]) -> tuple[FloatArray, Detector]:
    """A recording, and what the VAD says of it: (seconds, probability of speech) one after the other."""
    probabilities = np.repeat(
        np.array([p for _, p in parts], dtype=np.float32), [round(s / WINDOW_S) for s, _ in parts]
    )
    samples = np.random.default_rng(0).normal(0, 0.1, len(probabilities) * WINDOW).astype(np.float32)
    return samples, lambda _: probabilities


def bounds(chunk: Chunk) -> tuple[int, int]:
    start = round(chunk.start * SAMPLE_RATE)
    return start, start + len(chunk.samples)


def spoken(chunks: list[Chunk]) -> list[tuple[float, float]]:
    """Speech in seconds from the recording's start."""
    return [(chunk.start + a, chunk.start + b) for chunk in chunks for a, b in chunk.speech]


# --- what holds for any recording ---------------------------------------------------------------------------------

recordings = st.tuples(
    st.lists(
        st.tuples(st.integers(1, 1600), st.sampled_from([0.0, 0.2, 0.4, 0.6, 0.8, 1.0])),
        min_size=1,
        max_size=30,
    ),
    st.integers(0, WINDOW - 1),
)


@settings(max_examples=150, deadline=None)
@given(recordings, st.booleans())
def test_chunks_never_overlap_nor_exceed_thirty_seconds_and_hold_all_speech(
    recording: tuple[list[tuple[int, float]], int], vad_filter: bool
) -> None:
    runs, missing = recording
    probabilities = np.repeat(np.array([p for _, p in runs], dtype=np.float32), [n for n, _ in runs])
    audio = np.arange(len(probabilities) * WINDOW - missing, dtype=np.float32)  # each sample tells its place

    chunks = split(audio, vad_filter=vad_filter, detect=lambda _: probabilities)

    covered = np.zeros(len(audio), dtype=np.int8)
    for chunk in chunks:
        first, end = bounds(chunk)
        assert 0 < end - first <= MAX_CHUNK_SECONDS * SAMPLE_RATE
        assert chunk.samples[0] == first
        assert np.shares_memory(chunk.samples, audio)
        assert all(0 <= a < b <= chunk.duration + 1e-9 for a, b in chunk.speech)
        covered[first:end] += 1
    assert covered.max(initial=0) <= 1
    assert all(bounds(a)[1] <= bounds(b)[0] for a, b in pairwise(chunks))
    if not vad_filter:
        assert covered.all()
        return
    assert all(chunk.speech for chunk in chunks)
    for window in np.flatnonzero(probabilities >= CERTAIN_PROBABILITY):
        assert covered[window * WINDOW : (window + 1) * WINDOW].all()


@settings(max_examples=100, deadline=None)
@given(recordings)
def test_speech_told_is_speech_heard(recording: tuple[list[tuple[int, float]], int]) -> None:
    runs, missing = recording
    probabilities = np.repeat(np.array([p for _, p in runs], dtype=np.float32), [n for n, _ in runs])
    audio = np.zeros(len(probabilities) * WINDOW - missing, dtype=np.float32)

    told = np.zeros(len(audio), dtype=np.int8)
    for a, b in spoken(split(audio, vad_filter=False, detect=lambda _: probabilities)):
        told[round(a * SAMPLE_RATE) : round(b * SAMPLE_RATE)] += 1

    heard = np.zeros(len(audio), dtype=np.int8)
    for first, end in speech_spans(probabilities, len(audio)):
        heard[first:end] += 1
    np.testing.assert_array_equal(told, heard)


# --- voice activity -----------------------------------------------------------------------------------------------


def test_speech_lasts_until_the_vad_is_sure_of_silence() -> None:
    probabilities = np.array([0, 0.4, 0.6, 0.4, 0.4, 0.3, 0.3, 0.3, 0.4, 0.5], dtype=np.float32)
    assert speech_spans(probabilities, 10 * WINDOW) == [(2 * WINDOW, 5 * WINDOW), (9 * WINDOW, 10 * WINDOW)]


def test_dips_under_a_tenth_of_a_second_are_inside_words() -> None:
    probabilities = np.array([1, 0, 0, 1, 0, 0, 0, 1], dtype=np.float32)
    assert speech_spans(probabilities, 8 * WINDOW - 100) == [(0, 4 * WINDOW), (7 * WINDOW, 8 * WINDOW - 100)]


@pytest.mark.parametrize("vad_filter", [True, False])
def test_no_samples_give_no_chunks(vad_filter: bool) -> None:
    assert split(silence(0), vad_filter=vad_filter) == []


def test_what_is_nowhere_certain_is_doubtful_alone_but_speech_beside_speech() -> None:
    audio, detect = scripted((5, 0), (0.3, 0.6), (5, 0))
    (chunk,) = split(audio, vad_filter=True, detect=detect)
    assert not chunk.speech_certain
    audio, detect = scripted((5, 0), (1, 0.9), (1, 0), (0.3, 0.6), (5, 0))
    (chunk,) = split(audio, vad_filter=True, detect=detect)
    assert len(chunk.speech) == 2
    assert chunk.speech_certain


def test_a_whisper_is_kept_with_a_second_around_it() -> None:
    audio, detect = scripted((5, 0), (0.3, 0.3), (0.3, 0.15), (0.3, 0.25), (5, 0))
    (chunk,) = split(audio, vad_filter=True, detect=detect)
    assert not chunk.speech_certain
    assert chunk.start == pytest.approx(4.0, abs=0.05)
    assert chunk.duration == pytest.approx(2.9, abs=0.1)
    assert spoken([chunk])[0] == pytest.approx((5.0, 5.9), abs=0.05)


@pytest.mark.parametrize(
    "parts",
    [
        [(5, 0), (0.2, 0.6), (5, 0)],  # too short
        [(5, 0), *[(0.064, 0.3), (1.0, 0)] * 8],  # too thin
        [(5, 0.19)],  # too faint
    ],
)
def test_a_few_doubtful_windows_are_noise(parts: list[tuple[float, float]]) -> None:
    audio, detect = scripted(*parts)
    assert split(audio, vad_filter=True, detect=detect) == []


def test_a_whisper_after_speech_is_a_chunk_of_its_own_and_nothing_is_heard_twice() -> None:
    audio, detect = scripted((2, 0.9), (1, 0), (2, 0.3), (1, 0), (2, 0.9), (5, 0))
    first, whisper, last = split(audio, vad_filter=True, detect=detect)
    assert (first.speech_certain, whisper.speech_certain, last.speech_certain) == (True, False, True)
    assert bounds(first)[1] <= bounds(whisper)[0]
    assert bounds(whisper)[1] <= bounds(last)[0]


def test_without_the_filter_silence_is_a_chunk_that_is_not_certain() -> None:
    audio, detect = scripted((5, 0))
    (chunk,) = split(audio, vad_filter=False, detect=detect)
    assert (chunk.speech, chunk.speech_certain) == ((), False)


# --- padding and long pauses --------------------------------------------------------------------------------------


def test_speech_is_padded_so_that_soft_first_and_last_sounds_stay() -> None:
    audio, detect = scripted((2, 0), (1, 1), (2, 0))
    (chunk,) = split(audio, vad_filter=True, detect=detect)
    assert chunk.start == pytest.approx(2 - 0.4, abs=WINDOW_S)
    assert chunk.duration == pytest.approx(1.8, abs=WINDOW_S)
    ((start, end),) = chunk.speech
    assert start == pytest.approx(0.4, abs=0.01)
    assert end == pytest.approx(1.4, abs=WINDOW_S)
    assert chunk.speech_end == end


def test_very_short_speech_survives() -> None:
    audio, detect = scripted((3, 0), (0.3, 0.9), (3, 0))
    (chunk,) = split(audio, vad_filter=True, detect=detect)
    assert chunk.start < 3 < 3.3 < chunk.start + chunk.duration


def test_pauses_of_up_to_three_seconds_are_carried_along_and_longer_ones_are_not() -> None:
    audio, detect = scripted((1, 1), (2.5, 0), (1, 1), (3.5, 0), (1, 1))
    first, second = split(audio, vad_filter=True, detect=detect)
    assert len(first.speech) == 2
    assert first.duration == pytest.approx(1 + 2.5 + 1 + 0.4, abs=0.1)
    assert second.start == pytest.approx(8 - 0.4, abs=0.1)


def test_without_the_filter_silence_is_kept() -> None:
    audio, detect = scripted((10, 0))
    (chunk,) = split(audio, vad_filter=False, detect=detect)
    assert (chunk.start, chunk.duration, chunk.speech, chunk.speech_end) == (
        0, len(audio) / SAMPLE_RATE, (), 0.0,
    )  # fmt: skip


# --- where cuts fall ----------------------------------------------------------------------------------------------


def test_cut_falls_in_the_widest_pause_within_reach() -> None:
    audio, detect = scripted((16, 1), (0.3, 0), (4, 1), (0.8, 0), (4, 1), (0.3, 0), (15, 1))
    first, second = split(audio, vad_filter=True, detect=detect)
    assert first.speech_end == pytest.approx(20.3, abs=0.1)
    assert second.start + second.speech[0][0] == pytest.approx(21.1, abs=0.1)
    assert second.start == pytest.approx(20.7, abs=0.1)


def test_long_recordings_are_cut_between_sentences() -> None:
    """At the last pause that tells a sentence within ten seconds, else at the first one after them."""
    audio, detect = scripted(
        *((4.5, 1), (0.7, 0), (3, 1), (0.7, 0), (3, 1), (0.3, 0), (11, 1), (0.7, 0), (9, 1), (0.5, 0), (5, 1))
    )
    speech = [chunk.speech for chunk in split(audio, vad_filter=True, detect=detect)]
    assert [len(spans) for spans in speech] == [2, 2, 2]
    assert [round(spans[-1][1] - spans[0][0], 1) for spans in speech] == [8.2, 14.3, 14.5]


def test_what_fits_into_one_chunk_stays_whole() -> None:
    audio, detect = scripted((8, 1), (0.9, 0), (8, 1), (0.9, 0), (8, 1))
    assert len(split(audio, vad_filter=True, detect=detect)) == 1


def test_silence_around_a_cut_is_not_carried_along() -> None:
    audio, detect = scripted((20, 1), (2.8, 0), (20, 1))
    first, second = split(audio, vad_filter=True, detect=detect)
    assert first.duration == pytest.approx(20.4, abs=0.1)
    assert second.start == pytest.approx(22.4, abs=0.1)


def test_speech_of_nearly_thirty_seconds_is_not_torn() -> None:
    audio, detect = scripted((29.5, 1))
    assert len(split(audio, vad_filter=True, detect=detect)) == 1


@pytest.mark.parametrize("vad_filter", [True, False])
def test_endless_speech_is_cut_where_the_vad_wavers(vad_filter: bool) -> None:
    audio, detect = scripted((25, 1), (0.064, 0.4), (20, 1))
    first, second = split(audio, vad_filter=vad_filter, detect=detect)
    assert first.duration == pytest.approx(25.03, abs=0.07)
    assert bounds(first)[1] == bounds(second)[0]


def test_endless_speech_is_cut_where_it_is_quietest() -> None:
    audio, detect = scripted((75, 1))
    audio[26 * SAMPLE_RATE : int(26.15 * SAMPLE_RATE)] *= 0.01
    chunks = split(audio, vad_filter=True, detect=detect)
    assert 26 < chunks[0].duration < 26.15
    assert sum(len(chunk.samples) for chunk in chunks) == len(audio)
    assert all(bounds(a)[1] == bounds(b)[0] for a, b in pairwise(chunks))


# --- the real detector --------------------------------------------------------------------------------------------


def real_noise() -> dict[str, FloatArray]:
    rng = np.random.default_rng(1)
    seconds = 8
    t = np.arange(seconds * SAMPLE_RATE) / SAMPLE_RATE
    clicks = silence(seconds)
    clicks[:: SAMPLE_RATE // 2] = 1
    brown = np.cumsum(rng.normal(size=len(t)))
    return {
        "silence": silence(seconds),
        "faint white noise": rng.normal(0, 0.01, len(t)).astype(np.float32),
        "loud white noise": rng.normal(0, 0.3, 4 * len(t)).astype(np.float32),
        "brown noise": (brown / np.abs(brown).max() / 2).astype(np.float32),
        "tone": (0.5 * np.sin(2 * np.pi * 440 * t)).astype(np.float32),
        "chirp": chirp(seconds, low=100, high=4000),
        "clicks": clicks,
    }


@pytest.mark.parametrize("name", real_noise())
def test_silence_and_noise_hold_no_speech(name: str) -> None:
    assert split(real_noise()[name], vad_filter=True) == []


def test_real_clips_joined_with_pauses_are_each_whole_in_one_chunk() -> None:
    names = ("en/counting", "en/quick_brown_fox", "es/pangrama", "fr/comptage", "ja/pangrama", "pl/liczenie")
    clips = [clip(name) for name in names] * 6
    pauses = [silence((0.3, 0.6, 1.0, 4.0)[index % 4]) for index in range(len(clips))]
    audio = joined(*(part for pair in zip(clips, pauses, strict=True) for part in pair))
    assert len(audio) > 120 * SAMPLE_RATE

    chunks = split(audio, vad_filter=True)

    assert len(chunks) < len(clips) / 2  # neighbours share a chunk
    assert max(chunk.duration for chunk in chunks) <= MAX_CHUNK_SECONDS
    place = 0
    for samples, pause in zip(clips, pauses, strict=True):
        (first, end), *more = ((place + a, place + b) for a, b in speech_spans(detect_speech(samples), len(samples)))
        end = max([end, *(b for _, b in more)])
        assert [c for c in chunks if bounds(c)[0] <= first and end <= bounds(c)[1]], f"torn at {place}"
        place += len(samples) + len(pause)


def test_one_short_real_word_in_silence_survives() -> None:
    counting = clip("en/counting")
    one = counting[int(0.1 * SAMPLE_RATE) : int(0.4 * SAMPLE_RATE)]
    (chunk,) = split(joined(silence(5), one, silence(5)), vad_filter=True)
    assert chunk.start < 5
    assert chunk.start + chunk.duration > 5.3


def test_same_recording_gives_same_chunks() -> None:
    audio = joined(clip("en/counting"), silence(4), clip("en/hello_world"))
    before = audio.copy()
    first, second = split(audio, vad_filter=True), split(audio, vad_filter=True)
    assert [(c.start, c.speech, len(c.samples)) for c in first] == [(c.start, c.speech, len(c.samples)) for c in second]
    np.testing.assert_array_equal(audio, before)  # the model scribbles in what it is given


def test_long_recordings_are_judged_in_blocks_as_if_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    audio = np.tile(joined(clip("en/counting"), silence(1)), 6)
    whole = detect_speech(audio)
    monkeypatch.setattr("stt_server.audio.vad._BLOCK", 150 * WINDOW)
    blocks = detect_speech(audio)
    assert len(blocks) == len(whole) == -(-len(audio) // WINDOW)
    np.testing.assert_allclose(blocks, whole, atol=1e-5)


def test_after_a_second_of_silence_a_voice_is_heard_as_if_it_were_the_first() -> None:
    """Else Silero goes deaf to a hoarse voice after a clear one."""
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


def test_noise_after_speech_is_heard_with_what_came_before_in_mind() -> None:
    """With its memory gone again and again, Silero takes some noise for speech."""
    noise = np.random.default_rng(0).normal(0, 0.3, 60 * SAMPLE_RATE).astype(np.float32)
    assert max(detect_speech(joined(clip("en/counting"), noise))[-55 * SAMPLE_RATE // WINDOW :]) < 0.5
