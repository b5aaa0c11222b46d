"""`stt stream`, run in a thread against a scripted server."""

from __future__ import annotations

import asyncio
import json
import wave
from pathlib import Path
from typing import Any

import pytest

from protos.stt.v1 import speech_pb2
from stt_client.cli import main
from stt_client.cli.live_view import clock, summary
from stt_client.convert import transcript_of
from tests.support.contract_messages import transcript
from tests.support.contract_script import Failure, Script
from tests.support.contract_service import serving, unused_port
from tests.support.letter_stream import RATE, Letters, speech


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


async def test_finals_are_printed_one_per_line_without_a_terminal(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    letters = Letters()
    async with serving(Script(stream=letters)) as served:
        assert await stt(file, "--server", served.target) == 0
    assert capsys.readouterr() == ("abc\ndefg\n", "")
    assert letters.received == [speech(" abc       defg")]
    assert letters.configs[0].format.sample_rate_hertz == RATE


async def test_json_is_one_event_per_line(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with serving(Script(stream=Letters())) as served:
        assert await stt(file, "--json", "--server", served.target) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    kinds = [next(iter(event)) for event in events]
    assert kinds[:4] == ["speech_event", "interim", "speech_event", "final"]
    assert [event["final"]["result"]["text"] for event in events if "final" in event] == ["abc", "defg"]
    assert events[0]["speech_event"] == {"type": "STARTED", "offset": 0.1}


async def test_subtitles_are_printed_at_the_end(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with serving(Script(stream=Letters())) as served:
        assert await stt(file, "--srt", "--server", served.target) == 0
        srt = capsys.readouterr().out
        assert await stt(file, "--vtt", "--server", served.target) == 0
        vtt = capsys.readouterr().out
    assert srt == "1\n00:00:00,100 --> 00:00:01,100\nabc\n\n2\n00:00:01,100 --> 00:00:02,100\ndefg\n"
    assert vtt.startswith("WEBVTT\n\n00:00:00.100 --> 00:00:01.100\nabc\n")


async def test_options_reach_the_service(file: Path) -> None:
    letters = Letters()
    async with serving(Script(stream=letters)) as served:
        options = ["--language", "de", "--candidate-languages", "de,fr", "--task", "translate", "--words"]
        more = ["--prompt", "Ahem.", "--hotwords", "Ada,Grace", "--routing", "primary", "--endpoint-silence", "0.9"]
        last = ["--no-interim", "--single-utterance", "--api-key", "k", "--timeout", "60"]
        assert await stt(file, "--server", served.target, *options, *more, *last) == 0
    (config,) = letters.configs
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


async def test_a_failed_stream_is_explained(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with serving(Script(failure=Failure("unauthenticated", "no such key"))) as served:
        assert await stt(file, "--server", served.target) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"stt: {file}: no such key. Pass a valid key")


async def test_an_unreachable_server_is_named(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    server = f"127.0.0.1:{unused_port()}"
    assert await stt(file, "--server", server) == 1
    assert f"can't reach {server}" in capsys.readouterr().err


async def test_a_lost_connection_is_reported_and_reestablished(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    letters = Letters()

    async def once(context: Any, sent: int, received: int) -> None:
        if len(letters.received) == 1 and sent == 3:
            import grpc

            await context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")

    letters.break_at = once
    async with serving(Script(stream=letters)) as served:
        assert await stt(file, "--server", served.target) == 0
        out, err = capsys.readouterr()
        assert out == "abc\ndefg\n"
        assert err == f"stt: connection to {served.target} lost (upstream_unavailable)\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
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
def test_invalid_usage_exits_with_2_and_a_message(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["stream", *arguments])
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_times_and_summaries_are_short() -> None:
    assert [clock(seconds) for seconds in (0.4, 67, 3723.9)] == ["0:00", "1:07", "1:02:03"]
    response = transcript()
    assert summary(transcript_of(response, {})) == "en tiny"
    response.routing.fallback_confidence = 0.876
    assert summary(transcript_of(response, {})) == "en 88% tiny"
    response.routing.fallback_used = False
    assert summary(transcript_of(response, {})) == "en 40%"
