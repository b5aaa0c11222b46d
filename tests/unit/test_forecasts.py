"""Forecasts of service time and of audio length."""

from __future__ import annotations

import io
import itertools
import wave

import pytest

from stt_server.admission.audio_length import AudioLengthForecast
from stt_server.admission.service_time import FORGET_S, MAX_SURPRISE, Load, ServiceTime
from stt_server.audio import AudioFormat
from stt_server.audio.formats import Encoding
from stt_server.request import Upload
from tests.support.clock import ManualClock


def test_forecast_is_unknown_before_measurements() -> None:
    service_time = ServiceTime()
    assert not service_time.known
    assert (service_time.seconds(Load(3, 30)), service_time.inference) == (0.0, 0.0)


@pytest.mark.parametrize(("per_chunk", "per_second"), [(0.05, 0.0), (0.0, 0.02), (0.3, 0.01)])
def test_time_per_chunk_and_per_second_are_separated(per_chunk: float, per_second: float) -> None:
    service_time = ServiceTime()
    for chunks, seconds in itertools.product((1, 2, 5), (3.0, 11.0, 29.0)):
        service_time.observe(Load(chunks, chunks * seconds), chunks * per_chunk + chunks * seconds * per_second)
    assert service_time.seconds(Load(10, 100.0)) == pytest.approx(10 * per_chunk + 100 * per_second, rel=0.01)


def test_equal_chunks_forecast_more_of_the_same() -> None:
    service_time = ServiceTime()
    for chunks in (1, 8, 3):
        service_time.observe(Load(chunks, 10.0 * chunks), 0.2 * chunks)
    assert service_time.seconds(Load(4, 40.0)) == pytest.approx(0.8)


def test_outlier_counts_little_and_slowdown_is_learned() -> None:
    service_time = ServiceTime()
    for _ in range(30):
        service_time.observe(Load(1, 5.0), 0.1)
    service_time.observe(Load(1, 5.0), 60.0)
    assert service_time.seconds(Load(1, 5.0)) < 0.1 * MAX_SURPRISE
    for _ in range(10):
        service_time.observe(Load(1, 5.0), 0.8)
    assert service_time.seconds(Load(1, 5.0)) == pytest.approx(0.8, rel=0.4)
    for _ in range(30):
        service_time.observe(Load(1, 5.0), 0.1)
    assert service_time.seconds(Load(1, 5.0)) == pytest.approx(0.1, rel=0.2)


def test_old_measurements_are_forgotten() -> None:
    clock = ManualClock(0.0)
    service_time = ServiceTime(clock)
    service_time.observe(Load(1, 5.0), 100.0)
    clock.now = FORGET_S + 1
    assert not service_time.known
    assert (service_time.seconds(Load(1, 5.0)), service_time.inference) == (0.0, 0.0)
    service_time.observe(Load(1, 5.0), 0.1)
    assert service_time.seconds(Load(1, 5.0)) == pytest.approx(0.1)


def test_chunks_without_audio_are_forecast_by_number() -> None:
    service_time = ServiceTime()
    service_time.observe(Load(1, 0.0), 0.1)
    assert service_time.seconds(Load()) == 0.0
    assert service_time.seconds(Load(1, 0.0)) == pytest.approx(0.1)


def test_wav_length_follows_its_header() -> None:
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(bytes(2 * 4 * 8000))
    forecast = AudioLengthForecast().estimate(Upload(out.getvalue(), AudioFormat()))
    assert forecast.chunks == 1
    assert forecast.seconds == pytest.approx(4.0, rel=0.01)


def test_headerless_length_follows_the_sample_rate() -> None:
    assert AudioLengthForecast().estimate(Upload(bytes(48_000 * 2 * 2), AudioFormat("linear16", 48_000, 2))) == Load(
        1, 1.0
    )
    assert AudioLengthForecast().estimate(Upload(b"", AudioFormat("linear16", 0, 0))).seconds == 0.0


@pytest.mark.parametrize("encoding", ["mulaw", "alaw"])
def test_companded_length_follows_the_sample_rate(encoding: Encoding) -> None:
    assert AudioLengthForecast().estimate(Upload(bytes(16_000 * 3), AudioFormat(encoding, 16_000))).seconds == 3.0


def test_absurd_byte_rate_is_ignored() -> None:
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setparams((1, 2, 8, 0, "NONE", ""))
        file.writeframes(bytes(40_000))
    assert AudioLengthForecast().estimate(Upload(out.getvalue(), AudioFormat())).seconds < 60
    assert AudioLengthForecast().estimate(Upload(bytes(40_000), AudioFormat("linear16", 1))).seconds < 60


def test_long_recording_is_several_chunks() -> None:
    forecast = AudioLengthForecast().estimate(Upload(bytes(16_000 * 2 * 90), AudioFormat("linear16", 16_000)))
    assert (forecast.chunks, forecast.seconds) == (10.0, 90.0)


def test_length_forecast_learns_per_format() -> None:
    lengths = AudioLengthForecast()
    ogg = b"OggS" + bytes(39_996)
    before = lengths.estimate(Upload(ogg, AudioFormat())).seconds
    for _ in range(30):
        lengths.learn(Upload(ogg, AudioFormat()), Load(1, before / 2))
    assert lengths.estimate(Upload(ogg, AudioFormat())).seconds == pytest.approx(before / 2)
    assert lengths.estimate(Upload(b"fLaC" + bytes(39_996), AudioFormat())).seconds == pytest.approx(2.5)
