"""Settle a request's answer chunk by chunk, while its chunks are recognized.

A chunk is settled once it is recognized and, if it is weak, the fallback has answered; settled text never changes.
Doubts about a whole recording (its language, its number of words, the weakness of all its chunks) escalate it whole,
so its chunks wait until none of these can arise any more: usually for the first two or three.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

from stt_server.audio import Chunk
from stt_server.cascade.escalation import Escalation, chunk_doubts, judge, whole_doubts
from stt_server.cascade.fallback import FallbackError
from stt_server.cascade.merging import (
    chosen_part,
    in_channel,
    in_recording,
    join,
    keeps_primary,
    naming_languages,
    part_from,
    weighted_mean,
)
from stt_server.cascade.segment_order import SegmentOrder
from stt_server.cascade.settings import CascadeSettings
from stt_server.engine.types import Hypothesis, ModelInfo, confidence_of
from stt_server.errors import EngineError, FallbackFailed
from stt_server.request import Answer, Recognition, Request, Transcript
from stt_server.routing import Decision, Reason

Recognize = Callable[[], Awaitable[Recognition]]
"""Runs this service's own model on a request."""

MAX_CONCURRENT_CHUNKS = 4
"""Chunks of one recording that are with the fallback at a time."""

OPENING_CHUNKS = 4
"""Recognized chunks after which a recording is not escalated whole any more because all of them are weak: the rest may
take an hour."""


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
        self._escalation = escalation
        self._escalates = escalation is not None and request.policy == "auto"
        self._chunks: tuple[Chunk, ...] = ()
        self._expecting = False
        self._order = SegmentOrder((), 0.0)
        self._channels: dict[int, list[int]] = {}
        """Indices of each channel's chunks."""
        self._open: set[int] = set()
        """Channels whose chunks are settled one by one, since no doubt about the whole can arise any more."""
        self._hypotheses: dict[int, Hypothesis] = {}
        self._parts: dict[int, Answer] = {}
        """Settled answers by the index of their chunk."""
        self._fallback: dict[int, Answer] = {}
        """The fallback's answers, also those that are not returned."""
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._slots = asyncio.Semaphore(MAX_CONCURRENT_CHUNKS)
        self._language = ""
        """Of the part that was settled first, if it was detected; other parts name theirs in their segments."""
        self._failure: EngineError | None = None
        self._fallback_error = ""
        self._escalated_at: float | None = None

    def expect(self, chunks: Sequence[Chunk]) -> None:
        """Name the chunks that are going to be recognized; those of one channel in order."""
        self._expecting, self._chunks = True, tuple(chunks)
        self._order = SegmentOrder(chunks, self._request.trace.audio_seconds or 0.0)
        for index, chunk in enumerate(chunks):
            self._channels.setdefault(chunk.channel, []).append(index)
        if not self._escalates:
            self._open.update(self._channels)

    def recognized(self, index: int, hypothesis: Hypothesis) -> None:
        """Take the own model's hypothesis for a chunk.

        Raises:
            FallbackFailed, DeadlineExceeded: the escalation of an earlier chunk has failed.
        """
        for task in self._tasks.values():
            if task.done():
                task.result()
        self._hypotheses[index] = hypothesis
        channel = self._chunks[index].channel
        if channel in self._open:
            self._route(index)
            return
        doubts = self._doubts_left(channel)
        if doubts is None:
            return
        self._open.add(channel)
        for known in filter(self._hypotheses.__contains__, self._channels[channel]):
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
        if self._escalation is not None and (own is None or (decision.escalate and not self._open)):
            return await self._finish_whole(self._escalation, own, decision, recognize)
        if self._failure is not None and not decision.escalate:
            raise self._failure
        for index in range(len(self._chunks)):
            if index not in self._parts and index not in self._tasks:
                self._route(index)
        await asyncio.gather(*self._tasks.values())
        self._measure_fallback()
        if decision.escalate and not self._fallback_error:
            self._request.trace.fallback_result = "used"
        return self._transcript(decision)

    def close(self) -> None:
        """Stop all escalations that are not answered."""
        for task in self._tasks.values():
            task.cancel()
        self._measure_fallback()

    def _measure_fallback(self) -> None:
        """Enter the time since the first escalation into the trace."""
        if self._escalated_at is not None:
            self._request.trace.fallback_infer = time.monotonic() - self._escalated_at
            self._escalated_at = None

    def _accept(self, own: Recognition | None) -> None:
        """Take a recognition, whose chunks may have been named and recognized one by one before."""
        if own is None:
            return
        self._failure = own.failure
        if not self._expecting:
            self.expect(own.chunks)
            for index, hypothesis in enumerate(own.hypotheses):
                self.recognized(index, hypothesis)

    def _doubts_left(self, channel: int) -> bool | None:
        """Whether there are doubts about a whole channel; None while some may still arise or be dispelled."""
        indices, thresholds = self._channels[channel], self._settings.thresholds
        known = [self._hypotheses[index] for index in indices if index in self._hypotheses]
        if len(known) == len(indices):
            recognition = Recognition((), tuple(known))
            doubts = judge(recognition, thresholds, "auto", fallback_configured=True).escalate and (
                len(known) == 1 or bool(whole_doubts(known, thresholds)) or self._all_weak(known)
            )
            # Mixed channels are escalated as one upload, by `finish`; one of several channels chunk by chunk.
            return None if doubts and not channel else doubts
        if whole_doubts(known, thresholds):
            return None
        return False if len(known) >= OPENING_CHUNKS or not self._all_weak(known) else None

    def _all_weak(self, hypotheses: Sequence[Hypothesis]) -> bool:
        return all(chunk_doubts(hypothesis, self._settings.thresholds) for hypothesis in hypotheses)

    def _route(self, index: int, *, doubts: bool = False) -> None:
        """Settle a recognized chunk, or escalate it: if it is weak, not recognized, or in doubt with its whole channel.

        Without a hypothesis, in doubt about its language, or in several languages, the fallback detects the language.
        """
        hypothesis = self._hypotheses.get(index)
        escalation = self._escalation if self._escalates else None
        if escalation is not None and (hypothesis is None or (doubts and hypothesis.suppressed is None)):
            self._escalate(escalation, index, None)
        elif hypothesis is not None and escalation and chunk_doubts(hypothesis, self._settings.thresholds):
            several = any(segment.language for segment in hypothesis.segments)
            self._escalate(escalation, index, None if several else hypothesis.language)
        elif hypothesis is not None:
            self._settle(index, part_from(self._model.name, hypothesis))

    def _settle(self, index: int, part: Answer) -> None:
        detected = self._request.options.language is None and self._model.multilingual
        part = in_channel(part, self._chunks[index].channel, detected=detected)
        if detected and part.segments:
            self._language = self._language or part.language
            part = in_recording(part, self._language)
        self._parts[index] = part
        ready = self._order.add(index, part)
        self._request.progress.settle(ready, self._order.settled)

    def _escalate(self, escalation: Escalation, index: int, language: str | None) -> None:
        if self._escalated_at is None:
            self._escalated_at = time.monotonic()
            self._request.trace.fallback_result = "failed"  # until it has answered
        task = self._tasks[index] = asyncio.ensure_future(self._ask(escalation, index, language))
        task.add_done_callback(_retrieve_exception)

    async def _ask(self, escalation: Escalation, index: int, language: str | None) -> None:
        """Settle a chunk with the fallback's answer."""
        hypothesis = self._hypotheses.get(index)
        own = None if hypothesis is None else part_from(self._model.name, hypothesis)
        try:
            async with self._slots:
                answer = await escalation.chunk(self._request, self._chunks[index], language)
        except FallbackError as error:
            self._degrade(error)
            if own is None:
                raise self._failure or EngineError("a chunk was not recognized") from error
            self._settle(index, own)
            return
        self._fallback[index] = answer
        part = answer if own is None or hypothesis is None else chosen_part(own, hypothesis, answer, self._settings)
        self._settle(index, part)

    def _degrade(self, error: FallbackError) -> None:
        """Note the fallback's error, and raise FallbackFailed if the primary's answer is not to stand for it."""
        self._request.trace.fallback_error = self._fallback_error = self._fallback_error or error.code
        if self._settings.fallback_on_error == "fail":
            raise FallbackFailed(f"the fallback was needed and failed: {error.code}") from error

    def _record(self, decision: Decision) -> None:
        """Enter the decision into the trace."""
        self._request.trace.reasons = decision.reasons
        self._request.trace.fallback_result = "failed" if decision.escalate else "skipped"

    def _decide(self, own: Recognition | None) -> Decision:
        """The routing decision about the whole request."""
        thresholds, policy = self._settings.thresholds, self._request.policy
        configured = self._escalation is not None
        if own is None or (self._failure is not None and not self._open):
            return judge(own, thresholds, policy, fallback_configured=configured)
        reasons = {Reason.PRIMARY_ERROR} if self._failure is not None else set()
        for indices in self._channels.values():
            known = tuple(self._hypotheses[index] for index in indices if index in self._hypotheses)
            found = judge(Recognition((), known), thresholds, policy, fallback_configured=configured)
            reasons.update(found.reasons)
        ordered = tuple(reason for reason in Reason if reason in reasons)
        return Decision(bool(ordered) and policy == "auto" and configured, ordered)

    async def _finish_whole(
        self, escalation: Escalation, own: Recognition | None, decision: Decision, recognize: Recognize
    ) -> Transcript:
        """Escalate the request as a whole."""
        if self._failure is not None:
            self._hypotheses.clear()  # of some chunks only
        self._escalated_at = time.monotonic()
        try:
            answer = await escalation.whole(self._request, unrecognized=own is None)
        except FallbackError as error:
            self._degrade(error)
            self._accept(await recognize() if own is None else None)
            if self._failure is not None:
                raise self._failure from error
            return self._own_transcript(decision)
        finally:
            self._measure_fallback()
        self._request.trace.fallback_result = "used"
        if keeps_primary(self._own_confidence(), answer, decision.reasons, self._settings):
            transcript = self._own_transcript(decision)
        else:
            transcript = self._with_routing(answer, decision)
            segments = list(zip(answer.segments, answer.segment_models))
            self._request.progress.settle(segments, transcript.audio_seconds)
        return replace(transcript, fallback_used=True, fallback_confidence=answer.confidence)

    def _own_transcript(self, decision: Decision) -> Transcript:
        """The transcript of the own model's answer, where nothing was settled before."""
        for index in sorted(set(self._hypotheses).difference(self._parts)):
            self._settle(index, part_from(self._model.name, self._hypotheses[index]))
        return self._transcript(decision)

    def _transcript(self, decision: Decision) -> Transcript:
        """The transcript of all chunks, each settled."""
        options = self._request.options
        answer = join(self._parts, self._chunks, self._order.segments, self._model.name, options.language)
        answer = naming_languages(answer, self._language or answer.language)
        probabilities = (h.language_probability for _, h in sorted(self._hypotheses.items(), key=lambda item: item[0]))
        answer = replace(answer, language_probability=next(filter(None, probabilities), None))
        self._request.progress.settle((), self._request.trace.audio_seconds or 0.0)
        weights = [(a.confidence, self._chunks[i].duration) for i, a in self._fallback.items()]
        return replace(
            self._with_routing(answer, decision),
            fallback_used=bool(self._fallback),
            fallback_confidence=weighted_mean([(value, weight) for value, weight in weights if value is not None]),
        )

    def _with_routing(self, answer: Answer, decision: Decision) -> Transcript:
        return Transcript(
            answer=answer,
            audio_seconds=self._request.trace.audio_seconds or 0.0,
            decision=decision,
            language_check_applicable=self._request.options.language is None and self._model.multilingual,
            fallback_error=self._fallback_error,
            primary_confidence=self._own_confidence(),
        )

    def _own_confidence(self) -> float | None:
        hypotheses = [self._hypotheses[index] for index in sorted(self._hypotheses)]
        return confidence_of(p for hypothesis in hypotheses for p in hypothesis.token_logprobs)


def _retrieve_exception(task: asyncio.Task[None]) -> None:
    """Keep asyncio from logging the failure of an escalation that `finish` doesn't get to."""
    if not task.cancelled():
        task.exception()
