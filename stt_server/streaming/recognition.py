"""The story of one utterance of a live stream: drafts while it lasts, then the judgement of any recording."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import replace

from stt_server.admission.gate import Gate
from stt_server.admission.service_time import Load
from stt_server.audio import Chunk
from stt_server.engine.batcher import Batcher
from stt_server.engine.queue import Priority
from stt_server.engine.text_checks import words_of
from stt_server.engine.types import ChunkJob, DecodeOptions, Hypothesis
from stt_server.pipeline import Pipeline
from stt_server.request import Recognition, Request, Trace, Transcript
from stt_server.routing import Policy

_ECHO_WORDS = 4
"""A text that begins with so many words of what was said before repeats it."""

_SURE_LANGUAGE = 0.9
"""A change of language in the middle of a stream is believed at once from this probability on.

Short utterances are taken for another language now and then: base heard Welsh in Dutch (0.72) and Portuguese in Spanish
(0.74). Of 32 utterances in four languages, the surer text of both has 22.5 % word errors instead of 25.3.
"""


class Draft:
    """A recognition whose result is soon out of date."""

    def __init__(self, batcher: Batcher, gate: Gate, job: ChunkJob) -> None:
        self._batcher = batcher
        self._ticket = gate.ticket(Load.of([job.chunk]))
        self._task = asyncio.ensure_future(batcher.recognize(job, self._ticket, Priority.DRAFT))

    def renew(self, chunk: Chunk, options: DecodeOptions) -> bool:
        """Takes newer audio if the recognition has not begun; whether it has not."""
        return self._batcher.replace_draft(self._ticket, ChunkJob(chunk, options, draft=True))

    def cancel(self) -> None:
        self._task.cancel()

    async def result(self) -> Hypothesis:
        """Raises EngineError."""
        return await self._task


class Hearing:
    """The recognition of a whole utterance by this service's own model."""

    def __init__(self, live: Live, request: Request, chunk: Chunk, context_language: str, priority: Priority) -> None:
        self._request = request
        self._chunk = chunk
        self._pipeline = live.pipeline
        self._batcher = live.batcher
        self._gate = live.gate
        self._context_language = context_language
        self._priority = priority
        self._ticket = live.gate.ticket(Load.of([chunk]))
        self._task = asyncio.ensure_future(self._recognize())

    @property
    def trace(self) -> Trace:
        return self._request.trace

    def cancel(self) -> None:
        self._task.cancel()

    async def recognition(self) -> Recognition | None:
        """The own model's recognition, at its present priority; None if only the fallback is to answer."""
        return await asyncio.shield(self._task)

    async def transcript(self) -> Transcript:
        """The answer, as any recording gets it: from now on somebody waits.

        Raises:
            SttError: the model has failed, and the fallback too or there is none.
        """
        self._priority = Priority.ANSWER
        self._batcher.promote(self._ticket)
        with self._gate.counting(self._ticket):
            own = await self._task
        return await self._pipeline.cascade.settle(self._request, own, self._recognize_after_all)

    async def _recognize_after_all(self) -> Recognition:
        ticket = self._gate.ticket(Load.of([self._chunk]))
        with self._gate.counting(ticket):
            return await self._pipeline.recognize([self._chunk], self._request, ticket)

    async def _recognize(self) -> Recognition | None:
        if self._pipeline.cascade.skips_own_model(self._request.policy):
            return None
        options = self._request.options
        found = await self._recognize_with(options)
        if options.context and _is_misled(found, options.context, self._context_language):
            found = await self._recognize_with(replace(options, context=""))
        if options.context and _in_doubt(found, self._context_language):
            found = await self._recognize_in(self._context_language, found)
        return found

    async def _recognize_in(self, language: str, detected: Recognition) -> Recognition:
        """Hears it in the language of what was said before too; the text that the model is surer of stands.

        How sure it was of the language stays as it was detected.
        """
        forced = await self._recognize_with(replace(self._request.options, language=language))
        if not forced.hypotheses or _sureness(forced) <= _sureness(detected):
            return detected
        probability = detected.hypotheses[0].language_probability
        return replace(forced, hypotheses=(replace(forced.hypotheses[0], language_probability=probability),))

    async def _recognize_with(self, options: DecodeOptions) -> Recognition:
        request = replace(self._request, options=options)
        return await self._pipeline.recognize([self._chunk], request, self._ticket, self._priority)


class Live:
    """What live streams ask of the engine."""

    def __init__(self, pipeline: Pipeline, batcher: Batcher, gate: Gate) -> None:
        """
        Args:
            pipeline: with the rules of live streams, which degrade and have little time for the fallback.
        """
        self.pipeline = pipeline
        self.batcher = batcher
        self.gate = gate

    def check(self, options: DecodeOptions, policy: Policy) -> None:
        """Raises InvalidArgument, naming it, for what this service doesn't know."""
        self.pipeline.validate(options, policy)

    def draft(self, chunk: Chunk, options: DecodeOptions) -> Draft:
        """Begins a draft of an utterance so far."""
        return Draft(self.batcher, self.gate, ChunkJob(chunk, options, draft=True))

    def hear(
        self,
        chunk: Chunk,
        options: DecodeOptions,
        context_language: str,
        policy: Policy,
        request_id: str,
        *,
        ahead: bool,
    ) -> Hearing:
        """Begins the recognition of a whole utterance.

        Args:
            context_language: of `options.context`.
            ahead: it may yet turn out that the utterance goes on.
        """
        request = Request(chunk, options, request_id, policy, trace=Trace(audio_seconds=chunk.duration))
        return Hearing(self, request, chunk, context_language, Priority.SPECULATIVE if ahead else Priority.ANSWER)


def _is_misled(found: Recognition, context: str, language: str) -> bool:
    """Whether what was said before may have led the model astray: it repeats it or itself, or hears nothing, or the
    language is another one."""
    hypotheses = found.hypotheses
    if not hypotheses:
        return False
    said, before = words_of(hypotheses[0].text), words_of(context)
    return not said or hypotheses[0].looped or hypotheses[0].language != language or _echoes(said, before)


def _in_doubt(found: Recognition, language: str) -> bool:
    """Whether the model took an utterance for another language than the stream's without being sure of it."""
    hypotheses = found.hypotheses
    if not hypotheses or hypotheses[0].language == language:
        return False
    probability = hypotheses[0].language_probability
    return probability is not None and probability < _SURE_LANGUAGE


def _sureness(found: Recognition) -> float:
    """Mean log-probability of the tokens; of no text, less than of any."""
    logprobs = found.hypotheses[0].token_logprobs
    return sum(logprobs) / len(logprobs) if logprobs and found.hypotheses[0].text else -math.inf


def _echoes(said: Sequence[str], before: Sequence[str]) -> bool:
    first = list(said[:_ECHO_WORDS])
    return len(first) == _ECHO_WORDS and any(
        list(before[at : at + _ECHO_WORDS]) == first for at in range(len(before) - _ECHO_WORDS + 1)
    )
