"""Channels that are kept apart, in this process and in a decoder's child process."""

from __future__ import annotations

import numpy as np
import pytest

from stt_server.audio import AudioFormat, decode_plain
from stt_server.audio.channels import ChannelBuffer, ChannelSink
from stt_server.audio.mono import FloatArray
from stt_server.errors import AudioTooLong
from stt_server.testing.audio_samples import CONTAINER, chirp, encode
from tests.support.decoders import pool

RATE = 16_000


def separated(*blocks: tuple[FloatArray, int], max_seconds: float = 60) -> list[FloatArray]:
    """Channels of blocks of shape (channels, n), each with its rate."""
    buffer = ChannelBuffer()
    sink = ChannelSink(max_seconds, buffer.add)
    for block, rate in blocks:
        sink.add(block, rate)
    sink.finish()
    return buffer.channels()


def test_headerless_channels_are_kept_apart() -> None:
    interleaved = np.arange(8000, dtype="<i2").repeat(2)
    interleaved[1::2] *= -1
    channels = decode_plain(
        interleaved.tobytes(), AudioFormat("linear16", RATE, 2), max_seconds=60, separate_channels=True
    )
    assert channels is not None
    expected = np.arange(8000) / 32768
    np.testing.assert_allclose(channels, [expected, -expected], atol=1e-7)


def test_a_mono_recording_has_one_channel() -> None:
    assert [len(channel) for channel in separated((np.zeros((1, RATE), np.float32), RATE))] == [RATE]


def test_a_channel_that_begins_late_or_ends_early_is_silent_for_the_rest() -> None:
    one, two = np.full((1, RATE), 0.5, np.float32), np.full((2, RATE), 0.25, np.float32)
    first, second = separated((one, RATE), (two, RATE), (one, RATE))
    assert len(first) == len(second) == 3 * RATE
    assert (second[:RATE] == 0).all()
    assert (second[RATE : 2 * RATE] == 0.25).all()
    assert (second[2 * RATE :] == 0).all()
    assert (first[2 * RATE :] == 0.5).all()


def test_the_limit_is_that_of_one_channel() -> None:
    separated((np.zeros((8, 2 * RATE), np.float32), RATE), max_seconds=2)
    with pytest.raises(AudioTooLong):
        separated((np.zeros((2, 3 * RATE), np.float32), RATE), max_seconds=2)


async def test_channels_of_a_file_are_kept_apart_in_the_child_process() -> None:
    left, right = chirp(2.0, RATE), np.zeros(2 * RATE, np.float32)
    flac = encode(np.stack([left, right]), RATE, "flac", "flac", layout="stereo")
    async with pool() as decoders:
        channels = await decoders.decode(flac, separate_channels=True)
        (mixed,) = await decoders.decode(flac)
    assert [len(channel) for channel in channels] == [len(left), len(left)]
    np.testing.assert_allclose(channels[0], left, atol=1e-3)
    assert not channels[1].any()
    np.testing.assert_allclose(mixed, left / 2, atol=1e-3)


def test_wav_channels_are_kept_apart() -> None:
    left, right = chirp(1.0, RATE), np.zeros(RATE, np.float32)
    channels = decode_plain(
        encode(np.stack([left, right]), RATE, "wav", "pcm_s16le", layout="stereo"),
        CONTAINER,
        max_seconds=60,
        separate_channels=True,
    )
    assert channels is not None
    np.testing.assert_allclose(channels, [left, right], atol=1e-3)
