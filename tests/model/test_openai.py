"""OpenAI's audio API with real models and speech, through the official clients for Python and Node."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest

from stt_server.app import Service
from stt_server.engine.whisper import WhisperRecognizer
from tests.support.node import NODE, need_node, run_node
from tests.support.services import running
from tests.support.speech import clip, samples_of, silence, wav_of, words

pytestmark = pytest.mark.model

KEY = "the-key-of-the-official-clients"
SENTENCE = "the quick brown fox jumps over the lazy dog"


@asynccontextmanager
async def pair(
    folder: Path, small: WhisperRecognizer, large: WhisperRecognizer
) -> AsyncIterator[tuple[Service, httpx.AsyncClient]]:
    """A primary with its fallback, and a client of its gateway with the key."""
    async with (
        running(folder, "fallback", large) as fallback,
        running(
            folder,
            "primary",
            small,
            FALLBACK_URL=f"grpc://127.0.0.1:{fallback.grpc_port}",
            HTTP_PORT=0,
            API_KEYS=KEY,
        ) as primary,
        httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{primary.http_port}", headers={"Authorization": f"Bearer {KEY}"}, timeout=120
        ) as rest,
    ):
        yield primary, rest


async def rest_json(rest: httpx.AsyncClient, audio: bytes, **fields: str) -> Any:
    return (await rest.post("/v1/transcribe", files={"audio": ("a", audio)}, data=fields)).json()


async def rest_text(rest: httpx.AsyncClient, audio: bytes, response_format: str) -> str:
    fields = {"response_format": response_format}
    return (await rest.post("/v1/transcribe", files={"audio": ("a", audio)}, data=fields)).text


async def test_python_client_gets_what_rest_gives(
    tmp_path: Path, base: WhisperRecognizer, base_with_beams: WhisperRecognizer
) -> None:
    english = [samples_of(clip("en", name)) for name in ("quick_brown_fox", "counting", "hello_world")]
    # Over 30 s: several chunks.
    long = wav_of(np.concatenate([part for samples in english * 4 for part in (samples, silence(1.0))]))
    recordings = [clip("en", "quick_brown_fox").read_bytes(), clip("es", "pangrama").read_bytes(), long]
    async with pair(tmp_path, base, base_with_beams) as (service, rest):
        client = openai.AsyncOpenAI(
            base_url=f"http://127.0.0.1:{service.http_port}/v1", api_key=KEY, _strict_response_validation=True
        )
        create = client.audio.transcriptions.create
        for audio in recordings:
            ours = await rest_json(rest, audio, word_timestamps="true")
            plain = await create(file=("a.wav", audio), model="whisper-1")
            assert plain.text == ours["text"]
            verbose = await create(
                file=audio, model="whisper-1", response_format="verbose_json", timestamp_granularities=["word"]
            )
            assert verbose.text == ours["text"]
            assert verbose.duration == ours["audio_duration"]
            assert verbose.segments is not None and verbose.words is not None
            for theirs, segment in zip(verbose.segments, ours["segments"], strict=True):
                assert (theirs.text, theirs.start, theirs.end) == (segment["text"], segment["start"], segment["end"])
            expected = [(word["text"], word["start"], word["end"]) for s in ours["segments"] for word in s["words"]]
            assert [(word.word, word.start, word.end) for word in verbose.words] == expected
            events = [event async for event in await create(file=audio, model="whisper-1", stream=True)]
            deltas = [event.delta for event in events if event.type == "transcript.text.delta"]
            assert "".join(deltas) == getattr(events[-1], "text", "") == ours["text"]
        assert len(deltas) > 1
        for name in ("text", "srt", "vtt"):
            text = await create(file=recordings[0], model="whisper-1", response_format=name)
            assert text == await rest_text(rest, recordings[0], name)
        assert words((await create(file=recordings[0], model="", language="English")).text) == SENTENCE
        translated = await client.audio.translations.create(file=recordings[1], model="whisper-1")
        assert translated.text == (await rest_json(rest, recordings[1], task="translate"))["text"] != ""
        silent = await create(file=wav_of(silence(2)), model="whisper-1", response_format="verbose_json")
        assert (silent.text, silent.segments) == ("", [])


async def test_node_client_gets_what_rest_gives(
    tmp_path: Path, base: WhisperRecognizer, base_with_beams: WhisperRecognizer
) -> None:
    need_node("openai")
    speech = clip("en", "quick_brown_fox")
    audio = speech.read_bytes()
    async with pair(tmp_path, base, base_with_beams) as (service, rest):
        url = f"http://127.0.0.1:{service.http_port}/v1"
        status, out, err = await run_node(NODE / "openai_audio.js", url, KEY, str(speech))
        assert (status, err) == (0, "")
        found = json.loads(out)
        ours = await rest_json(rest, audio, word_timestamps="true")
        for name in ("text", "srt", "vtt"):
            assert found[name] == await rest_text(rest, audio, name)
    assert words(ours["text"]) == SENTENCE
    assert found["json"]["text"] == found["verbose"]["text"] == found["text"] == ours["text"]
    assert words(found["hinted"]["text"]) == words(found["translation"]["text"]) == SENTENCE
    assert found["json"]["languages"] == [{"code": "en"}]
    assert found["verbose"]["language"] == "english"
    assert [(word["start"], word["end"]) for word in found["verbose"]["words"]] == [
        (word["start"], word["end"]) for segment in ours["segments"] for word in segment["words"]
    ]
    *deltas, done = found["events"]
    assert "".join(delta["delta"] for delta in deltas) == done["text"] == ours["text"]
    assert found["models"] == ["whisper-1", service.instruments.snapshot()["model"]]
    assert found["retrieved"] == found["models"][1]
    failures = {name: (it["name"], it["status"], it["code"], it["param"]) for name, it in found["failures"].items()}
    assert failures == {
        "key": ("AuthenticationError", 401, "invalid_api_key", None),
        "language": ("BadRequestError", 400, "invalid_value", "language"),
        "format": ("BadRequestError", 400, "invalid_value", "response_format"),
        "streamed": ("BadRequestError", 400, "invalid_value", "stream"),
        "model": ("NotFoundError", 404, "model_not_found", "model"),
        "audio": ("BadRequestError", 400, "unsupported_audio", "file"),
        "size": ("APIError", 413, "payload_too_large", "file"),
    }
    assert all(it["requestID"] for it in found["failures"].values())
