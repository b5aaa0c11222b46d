"""Both services with real models and speech, through the SDK and REST."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from stt_client import SttClient
from stt_client.errors import FallbackFailed
from stt_server.app import Service
from stt_server.engine.whisper import WhisperRecognizer
from tests.support.services import running
from tests.support.speech import clip, samples_of, silence, wav_of, words

pytestmark = pytest.mark.model

ENGLISH = clip("en", "quick_brown_fox")
SENTENCE = "the quick brown fox jumps over the lazy dog"
STOPPED = {"unavailable", "circuit_open"}
"""Fallback errors of a stopped fallback, before and after the circuit opens."""


@asynccontextmanager
async def pair(
    folder: Path, small: WhisperRecognizer, large: WhisperRecognizer, **keys: Any
) -> AsyncIterator[tuple[SttClient, Service, Service]]:
    """Start a pair; yields a client of the primary, the primary, and the fallback."""
    async with AsyncExitStack() as stack:
        fallback = await stack.enter_async_context(running(folder, "fallback", large))
        url = f"grpc://127.0.0.1:{fallback.grpc_port}"
        primary = await stack.enter_async_context(
            running(folder, "primary", small, FALLBACK_URL=url, HTTP_PORT=0, **keys)
        )
        client = await stack.enter_async_context(SttClient(f"127.0.0.1:{primary.grpc_port}"))
        yield client, primary, fallback


async def post(service: Service, audio: bytes, **fields: str) -> httpx.Response:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{service.http_port}", timeout=60) as rest:
        return await rest.post("/v1/transcribe", files={"audio": ("clip.wav", audio)}, data=fields)


async def test_confident_clip_is_reported_alike_over_grpc_and_rest(
    tmp_path: Path, base: WhisperRecognizer, base_with_beams: WhisperRecognizer
) -> None:
    async with pair(tmp_path, base, base_with_beams) as (client, primary, _):
        transcript = await client.transcribe(ENGLISH)
        response = await post(primary, ENGLISH.read_bytes())
        exposition = (await client.metrics()).exposition
    assert words(transcript.text) == words(response.json()["text"]) == SENTENCE
    assert (transcript.language, response.json()["language"]) == ("en", "en")
    assert not transcript.routing.fallback_used
    assert transcript.routing.reasons == ()
    headers = {name.lower(): value for name, value in response.headers.items()}
    for name in ("x-fallback-used", "x-conf-below", "x-lang-check-applicable", "x-final-model", "x-route-reason"):
        assert headers[name] == transcript.metadata[name], name
    assert headers["x-route-reason"] == "none"
    assert 'stt_fallback_total{result="skipped"} 2.0' in exposition
    assert 'stt_requests_total{endpoint="/v1/transcribe"} 2.0' in exposition


async def test_subtitles_of_speech_can_be_read(
    tmp_path: Path, base: WhisperRecognizer, base_with_beams: WhisperRecognizer
) -> None:
    names = ("quick_brown_fox", "counting", "hello_world")
    speech = np.concatenate([np.concatenate([samples_of(clip("en", name)), silence(0.5)]) for name in names])
    async with pair(tmp_path, base, base_with_beams) as (_, primary, __):
        text = (await post(primary, wav_of(speech), response_format="text")).text
        srt = (await post(primary, wav_of(speech), response_format="srt")).text
    cues = [cue.splitlines() for cue in srt.split("\n\n")]
    assert words(" ".join(line for cue in cues for line in cue[2:])) == words(text)
    assert len(cues) >= len(names)
    assert all(len(cue) <= 4 and len(line) <= 42 for cue in cues for line in cue[2:])
    times = [tuple(map(seconds_of, cue[1].split(" --> "))) for cue in cues]
    assert all(1 <= end - start <= 7 for start, end in times)


def seconds_of(clock: str) -> float:
    hours, minutes, seconds = clock.replace(",", ".").split(":")
    return int(hours) * 3600 + int(minutes) * 60 + float(seconds)


async def test_threshold_of_one_escalates(
    tmp_path: Path, base: WhisperRecognizer, base_with_beams: WhisperRecognizer
) -> None:
    async with pair(tmp_path, base, base_with_beams, CONF_LOGPROB_THRESHOLD=1.0) as (client, primary, fallback):
        transcript = await client.transcribe(ENGLISH)
        assert transcript.routing.fallback_used
        assert transcript.routing.reasons == ("low_logprob",)
        assert words(transcript.text) == SENTENCE
        assert transcript.routing.primary_confidence is not None
        assert transcript.routing.fallback_confidence is not None
        assert transcript.timings.fallback_infer > 0

        await fallback.stop()
        with pytest.raises(FallbackFailed) as failed:
            await client.transcribe(ENGLISH)
        assert failed.value.fallback_error in STOPPED
        response = await post(primary, ENGLISH.read_bytes())
        assert response.status_code == 502
        assert response.headers["X-Fallback-Error"] in STOPPED


async def test_degrade_returns_the_primarys_text_without_fallback(
    tmp_path: Path, base: WhisperRecognizer, base_with_beams: WhisperRecognizer
) -> None:
    keys = {"CONF_LOGPROB_THRESHOLD": 1.0, "FALLBACK_ON_ERROR": "degrade"}
    async with pair(tmp_path, base, base_with_beams, **keys) as (client, _, fallback):
        await fallback.stop()
        transcript = await client.transcribe(ENGLISH)
    assert words(transcript.text) == SENTENCE
    assert transcript.routing.fallback_error in STOPPED
    assert not transcript.routing.fallback_used


async def test_forced_language_disables_the_language_check(
    tmp_path: Path, base: WhisperRecognizer, base_with_beams: WhisperRecognizer
) -> None:
    strict = {"CONF_LANGPROB_THRESHOLD": 1.0, "CONF_LOGPROB_THRESHOLD": 0.0}
    async with pair(tmp_path, base, base_with_beams, **strict) as (client, _, __):
        detected = await client.transcribe(ENGLISH)
        forced = await client.transcribe(ENGLISH, language="en")
    assert detected.routing.reasons == ("low_language_probability",)
    assert detected.routing.language_check_applicable
    assert forced.routing.reasons == ()
    assert not forced.routing.language_check_applicable
    assert forced.language_probability is None


async def test_low_confidence_text_is_recognized_by_the_larger_model(
    tmp_path: Path, tiny_en: WhisperRecognizer, base: WhisperRecognizer
) -> None:
    """tiny.en transcribes Spanish as English with low confidence; the multilingual model knows the language."""
    async with pair(tmp_path, tiny_en, base) as (client, _, __):
        transcript = await client.transcribe(clip("es", "pangrama"))
    assert transcript.routing.fallback_used
    assert transcript.language == "es"
    assert "feliz cardillo y kiwi" in words(transcript.text)


async def test_silence_and_noise_give_an_empty_text(
    tmp_path: Path, base: WhisperRecognizer, base_with_beams: WhisperRecognizer
) -> None:
    noise = np.random.default_rng(7).normal(0, 0.05, 16000 * 4).astype(np.float32)
    async with pair(tmp_path, base, base_with_beams) as (client, _, __):
        for audio in (silence(4), noise):
            transcript = await client.transcribe(wav_of(audio))
            assert transcript.text == ""
            assert not transcript.routing.fallback_used
            assert not transcript.routing.confidence_below


async def test_two_minutes_lose_no_sentence_at_chunk_boundaries(
    tmp_path: Path, base: WhisperRecognizer, base_with_beams: WhisperRecognizer
) -> None:
    fox, hello = samples_of(ENGLISH), samples_of(clip("en", "hello_world"))
    round_ = [fox, silence(0.4), hello, silence(0.7)]
    rounds = int(120 / (sum(map(len, round_)) / 16000)) + 1
    audio = np.concatenate(round_ * rounds)
    assert len(audio) / 16000 >= 120
    async with pair(tmp_path, base, base_with_beams) as (client, _, __):
        transcript = await client.transcribe(wav_of(audio), language="en", routing="primary", timeout=280)
    text = words(transcript.text)
    assert text.count(SENTENCE) == rounds
    assert text.count("hello world") == rounds
    starts = [segment.start for segment in transcript.segments]
    assert starts == sorted(starts)
    assert transcript.audio_duration == pytest.approx(len(audio) / 16000, abs=0.01)
    assert transcript.segments[-1].end == pytest.approx(transcript.audio_duration, abs=1.5)


async def test_short_clip_does_not_wait_for_a_long_recording(
    tmp_path: Path, base: WhisperRecognizer, base_with_beams: WhisperRecognizer
) -> None:
    long = np.concatenate([samples_of(ENGLISH), silence(4.0)] * 8)
    async with pair(tmp_path, base, base_with_beams, MAX_CONCURRENCY=1) as (client, _, __):
        recording = asyncio.ensure_future(client.transcribe(wav_of(long), language="en", routing="primary"))
        await asyncio.sleep(0)
        short = await client.transcribe(ENGLISH, language="en", routing="primary")
        assert not recording.done()
        transcript = await recording
    assert words(short.text) == SENTENCE
    assert words(transcript.text).count(SENTENCE) == 8
