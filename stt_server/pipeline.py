"""The story of one request, from bytes to transcript: decode, chunk, recognize, judge, route, respond."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from typing import Literal

from stt_server.audio import SAMPLE_RATE, Chunk, decode, split
from stt_server.engine.guard import words_of
from stt_server.engine.types import Confidence, DecodeOptions, Hypothesis, Recognizer, join_text
from stt_server.errors import EngineError, FallbackFailed, InvalidArgument
from stt_server.gate import Gate, Ticket
from stt_server.jobs import Answer, Fallback, FallbackError, Job, Progress, Transcript
from stt_server.routing import Decision, Reason, Signals, Thresholds, better_founded, decide

MAX_PROMPT_CHARACTERS = 4000
MAX_HOTWORDS = 200
MAX_HOTWORD_CHARACTERS = 100
DEGRADE_RESERVE_S = 0.1
"""Of the caller's time, kept back from the fallback so that the primary's text still arrives."""


@dataclass(frozen=True)
class Rules:
    """What configuration says of requests."""

    max_audio_seconds: float
    vad_filter: bool = True
    thresholds: Thresholds | None = None
    """None: never routes, as the fallback itself."""
    fallback_timeout_s: float = 60.0
    fallback_on_error: Literal["fail", "degrade"] = "fail"
    final_choice: Literal["fallback", "best"] = "fallback"


class Pipeline:
    def __init__(
        self,
        recognizer: Recognizer,
        gate: Gate,
        audio_threads: Executor,
        rules: Rules,
        fallback: Fallback | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            audio_threads: where audio is decoded, so that neither the event loop nor the gate is held up.
            fallback: None where none is configured.
        """
        self._recognizer = recognizer
        self._gate = gate
        self._audio_threads = audio_threads
        self._rules = rules
        self._fallback = fallback
        self._clock = clock

    async def transcribe(self, job: Job, progress: Progress) -> Transcript:
        """Answers a request.

        Raises:
            SttError: any of its kinds; `progress` tells how far the request got.
        """
        self._check(job)
        answer, signals, failure = await self._primary(job, progress)
        decision = self._judge(job, signals, progress)
        transcript = Transcript(
            answer=answer or _no_answer(self._recognizer.info.name),
            audio_seconds=progress.audio_seconds or 0.0,
            decision=decision,
            language_check_applicable=job.options.language is None and self._recognizer.info.multilingual,
            primary_confidence=answer.confidence if answer and self._routes else None,
            fallback_confidence=answer.confidence if answer and not self._routes else None,
        )
        if decision.escalate:
            return await self._escalate(job, transcript, failure, progress)
        if failure is not None:
            raise failure
        return transcript

    @property
    def _routes(self) -> bool:
        return self._rules.thresholds is not None

    def _check(self, job: Job) -> None:
        known = self._recognizer.info.languages
        options = job.options
        for code in filter(None, [options.language, *options.candidate_languages]):
            if code not in known:
                only = f"this model knows only {known[0]}" if len(known) == 1 else "use an ISO 639-1 code such as en"
                raise InvalidArgument(f"unknown language {code[:20]!r}: {only}")
        if len(options.prompt) > MAX_PROMPT_CHARACTERS:
            raise InvalidArgument(f"prompt: at most {MAX_PROMPT_CHARACTERS} characters")
        if len(options.hotwords) > MAX_HOTWORDS or any(len(w) > MAX_HOTWORD_CHARACTERS for w in options.hotwords):
            raise InvalidArgument(f"hotwords: at most {MAX_HOTWORDS} of {MAX_HOTWORD_CHARACTERS} characters")
        if job.policy == "fallback" and self._routes and self._fallback is None:
            raise InvalidArgument("routing: this service has no fallback; ask for auto or primary")

    async def _primary(self, job: Job, progress: Progress) -> tuple[Answer | None, Signals | None, EngineError | None]:
        """This service's own answer; none if only the fallback's is wanted, or the model failed.

        On return the request holds no slot and no place in the queue.
        """
        with self._gate.admit() as ticket:
            try:
                chunks = await self._chunks(job, progress)
                if job.policy == "fallback" and self._routes:
                    return None, None, None
                hypotheses = await self._recognize(chunks, job.options, ticket)
            except EngineError as failure:
                return None, None, failure
            finally:
                self._account(ticket, progress)
        return self._answer(hypotheses, job.options), _signals(hypotheses), None

    def _account(self, ticket: Ticket, progress: Progress) -> None:
        progress.queue_wait = ticket.queue_wait
        if self._routes:
            progress.primary_infer = ticket.busy
        else:
            progress.fallback_infer = ticket.busy

    async def _chunks(self, job: Job, progress: Progress) -> list[Chunk]:
        loop = asyncio.get_running_loop()
        seconds, chunks = await loop.run_in_executor(self._audio_threads, self._decode_and_split, job)
        progress.audio_seconds = seconds
        return chunks

    def _decode_and_split(self, job: Job) -> tuple[float, list[Chunk]]:
        audio = decode(job.audio, job.format, max_seconds=self._rules.max_audio_seconds)
        return len(audio) / SAMPLE_RATE, split(audio, vad_filter=self._rules.vad_filter)

    async def _recognize(self, chunks: Sequence[Chunk], options: DecodeOptions, ticket: Ticket) -> list[Hypothesis]:
        """Chunks to hypotheses, in order. The first chunk's language is the recording's.

        At most as many chunks as there are slots ask for one at a time, so that a long recording takes turns with
        others instead of filling the queue.
        """
        if not chunks:
            return []
        recognize = self._recognizer.recognize
        found = {0: await ticket.run(recognize, chunks[0], options)}
        options = replace(options, language=found[0].language)
        pending = iter(list(enumerate(chunks))[1:])

        async def take_turns() -> None:
            for index, chunk in pending:
                found[index] = await ticket.run(recognize, chunk, options)

        turns = [asyncio.ensure_future(take_turns()) for _ in range(min(self._gate.size, len(chunks) - 1))]
        try:
            await asyncio.gather(*turns)
        finally:
            for turn in turns:
                turn.cancel()
        return [found[index] for index in range(len(chunks))]

    def _answer(self, hypotheses: Sequence[Hypothesis], options: DecodeOptions) -> Answer:
        model = self._recognizer.info.name
        segments = tuple(segment for hypothesis in hypotheses for segment in hypothesis.segments)
        confidence = _confidence(hypotheses)
        return Answer(
            model=model,
            segments=segments,
            text=join_text(segment.text for segment in segments),
            language=hypotheses[0].language if hypotheses else options.language or "",
            language_probability=hypotheses[0].language_probability if hypotheses else None,
            confidence=confidence.mean if confidence else None,
            segment_models=(model,) * len(segments),
        )

    def _judge(self, job: Job, signals: Signals | None, progress: Progress) -> Decision:
        thresholds = self._rules.thresholds
        if thresholds is None:
            return Decision(escalate=False, reasons=())
        decision = decide(signals, thresholds, policy=job.policy, fallback_configured=self._fallback is not None)
        progress.reasons = decision.reasons
        progress.fallback_result = "failed" if decision.escalate else "skipped"
        return decision

    async def _escalate(
        self, job: Job, transcript: Transcript, failure: EngineError | None, progress: Progress
    ) -> Transcript:
        """Asks the fallback, and settles whose answer it is to be."""
        try:
            answer = await self._ask_fallback(job, progress)
        except FallbackError as error:
            return await self._without_fallback(job, transcript, failure, error, progress)
        progress.fallback_result = "used"
        both = replace(transcript, fallback_used=True, fallback_confidence=answer.confidence)
        sound = failure is None and Reason.REPETITION not in transcript.decision.reasons
        founded = better_founded(transcript.primary_confidence, answer.confidence)
        if self._rules.final_choice == "best" and sound and founded == "primary":
            return both
        return replace(both, answer=answer)

    async def _ask_fallback(self, job: Job, progress: Progress) -> Answer:
        assert self._fallback is not None  # noqa: S101  decide() escalates only where there is one
        timeout = self._rules.fallback_timeout_s
        if job.deadline is not None:
            reserve = DEGRADE_RESERVE_S if self._rules.fallback_on_error == "degrade" else 0.0
            timeout = min(timeout, job.deadline - self._clock() - reserve)
        started = self._clock()
        try:
            if timeout <= 0:
                raise FallbackError("deadline_exceeded")
            return await self._fallback.transcribe(job, timeout)
        finally:
            progress.fallback_infer = self._clock() - started

    async def _without_fallback(
        self,
        job: Job,
        transcript: Transcript,
        failure: EngineError | None,
        error: FallbackError,
        progress: Progress,
    ) -> Transcript:
        """What the caller gets when the fallback was wanted and did not answer."""
        progress.fallback_error = error.code
        if self._rules.fallback_on_error == "fail":
            raise FallbackFailed(f"the fallback was needed and did not answer: {error.code}") from error
        if failure is not None:
            raise failure
        if job.policy == "fallback":  # the primary has not been asked yet
            primary, _, failure = await self._primary(replace(job, policy="primary"), progress)
            if primary is None:
                raise failure or FallbackFailed(f"neither model answered: {error.code}")
            transcript = replace(transcript, answer=primary, primary_confidence=primary.confidence)
        return replace(transcript, fallback_error=error.code)


def _confidence(hypotheses: Sequence[Hypothesis]) -> Confidence | None:
    return Confidence.of(p for hypothesis in hypotheses for p in hypothesis.token_logprobs)


def _signals(hypotheses: Sequence[Hypothesis]) -> Signals:
    confidence = _confidence(hypotheses)
    return Signals(
        speech=bool(hypotheses),
        words=sum(len(words_of(hypothesis.text)) for hypothesis in hypotheses),
        confidence=confidence.mean if confidence else None,
        weakest=confidence.weakest if confidence else None,
        language_probability=hypotheses[0].language_probability if hypotheses else None,
        looped=any(hypothesis.looped for hypothesis in hypotheses),
    )


def _no_answer(model: str) -> Answer:
    return Answer(model, (), "", "", None, None, ())
