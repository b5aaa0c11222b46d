"""The path of a request from bytes to transcript: validate, admit, decode, split, recognize, settle."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace

from stt_server.admission.audio_budget import AudioBudget, Holding
from stt_server.admission.audio_length import AudioLengthForecast, most_audio
from stt_server.admission.gate import Gate, Ticket
from stt_server.admission.service_time import Load
from stt_server.audio import SAMPLE_RATE, Chunk
from stt_server.audio.reader import AudioReader, is_sparse
from stt_server.cascade.cascade import Cascade
from stt_server.cascade.settlement import Settlement
from stt_server.engine.batcher import Batcher
from stt_server.engine.queue import Priority
from stt_server.engine.recording import recognize_chunks, run_all
from stt_server.engine.types import DecodeOptions, Hypothesis, ModelInfo, Samples
from stt_server.errors import EngineError
from stt_server.request import Recognition, Request, Step, Trace, Transcript, validate_options
from stt_server.routing import Policy


class Pipeline:
    """Transcribes uploads, and runs this service's own model on the utterances of live streams."""

    def __init__(
        self,
        model: ModelInfo,
        batcher: Batcher,
        gate: Gate,
        lengths: AudioLengthForecast,
        audio: AudioReader,
        budget: AudioBudget,
        cascade: Cascade,
    ) -> None:
        """
        Args:
            model: the model behind the batcher.
            budget: limits the decoded audio of all requests.
        """
        self.cascade = cascade
        self._model = model
        self._batcher = batcher
        self._gate = gate
        self._lengths = lengths
        self._audio = audio
        self._budget = budget

    async def transcribe(self, request: Request) -> Transcript:
        """Transcribe an upload.

        Raises:
            SttError: of any kind; `request.trace` holds how far the request got.
        """
        request = replace(request, options=self.validate(request.options, request.policy))
        with self._budget.holding() as held, closing(self.cascade.begin(request)) as settlement:
            own = None
            if self.cascade.skips_own_model(request.policy):
                await self._decode_only(request, held)
            else:
                own = await self._recognize_upload(request, settlement, held)
            return await settlement.finish(own, lambda: self._recognize_upload(request, settlement, held))

    def validate(self, options: DecodeOptions, policy: Policy) -> DecodeOptions:
        """Check options and routing policy; return the options with Whisper's codes for the languages.

        Raises:
            InvalidArgument: this service doesn't support one of them.
        """
        self.cascade.validate_policy(policy)
        return validate_options(options, self._model)

    async def _recognize_upload(self, request: Request, settlement: Settlement, held: Holding) -> Recognition:
        """Admit, decode, split and recognize; on return the request holds no slot and no place in the queue.

        Chunks are settled as they are recognized.
        """
        upload = request.upload
        with self._gate.admit(self._lengths.estimate(upload), request.deadline) as ticket:
            chunks = await self._split(request, held)
            load = Load.of(chunks)
            self._lengths.learn(upload, load)
            self._gate.reassess(ticket, load)
            settlement.expect(chunks)
            return await self.recognize(chunks, request, ticket, on_hypothesis=settlement.recognized)

    async def _split(self, request: Request, held: Holding) -> list[Chunk]:
        """Decode an upload and cut it into chunks, which are all that is kept of it."""
        channels = await self._decode(request, held)
        chunks = await self._audio.split(channels, separate_channels=request.upload.separate_channels)
        if is_sparse(chunks, sum(map(len, channels))):
            held.settle(Load.of(chunks).seconds)
        return chunks

    async def _decode_only(self, request: Request, held: Holding) -> None:
        """Check an upload and measure its length, where the fallback is to answer."""
        with self._gate.admit(Load(), request.deadline):
            await self._decode(request, held)
        held.settle(0.0)

    async def _decode(self, request: Request, held: Holding) -> list[Samples]:
        """Decode an upload once there is room for it."""
        upload = request.upload
        await held.expect(most_audio(upload, self._audio.max_seconds))
        began = time.monotonic()
        channels = await self._audio.decode(upload.data, upload.format, separate_channels=upload.separate_channels)
        request.trace.steps.append(Step("decode", began, time.monotonic()))
        request.trace.audio_seconds = max(map(len, channels)) / SAMPLE_RATE
        held.settle(sum(map(len, channels)) / SAMPLE_RATE)
        request.progress.decoded(request.trace.audio_seconds)
        return channels

    async def recognize(
        self,
        chunks: Sequence[Chunk],
        request: Request,
        ticket: Ticket,
        priority: Priority = Priority.ANSWER,
        on_hypothesis: Callable[[int, Hypothesis], None] = lambda index, hypothesis: None,
    ) -> Recognition:
        """Run this service's own model on chunks; a failure of the model is part of the result.

        Args:
            on_hypothesis: called with the index of each chunk, once it is recognized.

        Raises:
            DeadlineExceeded: no time was left for an inference.
        """
        try:
            hypotheses = await self._recognize_channels(chunks, request.options, ticket, priority, on_hypothesis)
        except EngineError as failure:
            return Recognition(tuple(chunks), failure=failure)
        finally:
            request.trace.queue_wait = ticket.queue_wait
            self.cascade.record_inference(request.trace, ticket.busy)
            _note_steps(request.trace, ticket)
        request.trace.suppressed = tuple(h.suppressed for h in hypotheses if h.suppressed is not None)
        request.trace.redecoded_seconds = sum(h.redecoded_seconds for h in hypotheses)
        return Recognition(tuple(chunks), tuple(hypotheses))

    async def _recognize_channels(
        self,
        chunks: Sequence[Chunk],
        options: DecodeOptions,
        ticket: Ticket,
        priority: Priority,
        on_hypothesis: Callable[[int, Hypothesis], None],
    ) -> list[Hypothesis]:
        """Recognize the chunks of each channel as a recording of their own, all channels concurrently."""
        found: dict[int, Hypothesis] = {}

        async def recognize(channel: int) -> None:
            indices = [index for index, chunk in enumerate(chunks) if chunk.channel == channel]

            def note(number: int, hypothesis: Hypothesis) -> None:
                on_hypothesis(indices[number], hypothesis)

            own = [chunks[index] for index in indices]
            detect = self._model.multilingual
            hypotheses = await recognize_chunks(
                self._batcher, own, options, ticket, priority, detect_language=detect, on_hypothesis=note
            )
            found.update(zip(indices, hypotheses, strict=True))

        await run_all(recognize(channel) for channel in sorted({chunk.channel for chunk in chunks}))
        return [found[index] for index in range(len(chunks))]


def _note_steps(trace: Trace, ticket: Ticket) -> None:
    """Add the wait for a slot and what followed, until now, to a trace.

    They replace those of an earlier recognition with the same ticket: an utterance may be recognized again.
    """
    now = time.monotonic()
    steps = []
    if ticket.queued_at is not None:
        steps.append(Step("queue", ticket.queued_at, ticket.started_at or now))
    if ticket.started_at is not None:
        steps.append(Step("recognize", ticket.started_at, now))
    again = {(step.name, step.start) for step in steps}
    trace.steps = [step for step in trace.steps if (step.name, step.start) not in again] + steps
