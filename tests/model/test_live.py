"""Live streams with a real model and real speech, in real time."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from protos.stt.v1 import speech_pb2 as pb
from stt_server.engine.whisper import WhisperRecognizer
from stt_server.rpc.convert import seconds
from tests.support.no_speech import corpus
from tests.support.services import running, stub_of, transcribe
from tests.support.speech import RATE, Samples, clip, samples_of, silence, wav_of, words
from tests.support.streams import audio, config, finals, kind_of, offsets, opened, pcm, stream, timed_recording

pytestmark = pytest.mark.model

NAMES = ("quick_brown_fox", "counting", "hello_world")


def letters(text: str) -> str:
    """Words without spaces: a model may write counting as `1-2-3` or as `123`."""
    return words(text).replace(" ", "")


async def test_a_conversation_in_real_time(tmp_path: Path, tiny_en: WhisperRecognizer) -> None:
    samples, truth = timed_recording(*NAMES, lead=0.7)
    async with running(tmp_path, "primary", tiny_en) as service, stub_of(service) as stub:
        caller = await opened(stub)
        await asyncio.wait_for(caller.send_in_real_time(samples), 60)
        responses = await caller.finish()
        alone = [(await transcribe(stub, wav_of(samples_of(clip("en", name)))))[0].text for name in NAMES]
    assert [letters(final.result.text) for final in finals(responses)] == [letters(text) for text in alone]
    order = [kind_of(response) for response in responses]
    starts = [at for at, kind in enumerate(order) if kind == "started"]
    assert len(starts) == 3
    for begin, end in zip(starts, [*starts[1:], len(order)]):
        assert order[end - 2 : end] == ["ended", "final"]
        assert set(order[begin + 1 : end - 2]) == {"interim"}, "each utterance had interims"
    assert offsets(responses, "started") == pytest.approx([begin for begin, _ in truth], abs=0.3)
    assert offsets(responses, "ended") == pytest.approx([end for _, end in truth], abs=0.3)
    for number in range(3):
        stable = [r.interim.stable_text for r in responses if kind_of(r) == "interim" and r.interim.utterance == number]
        assert all(later.startswith(earlier) for earlier, later in pairwise(stable))
    processed = [seconds(response.audio_processed) for response in responses]
    assert processed == sorted(processed)


@pytest.mark.parametrize("language", ["es", "fr"])
async def test_the_language_of_an_utterance_is_detected(tmp_path: Path, base: WhisperRecognizer, language: str) -> None:
    samples = np.concatenate([silence(2.5), samples_of(clip(language, "pangrama")), silence(1)])
    async with running(tmp_path, "primary", base) as service, stub_of(service) as stub:
        free = await stream(stub, config(), audio(pcm(samples)))
        options = pb.TranscribeOptions(candidate_languages=["en", language], word_timestamps=True)
        chosen = await stream(stub, config(options=options), audio(pcm(samples)))
    assert {final.result.language for final in finals(free)} == {language}
    for final in finals(chosen):
        assert final.result.language == language
        for word in (word for segment in final.result.segments for word in segment.words):
            assert 2.0 <= seconds(word.start) <= seconds(word.end) <= len(samples) / RATE


async def test_noise_has_no_text(tmp_path: Path, tiny_en: WhisperRecognizer) -> None:
    async with running(tmp_path, "primary", tiny_en) as service, stub_of(service) as stub:
        for name, samples in corpus():
            if name.startswith("melody"):
                continue  # voice activity detection takes it for humming, which a model may transcribe
            responses: list[Any] = await stream(stub, config(), *_messages(samples))
            texts = [final.result.text for final in finals(responses)]
            assert not any(texts), name


def _messages(samples: Samples) -> list[pb.StreamTranscribeRequest]:
    data = pcm(samples)
    return [audio(data[at : at + 2**20]) for at in range(0, len(data), 2**20)]
