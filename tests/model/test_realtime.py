"""Realtime sessions of the official clients, with real models and real speech."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import ssl
import wave
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types.realtime import ConversationItemInputAudioTranscriptionCompletedEvent, RealtimeServerEvent
from pydantic import TypeAdapter

from stt_server.app import Service
from stt_server.engine.whisper import WhisperRecognizer
from stt_server.testing.audio_samples import encode
from tests.support.certificates import authority, signed
from tests.support.node import NODE, need_node, run_node
from tests.support.services import running
from tests.support.speech import Samples, clip, linear16, samples_of, silence, words

pytestmark = pytest.mark.model

RATE = 24000
KEY = "sk-of-the-test"
TRANSCRIPTION = "conversation.item.input_audio_transcription"
QUERY = {"intent": "transcription"}
VALID: TypeAdapter[Any] = TypeAdapter(RealtimeServerEvent)
CLIPS = ("quick_brown_fox", "counting", "hello_world")


@asynccontextmanager
async def pair(folder: Path, small: WhisperRecognizer, large: WhisperRecognizer, **keys: Any) -> AsyncIterator[Service]:
    """The primary of a pair that requires `KEY`."""
    async with running(folder, "fallback", large) as fallback:
        url = f"grpc://127.0.0.1:{fallback.grpc_port}"
        async with running(
            folder, "primary", small, FALLBACK_URL=url, HTTP_PORT=0, API_KEYS=f"test:{KEY}", **keys
        ) as primary:
            yield primary


def base_url(service: Service) -> str:
    return f"http://127.0.0.1:{service.http_port}/v1"


async def by_rest(service: Service, audio: bytes) -> str:
    """Words that `POST /v1/transcribe` returns for a file."""
    async with httpx.AsyncClient(timeout=120) as http:
        headers = {"Authorization": f"Bearer {KEY}"}
        answer = await http.post(f"{base_url(service)}/transcribe", files={"audio": ("a.wav", audio)}, headers=headers)
    return words(answer.json()["text"])


def wav24(pcm: bytes) -> bytes:
    out = BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(pcm)
    return out.getvalue()


def pieces(audio: bytes, size: int = 4801) -> Iterator[str]:
    """Base64 of the audio in pieces; an odd size cuts within samples."""
    for at in range(0, len(audio), size):
        yield base64.b64encode(audio[at : at + size]).decode()


def session(**audio_input: Any) -> Any:
    return {"type": "transcription", "audio": {"input": audio_input}}


async def test_python_client_with_server_vad(
    tmp_path: Path, base: WhisperRecognizer, base_with_beams: WhisperRecognizer
) -> None:
    spoken = [samples_of(clip("en", name)) for name in CLIPS]
    audio = linear16(np.concatenate([part for samples in spoken for part in (samples, silence(1.2))]), RATE)
    async with pair(tmp_path, base, base_with_beams) as service:
        expected = [await by_rest(service, wav24(linear16(samples, RATE))) for samples in spoken]
        client = AsyncOpenAI(base_url=base_url(service), api_key=KEY)
        async with client.realtime.connect(model="gpt-4o-transcribe", extra_query=QUERY) as connection:
            await connection.session.update(
                session=session(transcription={"model": "gpt-4o-transcribe"}, turn_detection={"type": "server_vad"})
            )

            async def speak() -> None:
                """In real time, as deltas come only while the service keeps up."""
                began, sent = asyncio.get_running_loop().time(), 0.0
                for piece in pieces(audio):
                    sent += len(piece) * 3 / 4 / (2 * RATE)
                    await asyncio.sleep(max(0.0, began + sent - asyncio.get_running_loop().time()))
                    await connection.input_audio_buffer.append(audio=piece)

            speaking = asyncio.create_task(speak())
            events: list[Any] = []
            while sum(event["type"] == f"{TRANSCRIPTION}.completed" for event in events) < len(CLIPS):
                events.append(json.loads(await asyncio.wait_for(connection.recv_bytes(), 60)))
            await speaking
    completed = [event for event in events if event["type"] == f"{TRANSCRIPTION}.completed"]
    assert [words(event["transcript"]).replace(" ", "") for event in completed] == [
        text.replace(" ", "") for text in expected
    ]
    assert "quick brown fox" in expected[0]
    assert {code["code"] for event in completed for code in event["languages"]} == {"en"}
    for event in events:
        VALID.validate_python(event, strict=True)
    assert any(event["type"] == f"{TRANSCRIPTION}.delta" for event in events)
    starts = [event["audio_start_ms"] for event in events if event["type"].endswith("speech_started")]
    assert starts == sorted(starts) and len(starts) == len(CLIPS)


@pytest.mark.parametrize(("format_", "codec"), [("audio/pcmu", "pcm_mulaw"), ("audio/pcma", "pcm_alaw")])
async def test_sync_python_client_commits_telephone_audio(
    tmp_path: Path, base: WhisperRecognizer, base_with_beams: WhisperRecognizer, format_: str, codec: str
) -> None:
    samples = _at_8_khz(samples_of(clip("en", "quick_brown_fox")))
    raw = encode(samples, 8000, codec.removeprefix("pcm_"), codec)
    async with pair(tmp_path, base, base_with_beams) as service:
        expected = await by_rest(service, encode(samples, 8000, "wav", codec))
        found = await asyncio.to_thread(_commit, base_url(service), raw, format_)
    assert words(found) == expected and "brown fox" in expected


def _at_8_khz(samples: Samples) -> Samples:
    found: Samples = np.frombuffer(linear16(samples, 8000), "<i2").astype(np.float32) / np.float32(32768)
    return found


def _commit(url: str, raw: bytes, format_: str) -> str:
    """Transcribe raw audio as one item, with the synchronous client."""
    with OpenAI(base_url=url, api_key=KEY).realtime.connect(model="whisper-1", extra_query=QUERY) as connection:
        connection.session.update(session=session(format={"type": format_}, turn_detection=None))
        for piece in pieces(raw):
            connection.input_audio_buffer.append(audio=piece)
        connection.input_audio_buffer.commit()
        for event in connection:
            assert event.type != "error", event
            if isinstance(event, ConversationItemInputAudioTranscriptionCompletedEvent):
                return event.transcript
    raise AssertionError("the session ended without a transcript")


@pytest.mark.parametrize("kind", ["ws", "browser"])
async def test_node_client_over_tls(
    tmp_path: Path, base: WhisperRecognizer, base_with_beams: WhisperRecognizer, kind: str
) -> None:
    need_node("openai")
    ca = authority(tmp_path, "ca")
    server = signed(tmp_path, "server", ca)
    pcm = linear16(samples_of(clip("en", "quick_brown_fox")), RATE)
    (tmp_path / "speech.pcm").write_bytes(pcm)
    trusting = {**os.environ, "NODE_EXTRA_CA_CERTS": str(ca.cert)}
    async with pair(tmp_path, base, base_with_beams, TLS_CERT=server.cert, TLS_KEY=server.key) as service:
        url = f"https://localhost:{service.http_port}/v1"
        async with httpx.AsyncClient(timeout=120, verify=ssl.create_default_context(cafile=ca.cert)) as http:
            headers = {"Authorization": f"Bearer {KEY}"}
            answer = await http.post(f"{url}/transcribe", files={"audio": ("a.wav", wav24(pcm))}, headers=headers)
        arguments = (url, KEY, str(tmp_path / "speech.pcm"), kind)
        status, out, err = await run_node(NODE / "realtime.js", *arguments, env=trusting)
        refused = await run_node(NODE / "realtime.js", url, "wrong", *arguments[2:], env=trusting)
    assert (status, err) == (0, "")
    events = [json.loads(line) for line in out.splitlines()]
    for event in events:
        VALID.validate_python(event, strict=True)
    assert events[0]["type"] == "session.created"
    (completed,) = [event for event in events if event["type"] == f"{TRANSCRIPTION}.completed"]
    assert words(completed["transcript"]) == words(answer.json()["text"]) != ""
    assert completed["languages"] == [{"code": "en"}]
    assert refused[0] == 1 and "401" in refused[2]
