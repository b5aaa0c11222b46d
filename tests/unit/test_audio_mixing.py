"""Mixing channels to mono: averages, and the louder channel where channels cancel each other out."""

from __future__ import annotations

import numpy as np
import pytest

from stt_server.audio import SAMPLE_RATE, AudioFormat, decode
from stt_server.audio.mixing import ChannelMixer
from stt_server.streaming.resampling import StreamResampler
from stt_server.testing.audio_samples import CONTAINER, FloatArray, chirp, encode, wav

SOURCE = chirp(4.0)
SETTLED = SAMPLE_RATE // 50
"""A change is faded in over one block of 20 ms."""

NOISE = np.random.default_rng(3).standard_normal((8, len(SOURCE))).astype(np.float32) * 0.01


def mixed(*channels: FloatArray) -> FloatArray:
    return decode(wav(np.stack(channels), SAMPLE_RATE, codec="pcm_f32le", layout="stereo"), CONTAINER, max_seconds=60)


def streamed(*channels: FloatArray) -> FloatArray:
    codes = (np.stack(channels).T * 32767).astype("<i2").tobytes()
    resampler = StreamResampler(AudioFormat("linear16", SAMPLE_RATE, len(channels)))
    return np.concatenate([resampler.add(codes[:10_001]), resampler.add(codes[10_001:]), resampler.finish()])


@pytest.mark.parametrize("how", [mixed, streamed])
@pytest.mark.parametrize("second", [-1.0, -0.8])
def test_louder_of_opposite_channels_is_taken(how: object, second: float) -> None:
    audio = (mixed if how is mixed else streamed)(SOURCE, second * SOURCE)
    np.testing.assert_allclose(audio[SETTLED:], SOURCE[SETTLED:], atol=1e-4)


def test_opposite_channels_are_found_behind_hum_and_an_offset_of_both() -> None:
    hum = 0.2 * np.sin(2 * np.pi * 50 * np.arange(len(SOURCE)) / SAMPLE_RATE).astype(np.float32) + 0.1
    audio = mixed(SOURCE / 2 + hum, -SOURCE / 2 + hum)
    np.testing.assert_allclose(audio[SETTLED:], (SOURCE / 2 + hum)[SETTLED:], atol=1e-4)


def test_opposite_surround_channels_are_not_lost() -> None:
    quiet = np.zeros_like(SOURCE)
    channels = np.stack([SOURCE, -SOURCE, quiet, quiet, quiet, quiet])
    audio = decode(encode(channels, SAMPLE_RATE, "flac", "flac", layout="5.1"), CONTAINER, max_seconds=60)
    np.testing.assert_allclose(audio[SETTLED:], SOURCE[SETTLED:], atol=1e-3)


@pytest.mark.parametrize("how", [mixed, streamed])
@pytest.mark.parametrize(
    "second",
    [SOURCE, SOURCE / 5, np.zeros_like(SOURCE), NOISE[0], np.roll(SOURCE, 8), chirp(4.0, low=300, high=2500)],
    ids=["equal", "quieter", "silent", "noise", "delayed", "unrelated"],
)
def test_ordinary_stereo_is_averaged(how: object, second: FloatArray) -> None:
    first = SOURCE + NOISE[1]
    other = second + NOISE[2]
    audio = (mixed if how is mixed else streamed)(first, other)
    np.testing.assert_allclose(audio, (first + other) / 2, atol=1e-4)


def test_silence_with_rounding_noise_is_averaged() -> None:
    dither = np.round(NOISE[:2] * 30) / 32768
    np.testing.assert_allclose(mixed(*dither), dither.mean(axis=0), atol=1e-7)


def test_average_returns_without_clicks_when_channels_agree_again() -> None:
    tone = (0.5 * np.sin(2 * np.pi * 300 * np.arange(8 * SAMPLE_RATE) / SAMPLE_RATE)).astype(np.float32)
    half = len(tone) // 2
    other = np.concatenate([-tone[:half], tone[half:]])
    other[half - 40 : half + 40] = 0.0
    audio = mixed(tone, other)
    np.testing.assert_allclose(audio[-SAMPLE_RATE:], ((tone + other) / 2)[-SAMPLE_RATE:], atol=1e-4)
    np.testing.assert_allclose(audio[SAMPLE_RATE:half], tone[SAMPLE_RATE:half], atol=1e-4)
    assert np.abs(np.diff(audio)).max() < 1.5 * np.abs(np.diff(tone)).max()


def test_taken_channel_changes_only_for_a_much_louder_one() -> None:
    mixer = ChannelMixer()
    parts = [mixer.mix(np.stack([level * SOURCE, -SOURCE]), SAMPLE_RATE) for level in (1.2, 0.9, 0.75)]
    for part, level in zip(parts, (1.2, 0.9, 0.75)):
        np.testing.assert_allclose(part[SETTLED:], level * SOURCE[SETTLED:], atol=1e-6)


def test_number_of_channels_may_change_midway() -> None:
    mixer = ChannelMixer()
    stereo = np.stack([SOURCE, -SOURCE])
    np.testing.assert_allclose(mixer.mix(stereo, SAMPLE_RATE)[SETTLED:], SOURCE[SETTLED:])
    np.testing.assert_array_equal(mixer.mix(SOURCE[None], SAMPLE_RATE), SOURCE)
    np.testing.assert_allclose(mixer.mix(np.stack([SOURCE] * 3), SAMPLE_RATE), SOURCE, atol=1e-6)
