"""Judge a recognition, and escalate all of a request or its weak chunks to the fallback."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from stt_server.audio import Chunk
from stt_server.cascade.fallback import Fallback, FallbackError
from stt_server.cascade.settings import CascadeSettings
from stt_server.engine.text_checks import words_of
from stt_server.engine.types import Hypothesis, Segment, confidence_of
from stt_server.errors import DeadlineExceeded
from stt_server.request import Answer, Recognition, Request
from stt_server.routing import Decision, Policy, Reason, Signals, Thresholds, decide

MAX_CONCURRENT_CHUNKS = 4
"""Chunks of one recording that are with the fallback at a time."""

DEGRADE_RESERVE_S = 0.1
"""Seconds of the caller's deadline withheld from the fallback, so that the primary's text still arrives in time."""

UNRECOGNIZED_SHARE = 0.5
"""Share of the remaining deadline given to the fallback if the primary would start only after the fallback failed."""

_CHUNK_REASONS = (Reason.LOW_LOGPROB, Reason.REPETITION)
"""Reasons judged per chunk. Language and number of words are judged over the whole recording."""


def signals_of(hypotheses: Sequence[Hypothesis]) -> Signals:
    """Routing signals of a recording's hypotheses, or of one chunk's. A suppressed text counts as silence."""
    hypotheses = [hypothesis for hypothesis in hypotheses if hypothesis.suppressed is None]
    return Signals(
        speech=bool(hypotheses),
        words=sum(len(words_of(hypothesis.text)) for hypothesis in hypotheses),
        confidence=confidence_of(p for hypothesis in hypotheses for p in hypothesis.token_logprobs),
        language_probability=next((h.language_probability for h in hypotheses if h.language_probability), None),
        looped=any(hypothesis.looped for hypothesis in hypotheses),
        chunks=len(hypotheses),
    )


def judge(
    recognition: Recognition | None, thresholds: Thresholds, policy: Policy, *, fallback_configured: bool
) -> Decision:
    """Decide whether to escalate a recording.

    Confidence and repetition are judged per chunk, language and number of words over the whole recording.

    Args:
        recognition: None if the model was not run, as `policy` is `fallback`.
    """
    succeeded = recognition is not None and recognition.failure is None
    hypotheses = recognition.hypotheses if recognition is not None else ()
    signals = signals_of(hypotheses) if succeeded else None
    whole = decide(signals, thresholds, policy=policy, fallback_configured=fallback_configured)
    if len(hypotheses) < 2:
        return whole
    # A low mean over chunks none of which is low by itself names no chunk that is worth escalating.
    reasons = set(whole.reasons).difference(_CHUNK_REASONS)
    for hypothesis in hypotheses:
        reasons.update(_chunk_reasons(hypothesis, thresholds))
    ordered = tuple(reason for reason in Reason if reason in reasons)
    return Decision(bool(ordered) and policy == "auto" and fallback_configured, ordered)


def weak_chunks(recognition: Recognition | None, decision: Decision, thresholds: Thresholds) -> Mapping[int, Chunk]:
    """The chunks that are to be escalated instead of the whole recording, by index.

    Empty if the whole recording is to be escalated: it has one chunk, all of its chunks are weak, or the decision has
    a reason that concerns the whole.
    """
    if recognition is None or len(recognition.hypotheses) < 2:
        return {}
    if any(reason not in _CHUNK_REASONS for reason in decision.reasons):
        return {}
    pairs = zip(recognition.chunks, recognition.hypotheses, strict=True)
    weak = {i: chunk for i, (chunk, hypothesis) in enumerate(pairs) if _chunk_reasons(hypothesis, thresholds)}
    return weak if len(weak) < len(recognition.chunks) else {}


def _chunk_reasons(hypothesis: Hypothesis, thresholds: Thresholds) -> list[Reason]:
    reasons = decide(signals_of([hypothesis]), thresholds).reasons
    return [reason for reason in reasons if reason in _CHUNK_REASONS]


class Escalation:
    """Calls the fallback within the caller's deadline and the configured timeout."""

    def __init__(
        self, fallback: Fallback, settings: CascadeSettings, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._fallback = fallback
        self._settings = settings
        self._clock = clock

    async def whole(self, request: Request, *, unrecognized: bool) -> Answer:
        """The fallback's answer to the whole request.

        Args:
            unrecognized: the primary's model has not run, and will if the fallback fails.

        Raises:
            FallbackError: no answer in time.
            DeadlineExceeded: the caller's own deadline passed.
        """
        started = self._clock()
        try:
            return await self._call(request, UNRECOGNIZED_SHARE if unrecognized else 1.0)
        finally:
            request.trace.fallback_infer = self._clock() - started

    async def chunks(
        self, request: Request, chunks: Mapping[int, Chunk], language: str
    ) -> dict[int, Answer | FallbackError]:
        """The fallback's answer to each chunk, with times in the recording, or the error that it failed with.

        Args:
            language: of the recording; a single chunk is too short to detect it again.

        Raises:
            DeadlineExceeded: the caller's own deadline passed.
        """
        started = self._clock()
        options = replace(request.options, language=request.options.language or language or None)
        slots = asyncio.Semaphore(MAX_CONCURRENT_CHUNKS)

        async def escalate(chunk: Chunk) -> Answer | FallbackError:
            async with slots:
                try:
                    return await self._call(replace(request, source=chunk, options=options))
                except FallbackError as error:
                    return error

        try:
            answers = await asyncio.gather(*(escalate(chunk) for chunk in chunks.values()))
            return dict(zip(chunks, answers))
        finally:
            request.trace.fallback_infer = self._clock() - started

    async def _call(self, request: Request, share: float = 1.0) -> Answer:
        """The fallback's answer, with times in the recording that the request's audio is from."""
        timeout = self._timeout(request.deadline, share)
        try:
            if timeout <= 0:
                raise FallbackError("deadline_exceeded")
            answer = await self._fallback.transcribe(request, timeout)
        except FallbackError as error:
            callers_deadline = error.code == "deadline_exceeded" and timeout < self._settings.fallback_timeout_s
            if callers_deadline and self._settings.fallback_on_error == "fail":
                raise DeadlineExceeded("deadline passed before the fallback answered; allow more time") from error
            raise
        return _shifted(answer, request.start)

    def _timeout(self, deadline: float | None, share: float) -> float:
        """Seconds the fallback may take."""
        if deadline is None:
            return self._settings.fallback_timeout_s
        remaining = deadline - self._clock()
        if self._settings.fallback_on_error == "degrade":
            remaining = (remaining - DEGRADE_RESERVE_S) * share
        return min(self._settings.fallback_timeout_s, remaining)


def _shifted(answer: Answer, seconds: float) -> Answer:
    """Move all times of an answer `seconds` later."""
    if not seconds:
        return answer
    return replace(answer, segments=tuple(_shifted_segment(segment, seconds) for segment in answer.segments))


def _shifted_segment(segment: Segment, seconds: float) -> Segment:
    words = tuple(replace(w, start=w.start + seconds, end=w.end + seconds) for w in segment.words)
    return replace(segment, start=segment.start + seconds, end=segment.end + seconds, words=words)
