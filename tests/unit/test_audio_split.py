"""Splitting into chunks, with scripted voice activity and with the real detector."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stt_server.audio import MAX_CHUNK_SECONDS, SAMPLE_RATE, Chunk, split
from stt_server.audio.vad import CERTAIN_PROBABILITY, WINDOW, Detector, detect_speech, speech_spans
from stt_server.testing.audio_samples import FloatArray, chirp, clip, joined, silence

WINDOW_S = WINDOW / SAMPLE_RATE


def scripted(*parts: tuple[float, float]) -> tuple[FloatArray, Detector]:
    """A recording, and a detector for it, from consecutive (seconds, probability of speech)."""
    probabilities = np.repeat(
        np.array([p for _, p in parts], dtype=np.float32), [round(s / WINDOW_S) for s, _ in parts]
    )
    samples = np.random.default_rng(0).normal(0, 0.1, len(probabilities) * WINDOW).astype(np.float32)
    return samples, lambda _: probabilities


def bounds(chunk: Chunk) -> tuple[int, int]:
    start = round(chunk.start * SAMPLE_RATE)
    return start, start + len(chunk.samples)


def speech_of(chunks: list[Chunk]) -> list[tuple[float, float]]:
    """Speech in seconds from the recording's start."""
    return [(chunk.start + a, chunk.start + b) for chunk in chunks for a, b in chunk.speech]


# --- properties of any recording ---------------------------------------------------------------------------------

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
def test_chunks_fit_do_not_overlap_and_contain_all_speech(
    recording: tuple[list[tuple[int, float]], int], vad_filter: bool
) -> None:
    runs, missing = recording
    probabilities = np.repeat(np.array([p for _, p in runs], dtype=np.float32), [n for n, _ in runs])
    audio = np.arange(len(probabilities) * WINDOW - missing, dtype=np.float32)  # each sample is its own index

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
def test_speech_of_chunks_is_the_detected_speech(recording: tuple[list[tuple[int, float]], int]) -> None:
    runs, missing = recording
    probabilities = np.repeat(np.array([p for _, p in runs], dtype=np.float32), [n for n, _ in runs])
    audio = np.zeros(len(probabilities) * WINDOW - missing, dtype=np.float32)

    reported = np.zeros(len(audio), dtype=np.int8)
    for a, b in speech_of(split(audio, vad_filter=False, detect=lambda _: probabilities)):
        reported[round(a * SAMPLE_RATE) : round(b * SAMPLE_RATE)] += 1

    detected = np.zeros(len(audio), dtype=np.int8)
    for first, end in speech_spans(probabilities, len(audio)):
        detected[first:end] += 1
    np.testing.assert_array_equal(reported, detected)


# --- voice activity -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("vad_filter", [True, False])
def test_no_samples_give_no_chunks(vad_filter: bool) -> None:
    assert split(silence(0), vad_filter=vad_filter) == []


def test_possible_speech_is_uncertain_alone_but_not_beside_speech() -> None:
    audio, detect = scripted((5, 0), (0.3, 0.6), (5, 0))
    (chunk,) = split(audio, vad_filter=True, detect=detect)
    assert not chunk.speech_certain
    audio, detect = scripted((5, 0), (1, 0.9), (1, 0), (0.3, 0.6), (5, 0))
    (chunk,) = split(audio, vad_filter=True, detect=detect)
    assert len(chunk.speech) == 2
    assert chunk.speech_certain


def test_whisper_is_kept_with_a_second_around_it() -> None:
    audio, detect = scripted((5, 0), (0.3, 0.3), (0.3, 0.15), (0.3, 0.25), (5, 0))
    (chunk,) = split(audio, vad_filter=True, detect=detect)
    assert not chunk.speech_certain
    assert chunk.start == pytest.approx(4.0, abs=0.05)
    assert chunk.duration == pytest.approx(2.9, abs=0.1)
    assert speech_of([chunk])[0] == pytest.approx((5.0, 5.9), abs=0.05)


@pytest.mark.parametrize(
    "parts",
    [
        [(5, 0), (0.2, 0.6), (5, 0)],  # too short
        [(5, 0), *[(0.064, 0.3), (1.0, 0)] * 8],  # too thin
        [(5, 0.19)],  # too faint
    ],
)
def test_few_windows_of_possible_speech_are_noise(parts: list[tuple[float, float]]) -> None:
    audio, detect = scripted(*parts)
    assert split(audio, vad_filter=True, detect=detect) == []


def test_whisper_between_speech_is_a_separate_chunk() -> None:
    audio, detect = scripted((2, 0.9), (1, 0), (2, 0.3), (1, 0), (2, 0.9), (5, 0))
    first, whisper, last = split(audio, vad_filter=True, detect=detect)
    assert (first.speech_certain, whisper.speech_certain, last.speech_certain) == (True, False, True)
    assert bounds(first)[1] <= bounds(whisper)[0]
    assert bounds(whisper)[1] <= bounds(last)[0]


def test_without_the_filter_silence_is_an_uncertain_chunk() -> None:
    audio, detect = scripted((5, 0))
    (chunk,) = split(audio, vad_filter=False, detect=detect)
    assert (chunk.speech, chunk.speech_certain) == ((), False)


# --- padding and long pauses --------------------------------------------------------------------------------------


def test_speech_is_padded() -> None:
    audio, detect = scripted((2, 0), (1, 1), (2, 0))
    (chunk,) = split(audio, vad_filter=True, detect=detect)
    assert chunk.start == pytest.approx(2 - 0.4, abs=WINDOW_S)
    assert chunk.duration == pytest.approx(1.8, abs=WINDOW_S)
    ((start, end),) = chunk.speech
    assert start == pytest.approx(0.4, abs=0.01)
    assert end == pytest.approx(1.4, abs=WINDOW_S)
    assert chunk.speech_end == end


def test_very_short_speech_is_kept() -> None:
    audio, detect = scripted((3, 0), (0.3, 0.9), (3, 0))
    (chunk,) = split(audio, vad_filter=True, detect=detect)
    assert chunk.start < 3 < 3.3 < chunk.start + chunk.duration


def test_pauses_over_three_seconds_are_left_out() -> None:
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


# --- cuts ----------------------------------------------------------------------------------------------


def test_cut_is_in_the_widest_pause_within_range() -> None:
    audio, detect = scripted((16, 1), (0.3, 0), (4, 1), (0.8, 0), (4, 1), (0.3, 0), (15, 1))
    first, second = split(audio, vad_filter=True, detect=detect)
    assert first.speech_end == pytest.approx(20.3, abs=0.1)
    assert second.start + second.speech[0][0] == pytest.approx(21.1, abs=0.1)
    assert second.start == pytest.approx(20.7, abs=0.1)


def test_long_recordings_are_cut_between_sentences() -> None:
    """At the last pause between sentences within ten seconds, or else at the first one after them."""
    audio, detect = scripted(
        *((4.5, 1), (0.7, 0), (3, 1), (0.7, 0), (3, 1), (0.3, 0), (11, 1), (0.7, 0), (9, 1), (0.5, 0), (5, 1))
    )
    speech = [chunk.speech for chunk in split(audio, vad_filter=True, detect=detect)]
    assert [len(spans) for spans in speech] == [2, 2, 2]
    assert [round(spans[-1][1] - spans[0][0], 1) for spans in speech] == [8.2, 14.3, 14.5]


def test_short_audio_and_audio_without_pauses_are_not_cut() -> None:
    for parts in (
        ((6, 1), (0.9, 0), (6, 1)),
        ((8, 1), (0.4, 0), (8, 1), (0.4, 0), (8, 1)),
    ):
        audio, detect = scripted(*parts)
        assert len(split(audio, vad_filter=True, detect=detect)) == 1


def test_audio_that_fits_into_one_chunk_is_cut_between_sentences() -> None:
    audio, detect = scripted((5, 1), (0.9, 0), (5, 1), (0.9, 0), (5, 1))
    chunks = split(audio, vad_filter=True, detect=detect)
    assert [round(chunk.speech_end - chunk.speech[0][0], 1) for chunk in chunks] == [5.0, 5.0, 5.0]


def test_silence_around_a_cut_is_trimmed() -> None:
    audio, detect = scripted((20, 1), (2.8, 0), (20, 1))
    first, second = split(audio, vad_filter=True, detect=detect)
    assert first.duration == pytest.approx(20.4, abs=0.1)
    assert second.start == pytest.approx(22.4, abs=0.1)


def test_speech_of_nearly_thirty_seconds_is_not_cut() -> None:
    audio, detect = scripted((29.5, 1))
    assert len(split(audio, vad_filter=True, detect=detect)) == 1


@pytest.mark.parametrize("vad_filter", [True, False])
def test_long_speech_is_cut_where_its_probability_dips(vad_filter: bool) -> None:
    audio, detect = scripted((25, 1), (0.064, 0.4), (20, 1))
    first, second = split(audio, vad_filter=vad_filter, detect=detect)
    assert first.duration == pytest.approx(25.03, abs=0.07)
    assert bounds(first)[1] == bounds(second)[0]


def test_long_speech_is_cut_where_it_is_quietest() -> None:
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
def test_silence_and_noise_give_no_chunks(name: str) -> None:
    assert split(real_noise()[name], vad_filter=True) == []


def test_joined_clips_are_each_whole_in_one_chunk() -> None:
    names = ("en/counting", "en/quick_brown_fox", "es/pangrama", "fr/comptage", "ja/pangrama", "pl/liczenie")
    clips = [clip(name) for name in names] * 6
    pauses = [silence((0.3, 0.6, 1.0, 4.0)[index % 4]) for index in range(len(clips))]
    audio = joined(*(part for pair in zip(clips, pauses, strict=True) for part in pair))
    assert len(audio) > 120 * SAMPLE_RATE

    chunks = split(audio, vad_filter=True)

    assert len(chunks) <= len(clips) / 2  # neighbours share a chunk
    assert max(chunk.duration for chunk in chunks) <= MAX_CHUNK_SECONDS
    place = 0
    for samples, pause in zip(clips, pauses, strict=True):
        (first, end), *more = ((place + a, place + b) for a, b in speech_spans(detect_speech(samples), len(samples)))
        end = max([end, *(b for _, b in more)])
        assert [c for c in chunks if bounds(c)[0] <= first and end <= bounds(c)[1]], f"cut at {place}"
        place += len(samples) + len(pause)


def test_short_word_in_silence_is_kept() -> None:
    counting = clip("en/counting")
    one = counting[int(0.1 * SAMPLE_RATE) : int(0.4 * SAMPLE_RATE)]
    (chunk,) = split(joined(silence(5), one, silence(5)), vad_filter=True)
    assert chunk.start < 5
    assert chunk.start + chunk.duration > 5.3


def test_splitting_is_deterministic_and_changes_no_samples() -> None:
    audio = joined(clip("en/counting"), silence(4), clip("en/hello_world"))
    before = audio.copy()
    first, second = split(audio, vad_filter=True), split(audio, vad_filter=True)
    assert [(c.start, c.speech, len(c.samples)) for c in first] == [(c.start, c.speech, len(c.samples)) for c in second]
    np.testing.assert_array_equal(audio, before)  # the model writes to its input
