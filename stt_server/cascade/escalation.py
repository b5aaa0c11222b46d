"""Asking the fallback: for a whole recording, or for those of its chunks that the primary was unsure of."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from stt_server.audio import SAMPLE_RATE, AudioFormat, Chunk
from stt_server.engine.text_checks import words_of
from stt_server.engine.types import Hypothesis, Segment, confidence_of
from stt_server.errors import DeadlineExceeded
from stt_server.request import Answer, Fallback, FallbackError, Heard, Job, Progress, Rules
from stt_server.routing import Decision, Reason, Signals, Thresholds, decide

PARTS_AT_A_TIME = 4
"""Chunks of one recording that the fallback is asked for side by side."""
DEGRADE_RESERVE_S = 0.1
"""Of the caller's time, kept back from the fallback so that the primary's text still arrives."""

UNHEARD_SHARE = 0.5
"""Of the caller's time for the fallback, where the primary would have to begin once the fallback has failed."""

_OF_ITS_CHUNKS = (Reason.LOW_LOGPROB, Reason.REPETITION)
"""What a chunk can be doubted for by itself. Language and number of words are judged over the whole recording."""


def signals_of(hypotheses: Sequence[Hypothesis]) -> Signals:
    """What a recording's hypotheses, or one chunk's, say of themselves. A dropped text is as good as silence."""
    hypotheses = [hypothesis for hypothesis in hypotheses if hypothesis.suppressed is None]
    return Signals(
        speech=bool(hypotheses),
        words=sum(len(words_of(hypothesis.text)) for hypothesis in hypotheses),
        confidence=confidence_of(p for hypothesis in hypotheses for p in hypothesis.token_logprobs),
        language_probability=next((h.language_probability for h in hypotheses if h.language_probability), None),
        looped=any(hypothesis.looped for hypothesis in hypotheses),
        chunks=len(hypotheses),
    )


def judge(heard: Heard, thresholds: Thresholds, job: Job, *, fallback_configured: bool) -> Decision:
    """The decision on a recording. Of several chunks each is doubted by itself; language and words are of the whole."""
    signals = signals_of(heard.hypotheses) if heard.asked and heard.failure is None else None
    whole = decide(signals, thresholds, policy=job.policy, fallback_configured=fallback_configured)
    if len(heard.hypotheses) < 2:
        return whole
    # A low mean of many chunks none of which is low by itself names nothing that is worth hearing again.
    of_whole = set(whole.reasons).difference(_OF_ITS_CHUNKS)
    of_chunks = {reason for index in range(len(heard.hypotheses)) for reason in _doubts(heard, index, thresholds)}
    reasons = tuple(reason for reason in Reason if reason in of_whole | of_chunks)
    return Decision(bool(reasons) and job.policy == "auto" and fallback_configured, reasons)


def weak_chunks(heard: Heard, decision: Decision, thresholds: Thresholds) -> Mapping[int, Chunk]:
    """The chunks of a long recording that only are worth the larger model, by their index.

    Empty: the whole recording is, since it is one chunk, all of them are weak, or the doubt is of the whole.
    """
    if len(heard.hypotheses) < 2 or any(reason not in _OF_ITS_CHUNKS for reason in decision.reasons):
        return {}
    weak = {i: chunk for i, chunk in enumerate(heard.chunks) if _doubts(heard, i, thresholds)}
    return weak if len(weak) < len(heard.chunks) else {}


def _doubts(heard: Heard, index: int, thresholds: Thresholds) -> tuple[Reason, ...]:
    """Why a chunk of a recording of several is doubted by itself."""
    if len(heard.hypotheses) < 2:
        return ()
    reasons = decide(signals_of([heard.hypotheses[index]]), thresholds).reasons
    return tuple(reason for reason in reasons if reason in _OF_ITS_CHUNKS)


class Escalation:
    """The way to the fallback, with its deadlines."""

    def __init__(self, fallback: Fallback, rules: Rules, clock: Callable[[], float]) -> None:
        self._fallback = fallback
        self._rules = rules
        self._clock = clock

    async def whole(self, job: Job, progress: Progress, *, unheard: bool) -> Answer:
        """The fallback's answer to the caller's own request.

        Args:
            unheard: this service's own model has not been asked yet, and would be if there is none.

        Raises:
            FallbackError: there is none in time.
            DeadlineExceeded: the caller's own time was up.
        """
        started = self._clock()
        try:
            return await self._ask(job, UNHEARD_SHARE if unheard else 1.0)
        finally:
            progress.fallback_infer = self._clock() - started

    async def parts(
        self, job: Job, chunks: Mapping[int, Chunk], language: str, progress: Progress
    ) -> dict[int, Answer | FallbackError]:
        """The fallback's answer to each of some chunks, with times in the recording; an error where there is none.

        Args:
            language: of the recording; a chunk of it is too short to tell again.
        """
        started = self._clock()
        room = asyncio.Semaphore(PARTS_AT_A_TIME)

        async def ask(chunk: Chunk) -> Answer | FallbackError:
            async with room:
                try:
                    return moved(await self._ask(job_of_chunk(job, chunk, language)), chunk.start)
                except FallbackError as error:
                    return error

        try:
            answers = await asyncio.gather(*(ask(chunk) for chunk in chunks.values()))
            return dict(zip(chunks, answers))
        finally:
            progress.fallback_infer = self._clock() - started

    async def _ask(self, job: Job, share: float = 1.0) -> Answer:
        timeout = self._rules.fallback_timeout_s
        if job.deadline is not None:
            left = job.deadline - self._clock()
            if self._rules.fallback_on_error == "degrade":
                left = (left - DEGRADE_RESERVE_S) * share
            timeout = min(timeout, left)
        try:
            if timeout <= 0:
                raise FallbackError("deadline_exceeded")
            return await self._fallback.transcribe(job, timeout)
        except FallbackError as error:
            self._tell_whose_time_was_up(error, timeout)
            raise

    def _tell_whose_time_was_up(self, error: FallbackError, timeout: float) -> None:
        """Raises DeadlineExceeded where it was the caller's and not the fallback's, and no other text will do."""
        callers = error.code == "deadline_exceeded" and timeout < self._rules.fallback_timeout_s
        if callers and self._rules.fallback_on_error == "fail":
            raise DeadlineExceeded("the time allowed passed before the fallback had an answer") from error


def job_of_chunk(job: Job, chunk: Chunk, language: str) -> Job:
    """The job that asks for one chunk of a recording, as 16-bit samples."""
    samples = (np.clip(chunk.samples, -1.0, 1.0) * 32767).astype("<i2")
    options = replace(job.options, language=job.options.language or language or None)
    return replace(job, audio=samples.tobytes(), format=AudioFormat("linear16", SAMPLE_RATE, 1), options=options)


def moved(answer: Answer, seconds: float) -> Answer:
    """An answer with all of its times later by so many seconds."""
    return replace(answer, segments=tuple(_later(segment, seconds) for segment in answer.segments))


def _later(segment: Segment, seconds: float) -> Segment:
    words = tuple(replace(w, start=w.start + seconds, end=w.end + seconds) for w in segment.words)
    return replace(segment, start=segment.start + seconds, end=segment.end + seconds, words=words)
