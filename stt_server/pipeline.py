"""The story of one request, from bytes to transcript: decode, chunk, recognize, judge, route, respond."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from functools import partial

from stt_server.admission.audio_length import Lengths
from stt_server.admission.gate import Gate, Ticket
from stt_server.admission.service_time import Load
from stt_server.asked import check_options
from stt_server.audio import SAMPLE_RATE, Chunk, decode_plain, split
from stt_server.audio.mono import FloatArray
from stt_server.audio.vad import detect_speech
from stt_server.cascade.escalation import Escalation, judge, weak_chunks
from stt_server.cascade.merging import answer_of, combined, keeps_own
from stt_server.engine.batcher import Batcher
from stt_server.engine.queue import Priority
from stt_server.engine.types import (
    ChunkJob,
    DecodeOptions,
    Hypothesis,
    ModelInfo,
    speech_seconds,
)
from stt_server.errors import EngineError, FallbackFailed, InvalidArgument
from stt_server.request import Answer, Fallback, FallbackError, Heard, Job, Progress, Rules, Transcript
from stt_server.routing import Decision, Policy

LANGUAGE_CHUNKS = 4
"""The one of these first chunks that surely holds the most speech tells a recording's language."""


class Pipeline:
    def __init__(
        self,
        info: ModelInfo,
        batcher: Batcher,
        gate: Gate,
        audio_threads: Executor,
        decode_file: Callable[[bytes], Awaitable[FloatArray]],
        rules: Rules,
        fallback: Fallback | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            info: of the model behind the batcher.
            audio_threads: where plain audio is read and all is searched for speech, so that neither the event loop nor
                the engine is held up.
            decode_file: gives the samples of a file that may do harm to who decodes it.
            fallback: None where none is configured.
        """
        self._info = info
        self._batcher = batcher
        self._gate = gate
        self._audio_threads = audio_threads
        self._decode_file = decode_file
        self._rules = rules
        self._lengths = Lengths()
        self._escalation = Escalation(fallback, rules, clock) if fallback is not None else None

    async def transcribe(self, job: Job, progress: Progress) -> Transcript:
        """Answers a request.

        Raises:
            SttError: any of its kinds; `progress` tells how far the request got.
        """
        self.check(job.options, job.policy)
        heard = await self._hear(job, progress)
        return await self.settle(job, heard, progress)

    async def settle(self, job: Job, heard: Heard, progress: Progress) -> Transcript:
        """Judges what was heard, asks the fallback if need be, and answers.

        Raises:
            SttError: the model has failed, and the fallback too or there is none.
        """
        decision = self._judge(job, heard, progress)
        transcript = self._transcript(job, heard, decision, progress)
        if decision.escalate:
            return await self._escalate(job, heard, transcript, progress)
        if heard.failure is not None:
            raise heard.failure
        return transcript

    @property
    def _routes(self) -> bool:
        return self._rules.thresholds is not None

    def check(self, options: DecodeOptions, policy: Policy) -> None:
        """Raises InvalidArgument, naming it, for what this service doesn't know."""
        check_options(options, self._info)
        if policy == "fallback" and self._routes and self._escalation is None:
            raise InvalidArgument("routing: this service has no fallback; ask for auto or primary")

    async def _hear(self, job: Job, progress: Progress) -> Heard:
        """Decodes, chunks and recognizes. On return the request holds no slot and no place in the queue."""
        unheard = self.asks_fallback_only(job.policy)
        guess = Load() if unheard else self._lengths.guess(job.audio, job.format)
        with self._gate.admit(guess, job.deadline) as ticket:
            chunks = await self._chunks(job, progress)
            if unheard:
                return Heard(asked=False)
            load = Load.of(chunks)
            self._lengths.learn(job.audio, job.format, load)
            self._gate.weigh(ticket, load)
            return await self.hear(chunks, job.options, ticket, progress)

    def asks_fallback_only(self, policy: Policy) -> bool:
        """Whether this service's own model has no part in an answer."""
        return policy == "fallback" and self._routes

    async def hear(
        self,
        chunks: Sequence[Chunk],
        options: DecodeOptions,
        ticket: Ticket,
        progress: Progress,
        priority: Priority = Priority.ANSWER,
    ) -> Heard:
        """What this service's own model makes of chunks, or how it failed."""
        try:
            hypotheses = await self._recognize(chunks, options, ticket, priority)
            progress.suppressed = tuple(h.suppressed for h in hypotheses if h.suppressed is not None)
            return Heard(tuple(chunks), tuple(hypotheses))
        except EngineError as failure:
            return Heard(tuple(chunks), failure=failure)
        finally:
            self._account(ticket, progress)

    def _account(self, ticket: Ticket, progress: Progress) -> None:
        progress.queue_wait = ticket.queue_wait
        if self._routes:
            progress.primary_infer = ticket.busy
        else:
            progress.fallback_infer = ticket.busy

    async def _chunks(self, job: Job, progress: Progress) -> list[Chunk]:
        loop = asyncio.get_running_loop()
        audio = await loop.run_in_executor(self._audio_threads, self._decode_plain, job)
        if audio is None:
            audio = await self._decode_file(job.audio)
        progress.audio_seconds = len(audio) / SAMPLE_RATE
        left = threading.Event()
        try:
            return await loop.run_in_executor(self._audio_threads, self._split, audio, left)
        finally:
            left.set()

    def _decode_plain(self, job: Job) -> FloatArray | None:
        return decode_plain(job.audio, job.format, max_seconds=self._rules.max_audio_seconds)

    def _split(self, audio: FloatArray, left: threading.Event) -> list[Chunk]:
        detect = partial(detect_speech, wanted=lambda: not left.is_set())
        return split(audio, vad_filter=self._rules.vad_filter, detect=detect)

    async def _recognize(
        self, chunks: Sequence[Chunk], options: DecodeOptions, ticket: Ticket, priority: Priority
    ) -> list[Hypothesis]:
        """Chunks to hypotheses, in order. Where the language is to be heard, one chunk tells it; then all others wait
        their turn together."""
        found: dict[int, Hypothesis] = {}

        async def recognize(index: int) -> None:
            found[index] = await self._batcher.recognize(ChunkJob(chunks[index], options), ticket, priority)

        if chunks and options.language is None and self._info.multilingual:
            early = range(min(LANGUAGE_CHUNKS, len(chunks)))
            first = max(early, key=lambda index: (chunks[index].speech_certain, speech_seconds(chunks[index])))
            await recognize(first)
            options = replace(options, language=found[first].language)
        others = [asyncio.ensure_future(recognize(index)) for index in range(len(chunks)) if index not in found]
        try:
            await asyncio.gather(*others)
        finally:
            for other in others:
                other.cancel()
        return [found[index] for index in range(len(chunks))]

    def _judge(self, job: Job, heard: Heard, progress: Progress) -> Decision:
        if self._rules.thresholds is None:
            return Decision(escalate=False, reasons=())
        decision = judge(heard, self._rules.thresholds, job, fallback_configured=self._escalation is not None)
        progress.reasons = decision.reasons
        progress.fallback_result = "failed" if decision.escalate else "skipped"
        return decision

    def _transcript(self, job: Job, heard: Heard, decision: Decision, progress: Progress) -> Transcript:
        """The primary's answer as it stands."""
        answer = self._answer(heard, job.options)
        return Transcript(
            answer=answer,
            audio_seconds=progress.audio_seconds or 0.0,
            decision=decision,
            language_check_applicable=job.options.language is None and self._info.multilingual,
            primary_confidence=answer.confidence if self._routes else None,
            fallback_confidence=None if self._routes else answer.confidence,
        )

    def _answer(self, heard: Heard, options: DecodeOptions) -> Answer:
        return answer_of(self._info.name, heard.hypotheses, options.language)

    async def _escalate(self, job: Job, heard: Heard, transcript: Transcript, progress: Progress) -> Transcript:
        """Asks the fallback for what the primary is unsure of, and settles whose answer it is to be."""
        assert self._escalation and self._rules.thresholds  # noqa: S101  else nothing is escalated
        weak = weak_chunks(heard, transcript.decision, self._rules.thresholds)
        if weak:
            language = transcript.answer.language
            answers = await self._escalation.parts(job, weak, language, progress)
            return self._combined(heard, transcript, answers, progress)
        try:
            answer = await self._ask_for_all(self._escalation, job, heard, progress)
        except FallbackError as error:
            return await self._without_fallback(job, heard, transcript, error, progress)
        progress.fallback_result = "used"
        both = replace(transcript, fallback_used=True, fallback_confidence=answer.confidence)
        keeps = keeps_own(transcript.primary_confidence, answer, transcript.decision.reasons, self._rules)
        return both if keeps else replace(both, answer=answer)

    async def _ask_for_all(self, escalation: Escalation, job: Job, heard: Heard, progress: Progress) -> Answer:
        if job.audio:
            return await escalation.whole(job, progress, unheard=not heard.asked)
        answers = await escalation.parts(job, {0: heard.chunks[0]}, "", progress)
        if isinstance(answer := answers[0], FallbackError):
            raise answer
        return answer

    async def _without_fallback(
        self, job: Job, heard: Heard, transcript: Transcript, error: FallbackError, progress: Progress
    ) -> Transcript:
        """What the caller gets when the fallback was wanted and did not answer."""
        self._refuse_unless_degraded(error, progress)
        if not heard.asked:
            heard = await self._hear_after_all(job, heard, progress)
            answer = self._answer(heard, job.options)
            transcript = replace(transcript, answer=answer, primary_confidence=answer.confidence)
        if heard.failure is not None:
            raise heard.failure
        return replace(transcript, fallback_error=error.code)

    async def _hear_after_all(self, job: Job, heard: Heard, progress: Progress) -> Heard:
        if job.audio:
            return await self._hear(replace(job, policy="primary"), progress)
        ticket = self._gate.ticket(Load.of(heard.chunks))
        with self._gate.counting(ticket):
            return await self.hear(heard.chunks, job.options, ticket, progress)

    def _refuse_unless_degraded(self, error: FallbackError, progress: Progress) -> None:
        progress.fallback_error = error.code
        if self._rules.fallback_on_error == "fail":
            raise FallbackFailed(f"the fallback was needed and did not answer: {error.code}") from error

    def _combined(
        self,
        heard: Heard,
        transcript: Transcript,
        answers: dict[int, Answer | FallbackError],
        progress: Progress,
    ) -> Transcript:
        """A long recording's transcript, with the fallback's text in the place of the chunks that were weak."""
        errors = [answer for answer in answers.values() if isinstance(answer, FallbackError)]
        if errors:
            self._refuse_unless_degraded(errors[0], progress)
        else:
            progress.fallback_result = "used"
        given = {index: answer for index, answer in answers.items() if isinstance(answer, Answer)}
        both = combined(self._info.name, heard, transcript, given, self._rules)
        return replace(both, fallback_error=errors[0].code) if errors else both
