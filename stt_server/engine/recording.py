"""Recognize all chunks of a recording, in the language of most of them unless they surely have another one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any

from stt_server.engine.batcher import Batcher
from stt_server.engine.queue import Owner, Priority
from stt_server.engine.text_checks import ends_sentence
from stt_server.engine.types import Chunk, ChunkJob, DecodeOptions, Hypothesis, speech_seconds

LANGUAGE_CHUNKS = 4
"""The language is detected on one of this many first chunks: the one that most certainly holds the most speech."""


async def recognize_chunks(
    batcher: Batcher,
    chunks: Sequence[Chunk],
    options: DecodeOptions,
    owner: Owner,
    priority: Priority,
    *,
    detect_language: bool,
    on_hypothesis: Callable[[int, Hypothesis], None] = lambda index, hypothesis: None,
) -> list[Hypothesis]:
    """Recognize chunks concurrently; the hypotheses are in the order of the chunks.

    Args:
        detect_language: if none was requested, detect it on one chunk first and expect it of the others.
        on_hypothesis: called with the index of each chunk, once it is recognized. What it raises ends the recognition.

    Raises:
        EngineError: the model failed.
        DeadlineExceeded: no time was left for an inference.
    """
    found: dict[int, Hypothesis] = {}
    detects = detect_language and options.language is None
    expected = ""

    async def recognize(index: int) -> None:
        job = ChunkJob(
            chunks[index],
            options,
            expected_language=expected,
            may_change_language=detects,
            begins=index == 0 and (not options.context or ends_sentence(options.context)),
        )
        found[index] = await batcher.recognize(job, owner, priority)
        on_hypothesis(index, found[index])

    if chunks and detects:
        early = range(min(LANGUAGE_CHUNKS, len(chunks)))
        first = max(early, key=lambda index: (chunks[index].speech_certain, speech_seconds(chunks[index])))
        await recognize(first)
        expected = found[first].language
    await run_all(recognize(index) for index in range(len(chunks)) if index not in found)
    return [found[index] for index in range(len(chunks))]


async def run_all(work: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Run coroutines concurrently; the first that fails cancels the others."""
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
