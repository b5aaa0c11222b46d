"""What inferences take, and what a recording holds: learned from what was measured."""

from __future__ import annotations

import io
import itertools
import wave

import pytest

from stt_server.admission.audio_length import AudioLengthForecast
from stt_server.admission.service_time import FORGET_S, MAX_SURPRISE, Load, ServiceTime
from stt_server.audio import AudioFormat
from stt_server.request import Upload
from tests.support.clock import ManualClock


def test_nothing_is_known_before_anything_was_measured() -> None:
    service_time = ServiceTime()
    assert not service_time.known
    assert (service_time.seconds(Load(3, 30)), service_time.inference) == (0.0, 0.0)


@pytest.mark.parametrize(("a_chunk", "a_second"), [(0.05, 0.0), (0.0, 0.02), (0.3, 0.01)])
def test_time_a_chunk_and_time_a_second_are_told_apart(a_chunk: float, a_second: float) -> None:
    service_time = ServiceTime()
    for chunks, seconds in itertools.product((1, 2, 5), (3.0, 11.0, 29.0)):
        service_time.observe(Load(chunks, chunks * seconds), chunks * a_chunk + chunks * seconds * a_second)
    assert service_time.seconds(Load(10, 100.0)) == pytest.approx(10 * a_chunk + 100 * a_second, rel=0.01)


def test_of_chunks_that_are_all_alike_more_of_the_same_are_told() -> None:
    service_time = ServiceTime()
    for chunks in (1, 8, 3):
        service_time.observe(Load(chunks, 10.0 * chunks), 0.2 * chunks)
    assert service_time.seconds(Load(4, 40.0)) == pytest.approx(0.8)


def test_one_that_was_held_up_does_little_and_what_has_become_slower_is_soon_believed() -> None:
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


def test_what_is_long_ago_is_forgotten() -> None:
    clock = ManualClock(0.0)
    service_time = ServiceTime(clock)
    service_time.observe(Load(1, 5.0), 100.0)
    clock.now = FORGET_S + 1
    assert not service_time.known
    assert (service_time.seconds(Load(1, 5.0)), service_time.inference) == (0.0, 0.0)
    service_time.observe(Load(1, 5.0), 0.1)
    assert service_time.seconds(Load(1, 5.0)) == pytest.approx(0.1)


def test_silence_is_no_work() -> None:
    service_time = ServiceTime()
    service_time.observe(Load(1, 0.0), 0.1)
    assert service_time.seconds(Load()) == 0.0
    assert service_time.seconds(Load(1, 0.0)) == pytest.approx(0.1)


def test_a_wav_is_as_long_as_its_header_says() -> None:
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(bytes(2 * 4 * 8000))
    guess = AudioLengthForecast().estimate(Upload(out.getvalue(), AudioFormat()))
    assert guess.chunks == 1
    assert guess.seconds == pytest.approx(4.0, rel=0.01)


def test_headerless_samples_are_as_long_as_their_rate_says() -> None:
    assert AudioLengthForecast().estimate(Upload(bytes(48_000 * 2 * 2), AudioFormat("linear16", 48_000, 2))) == Load(
        1, 1.0
    )
    assert AudioLengthForecast().estimate(Upload(b"", AudioFormat("linear16", 0, 0))).seconds == 0.0


def test_an_absurd_rate_is_not_believed() -> None:
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setparams((1, 2, 8, 0, "NONE", ""))
        file.writeframes(bytes(40_000))
    assert AudioLengthForecast().estimate(Upload(out.getvalue(), AudioFormat())).seconds < 60
    assert AudioLengthForecast().estimate(Upload(bytes(40_000), AudioFormat("linear16", 1))).seconds < 60


def test_a_long_recording_is_several_chunks() -> None:
    guess = AudioLengthForecast().estimate(Upload(bytes(16_000 * 2 * 90), AudioFormat("linear16", 16_000)))
    assert (guess.chunks, guess.seconds) == (10.0, 90.0)


def test_a_guess_learns_from_what_there_really_was() -> None:
    lengths = AudioLengthForecast()
    ogg = b"OggS" + bytes(39_996)
    before = lengths.estimate(Upload(ogg, AudioFormat())).seconds
    for _ in range(30):
        lengths.learn(Upload(ogg, AudioFormat()), Load(1, before / 2))
    assert lengths.estimate(Upload(ogg, AudioFormat())).seconds == pytest.approx(before / 2)
    assert lengths.estimate(Upload(b"fLaC" + bytes(39_996), AudioFormat())).seconds == pytest.approx(2.5)
