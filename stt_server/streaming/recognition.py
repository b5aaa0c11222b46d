"""Recognition for live streams: drafts while an utterance lasts, then the same answer as for an upload."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from protos.stt.v1.trace_context import current_trace, tracing
from stt_server.admission.gate import Gate
from stt_server.admission.service_time import Load
from stt_server.audio import Chunk
from stt_server.cascade.cascade import settle
from stt_server.engine.batcher import Batcher
from stt_server.engine.queue import Priority
from stt_server.engine.text_checks import words_of
from stt_server.engine.types import ChunkJob, DecodeOptions, Hypothesis
from stt_server.pipeline import Pipeline
from stt_server.request import Recognition, Request, Trace, Transcript
from stt_server.routing import Policy
from stt_server.streaming.recent_text import RecentText

_ECHO_WORDS = 4
"""A text that begins with this many words in a row of its context repeats it."""

_SURE_LANGUAGE = 0.9
"""Language probability from which a change of language within a stream is accepted without a second recognition.

Short utterances are sometimes detected as another language: base detected Welsh in Dutch (0.72) and Portuguese in
Spanish (0.74). On 32 utterances in four languages, choosing the text of higher log-probability has 22.5 % word errors
instead of 25.3 %.
"""


@dataclass
class StreamBackend:
    """The parts of the service that all live streams share."""

    pipeline: Pipeline
    """With the settings of live streams; replaced on reload. Utterances in progress keep the old one."""
    batcher: Batcher
    gate: Gate


class Draft:
    """Recognition of an unfinished utterance."""

    def __init__(self, backend: StreamBackend, chunk: Chunk, options: DecodeOptions) -> None:
        self._batcher = backend.batcher
        self._options = options
        self._ticket = backend.gate.ticket(Load.of([chunk]))
        self._task = asyncio.ensure_future(self._batcher.recognize(self._job(chunk), self._ticket, Priority.DRAFT))

    def renew(self, chunk: Chunk) -> bool:
        """Replace the audio by newer audio if the inference has not started; return whether it was replaced."""
        return self._batcher.replace_draft(self._ticket, self._job(chunk))

    def cancel(self) -> None:
        self._task.cancel()

    async def result(self) -> Hypothesis:
        """Raises EngineError."""
        return await self._task

    def _job(self, chunk: Chunk) -> ChunkJob:
        return ChunkJob(chunk, self._options, draft=True)


class UtteranceRecognition:
    """Recognition of a whole utterance by this service's own model, and the answer that comes of it."""

    def __init__(
        self, backend: StreamBackend, request: Request, chunk: Chunk, previous_language: str, *, speculative: bool
    ) -> None:
        """
        Args:
            request: its options hold the text of recent utterances as context.
            chunk: the request's audio.
            previous_language: language of the utterance before; empty if there is none.
            speculative: run at low priority until the transcript is requested.
        """
        self.trace = request.trace
        self.began = time.monotonic()
        call = current_trace.get()
        self.span = None if call is None else call.child()
        """Its part of the call in the caller's trace; None without one."""
        self._request = request
        self._chunk = chunk
        self._previous_language = previous_language
        self._pipeline = backend.pipeline
        self._batcher = backend.batcher
        self._gate = backend.gate
        self._priority = Priority.SPECULATIVE if speculative else Priority.ANSWER
        self._ticket = self._gate.ticket(Load.of([chunk]))
        self._task = asyncio.ensure_future(self._recognize())

    def cancel(self) -> None:
        self._task.cancel()

    async def hypothesis(self) -> Hypothesis | None:
        """The own model's hypothesis, without a change of priority; None if the model failed or is not to run."""
        own = await asyncio.shield(self._task)
        return own.hypotheses[0] if own is not None and own.hypotheses else None

    async def has_text(self) -> bool:
        """Whether any word is recognized: by the fallback if this service's own model is not to run."""
        own = await asyncio.shield(self._task)
        if own is None:
            return bool((await self.transcript()).answer.text)
        return any(hypothesis.text for hypothesis in own.hypotheses)

    async def transcript(self) -> Transcript:
        """Settle the answer as for an upload, at the priority of an upload.

        Raises:
            SttError: the model failed, and no fallback made up for it.
        """
        self._priority = Priority.ANSWER
        self._batcher.promote(self._ticket)
        with self._gate.counting(self._ticket):
            own = await self._task
        with tracing(self.span):
            return await settle(self._pipeline.cascade, self._request, own, self._recognize_after_all)

    async def _recognize_after_all(self) -> Recognition:
        ticket = self._gate.ticket(Load.of([self._chunk]))
        with self._gate.counting(ticket):
            return await self._pipeline.recognize([self._chunk], self._request, ticket)

    async def _recognize(self) -> Recognition | None:
        """Recognize with context, then again without it or in the previous language if the result is suspicious."""
        if self._pipeline.cascade.skips_own_model(self._request.policy):
            return None
        options = self._request.options
        own = await self._recognize_with(options)
        if options.context and _is_misled(own, options.context, self._previous_language):
            own = await self._recognize_with(replace(options, context=""))
        if options.context and _is_doubtful_language(own, self._previous_language):
            own = await self._choose_language(own)
        return own

    async def _choose_language(self, detected: Recognition) -> Recognition:
        """Recognize in the previous language too; return the text of higher log-probability.

        The probability of the language stays that of the detection.
        """
        forced = await self._recognize_with(replace(self._request.options, language=self._previous_language))
        if not forced.hypotheses or _mean_logprob(forced) <= _mean_logprob(detected):
            return detected
        probability = detected.hypotheses[0].language_probability
        return replace(forced, hypotheses=(replace(forced.hypotheses[0], language_probability=probability),))

    async def _recognize_with(self, options: DecodeOptions) -> Recognition:
        request = replace(self._request, options=options)
        return await self._pipeline.recognize([self._chunk], request, self._ticket, self._priority)


class StreamRecognizer:
    """Recognition for one stream: its options, with the text of recent utterances as context."""

    def __init__(self, backend: StreamBackend, options: DecodeOptions, policy: Policy, request_id: str) -> None:
        """
        Raises:
            InvalidArgument: an option or a routing policy that the service doesn't support.
        """
        self._backend = backend
        self._options = backend.pipeline.validate(options, policy)
        self._policy = policy
        self._request_id = request_id
        self._recent = RecentText()

    def draft(self, chunk: Chunk) -> Draft:
        """Start a draft of an unfinished utterance."""
        return Draft(self._backend, chunk, self._options)

    def recognize(self, chunk: Chunk, *, speculative: bool = False) -> UtteranceRecognition:
        """Start the recognition of a whole utterance.

        Args:
            speculative: the utterance may still go on; run at low priority.
        """
        options = replace(self._options, context=self._recent.before(chunk.start))
        trace = Trace(audio_seconds=chunk.duration)
        request = Request(chunk, options, self._request_id, self._policy, trace=trace)
        return UtteranceRecognition(self._backend, request, chunk, self._recent.language, speculative=speculative)

    def remember(self, transcript: Transcript, ended: float) -> None:
        """Use a final as context of the next utterances.

        Args:
            ended: where its speech ended, in seconds of the stream.
        """
        self._recent.add(transcript, ended)


def _is_misled(own: Recognition, context: str, language: str) -> bool:
    """Whether the context may have misled the model: no text, a repetition of itself or of the context, or another
    language than the context's."""
    if not own.hypotheses:
        return False
    hypothesis = own.hypotheses[0]
    words = words_of(hypothesis.text)
    return not words or hypothesis.looped or hypothesis.language != language or _repeats(words, words_of(context))


def _is_doubtful_language(own: Recognition, language: str) -> bool:
    """Whether a language other than `language` was detected, with low probability."""
    if not own.hypotheses or own.hypotheses[0].language == language:
        return False
    probability = own.hypotheses[0].language_probability
    return probability is not None and probability < _SURE_LANGUAGE


def _mean_logprob(own: Recognition) -> float:
    """Mean log-probability of the tokens; -inf for an empty text."""
    logprobs = own.hypotheses[0].token_logprobs
    return sum(logprobs) / len(logprobs) if logprobs and own.hypotheses[0].text else -math.inf


def _repeats(words: Sequence[str], context: Sequence[str]) -> bool:
    """Whether the first `_ECHO_WORDS` words occur in a row in the context."""
    first = list(words[:_ECHO_WORDS])
    return len(first) == _ECHO_WORDS and any(
        list(context[at : at + _ECHO_WORDS]) == first for at in range(len(context) - _ECHO_WORDS + 1)
    )
