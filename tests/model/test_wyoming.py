"""The Wyoming protocol with real models and speech, in Home Assistant's order of events."""

from __future__ import annotations

from pathlib import Path

import httpx
import numpy as np
from pytest import mark
from wyoming.info import Describe, Info

from stt_server.audio.mono import FloatArray
from stt_server.engine.whisper import WhisperRecognizer
from stt_server.testing.wyoming_caller import speak
from tests.support.services import running
from tests.support.speech import RATE, clip, samples_of, silence, wav_of
from tests.support.wyoming_caller import calling, transcript

pytestmark = mark.model


def linear16(samples: FloatArray) -> bytes:
    return wav_of(samples)[44:]


async def test_transcripts_are_those_of_rest(
    tmp_path: Path, base: WhisperRecognizer, base_with_beams: WhisperRecognizer
) -> None:
    english = [samples_of(clip("en", name)) for name in ("quick_brown_fox", "counting", "hello_world")]
    # Over 30 s: several segments, of more than one chunk.
    long = np.concatenate([part for samples in english * 4 for part in (samples, silence(1.0))])
    recordings = [samples_of(clip("en", "quick_brown_fox")), samples_of(clip("es", "pangrama")), long, silence(2)]
    async with (
        running(tmp_path, "fallback", base_with_beams) as fallback,
        running(
            tmp_path,
            "primary",
            base,
            FALLBACK_URL=f"grpc://127.0.0.1:{fallback.grpc_port}",
            HTTP_PORT=0,
            WYOMING_PORT=0,
        ) as primary,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{primary.http_port}", timeout=120) as rest,
    ):
        async with calling(primary.wyoming_port) as client:
            await client.write_event(Describe().event())
            described = await client.read_event()
        expected, found = [], []
        for recording in recordings:
            answer = (await rest.post("/v1/transcribe", files={"audio": ("a.wav", wav_of(recording))})).json()
            expected.append((answer["text"], answer["language"] or None))
            async with calling(primary.wyoming_port) as client:
                await speak(client, linear16(recording), rate=RATE)
                given = await transcript(client)
                found.append((given.text, given.language))
        metrics = (await rest.get("/metrics")).text
    assert found == expected
    assert "quick brown fox" in found[0][0] and found[1][1] == "es" and found[3][0] == ""
    assert f'stt_requests_total{{endpoint="/v1/transcribe"}} {2 * len(recordings)}.0' in metrics
    assert described is not None
    (program,) = Info.from_event(described).asr
    assert (program.models[0].name, {"de", "en", "es"} - {*program.models[0].languages}) == ("scripted-primary", set())
