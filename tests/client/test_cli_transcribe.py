"""`stt transcribe`, run in a thread against a scripted server."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from protos.stt.v1 import speech_pb2
from protos.stt.v1.errors import ERRORS
from stt_client.cli import main
from stt_client.cli.errors import ADVICE
from tests.support.contract_messages import transcript
from tests.support.contract_script import Failure, Script
from tests.support.contract_service import serving

JSON_KEYS = {
    "request_id",
    "text",
    "language",
    "language_probability",
    "audio_duration",
    "segments",
    "routing",
    "timings",
    "model",
}


async def stt(*arguments: str | Path) -> int:
    return await asyncio.to_thread(main, ["transcribe", *map(str, arguments)])


def echo(request: speech_pb2.TranscribeRequest) -> str | Failure:
    """Answer with the bytes of the audio as text; reject `bad`."""
    if request.audio == b"bad":
        return Failure("unsupported_audio", "this is no audio")
    return f"said {request.audio.decode()}"


async def test_the_text_of_a_single_file_is_printed_alone(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with serving(Script(reply=echo)) as served:
        assert await stt(folder / "a.wav", "--server", served.target) == 0
    assert capsys.readouterr() == ("said a\n", "")


async def test_options_reach_the_service(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STT_API_KEY", "from-env")
    async with serving() as served:
        speech = ["--language", "de", "--candidate-languages", "de, fr", "--task", "translate", "--words"]
        more = ["--prompt", "Ahem.", "--hotwords", "Ada,Grace,", "--routing", "primary", "--timeout", "7"]
        assert await stt(folder / "a.wav", "--server", served.target, *speech, *more) == 0
        assert await stt(folder / "a.wav", "--server", served.target, "--api-key", "given") == 0
    assert served.script.requests[0].options == speech_pb2.TranscribeOptions(
        language="de",
        candidate_languages=["de", "fr"],
        task=speech_pb2.TASK_TRANSLATE,
        prompt="Ahem.",
        hotwords=["Ada", "Grace"],
        word_timestamps=True,
        routing=speech_pb2.ROUTING_POLICY_PRIMARY_ONLY,
    )
    assert [call.metadata["authorization"] for call in served.script.calls] == ["Bearer from-env", "Bearer given"]
    remaining = served.script.calls[0].time_remaining
    assert remaining is not None
    assert 5 < remaining < 7.1, "gRPC rounds deadlines up"


async def test_a_folder_is_searched_in_order_and_texts_are_named(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with serving(Script(reply=echo)) as served:
        assert await stt(folder, "--server", served.target) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{folder}/a.wav: said a",
        f"{folder}/b.MP3: said b",
        f"{folder}/sub/c.flac: said c",
    ]


async def test_results_are_printed_in_the_order_of_input(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    b_done = asyncio.Event()

    async def answer(request: speech_pb2.TranscribeRequest) -> str:
        await b_done.wait() if request.audio == b"a" else b_done.set()
        return str(echo(request))

    async with serving(Script(reply=answer)) as served:
        assert await stt(folder / "a.wav", folder / "b.MP3", "--server", served.target) == 0
    assert [line.split(": ")[1] for line in capsys.readouterr().out.splitlines()] == ["said a", "said b"]


@pytest.mark.parametrize(("given", "most"), [([], 2), (["--jobs", "1"], 1), (["--jobs", "5"], 5)])
async def test_jobs_limits_concurrent_recordings(given: list[str], most: int, tmp_path: Path) -> None:
    files = [tmp_path / f"{n}.wav" for n in range(6)]
    for file in files:
        file.write_bytes(b"x")
    full = asyncio.Event()
    script = Script()

    async def answer(request: speech_pb2.TranscribeRequest) -> str:
        if script.in_flight == most:
            full.set()
        await full.wait()
        return "x"

    script.reply = answer
    async with serving(script) as served:
        assert await stt(*files, "--server", served.target, *given) == 0
    assert script.peak_in_flight == most


async def test_several_servers_share_the_recordings(folder: Path) -> None:
    async with serving() as first, serving() as second:
        code = await stt(folder, "--server", first.target, "--server", second.target)
    assert code == 0
    assert first.script.requests
    assert second.script.requests


async def test_json_of_one_file_is_one_object(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with serving(Script(response=transcript("übung 你好"))) as served:
        assert await stt(folder / "a.wav", "--json", "--server", served.target) == 0
    out = capsys.readouterr().out
    assert "übung 你好" in out
    assert json.loads(out).keys() == JSON_KEYS


async def test_json_of_several_files_is_one_object_per_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with serving(Script(reply=echo)) as served:
        assert await stt(folder, "--json", "--server", served.target) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["text"] for line in lines] == ["said a", "said b", "said c"]
    assert lines[0].keys() == JSON_KEYS | {"file"}


async def test_subtitles_on_standard_output(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with serving() as served:
        assert await stt(folder / "a.wav", "--srt", "--server", served.target) == 0
        assert capsys.readouterr().out == "1\n00:00:00,000 --> 00:00:01,235\nhello world\n"
        assert await stt(folder / "a.wav", "--vtt", "--server", served.target) == 0
        assert capsys.readouterr().out == "WEBVTT\n\n00:00:00.000 --> 00:00:01.235\nhello world\n"
        assert await stt(folder, "--vtt", "--server", served.target) == 0
        assert capsys.readouterr().out.startswith(f"==> {folder}/a.wav <==\nWEBVTT\n")


async def test_a_file_that_fails_does_not_stop_the_others(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad, missing = folder / "bad.wav", folder / "missing.wav"
    bad.write_bytes(b"bad")
    async with serving(Script(reply=echo)) as served:
        assert await stt(missing, bad, folder / "a.wav", "--server", served.target) == 1
    out, err = capsys.readouterr()
    assert out == f"{folder}/a.wav: said a\n"
    assert err.splitlines() == [
        f"stt: {missing}: No such file or directory",
        f"stt: {bad}: this is no audio. {ERRORS['unsupported_audio'].advice}",
    ]


@pytest.mark.parametrize(
    ("type_", "advice"),
    [
        ("unauthenticated", "--api-key or $STT_API_KEY"),
        ("rate_limited", "fewer --jobs"),
        ("deadline_exceeded", "--timeout"),
        ("internal", "Request id: "),
    ],
)
async def test_an_error_includes_advice(
    type_: str, advice: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with serving(Script(failure=Failure(type_))) as served:
        assert await stt(folder / "a.wav", "--server", served.target) == 1
    assert advice in capsys.readouterr().err


@pytest.mark.parametrize("type_", ERRORS)
async def test_each_error_type_is_exit_status_1_and_one_line(
    type_: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with serving(Script(failure=Failure(type_, "what went wrong"))) as served:
        assert await stt(folder / "a.wav", "--server", served.target) == 1
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    _, separator, advice = err.partition("what went wrong.")
    assert separator
    # The message about an unreachable service includes the advice.
    assert advice.strip() or type_ == "upstream_unavailable"


def test_advice_is_keyed_by_error_types() -> None:
    assert set(ADVICE) <= set(ERRORS)


async def test_an_unreachable_server_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert await stt(folder / "a.wav", "--server", "127.0.0.1:1") == 1
    err = capsys.readouterr().err
    assert "can't reach 127.0.0.1:1. Check that the service runs" in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required"),
        (["x.wav", "--task", "sing"], "invalid choice"),
        (["x.wav", "--server", "http://localhost:8081"], "write grpc://HOST:PORT"),
        (["x.wav", "--ca", __file__], "contains no certificate in PEM format"),
        (["x.wav", "--cert", __file__], "together"),
        (["x.wav", "--ca", "/no/such.pem"], "--ca: can't read /no/such.pem"),
        (["x.wav", "--api-key", "a\nb"], "printable ASCII"),
        (["x.wav", "--jobs", "0"], "invalid number 0: must be at least 1"),
        (["x.wav", "--timeout", "-1"], "must be seconds greater than 0"),
        (["x.wav", "--raw-rate", "8"], "invalid sample rate 8: must be 4000 to 192000 Hz"),
        (["x.wav", "--raw-encoding", "mulaw"], "requires --raw-rate"),
        (["x.wav", "--srt", "--vtt"], "require --output DIR"),
        (["x.wav", "--output", "d", "--beside"], "not allowed with"),
        (["a/x.wav", "b/x.wav", "--output", "d"], "have the same output file"),
    ],
)
def test_invalid_usage_exits_with_2_and_a_message(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["transcribe", *arguments])
    assert caught.value.code == 2
    assert message in capsys.readouterr().err
