"""Real speech in the formats of devices, through a service with a real model."""

from __future__ import annotations

from pathlib import Path

import httpx
import numpy as np
import pytest

from protos.stt.v1 import speech_pb2 as pb
from stt_server.app import Service
from stt_server.engine.whisper import WhisperRecognizer
from stt_server.testing.audio_samples import encode
from tests.support.services import running, stub_of
from tests.support.speech import RATE, clip, samples_of, silence, words
from tests.support.streams import audio, config, finals, stream
from tests.unit.test_audio_devices import film, resampled

pytestmark = pytest.mark.model

SPEECH = samples_of(clip("en", "quick_brown_fox"))
SENTENCE = "the quick brown fox jumps over the lazy dog"


def inputs() -> dict[str, bytes]:
    speech48 = resampled(SPEECH, 48_000)
    opposite = np.stack([SPEECH, -SPEECH])
    mp3 = encode(SPEECH, RATE, "mp3", "libmp3lame", muxer={"id3v2_version": "0", "write_xing": "0"})
    return {
        "a.amr": encode(resampled(SPEECH, 8000), 8000, "amr", "libopencore_amrnb", bit_rate=12_200),
        "a.wma": encode(SPEECH, RATE, "asf", "wmav2", bit_rate=32_000),
        "a.avi": film("avi", [("ac3", speech48)]),
        "a.mkv": film("matroska", [("flac", np.zeros_like(speech48)), ("flac", speech48)], default=0),
        "a.flac": encode(opposite, RATE, "flac", "flac", layout="stereo"),
        "a.mp3": bytes(700) + mp3,
    }


async def test_speech_in_the_formats_of_devices_is_recognized(tmp_path: Path, base: WhisperRecognizer) -> None:
    async with running(tmp_path, "primary", base, HTTP_PORT=0) as service:
        texts = {name: await text_of(service, name, data) for name, data in inputs().items()}
    assert {name: words(text) for name, text in texts.items()} == dict.fromkeys(texts, SENTENCE)


async def text_of(service: Service, name: str, data: bytes) -> str:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{service.http_port}", timeout=60) as rest:
        response = await rest.post("/v1/transcribe", files={"audio": (name, data)}, data={"language": "en"})
    return str(response.raise_for_status().json()["text"])


async def test_alaw_and_opposite_channels_are_recognized_live(tmp_path: Path, base: WhisperRecognizer) -> None:
    telephone = resampled(np.concatenate([SPEECH, silence(1.0)]).astype(np.float32), 8000)
    wav = encode(np.stack([telephone, -telephone]), 8000, "wav", "pcm_alaw", layout="stereo")
    codes = wav[wav.index(b"data") + 8 :]
    format_ = pb.AudioFormat(encoding=pb.AUDIO_ENCODING_ALAW, sample_rate_hertz=8000, channel_count=2)
    async with running(tmp_path, "primary", base) as service, stub_of(service) as stub:
        upload = await stub.Transcribe(pb.TranscribeRequest(audio=codes, format=format_))
        responses = await stream(stub, config(format=format_), audio(codes))
    assert words(upload.text) == SENTENCE
    assert [words(final.result.text) for final in finals(responses)] == [SENTENCE]
