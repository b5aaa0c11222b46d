"""Text and language of recent utterances as context of the next one."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration

from stt_server.testing.scripted_model import Script, ScriptedModel
from tests.support.streams import (
    finals,
    opened,
    recording_of,
)

FOX = recording_of("quick_brown_fox")


async def test_confident_text_is_context_of_the_next_utterance(stub: Any, model: ScriptedModel) -> None:
    async def contexts(*scripts: Script) -> list[str]:
        model.jobs.clear()
        model.seen.clear()
        waiting = iter(scripts)
        model.by_job = lambda job: next(waiting)
        caller = await opened(stub, interim_results=False, endpoint_silence=Duration(nanos=300_000_000))
        for _ in scripts:
            await caller.send_audio(FOX, piece=8.0)
            await caller.next("final")
        await caller.finish()
        return [options.context for options in model.seen]

    sure, next_one = Script(text=" the first sentence is here"), Script(text=" and the second one follows")
    assert await contexts(sure, next_one) == ["", "the first sentence is here"]
    unsure = Script(text=" the first sentence is here", confidence=0.2)
    assert await contexts(unsure, next_one) == ["", ""]


async def test_an_echo_of_the_context_is_decoded_again_without_it(stub: Any, model: ScriptedModel) -> None:
    model.by_job = lambda job: Script(
        text=" the first sentence is here" if job.options.context or len(model.seen) < 2 else " another one"
    )
    caller = await opened(stub, interim_results=False)
    for _ in range(2):
        await caller.send_audio(FOX, piece=8.0)
        await caller.next("final")
    texts = [final.result.text for final in finals(await caller.finish())]
    assert texts == ["the first sentence is here", "another one"]


async def test_another_language_is_decoded_again_without_context(stub: Any, model: ScriptedModel) -> None:
    scripts = iter([Script(text=" the first sentence"), *[Script(text=" ein anderer Satz", language="de")] * 2])
    model.by_job = lambda job: next(scripts)
    caller = await opened(stub, interim_results=False)
    for _ in range(2):
        await caller.send_audio(FOX, piece=8.0)
        await caller.next("final")
    await caller.finish()
    assert [options.context for options in model.seen] == ["", "the first sentence", ""]


@pytest.mark.parametrize(("sure", "language"), [(0.9, "en"), (0.3, "de")])
async def test_a_doubtful_language_needs_the_higher_log_probability(
    stub: Any, model: ScriptedModel, sure: float, language: str
) -> None:
    german = Script(text=" ein anderer Satz", language="de", language_probability=0.72, confidence=0.6)
    scripts = iter([Script(text=" the first sentence"), german, german, Script(text=" and a nether", confidence=sure)])
    model.by_job = lambda job: next(scripts)
    caller = await opened(stub, interim_results=False)
    for _ in range(2):
        await caller.send_audio(FOX, piece=8.0)
        await caller.next("final")
    _, second = finals(await caller.finish())
    assert second.result.language == language
    assert second.result.text == (" and a nether" if language == "en" else " ein anderer Satz").strip()
    assert second.result.language_probability == pytest.approx(0.72)
    assert [options.language for options in model.seen] == [None, None, None, "en"]
