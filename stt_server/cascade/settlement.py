"""Settle a request's answer chunk by chunk, while its chunks are recognized.

A chunk is settled once it is recognized and, if it is weak, the fallback has answered; settled text never changes.
Doubts about a whole recording (its language, its number of words, the weakness of all its chunks) escalate it whole,
so its chunks wait until none of these can arise any more: usually for the first two or three.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

from stt_server.audio import Chunk
from stt_server.cascade.escalation import Escalation
from stt_server.cascade.fallback_calls import FallbackCalls
from stt_server.cascade.judging import Judgement, judge
from stt_server.cascade.merging import (
    chosen_part,
    in_recording,
    join,
    joined_parts,
    keeps_primary,
    part_from,
    weighted_mean,
)
from stt_server.cascade.segment_order import SegmentOrder
from stt_server.cascade.settings import CascadeSettings
from stt_server.engine import types as engine
from stt_server.engine.types import Hypothesis, ModelInfo
from stt_server.errors import EngineError
from stt_server.request import Answer, Recognition, Request, Transcript
from stt_server.routing import Decision

Recognize = Callable[[], Awaitable[Recognition]]
"""Runs this service's own model on a request."""


class Settlement:
    """The answer to one request in the making. Single use; close it."""

    def __init__(
        self, model: ModelInfo, request: Request, settings: CascadeSettings, escalation: Escalation | None
    ) -> None:
        """
        Args:
            model: this service's own.
            escalation: None: no answer is escalated.
        """
        self._model = model
        self._request = request
        self._settings = settings
        self._calls = None if escalation is None else FallbackCalls(escalation, request, settings)
        self._escalates = escalation is not None and request.policy == "auto"
        self._judgement = Judgement(settings.thresholds, fallback_configured=escalation is not None)
        self._chunks: tuple[Chunk, ...] = ()
        self._expecting = False
        self._order = SegmentOrder((), 0.0)
        self._open: set[int] = set()
        """Channels whose chunks are settled one by one, since no doubt about the whole can arise any more."""
        self._parts: dict[int, Answer] = {}
        """Settled answers by the index of their chunk."""
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._failure: EngineError | None = None

    def expect(self, chunks: Sequence[Chunk]) -> None:
        """Name the chunks that are going to be recognized; those of one channel in order."""
        self._expecting, self._chunks = True, tuple(chunks)
        self._order = SegmentOrder(chunks, self._request.trace.audio_seconds or 0.0)
        self._judgement.expect(chunks)
        if not self._escalates:
            self._open.update(self._judgement.channels)

    def recognized(self, index: int, hypothesis: Hypothesis) -> None:
        """Take the own model's hypothesis for a chunk.

        Raises:
            FallbackFailed, DeadlineExceeded: the escalation of an earlier chunk has failed.
        """
        for task in self._tasks.values():
            if task.done():
                task.result()
        self._judgement.hypotheses[index] = hypothesis
        channel = self._chunks[index].channel
        if channel in self._open:
            self._route(index)
            return
        doubts = self._judgement.doubts_left(channel)
        if doubts is None:
            return
        self._open.add(channel)
        for known in self._judgement.known(channel):
            self._route(known, doubts=doubts)

    async def finish(self, own: Recognition | None, recognize: Recognize) -> Transcript:
        """Settle what is left, calling the fallback if needed.

        Args:
            own: None if the own model was skipped.
            recognize: runs it after all if the fallback fails.

        Raises:
            EngineError: the own model failed, and no fallback made up for it.
            FallbackFailed: the fallback failed, and FALLBACK_ON_ERROR is `fail`.
            DeadlineExceeded: the caller's deadline passed.
            SttError: whatever `recognize` raises.
        """
        self._accept(own)
        decision = self._decide(own)
        self._record(decision)
        if self._calls is not None and (own is None or (decision.escalate and not self._open)):
            return await self._finish_whole(self._calls, own, decision, recognize)
        if self._failure is not None and not decision.escalate:
            raise self._failure
        for index in range(len(self._chunks)):
            if index not in self._parts and index not in self._tasks:
                self._route(index)
        await asyncio.gather(*self._tasks.values())
        if self._calls is not None:
            self._calls.measure()
            if decision.escalate and not self._calls.error:
                self._request.trace.fallback_result = "used"
        return self._transcript(decision)

    def close(self) -> None:
        """Stop all escalations that are not answered."""
        for task in self._tasks.values():
            task.cancel()
        if self._calls is not None:
            self._calls.measure()

    def _accept(self, own: Recognition | None) -> None:
        """Take a recognition, whose chunks may have been named and recognized one by one before."""
        if own is None:
            return
        self._failure = own.failure
        if not self._expecting:
            self.expect(own.chunks)
            for index, hypothesis in enumerate(own.hypotheses):
                self.recognized(index, hypothesis)

    def _route(self, index: int, *, doubts: bool = False) -> None:
        """Settle a recognized chunk, or escalate it: weak, not recognized, or in doubt with its whole channel."""
        hypothesis = self._judgement.hypotheses.get(index)
        if self._calls is not None and self._escalates and self._needs_fallback(hypothesis, doubts):
            self._calls.begin()
            task = self._tasks[index] = asyncio.ensure_future(self._escalate(self._calls, index, doubts))
            task.add_done_callback(_retrieve_exception)
        elif hypothesis is not None:
            self._settle(index, part_from(self._model.name, hypothesis))

    def _needs_fallback(self, hypothesis: Hypothesis | None, doubts: bool) -> bool:
        if hypothesis is None or self._judgement.is_weak(hypothesis):
            return True
        return doubts and hypothesis.suppressed is None

    def _settle(self, index: int, part: Answer) -> None:
        # Settled segments may be sent before it is known which language most of the speech is in.
        channel = self._chunks[index].channel
        detected = self._request.options.language is None and self._model.multilingual
        part = in_recording(part, channel, names_language=detected and (len(self._chunks) > 1 or bool(channel)))
        self._parts[index] = part
        ready = self._order.add(index, part)
        self._request.progress.settle(ready, self._order.settled)

    async def _escalate(self, calls: FallbackCalls, index: int, doubts: bool) -> None:
        """Settle a chunk with the fallback's answer; of a chunk in several languages, to its weak parts only.

        Without a hypothesis, or in doubt about its whole channel, the fallback detects the language.
        """
        chunk, hypothesis = self._chunks[index], self._judgement.hypotheses.get(index)
        if hypothesis is None or doubts:
            part = await self._escalated(calls, chunk, hypothesis, None)
        elif not hypothesis.parts:
            part = await self._escalated(calls, chunk, hypothesis, hypothesis.language)
        else:
            answers = await asyncio.gather(*(self._part(calls, part, own) for part, own in hypothesis.parts))
            part = joined_parts([(piece, answer) for (piece, _), answer in zip(hypothesis.parts, answers)])
        self._settle(index, part)

    async def _part(self, calls: FallbackCalls, part: engine.Chunk, hypothesis: Hypothesis) -> Answer:
        """The answer to a part of a chunk in one of its languages."""
        if self._judgement.is_weak(hypothesis):
            return await self._escalated(calls, part, hypothesis, hypothesis.language)
        return part_from(self._model.name, hypothesis)

    async def _escalated(
        self, calls: FallbackCalls, chunk: engine.Chunk, hypothesis: Hypothesis | None, language: str | None
    ) -> Answer:
        """The answer to a chunk or a part of one by the fallback, or by the own model where that stands."""
        answer = await calls.chunk(chunk, language)
        if hypothesis is None:
            if answer is None:
                raise self._failure or EngineError("a chunk was not recognized")
            return answer
        own = part_from(self._model.name, hypothesis)
        return own if answer is None else chosen_part(own, hypothesis, answer, self._settings)

    def _record(self, decision: Decision) -> None:
        """Enter the decision into the trace."""
        self._request.trace.reasons = decision.reasons
        self._request.trace.fallback_result = "failed" if decision.escalate else "skipped"

    def _decide(self, own: Recognition | None) -> Decision:
        """The routing decision about the whole request."""
        policy = self._request.policy
        if own is None or (self._failure is not None and not self._open):
            configured = self._calls is not None
            return judge(own, self._settings.thresholds, policy, fallback_configured=configured)
        return self._judgement.decision(policy, failed=self._failure is not None)

    async def _finish_whole(
        self, calls: FallbackCalls, own: Recognition | None, decision: Decision, recognize: Recognize
    ) -> Transcript:
        """Escalate the request as a whole."""
        if self._failure is not None:
            self._judgement.hypotheses.clear()  # of some chunks only
        answer = await calls.whole(unrecognized=own is None)
        if answer is None:
            self._accept(await recognize() if own is None else None)
            if self._failure is not None:
                raise self._failure
            return self._own_transcript(decision)
        if keeps_primary(self._judgement.confidence(), answer, decision.reasons, self._settings):
            transcript = self._own_transcript(decision)
        else:
            transcript = self._with_routing(answer, decision)
            segments = list(zip(answer.segments, answer.segment_models))
            # Those of a long recording have arrived and been settled before its answer was complete.
            self._request.progress.settle(segments[len(self._request.progress.segments) :], transcript.audio_seconds)
        return replace(transcript, fallback_used=True, fallback_confidence=answer.confidence)

    def _own_transcript(self, decision: Decision) -> Transcript:
        """The transcript of the own model's answer, where nothing was settled before."""
        for index, hypothesis in sorted(self._judgement.hypotheses.items(), key=lambda item: item[0]):
            if index not in self._parts:
                self._settle(index, part_from(self._model.name, hypothesis))
        return self._transcript(decision)

    def _transcript(self, decision: Decision) -> Transcript:
        """The transcript of all chunks, each settled."""
        options = self._request.options
        answer = join(self._parts, self._chunks, self._order.segments, self._model.name, options.language)
        answer = replace(answer, language_probability=self._judgement.language_probability())
        self._request.progress.settle((), self._request.trace.audio_seconds or 0.0)
        answered = self._calls.answered if self._calls is not None else []
        confidences = [(each.confidence, seconds) for each, seconds in answered if each.confidence is not None]
        return replace(
            self._with_routing(answer, decision),
            fallback_used=bool(answered),
            fallback_confidence=weighted_mean(confidences),
        )

    def _with_routing(self, answer: Answer, decision: Decision) -> Transcript:
        return Transcript(
            answer=answer,
            audio_seconds=self._request.trace.audio_seconds or 0.0,
            decision=decision,
            language_check_applicable=self._request.options.language is None and self._model.multilingual,
            fallback_error=self._calls.error if self._calls is not None else "",
            primary_confidence=self._judgement.confidence(),
        )


def _retrieve_exception(task: asyncio.Task[None]) -> None:
    """Keep asyncio from logging the failure of an escalation that `finish` doesn't get to."""
    if not task.cancelled():
        task.exception()
