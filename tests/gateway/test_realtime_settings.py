"""Settings of Realtime sessions, in both generations of their messages."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.http.server import GatewayServer
from gateway.openai.realtime.messages import EventError
from gateway.openai.realtime.settings import DEFAULT_FORMAT, SessionSettings, Transcription, update
from stt_client import AudioFormat
from tests.support.contract_service import ContractService
from tests.support.realtime_caller import Event, realtime

DEFAULTS = {
    "format": {"type": "audio/pcm", "rate": 24000},
    "transcription": None,
    "noise_reduction": None,
    "turn_detection": {"type": "server_vad", "silence_duration_ms": 500},
}
FOUND = "session.audio.input"


def updated(*inputs: Any, older: bool = False) -> SessionSettings:
    """The settings after updates of `audio.input`, or of the older fields."""
    settings = SessionSettings()
    for each in inputs:
        session = each if older else {"type": "transcription", "audio": {"input": each}}
        settings = update(settings, session).settings
    return settings


def test_defaults() -> None:
    assert SessionSettings().as_dict() == DEFAULTS


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({"type": "audio/pcm", "rate": 16000}, AudioFormat("linear16", 16000)),
        ({"type": "audio/pcm", "rate": 48000.0}, AudioFormat("linear16", 48000)),
        ({"type": "audio/pcm"}, DEFAULT_FORMAT),
        ({"type": "audio/pcm", "rate": None}, DEFAULT_FORMAT),
        ({"rate": 8000}, AudioFormat("linear16", 8000)),
        ({"type": "audio/pcmu"}, AudioFormat("mulaw", 8000)),
        ({"type": "audio/pcmu", "rate": 8000}, AudioFormat("mulaw", 8000)),
        ({"type": "audio/pcma"}, AudioFormat("alaw", 8000)),
        ("pcm16", DEFAULT_FORMAT),
        ("g711_ulaw", AudioFormat("mulaw", 8000)),
        ("g711_alaw", AudioFormat("alaw", 8000)),
        (None, DEFAULT_FORMAT),
    ],
)
def test_formats(given: Any, found: AudioFormat) -> None:
    assert updated({"format": given}).format == found
    assert updated({"input_audio_format": given}, older=True).format == found


def test_a_format_keeps_the_rate_unless_its_type_changes() -> None:
    sixteen, telephone = {"type": "audio/pcm", "rate": 16000}, {"type": "audio/pcmu"}
    assert updated({"format": sixteen}, {"format": {"type": "audio/pcm"}}).format.sample_rate == 16000
    assert (
        updated({"format": sixteen}, {"format": telephone}, {"format": {"type": "audio/pcm"}}).format == DEFAULT_FORMAT
    )
    assert updated({"format": sixteen}, {"format": None}).format == DEFAULT_FORMAT


@pytest.mark.parametrize(
    ("given", "silence_ms"),
    [
        ({"type": "server_vad"}, 500),
        ({"type": "server_vad", "silence_duration_ms": 100}, 100),
        ({"type": "server_vad", "silence_duration_ms": 5000}, 5000),
        ({"silence_duration_ms": None}, 500),
        ({"type": "semantic_vad", "eagerness": "high", "create_response": False}, 800),
        ({"type": "server_vad", "threshold": "high", "prefix_padding_ms": -1, "idle_timeout_ms": [], "x": {}}, 500),
        (None, None),
    ],
)
def test_turn_detection(given: Any, silence_ms: int | None) -> None:
    assert updated({"turn_detection": given}).turn_silence_ms == silence_ms
    assert updated({"turn_detection": given}, older=True).turn_silence_ms == silence_ms


def test_turn_detection_that_names_no_silence_keeps_it() -> None:
    quick, again = {"type": "server_vad", "silence_duration_ms": 200}, {"type": "server_vad"}
    assert updated({"turn_detection": quick}, {"turn_detection": again}).turn_silence_ms == 200
    assert (
        updated({"turn_detection": quick}, {"turn_detection": None}, {"turn_detection": again}).turn_silence_ms == 500
    )


def test_transcription_becomes_options_of_the_call() -> None:
    given = {"model": "whisper-1", "language": "German", "keywords": ["Zug", " Bahn "], "prompt": "Reise", "delay": 7}
    assert updated({"transcription": given}).stream_options() == {
        "endpoint_silence": 0.5,
        "language": "de",
        "candidate_languages": (),
        "hotwords": ("Zug", "Bahn"),
        "prompt": "Reise",
    }


@pytest.mark.parametrize(
    ("given", "language", "candidates"),
    [
        ({"languages": ["en-US", "fr"]}, None, ("en", "fr")),
        ({"languages": ["pt_BR"]}, "pt", ()),
        ({"languages": "en, de"}, None, ("en", "de")),
        ({"languages": ["en", "fr"], "language": "es"}, "es", ()),
        ({"language": "auto"}, None, ()),
        ({"language": ""}, None, ()),
        ({"language": None, "languages": None}, None, ()),
    ],
)
def test_languages(given: Any, language: str | None, candidates: tuple[str, ...]) -> None:
    options = updated({"transcription": given}).stream_options()
    assert (options["language"], options["candidate_languages"]) == (language, candidates)


def test_the_longest_texts_are_taken() -> None:
    given = {"keywords": ["k" * 100] * 200, "prompt": "p" * 4000}
    options = updated({"transcription": given}).stream_options()
    assert (options["hotwords"], options["prompt"]) == (("k" * 100,) * 200, "p" * 4000)


def test_what_is_not_named_stays_and_null_clears() -> None:
    first = {"format": "g711_ulaw", "turn_detection": None, "transcription": {"language": "de", "prompt": "a"}}
    settings = updated(first, {"transcription": {"prompt": "b", "keywords": ["c"]}}, {"noise_reduction": None}, {})
    kept = Transcription(language="de", prompt="b", keywords=("c",))
    assert settings == SessionSettings(AudioFormat("mulaw", 8000), kept, None)
    assert updated(first, {"transcription": {"language": None}}).transcription == Transcription(prompt="a")
    assert updated(first, {"transcription": None}).transcription is None
    assert update(settings, {"audio": None}).settings == SessionSettings(turn_silence_ms=None)
    assert update(settings, {"audio": {"input": None}}).settings.format == DEFAULT_FORMAT
    assert update(settings, {}).settings == settings


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({"format": {"type": "audio/pcm", "rate": 7999}}, "format.rate"),
        ({"format": {"type": "audio/pcm", "rate": 48001}}, "format.rate"),
        ({"format": {"type": "audio/pcm", "rate": "24000"}}, "format.rate"),
        ({"format": {"type": "audio/pcm", "rate": True}}, "format.rate"),
        ({"format": {"type": "audio/pcm", "rate": 10**400}}, "format.rate"),
        ({"format": {"type": "audio/pcm", "rate": float("nan")}}, "format.rate"),
        ({"format": {"type": "audio/pcmu", "rate": 16000}}, "format.rate"),
        ({"format": {"type": "audio/opus"}}, "format.type"),
        ({"format": {"type": ["audio/pcm"]}}, "format.type"),
        ({"format": "opus"}, "format"),
        ({"format": 5}, "format"),
        ({"turn_detection": {"type": "client_vad"}}, "turn_detection.type"),
        ({"turn_detection": {"type": "server_vad", "silence_duration_ms": 99}}, "turn_detection.silence_duration_ms"),
        ({"turn_detection": {"silence_duration_ms": 5001}}, "turn_detection.silence_duration_ms"),
        ({"turn_detection": {"silence_duration_ms": 100.5}}, "turn_detection.silence_duration_ms"),
        ({"turn_detection": "server_vad"}, "turn_detection"),
        ({"transcription": "whisper-1"}, "transcription"),
        ({"transcription": {"language": "klingon"}}, "transcription.language"),
        ({"transcription": {"language": ["en"]}}, "transcription.language"),
        ({"transcription": {"language": "\ud800"}}, "transcription.language"),
        ({"transcription": {"languages": ["en", "xx"]}}, "transcription.languages"),
        ({"transcription": {"languages": {"en": 1}}}, "transcription.languages"),
        ({"transcription": {"keywords": [1]}}, "transcription.keywords"),
        ({"transcription": {"keywords": ["k"] * 201}}, "transcription.keywords"),
        ({"transcription": {"keywords": ["k" * 101]}}, "transcription.keywords"),
        ({"transcription": {"prompt": {"id": "p"}}}, "transcription.prompt"),
        ({"transcription": {"prompt": "p" * 4001}}, "transcription.prompt"),
    ],
)
def test_values_that_are_not_taken_are_named(given: Any, param: str) -> None:
    before = updated({"transcription": {"prompt": "kept"}})
    with pytest.raises(EventError) as refused:
        update(before, {"audio": {"input": {"noise_reduction": 1, **given}}})
    assert refused.value.param == f"{FOUND}.{param}"
    assert refused.value.param in refused.value.message or "language" in refused.value.message


@pytest.mark.parametrize(
    ("session", "param"),
    [
        ({"type": "realtime"}, "session.type"),
        ({"audio": []}, "session.audio"),
        ({"audio": {"input": "x"}}, "session.audio.input"),
        ({"input_audio_format": "mp3"}, "session.input_audio_format"),
        ({"input_audio_transcription": {"language": "xx"}}, "session.input_audio_transcription.language"),
    ],
)
def test_sessions_that_are_not_taken_are_named(session: Any, param: str) -> None:
    with pytest.raises(EventError) as refused:
        update(SessionSettings(), session)
    assert refused.value.param == param


@pytest.mark.asyncio(loop_scope="session")
async def test_created_and_updated_say_what_is_in_force(gateway: GatewayServer, service: ContractService) -> None:
    async with realtime(gateway.port, format_=None) as caller:
        (created,) = caller.events
        session = created["session"]
        assert session["id"].startswith("sess_") and session["object"] == "realtime.transcription_session"
        assert session["type"] == "transcription" and session["expires_at"] > 1_700_000_000
        assert session["audio"] == {"input": DEFAULTS}
        found = await caller.update(format={"type": "audio/pcma"}, include=["x"], transcription={"model": "any"})
        assert found["format"] == {"type": "audio/pcma"}
        transcription: Event = {"model": "any", "language": None, "languages": [], "keywords": [], "prompt": None}
        assert found["transcription"] == transcription
        assert caller.events[-1]["session"]["id"] == session["id"]


@pytest.mark.asyncio(loop_scope="session")
async def test_the_older_update_has_the_older_answer(gateway: GatewayServer, service: ContractService) -> None:
    older: Event = {
        "input_audio_format": "g711_ulaw",
        "input_audio_transcription": {"model": "gpt-4o-transcribe", "prompt": "expect names", "language": "en"},
        "turn_detection": {
            "type": "server_vad",
            "threshold": 0.5,
            "prefix_padding_ms": 300,
            "silence_duration_ms": 700,
        },
        "input_audio_noise_reduction": {"type": "near_field"},
        "include": ["item.input_audio_transcription.logprobs"],
    }
    async with realtime(gateway.port, format_=None) as caller:
        await caller.send("transcription_session.update", session=older)
        session = (await caller.next("transcription_session.updated"))["session"]
        await caller.append(bytes(1600))
        await caller.commit()
        await caller.completed()
    assert session["input_audio_format"] == "g711_ulaw"
    assert session["turn_detection"] == {"type": "server_vad", "silence_duration_ms": 700}
    assert session["input_audio_transcription"]["prompt"] == "expect names"
    assert session["audio"]["input"]["format"] == {"type": "audio/pcmu"}
    (config,) = [stream.config for stream in service.script.streams]
    assert (config.format.sample_rate_hertz, config.options.language, config.options.prompt) == (
        8000,
        "en",
        "expect names",
    )
    assert config.endpoint_silence.ToMilliseconds() == 700 and config.interim_results


@pytest.mark.asyncio(loop_scope="session")
async def test_a_language_that_the_model_lacks_is_named(gateway: GatewayServer, service: ContractService) -> None:
    service.script.snapshot_json = json.dumps({"languages": ["en"]})
    async with realtime(gateway.port, format_=None) as caller:
        session = {"audio": {"input": {"transcription": {"languages": ["en", "German"]}}}}
        await caller.send("session.update", session=session, event_id="mine")
        error = (await caller.next("error"))["error"]
        assert error["param"] == f"{FOUND}.transcription.languages" and "'de'" in error["message"]
        assert error["event_id"] == "mine"
        assert (await caller.update(transcription={"language": "English"}))["transcription"]["language"] == "en"
