"""Audio of `stt stream`: files, pacing, controls and the microphone."""

from __future__ import annotations

import asyncio
import sys
import wave
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from protos.stt.v1 import speech_pb2
from stt_client.cli import build_parser, main
from stt_client.cli.live_audio import Clock, LiveAudio, paced
from stt_client.cli.stream import Controls, run_stream
from stt_client.streaming.results import FLUSH
from tests.client.test_cli_stream import stt, write_wav
from tests.support.contract_script import Script
from tests.support.contract_service import serving
from tests.support.letter_stream import FORMAT, FRAME_BYTES, RATE, Letters, speech
from tests.support.speech import clip, samples_of, wav_of


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_wav(tmp_path / "talk.wav", speech(" abc       defg"))


async def test_a_headerless_file_requires_only_its_rate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw = tmp_path / "talk.raw"
    raw.write_bytes(speech("abc"))
    async with serving(Script(stream=Letters())) as served:
        assert await stt(raw, "--rate", str(RATE), "--server", served.target) == 0
    assert capsys.readouterr().out == "abc\n"


async def test_pacing_compensates_for_the_time_of_sending(file: Path) -> None:
    """The time that sending takes is subtracted from the pauses."""
    now, slept = 100.0, []

    async def sleep(seconds: float) -> None:
        nonlocal now
        slept.append(seconds)
        now += seconds

    async def chunks() -> AsyncGenerator[bytes, None]:
        nonlocal now
        for took in (0.0, 0.03, 0.25, 0.0):
            now += took
            yield bytes(FRAME_BYTES)

    seen = []
    async for _ in paced(LiveAudio(FORMAT, chunks()), Clock(lambda: now, sleep)):
        seen.append(round(now - 100, 6))
    assert seen == [0.1, 0.2, 0.45, 0.45]
    assert [round(seconds, 6) for seconds in slept] == [0.1, 0.07]


async def test_realtime_paces_a_recording_by_its_sample_rate(file: Path) -> None:
    slept = 0.0

    async def sleep(seconds: float) -> None:
        nonlocal slept
        slept += seconds

    async with serving(Script(stream=Letters())) as served:
        arguments = build_parser().parse_args(["stream", str(file), "--realtime", "--server", served.target])
        frozen = Clock(lambda: 0.0, sleep)
        assert await run_stream(arguments, [served.target], frozen) == 0
    # 15 chunks of 0.1 s on a frozen clock: each waits for the whole time up to its end.
    assert slept == pytest.approx(sum(0.1 * count for count in range(1, 16)))


def test_an_unsupported_sample_rate_is_rejected(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["stream", str(file), "--rate", "96000"])
    assert "unsupported sample rate 96000 Hz; use 8000 to 48000 Hz" in capsys.readouterr().err


def test_a_missing_file_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = tmp_path / "none.wav"
    assert main(["stream", str(missing)]) == 1
    assert capsys.readouterr().err == f"stt: {missing}: No such file or directory\n"


def test_a_missing_decoder_is_explained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    file = tmp_path / "talk.mp3"
    file.write_bytes(b"ID3")
    with pytest.raises(SystemExit):
        main(["stream", str(file)])
    error = capsys.readouterr().err
    assert f"ffmpeg -v error -i {file} -f s16le -ac 1 -ar 16000 - | stt stream - --rate 16000" in error


def test_a_file_that_is_not_audio_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "talk.mp3"
    file.write_bytes(b"hello " * 100)
    with pytest.raises(SystemExit):
        main(["stream", str(file)])
    assert "can't decode audio" in capsys.readouterr().err


@pytest.mark.parametrize("rate", [96_000, 4000])
async def test_wav_at_an_unsupported_rate_is_decoded_by_pyav(tmp_path: Path, rate: int) -> None:
    received = b""

    async def listen(requests: Any, context: Any) -> AsyncGenerator[speech_pb2.StreamTranscribeResponse, None]:
        nonlocal received
        async for request in requests:
            received += request.audio
            if request.HasField("config"):
                assert request.config.format.sample_rate_hertz == 16_000
        return
        yield

    file = write_wav(tmp_path / "talk.wav", bytes(rate * 2), rate=rate)
    async with serving(Script(stream=listen)) as served:
        assert await stt(file, "--server", served.target) == 0
    assert len(received) == pytest.approx(32_000, abs=200)


async def test_real_speech_is_sent_unchanged(tmp_path: Path) -> None:
    file = tmp_path / "talk.wav"
    file.write_bytes(wav_of(samples_of(clip("en", "quick_brown_fox"))))
    received: list[bytes] = []

    async def listen(requests: Any, context: Any) -> AsyncGenerator[speech_pb2.StreamTranscribeResponse, None]:
        async for request in requests:
            received.append(request.audio)
        return
        yield

    async with serving(Script(stream=listen)) as served:
        assert await stt(file, "--server", served.target) == 0
    with wave.open(str(file)) as whole:
        assert b"".join(received) == whole.readframes(whole.getnframes())


async def test_controls_insert_a_flush_and_end_the_audio() -> None:
    closed = False
    more = asyncio.Event()

    async def chunks() -> AsyncGenerator[bytes, None]:
        nonlocal closed
        try:
            yield b"one"
            await more.wait()
            yield b"two"
            await asyncio.Event().wait()
        finally:
            closed = True

    controls = Controls()
    governed = controls.apply(chunks())
    assert await anext(governed) == b"one"
    controls.flush()
    assert await anext(governed) == FLUSH
    more.set()
    assert await anext(governed) == b"two"
    controls.end()
    assert await anext(governed, None) is None
    assert closed


class Microphone:
    """Replacement for the module `sounddevice`, which needs a device."""

    class PortAudioError(Exception):
        pass

    def __init__(self, *, rates: tuple[int, ...] = (16_000,), own: float = 44_100.0, inputs: int = 1) -> None:
        self._rates = rates
        self._devices = [{"name": "Desk", "max_input_channels": inputs, "default_samplerate": own}]
        self.settings: dict[str, Any] = {}

    def query_devices(self, device: int | str | None = None, kind: str | None = None) -> Any:
        if kind is None:
            return self._devices
        if device not in (None, 0, "Desk") or not self._devices[0]["max_input_channels"]:
            raise ValueError(f"No input device matching {device!r}")
        return self._devices[0]

    def check_input_settings(self, *, samplerate: int, **_: Any) -> None:
        if samplerate not in self._rates:
            raise self.PortAudioError("Invalid sample rate")

    def RawInputStream(self, *, callback: Any, **settings: Any) -> Any:
        self.settings = settings

        class Stream:
            def __enter__(self) -> None:
                for start in range(0, len(SPOKEN), settings["blocksize"] * 2):
                    callback(SPOKEN[start : start + settings["blocksize"] * 2], settings["blocksize"], None, None)

            def __exit__(self, *_: object) -> None:
                pass

        return Stream()


SPOKEN = speech("abcd        ")


@pytest.mark.parametrize(("rates", "rate"), [((16_000,), 16_000), ((), 44_100)])
async def test_the_microphone_uses_16_khz_or_its_default_rate(
    rates: tuple[int, ...], rate: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    microphone, letters = Microphone(rates=rates), Letters()
    monkeypatch.setitem(sys.modules, "sounddevice", microphone)
    async with serving(Script(stream=letters)) as served:
        assert await stt("--mic", "--device", "Desk", "--single-utterance", "--server", served.target) == 0
    assert capsys.readouterr().out == "abcd\n"
    assert letters.configs[0].format.sample_rate_hertz == rate
    assert microphone.settings["device"] == "Desk"


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (None, "pip install 'stt-pair[mic]'"),
        (Microphone(inputs=0), "can't open microphone (No input device matching None). No microphone found."),
        (Microphone(rates=(), own=192_000.0), "its sample rate is 192000 Hz"),
    ],
)
def test_a_missing_microphone_is_explained(
    module: Microphone | None, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", module)
    with pytest.raises(SystemExit) as caught:
        main(["stream", "--mic"])
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_an_unknown_device_lists_the_available_ones(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", Microphone())
    with pytest.raises(SystemExit):
        main(["stream", "--mic", "--device", "7"])
    assert "Available: 0: Desk." in capsys.readouterr().err
