"""`stt stream`, run in a thread against a server in the test's own event loop."""

from __future__ import annotations

import asyncio
import json
import sys
import wave
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from protos.stt.v1 import speech_pb2
from stt_client.cli import build_parser, main
from stt_client.cli.live_audio import Clock, LiveAudio, paced
from stt_client.cli.live_view import clock, summary
from stt_client.cli.stream import Controls, run_stream
from stt_client.convert import transcript_of
from stt_client.streaming.results import FLUSH
from tests.client.test_client import unused_port
from tests.client.toy_stream import FORMAT, FRAME_BYTES, RATE, Toy, speech
from tests.support.contract_messages import transcript
from tests.support.contract_script import Failure, Script
from tests.support.contract_service import serving
from tests.support.speech import clip, samples_of, wav_of


async def stt(*arguments: str | Path) -> int:
    return await asyncio.to_thread(main, ["stream", *map(str, arguments)])


def write_wav(path: Path, audio: bytes, *, rate: int = RATE, width: int = 2, channels: int = 1) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(audio)
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_wav(tmp_path / "talk.wav", speech(" abc       defg"))


async def test_finals_are_printed_one_a_line_where_there_is_no_terminal(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    toy = Toy()
    async with serving(Script(stream=toy)) as served:
        assert await stt(file, "--server", served.target) == 0
    assert capsys.readouterr() == ("abc\ndefg\n", "")
    assert toy.received == [speech(" abc       defg")]
    assert toy.configs[0].format.sample_rate_hertz == RATE


async def test_json_is_an_event_a_line(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with serving(Script(stream=Toy())) as served:
        assert await stt(file, "--json", "--server", served.target) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    kinds = [next(iter(event)) for event in events]
    assert kinds[:4] == ["speech_event", "interim", "speech_event", "final"]
    assert [event["final"]["result"]["text"] for event in events if "final" in event] == ["abc", "defg"]
    assert events[0]["speech_event"] == {"type": "STARTED", "offset": 0.1}


async def test_subtitles_come_at_the_end(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with serving(Script(stream=Toy())) as served:
        assert await stt(file, "--srt", "--server", served.target) == 0
        srt = capsys.readouterr().out
        assert await stt(file, "--vtt", "--server", served.target) == 0
        vtt = capsys.readouterr().out
    assert srt == "1\n00:00:00,100 --> 00:00:00,400\nabc\n\n2\n00:00:01,100 --> 00:00:01,500\ndefg\n"
    assert vtt.startswith("WEBVTT\n\n00:00:00.100 --> 00:00:00.400\nabc\n")


async def test_options_reach_the_service(file: Path) -> None:
    toy = Toy()
    async with serving(Script(stream=toy)) as served:
        options = ["--language", "de", "--candidate-languages", "de,fr", "--task", "translate", "--words"]
        more = ["--prompt", "Ahem.", "--hotwords", "Ada,Grace", "--routing", "primary", "--endpoint-silence", "0.9"]
        last = ["--no-interim", "--single-utterance", "--api-key", "k", "--timeout", "60"]
        assert await stt(file, "--server", served.target, *options, *more, *last) == 0
    (config,) = toy.configs
    assert config.options == speech_pb2.TranscribeOptions(
        language="de",
        candidate_languages=["de", "fr"],
        task=speech_pb2.TASK_TRANSLATE,
        prompt="Ahem.",
        hotwords=["Ada", "Grace"],
        word_timestamps=True,
        routing=speech_pb2.ROUTING_POLICY_PRIMARY_ONLY,
    )
    assert config.endpoint_silence.ToMilliseconds() == 900
    assert (config.interim_results, config.single_utterance) == (False, True)
    assert served.script.streams[0].metadata["authorization"] == "Bearer k"
    remaining = served.script.streams[0].time_remaining
    assert remaining is not None and remaining < 61


async def test_a_headerless_file_needs_only_its_rate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw = tmp_path / "talk.raw"
    raw.write_bytes(speech("abc"))
    async with serving(Script(stream=Toy())) as served:
        assert await stt(raw, "--rate", str(RATE), "--server", served.target) == 0
    assert capsys.readouterr().out == "abc\n"


async def test_a_failure_says_why_and_keeps_what_was_said(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with serving(Script(failure=Failure("unauthenticated", "no such key"))) as served:
        assert await stt(file, "--server", served.target) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"stt: {file}: no such key. Pass a valid key")


async def test_nobody_there_names_the_server(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    server = f"127.0.0.1:{unused_port()}"
    assert await stt(file, "--server", server) == 1
    assert f"can't reach {server}" in capsys.readouterr().err


async def test_a_connection_that_is_lost_is_said_and_made_again(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    toy = Toy()

    async def once(context: Any, sent: int, heard: int) -> None:
        if len(toy.received) == 1 and sent == 3:
            import grpc

            await context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")

    toy.break_at = once
    async with serving(Script(stream=toy)) as served:
        assert await stt(file, "--server", served.target) == 0
        out, err = capsys.readouterr()
        assert out == "abc\ndefg\n"
        assert err == f"stt: connection to {served.target} lost (upstream_unavailable)\n"


async def test_real_time_is_kept_by_the_clock(file: Path) -> None:
    """Whatever sending takes is taken off the pauses: chunk after chunk is due at its place in the recording."""
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


async def test_a_recording_in_real_time_is_paced_by_its_own_rate(file: Path) -> None:
    slept = 0.0

    async def sleep(seconds: float) -> None:
        nonlocal slept
        slept += seconds

    async with serving(Script(stream=Toy())) as served:
        arguments = build_parser().parse_args(["stream", str(file), "--realtime", "--server", served.target])
        frozen = Clock(lambda: 0.0, sleep)
        assert await run_stream(arguments, [served.target], frozen) == 0
    # 15 chunks of 0.1 s on a clock that stands still: each waits for the whole time up to its end.
    assert slept == pytest.approx(sum(0.1 * count for count in range(1, 16)))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "give a FILE, - for standard input, or --mic"),
        (["a.wav", "--mic"], "give a FILE, - for standard input, or --mic"),
        (["--mic", "--realtime"], "--realtime applies to recordings, not to --mic"),
        (["-"], "give its sample rate by --rate HZ"),
        (["a.raw", "--raw-encoding", "mulaw"], "--raw-encoding requires --rate HZ"),
        (["--mic", "--rate", "16000"], "or standard input, not to --mic"),
        (["a.wav", "--endpoint-silence", "0"], "invalid duration 0: must be seconds greater than 0"),
        (["a.wav", "--json", "--srt"], "not allowed with"),
    ],
)
def test_bad_usage_exits_with_2_and_says_what_to_give(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["stream", *arguments])
    assert caught.value.code == 2
    assert says in capsys.readouterr().err


def test_a_headerless_file_at_a_rate_that_no_stream_takes_is_refused(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["stream", str(file), "--rate", "96000"])
    assert "unsupported sample rate 96000 Hz; use 8000 to 48000 Hz" in capsys.readouterr().err


def test_a_file_that_is_missing_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = tmp_path / "none.wav"
    assert main(["stream", str(missing)]) == 1
    assert capsys.readouterr().err == f"stt: {missing}: No such file or directory\n"


def test_another_format_without_a_decoder_says_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    file = tmp_path / "talk.mp3"
    file.write_bytes(b"ID3")
    with pytest.raises(SystemExit):
        main(["stream", str(file)])
    said = capsys.readouterr().err
    assert f"ffmpeg -v error -i {file} -f s16le -ac 1 -ar 16000 - | stt stream - --rate 16000" in said


def test_what_is_no_audio_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "talk.mp3"
    file.write_bytes(b"hello " * 100)
    with pytest.raises(SystemExit):
        main(["stream", str(file)])
    assert "can't decode audio" in capsys.readouterr().err


@pytest.mark.parametrize("rate", [96_000, 4000])
async def test_a_wav_that_no_stream_takes_is_decoded_where_pyav_is(tmp_path: Path, rate: int) -> None:
    heard = b""

    async def listen(requests: Any, context: Any) -> AsyncGenerator[speech_pb2.StreamTranscribeResponse, None]:
        nonlocal heard
        async for request in requests:
            heard += request.audio
            if request.HasField("config"):
                assert request.config.format.sample_rate_hertz == 16_000
        return
        yield

    file = write_wav(tmp_path / "talk.wav", bytes(rate * 2), rate=rate)
    async with serving(Script(stream=listen)) as served:
        assert await stt(file, "--server", served.target) == 0
    assert len(heard) == pytest.approx(32_000, abs=200)


async def test_real_speech_arrives_sample_for_sample(tmp_path: Path) -> None:
    file = tmp_path / "talk.wav"
    file.write_bytes(wav_of(samples_of(clip("en", "quick_brown_fox"))))
    heard: list[bytes] = []

    async def listen(requests: Any, context: Any) -> AsyncGenerator[speech_pb2.StreamTranscribeResponse, None]:
        async for request in requests:
            heard.append(request.audio)
        return
        yield

    async with serving(Script(stream=listen)) as served:
        assert await stt(file, "--server", served.target) == 0
    with wave.open(str(file)) as whole:
        assert b"".join(heard) == whole.readframes(whole.getnframes())


async def test_a_flush_goes_between_the_chunks_and_the_end_ends_them() -> None:
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
    """Stands in for the module `sounddevice`, which needs a device."""

    class PortAudioError(Exception):
        pass

    def __init__(self, *, rates: tuple[int, ...] = (16_000,), own: float = 44_100.0, inputs: int = 1) -> None:
        self._rates = rates
        self._devices = [{"name": "Desk", "max_input_channels": inputs, "default_samplerate": own}]
        self.asked: dict[str, Any] = {}

    def query_devices(self, device: int | str | None = None, kind: str | None = None) -> Any:
        if kind is None:
            return self._devices
        if device not in (None, 0, "Desk") or not self._devices[0]["max_input_channels"]:
            raise ValueError(f"No input device matching {device!r}")
        return self._devices[0]

    def check_input_settings(self, *, samplerate: int, **_: Any) -> None:
        if samplerate not in self._rates:
            raise self.PortAudioError("Invalid sample rate")

    def RawInputStream(self, *, callback: Any, **asked: Any) -> Any:
        self.asked = asked

        class Stream:
            def __enter__(self) -> None:
                for start in range(0, len(SPOKEN), asked["blocksize"] * 2):
                    callback(SPOKEN[start : start + asked["blocksize"] * 2], asked["blocksize"], None, None)

            def __exit__(self, *_: object) -> None:
                pass

        return Stream()


SPOKEN = speech("abcd        ")


@pytest.mark.parametrize(("rates", "rate"), [((16_000,), 16_000), ((), 44_100)])
async def test_the_microphone_is_streamed_at_16_khz_or_at_its_own_rate(
    rates: tuple[int, ...], rate: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    microphone, toy = Microphone(rates=rates), Toy()
    monkeypatch.setitem(sys.modules, "sounddevice", microphone)
    async with serving(Script(stream=toy)) as served:
        assert await stt("--mic", "--device", "Desk", "--single-utterance", "--server", served.target) == 0
    assert capsys.readouterr().out == "abcd\n"
    assert toy.configs[0].format.sample_rate_hertz == rate
    assert microphone.asked["device"] == "Desk"


@pytest.mark.parametrize(
    ("module", "says"),
    [
        (None, "pip install 'stt-pair[mic]'"),
        (Microphone(inputs=0), "can't open microphone (No input device matching None). No microphone found."),
        (Microphone(rates=(), own=192_000.0), "its sample rate is 192000 Hz"),
    ],
)
def test_without_a_microphone_it_says_what_to_do(
    module: Microphone | None, says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", module)
    with pytest.raises(SystemExit) as caught:
        main(["stream", "--mic"])
    assert caught.value.code == 2
    assert says in capsys.readouterr().err


def test_another_device_is_answered_with_those_there_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", Microphone())
    with pytest.raises(SystemExit):
        main(["stream", "--mic", "--device", "7"])
    assert "Available: 0: Desk." in capsys.readouterr().err


def test_times_and_judgements_are_short() -> None:
    assert [clock(seconds) for seconds in (0.4, 67, 3723.9)] == ["0:00", "1:07", "1:02:03"]
    said = transcript()
    assert summary(transcript_of(said, {})) == "en tiny"
    said.routing.fallback_confidence = 0.876
    assert summary(transcript_of(said, {})) == "en 88% tiny"
    said.routing.fallback_used = False
    assert summary(transcript_of(said, {})) == "en 40%"
