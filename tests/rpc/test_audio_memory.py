"""Decoded recordings wait for one another, so that their memory is bounded."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np

from protos.stt.v1 import speech_pb2 as pb
from stt_server.testing.paths import SPEECH
from stt_server.testing.scripted_model import ScriptedModel
from tests.support.long_recordings import recording
from tests.support.services import running, stub_of, transcribe, until
from tests.support.speech import samples_of, silence, wav_of


async def decoded(call: Any) -> None:
    """Read a call's messages until its recording is decoded."""
    while not (await call.read()).progress.HasField("audio_duration"):
        pass


async def test_a_third_long_recording_is_decoded_once_another_is_answered(tmp_path: Path) -> None:
    model = ScriptedModel()
    model.open.clear()
    request = pb.TranscribeRequest(audio=wav_of(np.concatenate([samples_of(SPEECH)] * 2)))
    keys = {"MAX_AUDIO_SECONDS": 6, "MAX_CONCURRENCY": 4}
    async with running(tmp_path, "primary", model, **keys) as service, stub_of(service) as stub:
        first, second = (stub.TranscribeWithProgress(request, timeout=20) for _ in range(2))
        await asyncio.gather(decoded(first), decoded(second))
        third = stub.TranscribeWithProgress(request, timeout=20)
        for _ in range(2):
            assert not (await third.read()).progress.HasField("audio_duration")
        first.cancel()
        await decoded(third)
        model.open.set()


async def test_what_is_no_speech_is_freed_once_chunks_are_cut(tmp_path: Path) -> None:
    model = ScriptedModel()
    async with running(tmp_path, "primary", model) as service, stub_of(service) as stub:
        await transcribe(stub, recording(1) + wav_of(silence(30))[44:])
        budget = service.backend.pipeline._budget
        await until(lambda: budget.held == 0)
    (job,) = model.jobs
    assert job.chunk.samples.base is None, "a copy, which doesn't keep the recording"
    assert isinstance(job.chunk.samples, np.ndarray)
