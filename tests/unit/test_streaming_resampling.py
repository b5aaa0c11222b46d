"""Incremental resampling: independent of message boundaries, without clicks, for every accepted format."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stt_server.audio import AudioFormat, decode
from stt_server.audio.formats import Encoding
from stt_server.audio.mono import FloatArray
from stt_server.streaming.resampling import StreamResampler

RATES = (8000, 11025, 16000, 22050, 32000, 44100, 48000)


def resample(format: AudioFormat, parts: Sequence[bytes]) -> FloatArray:
    resampler = StreamResampler(format)
    return np.concatenate([*(resampler.add(part) for part in parts), resampler.finish()])


def tone(rate: int, seconds: float = 1.0, hertz: float = 440.0) -> bytes:
    times = np.arange(round(rate * seconds)) / rate
    return bytes((np.sin(2 * np.pi * hertz * times) * 16000).astype("<i2").tobytes())


@given(
    rate=st.sampled_from(RATES),
    channels=st.integers(1, 8),
    encoding=st.sampled_from(["linear16", "mulaw", "alaw"]),
    size=st.integers(0, 20_000),
    cuts=st.lists(st.integers(0, 20_000), max_size=30),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=60, deadline=None)
def test_any_split_of_the_same_bytes_gives_the_same_samples(
    rate: int, channels: int, encoding: Encoding, size: int, cuts: list[int], seed: int
) -> None:
    data = np.random.default_rng(seed).bytes(size)
    format_ = AudioFormat(encoding, rate, channels)
    edges = [0, *sorted(min(cut, size) for cut in cuts), size]
    split = resample(format_, [data[a:b] for a, b in pairwise(edges)])
    assert np.array_equal(split, resample(format_, [data]))


@pytest.mark.parametrize("rate", RATES)
def test_a_tone_in_small_messages_has_no_clicks(rate: int) -> None:
    data = tone(rate, 2.0)
    samples = resample(AudioFormat("linear16", rate, 1), [data[at : at + 321] for at in range(0, len(data), 321)])
    assert abs(len(samples) - 32000) <= 16
    true = np.sin(2 * np.pi * 440 * np.arange(len(samples)) / 16000) * 16000 / 32768
    assert np.abs(samples - true)[200:-200].max() < 1e-3


@pytest.mark.parametrize("rate", RATES)
def test_streams_and_uploads_are_resampled_alike(rate: int) -> None:
    noise = (np.random.default_rng(7).standard_normal(rate) * 3000).astype("<i2").tobytes()
    format_ = AudioFormat("linear16", rate, 1)
    recording = decode(noise, format_, max_seconds=60)
    streamed = resample(format_, [noise])
    assert abs(len(streamed) - len(recording)) <= 1
    shared = min(len(streamed), len(recording))
    assert np.abs(streamed[:shared] - recording[:shared]).max() < 1e-3


def test_channels_are_mixed_and_a_partial_sample_is_dropped() -> None:
    stereo = np.array([[1000, 3000], [-2000, -4000]], dtype="<i2").tobytes()
    samples = resample(AudioFormat("linear16", 16000, 2), [stereo + b"\x01\x02\x03"])
    assert np.allclose(samples * 32768, [2000, -3000])


def test_mu_law_is_expanded() -> None:
    samples = resample(AudioFormat("mulaw", 16000, 1), [bytes([0xFF, 0x7F, 0x80, 0x00])])
    assert np.allclose(samples * 32768, [0, 0, 32124, -32124])
